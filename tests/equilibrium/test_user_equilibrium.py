"""Derivatives where an equilibrium is unique in an aggregate alone: deterministic road networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def two_roads():
    """Costs (.1, .2) + share + toll: shares (.485, .515) at tolls (.13, 0), slopes of a half."""
    game = ix.AggregativeGame(
        lambda t, x, s: jnp.array([0.1, 0.2]) + s + t, lambda t, x: x, ix.Simplex(2)
    )
    return game, jnp.array([0.13, 0.0])


def test_two_roads_in_closed_form():
    game, tolls = two_roads()

    def shares(tolls):
        return ix.solve_equilibrium(game, tolls).x

    np.testing.assert_allclose(shares(tolls), [0.485, 0.515], atol=1e-12)
    right = [[-0.5, 0.5], [0.5, -0.5]]
    np.testing.assert_allclose(jax.jacrev(shares)(tolls), right, atol=1e-10)
    np.testing.assert_allclose(jax.jacfwd(shares)(tolls), right, atol=1e-10)
    bent = jax.hessian(lambda tolls: shares(tolls)[0] ** 2)(tolls)
    np.testing.assert_allclose(bent, [[0.5, -0.5], [-0.5, 0.5]], atol=1e-9)
    problem = ix.DesignProblem(game, lambda t, x: x[0], ix.Box(-jnp.ones(2), 1.0))
    for solver in ("auto", "dense", "aggregate"):
        found = ix.hypergradient(problem, tolls, shares(tolls), sensitivity=ix.Implicit(solver))
        np.testing.assert_allclose(found.value, [-0.5, 0.5], atol=1e-9, err_msg=solver)
        assert found.residual < 1e-8, solver


def roads(seed, kind):
    """Roads that pairs share, each pair on all of them, as shares or as flows."""
    rng = np.random.default_rng(seed)
    number, pairs = 2 + seed % 3, 1 + seed % 2
    free, slope = jnp.asarray(rng.uniform(0.5, 2, number)), jnp.asarray(rng.uniform(0.5, 2, number))
    trips, weight = rng.uniform(0.5, 2, pairs), jnp.asarray(rng.uniform(0.5, 2, number))
    tolls, power = jnp.asarray(rng.uniform(0, 0.1, number)), 1 + seed % 4
    shares = kind.startswith("shares")
    scale = jnp.asarray(trips if shares else np.ones(pairs))

    def flows(x):
        return scale @ x.reshape(pairs, number)

    def costs(tolls, v):
        return jnp.tile(free * (1 + slope * v**power) + tolls, pairs)

    rows = np.kron(np.eye(pairs), np.ones((1, number)))
    strategies = {
        "shares": ix.Simplex([number] * pairs),
        "shares, aggregate": ix.Simplex([number] * pairs),
        "flows": ix.Simplex([number] * pairs, total=trips),
        "flows, polyhedron": ix.Polyhedron(equality=(rows, trips), lower=0.0),
    }[kind]
    game = ix.Game(lambda t, x: costs(t, flows(x)), strategies)
    if kind == "shares, aggregate":
        game = ix.AggregativeGame(lambda t, x, v: costs(t, v), lambda t, x: flows(x), strategies)

    def objective(tolls, x):
        v = flows(x)
        return jnp.sum(weight * v * free * (1 + slope * v**power))

    return game, objective, tolls


_KINDS = ("shares", "shares, aggregate", "flows", "flows, polyhedron")


@pytest.mark.parametrize(
    ("seed", "kind"),
    [pytest.param(s, k, marks=pytest.mark.slow) for s in range(4) for k in _KINDS],
)
def test_every_mode_agrees_with_central_differences(seed, kind):
    game, objective, tolls = roads(seed, kind)

    @jax.jit
    def value(tolls):
        return objective(tolls, ix.solve_equilibrium(game, tolls, tol=1e-13, throw=False).x)

    step = 1e-5 * jnp.eye(tolls.size)
    differences = np.array([(value(tolls + s) - value(tolls - s)) / 2e-5 for s in step])
    size = np.abs(differences).max()
    x = ix.solve_equilibrium(game, tolls, tol=1e-12, throw=False).x
    problem = ix.DesignProblem(game, objective, ix.Reals(tolls.shape))
    for found in (
        jax.grad(value)(tolls),
        jax.jacfwd(value)(tolls),
        ix.hypergradient(problem, tolls, x).value,
        ix.hypergradient(problem, tolls, x, sensitivity=ix.Implicit("dense")).value,
    ):
        np.testing.assert_allclose(found, differences, atol=1e-7 * size)
    # Of slopes that are exact to 1e-10, differences over 1e-3 are exact to 1e-6.
    slopes, step = jax.jit(jax.grad(value)), 1e-3 * jnp.eye(tolls.size)
    bent = np.array([(slopes(tolls + s) - slopes(tolls - s)) / 2e-3 for s in step])
    np.testing.assert_allclose(
        jax.hessian(value)(tolls), bent, atol=1e-5 * max(np.abs(bent).max(), size)
    )


def test_least_squares_of_an_aggregate():
    """`F = A' (A x - b(theta))` with fewer rows than unknowns: `A x` alone is unique."""
    rng = np.random.default_rng(0)
    matrix = jnp.asarray(rng.normal(size=(2, 6)))
    game = ix.AggregativeGame(
        lambda t, x, s: matrix.T @ (s - t), lambda t, x: matrix @ x, ix.Reals((6,))
    )
    problem = ix.DesignProblem(game, lambda t, x: jnp.sum((matrix @ x) ** 2), ix.Reals((2,)))
    theta = jnp.array([1.0, -2.0])
    x = ix.solve_equilibrium(game, theta).x
    found = ix.hypergradient(problem, theta, x)
    np.testing.assert_allclose(found.value, 2 * theta, rtol=1e-9)
    # What the equilibrium leaves open has no derivative, and says so.
    asks = ix.DesignProblem(game, lambda t, x: x[0], ix.Reals((2,)))
    assert ix.hypergradient(asks, theta, x).residual > 1e-3
    assert jnp.isnan(jax.grad(lambda t: ix.solve_equilibrium(game, t).x[0])(theta)).all()


def sioux_falls(tolled, most=20.0):
    network, demand = ix.traffic.sioux_falls()
    paths = ix.traffic.k_shortest_paths(network, demand, 3)
    game = ix.traffic.RoutingGame(network, demand, paths, eta=0.0, tolled_links=tolled)
    size = 76 if tolled is None else len(tolled)
    return ix.DesignProblem(game, game.total_travel_time, ix.Box(jnp.zeros(size), most))


@pytest.mark.slow
def test_sioux_falls_tolls():
    """Two links, judged by differences and by a pattern search around the design."""
    problem = sioux_falls([11, 35], 10.0)
    game, tolls = problem.game, jnp.ones(2)
    x = ix.solve_equilibrium(game, tolls).x
    for solver in ("auto", "dense", "aggregate", "krylov"):
        found = ix.hypergradient(problem, tolls, x, sensitivity=ix.Implicit(solver))
        np.testing.assert_allclose(found.value, [-3536.5305, -3984.4383], rtol=1e-7)

    @jax.jit
    def value(tolls):
        found = ix.solve_equilibrium(game, tolls, throw=False)
        return game.total_travel_time(tolls, found.x)

    np.testing.assert_allclose(jax.grad(value)(tolls), [-3536.5305, -3984.4383], rtol=1e-7)
    solution = ix.design(problem, tolls)
    assert solution.b_stationary == "yes"
    rng = np.random.default_rng(0)
    for length in (1.0, 0.1, 0.01):
        for direction in rng.normal(size=(20, 2)):
            around = jnp.clip(solution.theta + length * direction, 0.0, 10.0)
            assert value(around) > solution.objective - 1e-9 * solution.objective


@pytest.mark.slow
def test_tolls_on_all_links_reach_the_system_optimum():
    """As marginal-cost tolls do, which the designer does not know."""
    problem = sioux_falls(None, 100.0)
    game = problem.game
    best = ix.traffic.system_optimum(game, max_steps=20_000)
    flows = game.link_flows(best.x)
    _, slopes = jax.jvp(game.link_times, (flows,), (jnp.ones_like(flows),))
    charged = ix.solve_equilibrium(game, flows * slopes)
    total = game.total_travel_time(None, charged.x)
    np.testing.assert_allclose(total, best.total_travel_time, rtol=1e-8)
    solution = ix.design(problem, jnp.ones(76))
    np.testing.assert_allclose(solution.objective, best.total_travel_time, rtol=1e-8)
    assert solution.b_stationary == "yes"
