"""The same answers over several devices, and over several processes.

In processes of their own: how many devices there are is settled when JAX starts.
"""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from incentax import _checkpoint

_PROBLEM = """
    import sys, pathlib, re
    import jax, jax.numpy as jnp, numpy as np, optax
    jax.config.update("jax_enable_x64", True)
    import incentax as ix
    game = ix.Game(lambda theta, x: x - theta, ix.Box(0.0, 4.0 + jnp.zeros(2)))
    problem = ix.DesignProblem(
        game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Box(jnp.zeros(2), 5.0)
    )
    scheme = ix.DesignAndPlay(
        optax.sgd(0.02, momentum=0.9), play_step=0.5, feedback=ix.noise.Gaussian(0.1)
    )
    keys = jax.random.split(jax.random.key(0), 20)
"""


def run(script, *arguments, seconds=240, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROBLEM) + textwrap.dedent(script), *arguments],
        env={**os.environ, **environment},
        timeout=seconds,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_lanes_over_eight_devices():
    run(
        """
        mesh = jax.make_mesh((8,), ("lanes",))
        how = dict(keys=keys, scheme=scheme, steps=40)
        alone, spread = ix.ensemble(problem, **how), ix.ensemble(problem, mesh=mesh, **how)
        assert len(jax.devices()) == 8 and spread.index.tolist() == list(range(20))
        for one, other in zip(jax.tree.leaves(alone.lanes), jax.tree.leaves(spread.lanes)):
            np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float), rtol=1e-12)
        import warnings
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            ix.ensemble(problem, mesh=mesh, block=12, **how)
        assert "20 lanes are run as 2 blocks of 16, 12 of them copies" in str(told[0].message)
        assert "a block is a multiple of the 8 devices" in str(told[0].message)
        # Derivatives through equilibria, a lane each.
        slope = jax.grad(lambda theta: jnp.sum(ix.solve_equilibrium(game, theta).x ** 2))
        starts = jnp.linspace(0.5, 3.5, 16).reshape(8, 2)
        found = ix.ensemble(lambda theta0: slope(theta0), theta0=starts, mesh=mesh)
        np.testing.assert_allclose(found.lanes, 2 * starts, atol=1e-12)
        """,
        JAX_NUM_CPU_DEVICES="8",
    )


_ROADS = """
    from collections import Counter
    instance = ix.problems.second_best_tolls(eta=1.0, paths=2)
    problem, roads = instance.problem, instance.problem.game
    scheme = instance.schemes["design-and-play"]
    def share(mesh):
        return ix.traffic.share_pairs((problem, instance.x0), roads, mesh)
"""


@pytest.mark.slow  # programs over eight devices
def test_pairs_over_eight_devices_with_one_all_reduce_a_step_of_play():
    run(
        textwrap.dedent(_ROADS)
        + textwrap.dedent(
            """
            spread, x0 = share(jax.sharding.Mesh(np.array(jax.devices()), ("pairs",)))
            how = dict(steps=50)
            alone = ix.design(problem, instance.theta0, scheme, x0=instance.x0, **how)
            shared = ix.design(spread, instance.theta0, scheme, x0=x0, **how)
            assert shared.x.sharding.spec == jax.sharding.PartitionSpec("pairs")
            np.testing.assert_allclose(shared.theta, alone.theta, rtol=1e-9)
            np.testing.assert_allclose(shared.x, alone.x, atol=1e-9)
            def slope(game, x0):
                return jax.grad(lambda t: jnp.sum(ix.solve_equilibrium(game, t, x0).x ** 2))(
                    instance.theta0
                )
            np.testing.assert_allclose(
                slope(spread.game, x0), slope(roads, instance.x0), rtol=1e-9, atol=1e-12
            )
            play = scheme.play

            def plays(game, theta, point):
                def step(point, count):
                    value = play.geometry(game, theta).operator(game, theta, point)
                    return play.move(game, theta, point, value, count), None
                return jax.lax.scan(step, point, jnp.arange(10, dtype=jnp.int32))[0]

            start = play.start(spread.game, instance.theta0, x0)
            text = jax.jit(plays).lower(spread.game, instance.theta0, start).compile().as_text()
            kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
            found = Counter(re.findall(rf"= \\S+ ({kinds})(?:-start)?\\(", text))
            assert found == {"all-reduce": 1}, found
            """
        ),
        JAX_NUM_CPU_DEVICES="8",
    )


