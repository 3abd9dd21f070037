"""Runs in chunks: shown, stopped, written, killed and gone on with."""

import csv
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix
from incentax import _checkpoint

GAME = ix.Game(lambda theta, x: x - theta, ix.Box(0.0, 4.0 + jnp.zeros(2)))
PROBLEM = ix.DesignProblem(GAME, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Box(jnp.zeros(2), 5.0))
NOISY = ix.DesignAndPlay(
    optax.sgd(0.02, momentum=0.9), play_step=0.5, feedback=ix.noise.Gaussian(0.1)
)
KEY = jax.random.key(3)


def go(steps=300, problem=PROBLEM, scheme=NOISY, key=KEY, record=10, theta=None, **long):
    theta = jnp.ones(2) if theta is None else theta
    return ix.design(problem, theta, scheme, steps=steps, key=key, record=record, **long)


def same(left, right):
    a, b = jax.tree.leaves(left), jax.tree.leaves(right)
    assert len(a) == len(b)
    for one, other in zip(a, b):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.fixture
def compilations():
    heard = []

    def listen(event, seconds, fun_name="", **_):
        if "backend_compile" in event:
            heard.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield heard
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("steps", [300, 250, 40])
def test_chunks_take_the_steps_of_one_scan(steps):
    seen = []
    chunked = go(steps, callbacks=[lambda step, info: seen.append(step)])
    same(chunked, go(steps))
    assert seen == [*range(100, steps, 100), steps]


def test_all_chunks_share_one_compilation_resumed_ones_too(tmp_path, compilations):
    def counted(**long):
        del compilations[:]
        go(callbacks=[lambda step, info: None], **long)
        return len([name for name in compilations if "advance" in name])

    jax.clear_caches()
    assert counted() == 1
    keep = ix.Checkpoint(tmp_path / "run", seconds=0)
    assert counted(checkpoint=keep, steps=250) == 0
    assert counted(checkpoint=keep, resume=True, steps=500) == 0
    assert counted(checkpoint=keep, resume=True, steps=700) == 0


def test_what_callbacks_are_told():
    told = []

    def look(step, info):
        told.append((step, info.steps, float(info.objective), float(info.residual), info.x.copy()))
        assert info.seconds > 0
        assert info.rate > 0
        assert info.left >= 0
        assert info.theta.shape == (2,)

    found = go(callbacks=[look])
    assert [row[0] for row in told] == [100, 200, 300]
    assert {row[1] for row in told} == {300}
    np.testing.assert_array_equal([row[2] for row in told], found.history.objective[9::10])
    np.testing.assert_array_equal([row[3] for row in told], found.history.residual[9::10])
    np.testing.assert_array_equal(told[-1][4], found.x)


def test_a_callback_ends_a_run():
    stopped = go(callbacks=[lambda step, info: step >= 200])
    assert int(stopped.steps) == 200
    assert stopped.result == ix.RESULTS.successful
    same(stopped, go(200))


def test_stop_when():
    quiet = ix.DesignAndPlay(optax.sgd(0.05), play_step=0.5)

    def steps(**limits):
        stop = ix.callbacks.StopWhen(**limits)
        return int(go(100_000, scheme=quiet, callbacks=[stop], chunk=20).steps)

    assert steps(residual=1e-3) < steps(residual=1e-9) < 2_000
    assert steps(change=1e-6) < 2_000
    assert steps(residual=1e9, change=1e-6) == steps(change=1e-6)
    assert steps(seconds=0.0) == 20
    with pytest.raises(ValueError, match="needs one of residual, change and seconds"):
        ix.callbacks.StopWhen()
    with pytest.raises(ValueError, match=r"`StopWhen\(change=...\)` needs change >= 0, got -1"):
        ix.callbacks.StopWhen(change=-1)


def test_the_accurate_designer_reports_and_stops():
    entry = ix.problems.bank.designs["capacities B1"]
    told = []
    whole = ix.design(
        entry.problem, entry.theta0, callbacks=[lambda step, info: told.append((step, info))]
    )
    np.testing.assert_allclose(whole.objective, entry.best, rtol=1e-6)
    assert [step for step, _ in told] == sorted({step for step, _ in told})
    assert all(info.steps is None and info.x is None for _, info in told)
    assert told[0][1].theta.shape == entry.theta0.shape
    early = ix.design(entry.problem, entry.theta0, callbacks=[lambda step, info: True])
    assert early.result == ix.RESULTS.stopped
    assert early.objective > whole.objective + 1e-3
    assert entry.problem.incentive_set.violation(early.theta) < 1e-9


