"""A run stepped by hand takes the steps of `design`, however it is cut."""

import equinox as eqx
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
KEY = jax.random.key(3)


@pytest.mark.parametrize("cuts", [(40,), (20, 20), (8, 8, 8, 8, 8), (7, 33)])
def test_a_run_in_parts_is_the_run_at_once(cuts):
    whole = ix.design(PROBLEM, jnp.ones(2), NOISY, steps=40, key=KEY, record=4)
    run = ix.Run(PROBLEM, jnp.ones(2), NOISY, key=KEY, record=4)
    for steps in cuts:
        run = run.advance(steps)
    found = run.solution()
    np.testing.assert_array_equal(found.theta, whole.theta)
    np.testing.assert_array_equal(found.x, whole.x)
    assert int(run.steps) == 40
    np.testing.assert_array_equal(run.theta, whole.theta)
    if all(steps % 4 == 0 for steps in cuts):
        np.testing.assert_array_equal(run.history.step, whole.history.step)
        np.testing.assert_array_equal(run.history.objective, whole.history.objective)


def test_many_runs_side_by_side():
    keys = jax.random.split(KEY, 3)
    runs = eqx.filter_vmap(lambda key: ix.Run(PROBLEM, jnp.ones(2), NOISY, key=key))(keys)
    for _ in range(2):
        runs = eqx.filter_vmap(lambda run: run.advance(10))(runs)
    found = eqx.filter_vmap(lambda run: run.solution(throw=False))(runs)
    assert found.history.step.shape == (3, 20)
    for key, theta in zip(keys, found.theta):
        alone = ix.design(PROBLEM, jnp.ones(2), NOISY, steps=20, key=key)
        np.testing.assert_allclose(theta, alone.theta, rtol=1e-12)


def fading():
    """Gradient descent with falling steps, whose state begins with a plain number of Python."""
    return optax.GradientTransformation(
        lambda theta: {"step": jnp.asarray(0.1)},
        lambda updates, state, theta=None: (
            jax.tree.map(lambda u: -state["step"] * u, updates),
            {"step": state["step"] * jnp.float64(0.99)},
        ),
    )


@pytest.mark.parametrize(
    "scheme", [NOISY, ix.DesignAndPlay(fading(), play_step=0.5)], ids=["noisy", "weak types"]
)
def test_parts_of_one_length_share_a_compilation(scheme):
    compilations = []

    def listen(event, seconds, fun_name="", **_):
        if "backend_compile" in event and "advance" in fun_name:
            compilations.append(fun_name)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    run = ix.Run(PROBLEM, jnp.ones(2), scheme, key=KEY)
    for _ in range(4):
        run = run.advance(5)
    jax.monitoring.unregister_event_duration_listener(listen)
    assert int(run.steps) == 20
    assert len(compilations) == 1


def test_what_breaks_off_stays_where_it_was():
    def objective(theta, x):
        return jnp.log(2.0 - theta).sum() + jnp.sum((x - 3) ** 2)

    problem = ix.DesignProblem(GAME, objective, ix.Box(jnp.zeros(2), 5.0))
    run = ix.Run(problem, jnp.ones(2), ix.DesignAndPlay(optax.sgd(0.2), play_step=0.5))
    run = run.advance(50)
    broken = int(run.steps)
    assert broken < 50
    assert int(run.advance(10).steps) == broken
    assert run.result != ix.RESULTS.successful
    with pytest.raises(ix.DesignFailure):
        run.solution()
    assert np.isfinite(run.solution(throw=False).theta).all()


def test_refusals():
    with pytest.raises(ValueError, match=r"`Run\(key=...\)` needs a key"):
        ix.Run(PROBLEM, jnp.ones(2), NOISY)
    with pytest.raises(TypeError, match=r"`Run\(scheme\)` needs a scheme, got None"):
        ix.Run(PROBLEM, jnp.ones(2), None)
    with pytest.raises(TypeError, match=r"`Run\(key=...\)` needs one key(.|\n)*got 3"):
        ix.Run(PROBLEM, jnp.ones(2), NOISY, key=3)
    with pytest.raises(TypeError, match=r"`design\(key=...\)` needs one key(.|\n)*got 2 keys"):
        ix.design(PROBLEM, jnp.ones(2), key=jax.random.split(KEY))
    run = ix.Run(PROBLEM, jnp.ones(2), NOISY, key=KEY)
    with pytest.raises(ValueError, match=r"`Run.advance\(steps=...\)` needs steps >= 1, got 0"):
        run.advance(0)
    with pytest.raises(ValueError, match="needs a step, got 0"):
        _ = run.history