@pytest.mark.slow  # programs over eight devices
@pytest.mark.parametrize("matrix", ["dense", "sparse"])
def test_pairs_with_paths_of_their_own_number(matrix):
    run(
        """
        from collections import Counter
        from incentax.traffic import _incidence
        if sys.argv[1] == "sparse":
            _incidence._DENSE = 0
        network, demand = ix.traffic.sioux_falls()
        paths = ix.traffic.generate_paths(network, demand)
        even = ix.traffic.even_pairs(demand, paths, 8)
        def made(demand, paths):
            return ix.traffic.RoutingGame(
                network, demand, paths, eta=1.0, tolled_links=np.arange(20)
            )
        alone, evened, theta = made(demand, paths), made(*even[:2]), jnp.full(20, 0.5)
        x0 = evened.strategy_set.centre()
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("pairs",))
        shared, x0 = ix.traffic.share_pairs((evened, x0), evened, mesh)
        found = ix.solve_equilibrium(shared, theta, x0).x
        assert found.sharding.spec == jax.sharding.PartitionSpec("pairs")
        expected = ix.solve_equilibrium(alone, theta).x
        np.testing.assert_allclose(found[even.place], expected, atol=1e-9)
        def slope(game, x0=None):
            def cost(theta):
                return game.total_travel_time(theta, ix.solve_equilibrium(game, theta, x0).x)
            return jax.grad(cost)(theta)
        np.testing.assert_allclose(slope(shared, x0), slope(alone), rtol=1e-9)
        operator = jax.jit(lambda game, theta, x: game.operator(theta, x))
        text = operator.lower(shared, theta, x0).compile().as_text()
        kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
        seen = Counter(re.findall(rf"= \\S+ ({kinds})(?:-start)?\\(", text))
        assert seen == {"all-reduce": 1}, seen
        """,
        matrix,
        JAX_NUM_CPU_DEVICES="8",
    )


@pytest.mark.slow  # a program over four devices
def test_lanes_and_pairs_together():
    run(
        textwrap.dedent(_ROADS)
        + textwrap.dedent(
            """
            mesh = jax.make_mesh((2, 2), ("lanes", "pairs"))
            spread, x0 = share(mesh)
            starts = jnp.linspace(0.0, 5.0, 80).reshape(4, 20)
            alone = ix.ensemble(problem, theta0=starts, scheme=scheme, x0=instance.x0, steps=50)
            both = ix.ensemble(spread, theta0=starts, scheme=scheme, x0=x0, steps=50, mesh=mesh)
            np.testing.assert_allclose(both.lanes.theta, alone.lanes.theta, rtol=1e-9)
            np.testing.assert_allclose(both.lanes.x, alone.lanes.x, atol=1e-9)
            """
        ),
        JAX_NUM_CPU_DEVICES="4",
    )


@pytest.mark.slow  # a process, and its start
def test_what_cannot_be_shared_out_is_refused():
    run(
        textwrap.dedent(_ROADS)
        + textwrap.dedent(
            """
            def refused(words, *arguments):
                try:
                    ix.traffic.share_pairs(*arguments)
                except (ValueError, TypeError) as error:
                    assert words in str(error), error
                else:
                    raise AssertionError("nothing was refused")
            five = jax.sharding.Mesh(np.array(jax.devices()), ("pairs",))
            words = "5 parts, the devices along 'pairs', with as many pairs and paths each, got 528"
            refused(words, roads, roads, five)
            refused("needs a `RoutingGame`, got Game", game, game, five)
            refused("needs a `jax.sharding.Mesh`, got 3", roads, roads, 3)
            """
        ),
        JAX_NUM_CPU_DEVICES="5",
    )