def test_the_accurate_designer_stopped_at_once_keeps_what_it_has():
    seen = []

    def enough(step, info):
        seen.append(float(info.objective))
        return True

    found = ix.design(PROBLEM, jnp.ones(2), callbacks=[enough])
    assert len(seen) == 1
    assert found.objective <= seen[0] + 1e-6 < 8.0 == 2 * (3.0 - 1.0) ** 2

    def bad(step, info):
        raise KeyError("no such column")

    with pytest.raises(ix.DesignFailure, match="bad raised KeyError: 'no such column'") as failed:
        ix.design(PROBLEM, jnp.ones(2), callbacks=[bad])
    np.testing.assert_allclose(failed.value.solution.objective, found.objective)


def test_what_is_not_finite_at_the_start_is_told_as_without_chunks(tmp_path):
    problem = ix.DesignProblem(GAME, lambda t, x: jnp.sum(jnp.sqrt(1.5 - x)), ix.Reals())
    for how in ({"chunk": 10}, {"checkpoint": tmp_path}, {"checkpoint": tmp_path, "resume": True}):
        with pytest.raises(ix.DesignFailure, match="not finite at the start"):
            go(problem=problem, theta=2 * jnp.ones(2), **how)


def test_the_csv_goes_on_after_a_resume(tmp_path):
    path, keep = tmp_path / "log.csv", ix.Checkpoint(tmp_path / "run", seconds=0)

    def rows():
        return [int(row["step"]) for row in csv.DictReader(path.read_text().splitlines())]

    go(200, checkpoint=keep, callbacks=[ix.callbacks.CsvLog(path)])
    with path.open("a") as file:
        file.write("300,1.0,2.0,")  # killed while it wrote
    go(400, checkpoint=keep, resume=True, callbacks=[ix.callbacks.CsvLog(path)])
    assert rows() == [100, 200, 300, 400]
    go(100, callbacks=[ix.callbacks.CsvLog(path)])
    assert rows() == [100]


@pytest.mark.parametrize("name", ["TensorBoard", "WeightsAndBiases"])
def test_extras_that_are_missing_say_so(name, monkeypatch, tmp_path):
    module = {"TensorBoard": "tensorboardX", "WeightsAndBiases": "wandb"}[name]
    monkeypatch.setitem(sys.modules, module, None)
    arguments = {"folder": tmp_path} if name == "TensorBoard" else {}
    with pytest.raises(ImportError, match=r"needs an extra: pip install \"incentax\["):
        getattr(ix.callbacks, name)(**arguments)


def test_extras_are_given_every_chunk(monkeypatch, tmp_path):
    scalars, logged, closed = [], [], []

    class Board:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, value, step):
            scalars.append((name, step))

        def flush(self):
            pass

        def close(self):
            closed.append("board")

    class Bias:
        @classmethod
        def init(cls, **_):
            return cls()

        def log(self, shown, step):
            logged.append((sorted(shown), step))

        def finish(self):
            closed.append("bias")

    monkeypatch.setitem(sys.modules, "tensorboardX", type("m", (), {"SummaryWriter": Board}))
    monkeypatch.setitem(sys.modules, "wandb", Bias)
    board = ix.callbacks.TensorBoard(tmp_path)
    go(200, callbacks=[board, ix.callbacks.WeightsAndBiases(project="p")])
    assert scalars == [
        (name, step) for step in (100, 200) for name in ("objective", "residual", "steps a second")
    ]
    assert closed == ["board", "bias"]
    assert logged == [(["objective", "residual", "steps a second"], s) for s in (100, 200)]


def test_resumed_runs_are_bitwise_those_never_stopped(tmp_path):
    whole = go(500)
    for first in (100, 250, 255):  # a cut within a chunk, and one within a row of the history
        keep = tmp_path / f"{first}"
        go(first, checkpoint=keep)
        same(go(500, checkpoint=keep, resume=True), whole)
        same(go(500, checkpoint=keep, resume=True), whole)  # nothing is left to do
    same(go(505, checkpoint=keep, resume=True, chunk=30), go(505))
    with pytest.raises(ValueError, match=r"needs at least the steps that are done, 500 in"):
        go(400, checkpoint=keep, resume=True)


