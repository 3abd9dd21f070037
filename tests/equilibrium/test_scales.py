"""Units, starts and precision must not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def obstacle(n, strategies):
    """`F = M x - b` with the second difference for M: far from its start 0 at first."""
    matrix = jnp.asarray(2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))
    b = jnp.asarray(np.where(np.arange(n) < 0.6 * n, 0.25, -0.375))
    return ix.Game(lambda theta, x: matrix @ x - b, strategies)


@pytest.mark.parametrize(
    ("n", "strategies", "start"),
    [
        (200, ix.NonNegative(), 0.0),
        pytest.param(200, ix.Box(0.0, 1e9), 0.0, marks=pytest.mark.slow),
        pytest.param(200, ix.NonNegative(), 1e3, marks=pytest.mark.slow),
        pytest.param(150, ix.Polyhedron(lower=jnp.zeros(150)), 0.0, marks=pytest.mark.slow),
        pytest.param(500, ix.Box(0.0, 300.0), 0.0, marks=pytest.mark.slow),
        pytest.param(700, ix.NonNegative(), 0.0, marks=pytest.mark.slow),
    ],
)
def test_an_obstacle_far_from_its_start_is_reached(n, strategies, start):
    found = ix.solve_equilibrium(obstacle(n, strategies), None, jnp.full(n, start))
    assert found.residual < 1e-8
    assert found.steps < 250


@pytest.mark.slow
def test_a_projection_from_afar_on_node_balances():
    """Costs are ten times as large as flows: `x - F` lies far from the flows."""
    entry = ix.problems.bank.designs["multicommodity tolls A1"]
    problem, start = entry.problem, entry.theta0
    flows = problem.game.strategies(start)
    x = flows.centre()
    far = x - 100 * problem.game.operator(start, x)
    nearest = flows.project(far)
    assert flows.violation(nearest) < 1e-9
    np.testing.assert_allclose(flows.project(nearest), nearest, atol=1e-9)
    # Optimal: `far - nearest` is normal to the set.
    for other in (x, flows.project(-far), flows.project(jnp.zeros_like(far))):
        assert (far - nearest) @ (other - nearest) < 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3, 1e6])
def test_quantal_response_in_any_unit(scale):
    """Two by two, from the literature of solvers that fail: p = .2846168608 in every unit."""
    first, second = jnp.array([[-3.0, 3.0], [-3.0, 5.0]]), jnp.array([[2.0, 7.0], [4.0, 2.0]])

    def costs(theta, x):
        return -scale * jnp.concatenate([first @ x[2:], second.T @ x[:2]])

    game = ix.QuantalResponse(ix.Game(costs, ix.Simplex([2, 2])), scale / 1000)
    found = ix.solve_equilibrium(game, None)
    np.testing.assert_allclose(found.x[0], 0.2846168608, atol=2e-10)


@pytest.mark.parametrize("scale", [1e9, pytest.param(1e-9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", [None, "extragradient", "gradient", "entropic"])
def test_equilibrium_in_any_unit(scale, method):
    first, second = jnp.array([[2.0, 1.0], [1.0, 3.0]]), jnp.array([[1.0, 1.0], [0.0, 2.0]])

    def costs(theta, x):
        return scale * jnp.concatenate([first @ x[2:] + x[:2], 2 * x[2:] - second @ x[:2]])

    play = {
        None: None,
        "extragradient": ix.Extragradient(),
        "gradient": ix.ProjectedGradient(0.1 / scale),
        "entropic": ix.MirrorDescent(0.1 / scale),
    }[method]
    found = ix.solve_equilibrium(ix.Game(costs, ix.Simplex([2, 2])), None, method=play)
    right = [9 / 14, 5 / 14, 4 / 7, 3 / 7]
    np.testing.assert_allclose(found.x, right, atol=1e-6)


def test_agents_start_inside_and_a_scheme_that_never_moved_says_so():
    """`x = theta >= 0`, best at 3: at 0 agents are at rest whatever is done."""
    import optax  # noqa: PLC0415

    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative((2,)))
    problem = ix.DesignProblem(
        game, lambda t, x: jnp.sum((x - 3) ** 2), ix.Box(0, jnp.full(2, 9.0))
    )
    single = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
    solution = ix.design(problem, jnp.zeros(2), single, steps=300, record=300)
    np.testing.assert_allclose(solution.theta, 3, atol=1e-6)
    double = ix.DoubleLoop(optax.sgd(0.1))
    stuck = ix.design(problem, jnp.zeros(2), double, steps=5, throw=False)
    assert stuck.result == ix.RESULTS.never_moved
    with pytest.raises(ix.DesignFailure, match="never moved"):
        ix.design(problem, jnp.zeros(2), double, steps=5)
    accurate = ix.design(problem, jnp.zeros(2))
    np.testing.assert_allclose(accurate.theta, 3, atol=1e-6)


def designs(kind, seed, unit):
    """Small designs with one smooth optimum, `theta` in any unit."""
    rng = np.random.default_rng(seed)
    m = rng.normal(size=(3, 3))
    matrix = jnp.asarray(m @ m.T + 3 * np.eye(3))
    push, target = jnp.asarray(rng.normal(size=(3, 2))), jnp.asarray(rng.uniform(size=3))
    strategies = {
        "box": ix.Box(jnp.zeros(3), 1.0),
        "simplex": ix.Simplex(3),
        "polyhedron": ix.Polyhedron(inequality=(jnp.ones((1, 3)), jnp.ones(1)), lower=0.0),
    }[kind]
    game = ix.Game(lambda t, x: matrix @ x + push @ t / unit - 1, strategies)
    return ix.DesignProblem(
        game,
        lambda t, x: jnp.sum((x - target) ** 2) + 0.05 * jnp.sum((t / unit) ** 2),
        ix.Box(-2 * unit * jnp.ones(2), 2 * unit),
    )


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        pytest.param(k, s, marks=pytest.mark.slow)
        for k in ("box", "simplex", "polyhedron")
        for s in range(4)
    ],
)
def test_small_incentives_and_single_precision_reach_the_same_optimum(kind, seed):
    usual = ix.design(designs(kind, seed, 1.0), jnp.zeros(2))
    small = ix.design(designs(kind, seed, 1e-5), jnp.zeros(2))
    np.testing.assert_allclose(small.objective, usual.objective, rtol=1e-7)
    np.testing.assert_allclose(small.theta * 1e5, usual.theta, atol=1e-4)
    with jax.enable_x64(False):
        single = ix.design(designs(kind, seed, 1.0), jnp.zeros(2))
    assert single.objective.dtype == jnp.float32
    np.testing.assert_allclose(single.objective, usual.objective, rtol=1e-5)  # float32