_JOIN = """
    import sys, jax
    port, index, slow = map(int, sys.argv[2:5])
    jax.distributed.initialize(
        f"127.0.0.1:{port}", num_processes=2, process_id=index, heartbeat_timeout_seconds=10
    )
"""
_PAIRS = """
    instance = ix.problems.second_best_tolls(eta=1.0, paths=2)
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2), ("lanes", "pairs"))
    roads = instance.problem.game
    spread, x0 = ix.traffic.share_pairs((instance.problem, instance.x0), roads, mesh)
    starts = jnp.linspace(0.0, 5.0, 80).reshape(4, 20)
    scheme = instance.schemes["design-and-play"]
    found = ix.ensemble(spread, theta0=starts, scheme=scheme, x0=x0, steps=20, mesh=mesh)
    alone = ix.ensemble(
        instance.problem, theta0=starts, scheme=scheme, x0=instance.x0, steps=20
    )
    np.testing.assert_allclose(found.lanes.x, alone.lanes.x[found.index], atol=1e-9)
    np.testing.assert_allclose(found.lanes.theta, alone.lanes.theta[found.index], rtol=1e-9)
"""
_SHARE = """
    folder = pathlib.Path(sys.argv[1])
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("lanes",))
    def report(done, count):
        print(done, "of", count, flush=True)
        if slow:
            import time
            time.sleep(2)
    found = ix.ensemble(
        problem, keys=keys, scheme=scheme, steps=40, mesh=mesh, block=4, report=report,
        checkpoint=folder / "run", resume=True,
    )
    found.save(folder)
    print("done", found.index.tolist(), flush=True)
"""


_LONG = """
    folder = pathlib.Path(sys.argv[1])
    instance = ix.problems.second_best_tolls(eta=1.0, paths=2)
    mesh, roads = jax.sharding.Mesh(np.array(jax.devices()), ("pairs",)), instance.problem.game
    spread, x0 = ix.traffic.share_pairs((instance.problem, instance.x0), roads, mesh)
    def look(step, info):
        print(step, flush=True)
        if slow:
            import time
            time.sleep(1)
    found = ix.design(
        spread, instance.theta0, instance.schemes["design-and-play"], x0=x0, steps=300,
        checkpoint=ix.Checkpoint(folder / "run", seconds=0), resume=True, chunk=20,
        callbacks=[look],
    )
    np.save(folder / f"theta{index}.npy", found.theta)
"""


class _Share:
    """One of the two processes; what it writes is in files."""

    def __init__(self, folder, port, index, slow, script):
        script = "".join(map(textwrap.dedent, (_JOIN, _PROBLEM, script)))
        folder.mkdir(exist_ok=True)
        self.told, self.error = folder / f"out{index}", folder / f"error{index}"
        with self.told.open("w") as told, self.error.open("w") as error:
            self.process = subprocess.Popen(
                [sys.executable, "-c", script, *map(str, (folder, port, index, slow))],
                env={**os.environ, "JAX_NUM_CPU_DEVICES": "2"},
                stdout=told,
                stderr=error,
            )

    def ends(self, seconds=240):
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.wait()


def _begin(folder, slow, script=_SHARE):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [_Share(folder, port, index, slow, script) for index in range(2)]


def _thetas(folder):
    thetas = np.full((20, 2), np.nan)
    for share in range(2):
        with np.load(folder / f"ensemble-{share}-of-2.npz") as arrays:
            thetas[arrays["index"]] = arrays["lanes.theta"]
    return thetas


@pytest.mark.slow  # a pair of processes
def test_lanes_over_processes_and_pairs_within(tmp_path):
    for share in _begin(tmp_path / "run", 0, _PAIRS):
        assert share.ends() == 0, share.error.read_text()