def test_optimisers_in_short_numbers_are_written_too(tmp_path):
    scheme = ix.DesignAndPlay(optax.sgd(0.02, momentum=0.9, accumulator_dtype=jnp.bfloat16),
                              play_step=0.5)  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):
        go(100, scheme=scheme, checkpoint=tmp_path)
        same(go(200, scheme=scheme, checkpoint=tmp_path, resume=True), go(200, scheme=scheme))


def test_keys_that_are_observed_are_written_too(tmp_path):
    record = ix.Record(10, lambda theta, x: jax.random.key(7))
    go(100, record=record, checkpoint=tmp_path)
    found = go(200, record=record, checkpoint=tmp_path, resume=True)
    assert found.history.observed.shape == (20,)
    assert (found.history.observed == jax.random.key(7)).all()


def test_a_close_that_raises_loses_nothing():
    class Loud:
        def __call__(self, step, info):
            pass

        def close(self):
            raise RuntimeError("network")

    with pytest.warns(UserWarning, match=r"its `close\(\)` raised RuntimeError: network"):
        found = go(callbacks=[Loud()])
    same(found, go())


def test_resume_begins_where_nothing_is(tmp_path):
    same(go(checkpoint=tmp_path / "new", resume=True), go())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"key": jax.random.key(4)}, "key was"),
        ({"theta": jnp.array([1.0, 2.0])}, "start.state.theta was"),
        ({"record": 20}, "record.every was 10 and is 20"),
        (
            {"scheme": ix.DesignAndPlay(optax.sgd(0.03, momentum=0.9), play_step=0.5,
                                        feedback=ix.noise.Gaussian(0.1))},
            "step_size was -0.02 and is -0.03",
        ),
        (
            {"problem": ix.DesignProblem(GAME, lambda t, x: jnp.sum((x - 2) ** 2),
                                         ix.Box(jnp.zeros(2), 5.0))},
            "objective was",
        ),
        (
            {"problem": ix.DesignProblem(GAME, lambda t, x: jnp.sum((x - 3) ** 2),
                                         ix.Box(jnp.zeros(2), 6.0))},
            "problem.incentive_set",
        ),
    ],
)  # fmt: skip
def test_the_checkpoint_of_another_run_is_refused(tmp_path, change, told):
    go(100, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="needs the checkpoint of this run") as refused:
        go(200, checkpoint=tmp_path, resume=True, **change)
    assert told in str(refused.value)


def test_another_precision_is_refused(tmp_path):
    go(100, checkpoint=tmp_path)
    single = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, PROBLEM
    )
    with pytest.raises(ValueError, match=r"float64.* and is float32"):
        go(200, checkpoint=tmp_path, resume=True, problem=single, theta=jnp.ones(2, jnp.float32))


def test_a_folder_with_a_run_is_not_begun_anew(tmp_path):
    go(100, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="needs a folder without a run"):
        go(100, checkpoint=tmp_path)


def test_the_second_of_two_runs_on_one_folder_refuses(tmp_path):
    def second(step, info):
        go(100, checkpoint=tmp_path, resume=True)

    with pytest.raises(ix.DesignFailure, match="which another run uses now"):
        go(checkpoint=tmp_path, callbacks=[second])


def test_a_damaged_file_gives_way_to_the_one_before(tmp_path):
    whole = go(500)
    keep = ix.Checkpoint(tmp_path, seconds=0)
    go(300, checkpoint=keep)
    files = sorted(tmp_path.glob("run-*.ckpt"))
    assert len(files) == 2
    files[-1].write_bytes(files[-1].read_bytes()[:-100])
    with pytest.warns(UserWarning, match="cut short or damaged"):
        again = go(500, checkpoint=keep, resume=True)
    same(again, whole)
    same(go(500, checkpoint=keep, resume=True), whole)  # the damaged one is gone
    for file in tmp_path.glob("run-*.ckpt"):
        file.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="cut short"),
        pytest.raises(ValueError, match="needs a checkpoint that is whole"),
    ):
        go(500, checkpoint=keep, resume=True)


