"""Ensembles: lanes are the runs alone, whatever the block, the mesh and the interruptions."""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix

GAME = ix.Game(lambda theta, x: x - theta, ix.Box(0.0, 4.0 + jnp.zeros(2)))
PROBLEM = ix.DesignProblem(GAME, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Box(jnp.zeros(2), 5.0))
NOISY = ix.DesignAndPlay(
    optax.sgd(0.02, momentum=0.9), play_step=0.5, feedback=ix.noise.Gaussian(0.1)
)
KEYS = jax.random.split(jax.random.key(0), 10)


def many(**how):
    return ix.ensemble(PROBLEM, keys=KEYS, scheme=NOISY, steps=40, **how)


@pytest.mark.parametrize("block", [None, 5, 4])
def test_lanes_are_the_runs_alone(block):
    if block == 4:
        with pytest.warns(UserWarning, match="10 lanes are run as 3 blocks of 4, 2 of them copies"):
            found = many(block=block)
    else:
        found = many(block=block)
    assert found.lanes.theta.shape == (10, 2)
    assert found.count == len(found.index) == len(found.results) == 10
    for key, theta, objectives in zip(KEYS, found.lanes.theta, found.lanes.history.objective):
        alone = ix.design(PROBLEM, 2.5 * jnp.ones(2), NOISY, steps=40, key=key)
        np.testing.assert_allclose(theta, alone.theta, rtol=1e-12)
        np.testing.assert_allclose(objectives, alone.history.objective, rtol=1e-9)
    thetas = found.lanes.theta
    np.testing.assert_allclose(found.mean.theta, thetas.mean(axis=0))
    np.testing.assert_allclose(found.std.theta, thetas.std(axis=0, ddof=1))
    np.testing.assert_allclose(found.quantile(0.5).theta, np.median(thetas, axis=0))
    assert found.quantile([0.1, 0.9]).theta.shape == (2, 2)


def test_starts_and_parameters():
    """`x = theta`, and the regulator wants `x = goal`."""

    def run(theta0, parameters):
        goal = parameters["goal"]
        problem = ix.DesignProblem(GAME, lambda t, x: jnp.sum((x - goal) ** 2), ix.Reals())
        return ix.design(problem, theta0, throw=False, starts=1)

    starts, goals = jnp.ones((3, 2)), jnp.array([1.0, 2.0, 3.0])
    found = ix.ensemble(run, theta0=starts, parameters={"goal": goals})
    np.testing.assert_allclose(found.lanes.theta, np.outer(goals, np.ones(2)), atol=1e-6)
    partly = functools.partial(ix.design, PROBLEM, scheme=NOISY, steps=40, throw=False)
    given = ix.ensemble(partly, keys=KEYS, theta0=jnp.full((10, 2), 2.5))
    np.testing.assert_array_equal(given.lanes.theta, many(record=1).lanes.theta)


def test_a_lane_that_fails_is_kept_and_told():
    def objective(theta, x):
        return jnp.sum((x - 3) ** 2) + 0 * jnp.log(3.6 - theta).sum()

    problem = ix.DesignProblem(GAME, objective, ix.Box(jnp.zeros(2), 5.0))
    starts = jnp.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    scheme = ix.DesignAndPlay(optax.sgd(0.05), play_step=0.5)
    found = ix.ensemble(problem, theta0=starts, scheme=scheme, steps=100)
    assert found.failed.tolist() == [2]
    assert found.results[0] == "successful"
    assert "not finite at the start" in found.results[2]
    np.testing.assert_allclose(found.mean.theta, found.lanes.theta[:2].mean(axis=0))
    assert np.isfinite(found.mean.objective)
    told = found.summary()
    assert told["failed"].tolist() == [2]
    assert told["results"]["successful"] == 2
    assert "not finite at the start" in str(found)


def test_functions_without_a_result_fail_where_they_are_not_finite():
    found = ix.ensemble(lambda parameters: {"log": jnp.log(parameters)}, parameters=jnp.arange(3.0))
    assert found.results == ["not finite", "successful", "successful"]
    np.testing.assert_allclose(found.mean["log"], np.log(2.0) / 2)


def test_answers_within_answers_tell_how_they_ended():
    def lane(theta0):
        found = ix.design(PROBLEM, theta0, NOISY, steps=5, key=KEYS[0], throw=False)
        return {"found": found, "key": KEYS[1]}

    found = ix.ensemble(lane, theta0=jnp.ones((2, 2)))
    assert found.results == ["successful", "successful"]
    assert found.mean["found"].theta.shape == (2,)
    assert found.lanes["key"].shape == (2, 2)  # what it consists of


def test_files(tmp_path):
    found = many(record=10)
    found.save(tmp_path)
    with np.load(tmp_path / "ensemble.npz") as arrays:
        np.testing.assert_array_equal(arrays["lanes.theta"], found.lanes.theta)
        np.testing.assert_array_equal(arrays["inputs['key']"], jax.random.key_data(KEYS))
        assert arrays["result"].tolist() == ["successful"] * 10
        assert arrays["lanes.history.objective"].shape == (10, 4)
    told = json.loads((tmp_path / "ensemble.json").read_text())
    assert told["lanes"] == 10
    np.testing.assert_allclose(told["spread"][".objective"]["mean"], found.mean.objective)
    assert told["environment"]["versions"]["incentax"]
    assert told["environment"]["dtype"] == "float64"