def test_processes_that_share_a_run_go_on_from_a_step_that_all_have(tmp_path, monkeypatch):
    """Written at the same steps, but one was killed before it had written the last one."""
    others = [0]
    monkeypatch.setattr(_checkpoint, "of_all", lambda own: np.array([[own], [others[-1]]]))

    def store():
        kept = _checkpoint.Store(_checkpoint.Checkpoint(tmp_path), "design", {})
        kept.save_at = lambda count: kept.save(np.full(2, float(count)), count, {})
        return kept

    def steps():
        return [path.stem[-3:] for path in sorted(tmp_path.glob("run-*.ckpt"))]

    first = store()
    for count in (100, 200):
        first.save_at(count)
    others.append(100)
    again = store()
    saved = again.load(together=True)
    np.testing.assert_array_equal(saved.restored(np.zeros(2)), [100.0, 100.0])
    assert again.count == 100
    assert steps() == ["100", "200"]  # nothing is taken away before there is something new
    again.save_at(120)
    assert steps() == ["100", "120"]
    for lost in (0, 110):
        others.append(lost)
        with pytest.raises(
            ValueError, match=f"needs a step that every process has kept.*120, {lost}"
        ):
            store().load(together=True)
        assert steps() == ["100", "120"]


@pytest.mark.slow  # pairs of processes
def test_a_run_whose_pairs_lie_in_two_processes_goes_on(tmp_path):
    def thetas(folder):
        for share in _begin(folder, 0, _LONG):
            assert share.ends() == 0, share.error.read_text()
        return [np.load(folder / f"theta{index}.npy") for index in range(2)]

    whole, other = thetas(tmp_path / "whole")
    np.testing.assert_array_equal(whole, other)
    for how in (signal.SIGKILL, signal.SIGTERM):
        folder = tmp_path / how.name
        first, second = _begin(folder, 1, _LONG)
        while "\n60\n" not in second.told.read_text() and second.process.poll() is None:
            time.sleep(0.1)
        second.process.send_signal(how)
        codes = first.ends(120), second.ends(120)
        if how == signal.SIGTERM:
            assert codes == (143, 143)
            assert "saved in" in first.error.read_text()
        assert all(list((folder / "run").glob(f"process-{k}-of-2/run-*.ckpt")) for k in range(2))
        for theta in thetas(folder):
            np.testing.assert_array_equal(theta, whole)
        told = (folder / "out0").read_text().splitlines()
        assert "300" in told
        assert "20" not in told  # it did not begin anew


@pytest.mark.slow  # pairs of processes, one of which has to find out that the other is gone
def test_two_processes_and_one_of_them_killed(tmp_path):
    for share in _begin(tmp_path / "whole", 0):
        assert share.ends() == 0, share.error.read_text()
    whole = _thetas(tmp_path / "whole")
    run(
        """
        alone = ix.ensemble(problem, keys=keys, scheme=scheme, steps=40)
        np.save(sys.argv[1], alone.lanes.theta)
        """,
        str(tmp_path / "alone.npy"),
    )
    np.testing.assert_allclose(whole, np.load(tmp_path / "alone.npy"), rtol=1e-12)
    first, second = _begin(tmp_path / "killed", 1)
    while not second.told.read_text() and second.process.poll() is None:
        time.sleep(0.1)  # until a block is done
    second.process.kill()
    assert first.ends(120) != 0
    assert "another task died" in first.error.read_text()
    second.ends()
    for share in _begin(tmp_path / "killed", 0):
        assert share.ends() == 0, share.error.read_text()
    np.testing.assert_array_equal(_thetas(tmp_path / "killed"), whole)
    alone = ["as many processes as have begun in its folder, got 1", "process-0-of-2"]
    run(
        """
        try:
            ix.ensemble(problem, keys=keys, scheme=scheme, checkpoint=sys.argv[1], resume=True)
        except ValueError as error:
            assert all(words in str(error) for words in sys.argv[2:]), error
        else:
            raise AssertionError("nothing was refused")
        """,
        str(tmp_path / "killed" / "run"),
        *alone,
    )