def test_a_callback_that_raises_loses_nothing(tmp_path):
    def bad(step, info):
        if step == 200:
            raise KeyError("no such column")

    with pytest.raises(ix.DesignFailure, match="bad raised KeyError: 'no such column'") as failed:
        go(callbacks=[bad], checkpoint=tmp_path)
    assert int(failed.value.solution.steps) == 200
    assert "saved in" in failed.value.__notes__[0]
    same(go(checkpoint=tmp_path, resume=True), go())
    with pytest.raises(ix.DesignFailure) as failed:  # without a folder the answer is there too
        go(callbacks=[bad])
    same(failed.value.solution, go(200))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_write_and_say_how_to_go_on(tmp_path, number, capfd):
    def end(step, info):
        if step == 200:
            os.kill(os.getpid(), number)
            time.sleep(1)

    kind = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(kind) as ended:
        go(callbacks=[end], checkpoint=tmp_path)
    assert "`resume=True` goes on" in ended.value.__notes__[0]
    if number == signal.SIGTERM:
        assert ended.value.code == 143
        assert "`resume=True` goes on" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    same(go(checkpoint=tmp_path, resume=True), go())


@pytest.fixture
def interrupted_writes(monkeypatch):
    """The write whose number is put in here is interrupted."""
    written, at = [], set()
    whole = _checkpoint._write_through

    def write(path, content):
        written.append(path)
        if len(written) in at:
            raise KeyboardInterrupt
        whole(path, content)

    monkeypatch.setattr(_checkpoint, "_write_through", write)
    return at


@pytest.mark.parametrize(("write", "reached"), [(1, 100), (3, 300)])
def test_what_interrupts_a_write_is_followed_by_another(
    tmp_path, interrupted_writes, write, reached
):
    """On the way, and when all steps are done."""
    interrupted_writes.add(write)
    with pytest.raises(KeyboardInterrupt) as ended:
        go(checkpoint=ix.Checkpoint(tmp_path, seconds=0), chunk=100)
    assert f"up to step {reached}; " in ended.value.__notes__[0]
    assert _latest(tmp_path) == reached
    same(go(checkpoint=tmp_path, resume=True), go())


def test_the_last_write_of_an_ensemble_is_interrupted_with_words(tmp_path, interrupted_writes):
    interrupted_writes.add(1)
    keys = jax.random.split(KEY, 4)

    def lanes(**how):
        return ix.ensemble(jax.random.normal, keys=keys, block=2, **how).lanes

    with pytest.raises(KeyboardInterrupt) as ended:
        lanes(checkpoint=tmp_path)
    assert "up to block 2; " in ended.value.__notes__[0]
    np.testing.assert_array_equal(lanes(checkpoint=tmp_path, resume=True), lanes())


def test_a_full_disk_ends_no_run(tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")

    def write(path, content):
        raise full

    monkeypatch.setattr("incentax._checkpoint._write_through", write)
    with pytest.warns(UserWarning, match="the run goes on.*No space left") as told:
        found = go(checkpoint=ix.Checkpoint(tmp_path, seconds=0))
    assert len([one for one in told if "No space left" in str(one.message)]) == 1
    same(found, go())
    assert not list(tmp_path.glob("*.ckpt"))


def test_what_breaks_off_is_told_as_without_chunks(tmp_path):
    def objective(theta, x):
        return jnp.log(2.0 - theta).sum() + jnp.sum((x - 3) ** 2)

    problem = ix.DesignProblem(GAME, objective, ix.Box(jnp.zeros(2), 5.0))
    scheme = ix.DesignAndPlay(optax.sgd(0.2), play_step=0.5)
    steps = []
    with pytest.raises(ix.DesignFailure, match="broke off after step") as failed:
        go(
            problem=problem,
            scheme=scheme,
            chunk=10,
            checkpoint=tmp_path,
            callbacks=[lambda step, info: steps.append(step)],
        )
    assert len(steps) == 1 + int(failed.value.solution.steps) // 10  # not a chunk more


def test_preparing_a_run_tells_and_writes_nothing(tmp_path, compilations):
    seen = []
    how = {"callbacks": [lambda step, info: seen.append(step)], "checkpoint": tmp_path}
    jax.clear_caches()
    ix.prepare(go, **how)
    assert not seen
    assert not list(tmp_path.iterdir())
    del compilations[:]
    same(go(**how), go())
    assert seen == [100, 200, 300]
    assert len([name for name in compilations if "advance" in name]) == 1  # of `go()`, one scan


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"`design\(resume=True\)` needs the `checkpoint`"):
        go(resume=True)
    with pytest.raises(TypeError, match=r"`design\(callbacks=...\)` needs functions"):
        go(callbacks=[3])
    with pytest.raises(TypeError, match=r"`design\(callbacks=...\)` needs a list of functions"):
        go(callbacks=print)
    with pytest.raises(ValueError, match=r"`design\(chunk=...\)` needs chunk >= 1, got 0"):
        go(chunk=0)
    with pytest.raises(ValueError, match=r"`design\(chunk=...\)` needs a scheme, got 7 without"):
        ix.design(PROBLEM, jnp.ones(2), chunk=7)
    with pytest.raises(ValueError, match=r"`design\(checkpoint=...\)` needs a scheme"):
        ix.design(PROBLEM, jnp.ones(2), checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"`Checkpoint\(seconds=...\)` needs seconds >= 0, got -1"):
        ix.Checkpoint(tmp_path, seconds=-1)
    with pytest.raises(TypeError, match=r"`Checkpoint\(folder\)` needs a path"):
        ix.Checkpoint(3)
    with pytest.raises(ValueError, match=r"`Checkpoint\(folder\)` needs a path"):
        ix.Checkpoint("")
    with pytest.raises(TypeError, match=r"`Checkpoint\(seconds=...\)` needs a number, got 'a'"):
        ix.Checkpoint(tmp_path, seconds="a")
    with pytest.raises(TypeError, match=r"needs functions of \(step, info\), got <class"):
        go(callbacks=[ix.callbacks.StopWhen])
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=r"`design\(checkpoint=...\)` needs a folder"):
        go(checkpoint=file / "run")
    with pytest.raises(ValueError, match="outside of `jit` and `vmap`"):
        jax.jit(lambda theta: go(theta=theta, progress=True).theta)(jnp.ones(2))