def test_a_tree_of_data():
    xarray = pytest.importorskip("xarray")
    tree = many(record=10).to_xarray()
    assert isinstance(tree, xarray.DataTree)
    assert tree["history"]["objective"].dims == ("lane", "step")
    assert tree["history"]["step"].values.tolist() == [10, 20, 30, 40]
    assert tree["certificate"]["result"].values.tolist() == ["successful"] * 10
    assert tree["settings"]["key"].shape == (10, 2)
    assert tree["theta"].shape == (10, 2)


def test_a_tree_of_data_needs_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"incentax\[xarray\]"):
        many().to_xarray()


def test_an_ensemble_goes_on_after_its_last_block(tmp_path):
    whole = many(block=5)
    done = []

    def report(lanes, of):
        done.append((lanes, of))
        if len(done) == 1:
            raise KeyboardInterrupt

    keep = ix.Checkpoint(tmp_path)
    with pytest.raises(KeyboardInterrupt) as ended:
        many(block=5, checkpoint=keep, report=report)
    assert "up to block 1; the same call with `resume=True` goes on" in ended.value.__notes__[0]
    found = many(block=5, checkpoint=keep, resume=True, report=report)
    assert done == [(5, 10), (10, 10)]
    np.testing.assert_array_equal(found.lanes.theta, whole.lanes.theta)
    np.testing.assert_array_equal(found.lanes.history.objective, whole.lanes.history.objective)
    assert found.results == whole.results
    with pytest.raises(ValueError, match="needs the checkpoint of this run"):
        ix.ensemble(
            PROBLEM, keys=KEYS, scheme=NOISY, steps=50, block=5, checkpoint=keep, resume=True
        )


def test_short_numbers_and_keys_are_kept_as_they_are(tmp_path):
    def lane(key):
        return {"short": jax.random.normal(key, (3,), jnp.bfloat16), "key": key}

    def stop(lanes, of):
        raise KeyboardInterrupt

    how = {"keys": KEYS, "block": 5, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        ix.ensemble(lane, report=stop, **how)
    found, whole = ix.ensemble(lane, resume=True, **how), ix.ensemble(lane, keys=KEYS)
    assert found.lanes["short"].dtype == jnp.bfloat16
    for name in ("short", "key"):
        np.testing.assert_array_equal(found.lanes[name], whole.lanes[name])


def test_one_program_serves_all_blocks():
    many(block=5)
    heard = []

    def listen(event, seconds, fun_name="", **_):
        if "backend_compile" in event:
            heard.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.clear_caches()
        many(block=5)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len([name for name in heard if "side_by_side" in name]) == 1


def test_a_mesh_of_one_device():
    mesh = jax.make_mesh((1,), ("lanes",))
    np.testing.assert_allclose(many(mesh=mesh).lanes.theta, many().lanes.theta, rtol=1e-12)


def test_refusals():
    with pytest.raises(ValueError, match="needs one of keys, theta0 and parameters, got none"):
        ix.ensemble(PROBLEM, scheme=NOISY)
    with pytest.raises(ValueError, match=r"as many rows of each.*got 10 of keys, 3 of theta0"):
        ix.ensemble(PROBLEM, keys=KEYS, theta0=jnp.ones((3, 2)), scheme=NOISY)
    with pytest.raises(ValueError, match=r"`ensemble\(parameters=...\)` needs a function"):
        ix.ensemble(PROBLEM, keys=KEYS, parameters=jnp.ones(10), scheme=NOISY)
    with pytest.raises(ValueError, match=r"`ensemble\(steps=...\)` is for a `DesignProblem`"):
        ix.ensemble(lambda key: key, keys=KEYS, steps=3)
    with pytest.raises(ValueError, match=r"`ensemble\(block=...\)` needs block >= 1, got 0"):
        many(block=0)
    with pytest.raises(TypeError, match=r"`ensemble\(mesh=...\)` needs a `jax.sharding.Mesh`"):
        many(mesh="a")
    with pytest.raises(TypeError, match=r"`ensemble\(keys=...\)` needs keys, such as"):
        ix.ensemble(PROBLEM, keys=range(4), scheme=NOISY)
    with pytest.raises(TypeError, match="a function is needed"):
        ix.ensemble(3, keys=KEYS)
    with pytest.raises(ValueError, match="outside of `jit` and `vmap`"):
        jax.jit(lambda keys: ix.ensemble(PROBLEM, keys=keys, scheme=NOISY).lanes)(KEYS)
    with pytest.raises(ValueError, match="needs arrays with a common leading axis"):
        ix.ensemble(PROBLEM, keys=KEYS, theta0=jnp.ones(()), scheme=NOISY)
