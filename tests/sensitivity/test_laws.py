"""Laws in place of a linear solve: directions, fixed points, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix


def linear(matrix, entered, target):
    """`F = A x - 1 + B theta`, `f = ||x - target||^2 / 2`."""
    a, b = jnp.asarray(matrix), jnp.asarray(entered)
    game = ix.Game(lambda theta, x: a @ x - 1 + b @ theta, ix.Reals((len(a),)))

    def objective(theta, x):
        del theta
        return jnp.sum((x - target) ** 2) / 2

    return ix.DesignProblem(game, objective, ix.Reals((b.shape[1],)))


@pytest.fixture
def matrix():
    rng = np.random.default_rng(3)
    raw = rng.normal(size=(4, 4))
    return raw @ raw.T / 4 + np.eye(4) + 0.5 * (raw - raw.T)


def at_equilibrium(problem, theta):
    return ix.solve_equilibrium(problem.game, theta).x


def test_the_social_gradient_is_its_formula_and_descends(matrix):
    problem, theta = linear(matrix, np.eye(4), jnp.arange(4.0)), jnp.array([0.3, -1.0, 2.0, 0.0])
    x = at_equilibrium(problem, theta)
    law = ix.hypergradient(problem, theta, x, sensitivity=ix.SocialGradient()).value
    np.testing.assert_allclose(law, -(x - jnp.arange(4.0)), atol=1e-12)
    exact = ix.hypergradient(problem, theta, x).value
    assert law @ exact > 0


def test_on_a_simplex_it_holds_what_is_not_used():
    game = ix.Game(lambda theta, x: 2 * x + theta, ix.Simplex(3))
    problem = ix.DesignProblem(game, lambda theta, x: x @ jnp.arange(3.0), ix.Reals((3,)))
    theta = jnp.array([0.0, 0.0, 5.0])
    law = ix.hypergradient(
        problem, theta, jnp.array([0.5, 0.5, 0.0]), sensitivity=ix.SocialGradient()
    ).value
    # dx = -x (g - mean of g) over what is used
    np.testing.assert_allclose(law, [0.25, -0.25, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    ("law", "close"),
    [(ix.SocialGradient(), 1e-6), (ix.AdjointStep(), 1e-6), (ix.Penalty(1e-2), 1e-6)],
)
def test_where_one_price_enters_each_cost_laws_end_at_the_hypergradients_optimum(
    matrix, law, close
):
    target = jnp.arange(4.0)
    problem = linear(matrix, np.eye(4), target)
    scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.1, sensitivity=law)
    found = ix.design(problem, jnp.zeros(4), scheme, steps=30_000, record=30_000)
    # Every x can be reached, so x = target and theta = 1 - A target.
    np.testing.assert_allclose(found.theta, 1 - matrix @ target, atol=close)


@pytest.mark.parametrize("law", [ix.AdjointStep(0.1), ix.Penalty(1e-3, step_size=0.1)])
def test_repeated_at_rest_a_law_becomes_the_hypergradient(matrix, law):
    symmetric = (matrix + matrix.T) / 2
    entered = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 0.0], [0.3, 0.3]])
    problem, theta = linear(symmetric, entered, jnp.arange(4.0)), jnp.array([0.4, -0.7])
    x = at_equilibrium(problem, theta)
    exact = ix.hypergradient(problem, theta, x).value
    through, memory = x - jnp.arange(4.0), law.memory(problem.game, theta, x)

    def step(memory, _):
        pulled = law.pullback(problem.game, theta, x, through, memory=memory)
        return pulled.memory, pulled.theta

    _, found = jax.lax.scan(step, memory, length=2000)
    np.testing.assert_allclose(found[-1], exact, rtol=1e-6)


def test_without_a_potential_the_penalty_stands_for_the_transpose(matrix):
    problem, theta = linear(matrix, np.eye(4), jnp.arange(4.0)), jnp.zeros(4)
    x, law = at_equilibrium(problem, theta), ix.Penalty(1e-3, step_size=0.1)
    through, memory = x - jnp.arange(4.0), law.memory(problem.game, theta, x)
    for _ in range(600):
        pulled = law.pullback(problem.game, theta, x, through, memory=memory)
        memory = pulled.memory
    np.testing.assert_allclose(pulled.theta, -np.linalg.solve(matrix, through), rtol=1e-5)


def test_an_estimate_of_a_linear_response_becomes_exact(matrix):
    entered = np.array([[1.0, 0.5], [0.0, 2.0], [-1.0, 0.0], [0.3, 0.3]])
    problem, law = linear(matrix, entered, jnp.arange(4.0)), ix.EstimatedResponse(forgetting=1.0)
    rng = np.random.default_rng(0)
    theta = jnp.zeros(2)
    memory = law.memory(problem.game, theta, at_equilibrium(problem, theta))
    for _ in range(6):
        theta = jnp.asarray(rng.normal(size=2))
        x = at_equilibrium(problem, theta)
        pulled = law.pullback(problem.game, theta, x, x - jnp.arange(4.0), memory=memory)
        memory = pulled.memory
    exact = ix.hypergradient(problem, theta, x).value
    np.testing.assert_allclose(memory.slope, -np.linalg.solve(matrix, entered), atol=1e-3)
    np.testing.assert_allclose(pulled.theta, exact, atol=1e-2)


def test_bounds_that_bind_do_not_move():
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative((2,)))
    problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 1) ** 2) / 2, ix.Reals((2,)))
    theta, x = jnp.array([3.0, -1.0]), jnp.array([3.0, 0.0])
    for law in (ix.SocialGradient(), ix.AdjointStep(1.0), ix.Penalty(step_size=1.0)):
        found = ix.hypergradient(problem, theta, x, sensitivity=law).value
        np.testing.assert_allclose(found, [2.0, 0.0], atol=1e-9)


def two_roads():
    """Times v and 1, one unit of demand."""
    network = ix.traffic.Network(
        number_of_nodes=2,
        tail=np.array([0, 0]),
        head=np.array([1, 1]),
        free_flow_time=np.array([1e-9, 1.0]),
        capacity=np.array([1.0, 1.0]),
        b=np.array([1e9, 0.0]),
        power=np.array([1.0, 1.0]),
    )
    return network, ix.traffic.Demand(np.array([[0, 1]]), np.array([1.0]))


def test_externality_pricing_on_roads_comes_to_the_system_optimum():
    """Pigou's two roads: times v and 1, one unit of demand; a toll of 1/2 halves the flow."""
    network, demand = two_roads()
    paths = ix.traffic.k_shortest_paths(network, demand, 2)
    game = ix.traffic.RoutingGame(network, demand, paths)
    problem = ix.DesignProblem(game, game.total_travel_time, ix.Box(jnp.zeros(2), 5.0))
    scheme = ix.ExternalityPricing(0.05, play_step=0.2)
    found = ix.design(problem, jnp.zeros(2), scheme, steps=2000, record=2000)
    np.testing.assert_allclose(game.link_flows(found.x), [0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.theta, [0.5, 0.0], atol=1e-6)
    assert abs(float(found.objective) - 0.75) < 1e-9


@pytest.mark.slow
def test_all_links_of_sioux_falls_come_to_the_system_optimum():
    pytest.importorskip("numba")
    network, demand = ix.traffic.sioux_falls()
    paths = ix.traffic.generate_paths(network, demand)
    problem = ix.problems.network_tolls(
        network, demand, paths=paths, eta=0.0, max_toll=300.0
    ).problem
    scheme = ix.ExternalityPricing(0.01, play_step=0.002)
    found = ix.design(problem, jnp.zeros(76), scheme, steps=5000, record=5000)
    settled = ix.solve_equilibrium(problem.game, found.theta, found.x).x
    best = 7194256.0529
    assert abs(float(problem.objective(found.theta, settled)) / best - 1) < 1e-6


def test_laws_are_told_where_they_do_not_serve():
    game = ix.Game(lambda theta, x: x - theta, ix.Reals())
    with pytest.raises(ValueError, match="`SocialGradient` is a law for schemes"):
        ix.solve_equilibrium(game, jnp.zeros(2), sensitivity=ix.SocialGradient())
    with pytest.raises(ValueError, match=r"needs `play_step`, or `ix\.AdjointStep"):
        ix.DoubleLoop(sensitivity=ix.AdjointStep())
    with pytest.raises(ValueError, match=r"another law than `ix\.Penalty`"):
        ix.DoubleLoop(play_step=0.1, sensitivity=ix.Penalty())
    with pytest.raises(ValueError, match="needs play without mixing"):
        ix.DesignAndPlay(optax.sgd(0.1), play_step=0.1, mixing=0.1, sensitivity=ix.Penalty())
    with pytest.raises(TypeError, match="needs a sensitivity, got 'social'"):
        ix.DesignAndPlay(optax.sgd(0.1), play_step=0.1, sensitivity="social")
    with pytest.raises(ValueError, match=r"at most 1, got 1\.5"):
        ix.EstimatedResponse(forgetting=1.5)
    moving = ix.Game(lambda theta, x: x, lambda theta: ix.Box(theta, 9.0))
    problem = ix.DesignProblem(moving, lambda theta, x: jnp.sum(x**2), ix.Reals((2,)))
    with pytest.raises(ValueError, match="a strategy set that does not depend on theta"):
        ix.hypergradient(problem, jnp.ones(2), jnp.ones(2), sensitivity=ix.SocialGradient())


def test_externality_pricing_refuses_what_it_cannot_know():
    game = ix.Game(lambda theta, x: x - theta, ix.Reals((2,)))
    problem = ix.DesignProblem(game, lambda theta, x: jnp.sum(x**2), ix.Reals((2,)))
    scheme = ix.ExternalityPricing(0.1, play_step=0.1)
    with pytest.raises(ValueError, match="along theta that is 2 off"):
        ix.design(problem, jnp.zeros(2), scheme, steps=2)
    with pytest.raises(ValueError, match=r"needs to be in \[0, 1\], got 2"):
        ix.ExternalityPricing(2.0, play_step=0.1)
    one = ix.DesignProblem(
        ix.Game(lambda theta, x: x + theta[0], ix.Reals((2,))), problem.objective, ix.Reals((1,))
    )
    with pytest.raises(ValueError, match=r"a price for each entry of x, shape \(2,\)"):
        ix.design(one, jnp.zeros(1), scheme, steps=2)
    wrong = ix.ExternalityPricing(0.1, play_step=0.1, externality=lambda theta, x: x[:1])
    with pytest.raises(ValueError, match="needs to return what is like theta"):
        ix.design(problem, jnp.zeros(2), wrong, steps=2)


def test_a_markovian_game_knows_its_externality():
    """Two roads, v and 1: the one more driver costs v others 1 each."""
    network, demand = two_roads()
    game = ix.traffic.MarkovianGame(network, demand, eta=0.1)
    flows = jnp.array([0.3, 0.7])
    np.testing.assert_allclose(game.externality(jnp.zeros(2), flows), [0.3, 0.0], atol=1e-12)


def test_externality_pricing_says_what_it_does_not_see():
    network, demand = two_roads()
    game = ix.traffic.RoutingGame(network, demand, ix.traffic.k_shortest_paths(network, demand, 2))
    scheme = ix.ExternalityPricing(0.05, play_step=0.2)
    tolls = ix.Box(jnp.zeros(2), 5.0)
    revenue = ix.DesignProblem(game, lambda t, x: -(t * game.link_flows(x)).sum(), tolls)
    with pytest.warns(UserWarning, match="another objective than the problem's"):
        ix.design(revenue, jnp.zeros(2), scheme, steps=2)
    cap = ix.Constraint(lambda t, x: t.sum(), upper=0.1, name="cap")
    capped = ix.DesignProblem(game, game.total_travel_time, tolls, constraints=[cap])
    with pytest.raises(ValueError, match=r"a problem without constraints.*\['cap'\]"):
        ix.design(capped, jnp.zeros(2), scheme, steps=2)
    turned = ix.Game(lambda theta, x: x - 4 + theta[::-1], ix.NonNegative((2,)))
    problem = ix.DesignProblem(turned, lambda theta, x: jnp.sum(x**2), ix.Box(jnp.zeros(2), 4.0))
    with pytest.raises(ValueError, match="enter each cost as its price"):
        ix.design(problem, jnp.zeros(2), scheme, steps=2)


def test_in_a_games_own_weights_the_social_gradient_descends():
    """Monotone in the weights (1, 20) alone, where the plain gradient may ascend."""
    skew = np.array([[1.0, -8.0], [0.4, 1.0]])

    class Weighted(ix.Game):
        @property
        def weights(self):
            return jnp.array([1.0, 20.0])

    game = Weighted(lambda theta, x: jnp.asarray(skew) @ x + theta, ix.Reals((2,)))
    rng = np.random.default_rng(0)
    for target in rng.normal(size=(20, 2)):
        problem = ix.DesignProblem(
            game, lambda t, x, a=target: jnp.sum((x - a) ** 2), ix.Reals((2,))
        )
        theta = jnp.asarray(rng.normal(size=2))
        x = at_equilibrium(problem, theta)
        exact = ix.hypergradient(problem, theta, x).value
        law = ix.hypergradient(problem, theta, x, sensitivity=ix.SocialGradient()).value
        assert exact @ law >= 0