_RUN = """
    import sys, pathlib, time
    import jax, jax.numpy as jnp, numpy as np, optax
    jax.config.update("jax_enable_x64", True)
    import incentax as ix
    folder = pathlib.Path(sys.argv[1])
    ix.enable_cache(folder.parent / "cache")
    game = ix.Game(lambda theta, x: x - theta, ix.Box(0.0, 4.0 + jnp.zeros(2)))
    box = ix.Box(jnp.zeros(2), 5.0)
    problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), box)
    scheme = ix.DesignAndPlay(optax.adam(0.02), play_step=0.5, feedback=ix.noise.Gaussian(0.1))
    def slowly(step, info):
        time.sleep(0.02)
    found = ix.design(problem, jnp.ones(2), scheme, steps=4000, key=jax.random.key(3), record=10,
                      checkpoint=ix.Checkpoint(folder, seconds=0), resume=True, callbacks=[slowly])
    history = np.concatenate([np.asarray(leaf, float).ravel() for leaf in jax.tree.leaves(found)])
    np.save(folder.parent / (folder.name + ".npy"), history)
"""


@pytest.mark.slow  # a dozen processes
def test_killed_at_random_moments_every_resume_ends_bitwise_equal(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(_RUN))

    def begin(name):
        return subprocess.Popen([sys.executable, script, tmp_path / name])

    assert begin("whole").wait(120) == 0
    random = np.random.default_rng(0)
    killed = 0
    while killed < 10:
        process = begin("killed")
        while not list((tmp_path / "killed").glob("run-*.ckpt")) and process.poll() is None:
            time.sleep(0.01)
        began = max(_count(one) for one in (tmp_path / "killed").glob("run-*.ckpt"))
        while process.poll() is None and _latest(tmp_path / "killed") <= began:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.1))
        assert process.poll() is None, "the run was over before it could be killed ten times"
        process.kill()
        process.wait()
        killed += 1
    assert begin("killed").wait(120) == 0
    whole, resumed = (np.load(tmp_path / f"{name}.npy") for name in ("whole", "killed"))
    np.testing.assert_array_equal(resumed, whole)
    left = sorted(one.name for one in (tmp_path / "killed").iterdir())
    assert len(left) == 3  # two files and the lock: nothing that was cut short lies about
    assert all(_is_whole(one) for one in (tmp_path / "killed").glob("run-*.ckpt"))


def _count(path: Path) -> int:
    return int(path.stem.removeprefix("run-"))


def _latest(folder: Path) -> int:
    return max(_count(one) for one in folder.glob("run-*.ckpt"))


def _is_whole(path: Path) -> bool:
    first, _, rest = path.read_bytes().partition(b"\n")
    return first.decode().endswith(hashlib.sha256(rest).hexdigest())
