"""Several classes of drivers, elastic demand, and capacities that are designed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def _two_roads(time=(1.0, 2.0), b=(1.0, 0.5), capacity=(1.0, 1.0), power=1.0):
    return ix.traffic.Network([0, 0], [1, 1], capacity, time, b, [power, power], 2)


def _paths(pairs):
    count = len(pairs)
    links = np.tile([0, 1], count)
    return ix.traffic.PathSet(links, np.arange(2 * count + 1), np.full(count, 2), np.asarray(pairs))


def test_two_values_of_time():
    """The toll of road 0 drives off those to whom money matters: closed form.

    Times 1 + v and 2 + v. Tolls weigh 1 and 3. At a toll of 0.8 the first class has costs 1.8 + v_0
    and 2 + v_1, the second 3.4 + v_0 and 2 + v_1: with one trip each, all of the second use road 1
    and x_0 of the first road 0, where 1.8 + x_0 = 2 + (1 - x_0) + 1.
    """
    demand = ix.traffic.Demand([[0, 1], [0, 1]], [1.0, 1.0])
    network = _two_roads(b=(1.0, 0.5))
    game = ix.traffic.RoutingGame(
        network, demand, _paths(demand.pairs), tolled_links=[0], toll_weight=[1.0, 3.0]
    )
    x = ix.solve_equilibrium(game, jnp.array([0.8])).x
    np.testing.assert_allclose(x, [1.0, 0.0, 0.0, 1.0], atol=1e-7)
    # At a toll of 1.4: 2.4 + x = 2 + 2 - x.
    x = ix.solve_equilibrium(game, jnp.array([1.4])).x
    np.testing.assert_allclose(x, [0.8, 0.2, 0.0, 1.0], atol=1e-7)
    slope = jax.jacobian(lambda t: ix.solve_equilibrium(game, t).x)(jnp.array([1.4]))[:, 0]
    np.testing.assert_allclose(slope, [-0.5, 0.5, 0.0, 0.0], atol=1e-6)


@pytest.mark.slow  # an equilibrium with excess demand, and its design
def test_trips_that_are_made_where_they_are_worth_it():
    """Two roads with costs 1 + v and 2 + v, and 6 - d for the d-th trip of 6.

    All are equal where v_0 = c - 1, v_1 = c - 2 and c = 6 - (2 c - 3): c = 3.
    """
    demand = ix.traffic.Demand([[0, 1]], [6.0])
    game = ix.traffic.RoutingGame(
        _two_roads(), demand, _paths(demand.pairs), inverse_demand=lambda d: 6 - d
    )
    zero = jnp.zeros(2)
    x = ix.solve_equilibrium(game, zero).x
    np.testing.assert_allclose(6 * x, [2.0, 1.0, 3.0], atol=1e-6)
    np.testing.assert_allclose(game.link_flows(x), [2.0, 1.0], atol=1e-6)
    # A toll of 1 on both: c = 6 - (2 c - 5), and the answer by differences.
    np.testing.assert_allclose(
        6 * ix.solve_equilibrium(game, zero + 1).x, [5 / 3, 2 / 3, 6 - 7 / 3], atol=1e-6
    )
    slope = jax.jacobian(lambda t: ix.solve_equilibrium(game, t).x)(zero)
    step = 1e-4
    for k in range(2):
        up, down = (ix.solve_equilibrium(game, zero.at[k].set(s)).x for s in (step, -step))
        np.testing.assert_allclose(slope[:, k], (up - down) / (2 * step), atol=1e-6)
    # The best tolls for the sum of what trips are worth and cost: v t', here v.
    problem = ix.DesignProblem(
        game,
        lambda t, x: game.total_travel_time(t, x) - (6 * (d := 6 * (1 - x[2])) - d**2 / 2),
        ix.Box(zero, 10.0),
    )
    solution = ix.design(problem, zero + 0.5)
    np.testing.assert_allclose(solution.theta, game.link_flows(solution.x), atol=1e-5)
    bad = ix.traffic.RoutingGame(
        _two_roads(), demand, _paths(demand.pairs), inverse_demand=lambda d: jnp.ones(2)
    )
    with pytest.raises(ValueError, match=r"cost for each of 1 pairs, got shape \(2,\)"):
        bad.operator(zero, bad.strategy_set.centre())


def test_logit_with_elastic_demand_shares_trips_by_their_costs():
    demand = ix.traffic.Demand([[0, 1]], [6.0])
    game = ix.traffic.RoutingGame(
        _two_roads(), demand, _paths(demand.pairs), eta=0.5, inverse_demand=lambda d: 6 - d
    )
    x = ix.solve_equilibrium(game, jnp.zeros(2)).x
    costs = jnp.array([1 + 6 * x[0], 2 + 6 * x[1], 6 - 6 * (1 - x[2])])
    np.testing.assert_allclose(x, jax.nn.softmax(-costs / 0.5), rtol=1e-7)


def test_what_is_refused():
    demand = ix.traffic.Demand([[0, 1]], [6.0])
    paths = _paths(demand.pairs)
    elastic = ix.traffic.RoutingGame(
        _two_roads(), demand, paths, eta=0.5, inverse_demand=lambda d: 6 - d
    )
    with pytest.raises(ValueError, match="not elastic"):
        ix.traffic.logit_equilibrium(elastic, jnp.zeros(2))
    with pytest.raises(ValueError, match="without elastic demand"):
        ix.traffic.system_optimum(elastic)
    with pytest.raises(TypeError, match="needs a `RoutingGame`, got Game"):
        ix.traffic.logit_equilibrium(ix.Game(lambda t, x: x, ix.Reals((2,))), jnp.zeros(2))
    plain = ix.traffic.RoutingGame(_two_roads(), demand, paths)
    with pytest.raises(ValueError, match="eta > 0"):
        ix.traffic.logit_equilibrium(plain, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"one number a pair, shape \(1,\), got \(2,\)"):
        ix.traffic.RoutingGame(_two_roads(), demand, paths, toll_weight=[1.0, 2.0])
    narrow = ix.traffic.RoutingGame(_two_roads(), demand, paths, tolled_links=[], widened_links=[0])
    # A road that is taken away is no road, and not one without congestion.
    assert jnp.isnan(narrow.link_times(jnp.ones(2), jnp.array([-1.5]))[0])
    steep = _two_roads(power=4.0)
    narrow = ix.traffic.RoutingGame(steep, demand, paths, tolled_links=[], widened_links=[0])
    assert jnp.isnan(narrow.link_times(jnp.ones(2), jnp.array([-1.5]))[0])
    with pytest.raises(RuntimeError):
        ix.solve_equilibrium(narrow, jnp.array([-1.5]))
    with pytest.raises(ValueError, match="fall as trips rise, got a mean of 3 for half of all"):
        ix.traffic.RoutingGame(_two_roads(), demand, paths, inverse_demand=lambda d: d)
    two = ix.traffic.Demand(
        [[0, 1], [0, 1]], [1.0, 10.0]
    )  # one's trips are worth more by the other's
    both = jnp.array([[1.0, -0.5], [-0.5, 1.0]])
    ix.traffic.RoutingGame(
        _two_roads(), two, _paths(two.pairs), inverse_demand=lambda d: 10 - both @ d
    )
    dispersed = ix.traffic.RoutingGame(_two_roads(), demand, paths, eta=1.0)
    with pytest.raises(ValueError, match=r"`logit_equilibrium\(tol=...\)` needs"):
        ix.traffic.logit_equilibrium(dispersed, jnp.zeros(2), tol=-1.0)
    solved = jax.jit(lambda tolls: ix.traffic.logit_equilibrium(dispersed, tolls, tol=1e-9))
    assert solved(jnp.zeros(2)).residual < 1e-6


def test_an_empty_affine_link_has_a_slope():
    """Times 1 + v and 2 (1 + v / 2): a toll on the first drives half of it to the second."""
    demand = ix.traffic.Demand([[0, 1]], [1.0])
    network = _two_roads(b=(1.0, 0.5))
    game = ix.traffic.RoutingGame(network, demand, _paths(demand.pairs), tolled_links=[0])
    found = ix.directional_derivative(game, jnp.zeros(1), jnp.ones(1), x=jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(found.value, [-0.5, 0.5], atol=1e-9)


def test_capacities_are_designed():
    """Two like roads in a row of one: total time plus 2 z, with t = 1 + v / (1 + z), v = 3.

    3 (1 + 3 / (1 + z)) + 2 z is least where (1 + z)^2 = 9 / 2.
    """
    network = ix.traffic.Network([0], [1], [1.0], [1.0], [1.0], [1.0], 2)
    demand = ix.traffic.Demand([[0, 1]], [3.0])
    paths = ix.traffic.k_shortest_paths(network, demand, 1)
    game = ix.traffic.RoutingGame(network, demand, paths, tolled_links=[], widened_links=[0])
    problem = ix.DesignProblem(
        game,
        lambda t, x: game.total_travel_time(t, x) + 2 * t[0],
        ix.Box(jnp.zeros(1), 10.0),
    )
    solution = ix.design(problem, jnp.zeros(1))
    np.testing.assert_allclose(solution.theta, [np.sqrt(4.5) - 1], rtol=1e-6)
    with pytest.raises(ValueError, match=r"tolled link \(0\) and one added capacity(.|\n)*\(1\)"):
        game.operator(jnp.zeros(2), jnp.ones(1))
    with pytest.raises(ValueError, match=r"widened_links=(.|\n)*0\.\.0, got 3"):
        ix.traffic.RoutingGame(network, demand, paths, widened_links=[3])


@pytest.mark.slow
def test_a_wider_road_may_do_harm():
    """Braess: capacity on the bridge adds to everybody's time; tolls and capacity act together."""
    network = ix.traffic.Network(
        [0, 0, 1, 1, 2], [1, 2, 2, 3, 3], [1.0] * 5, [1e-8, 50, 10, 50, 1e-8],
        [1e9, 0.02, 0.1, 0.02, 1e9], [1.0] * 5, 4,
    )  # fmt: skip
    demand = ix.traffic.Demand([[0, 3]], [6.0])
    paths = ix.traffic.k_shortest_paths(network, demand, 3)
    game = ix.traffic.RoutingGame(
        network, demand, paths, tolled_links=[2], widened_links=[2], eta=0.0
    )

    def total(theta):
        theta = jnp.asarray(theta)
        return game.total_travel_time(theta, ix.solve_equilibrium(game, theta).x)

    np.testing.assert_allclose(total([0.0, 0.0]), 552, rtol=1e-5)
    np.testing.assert_allclose(total([20.0, 0.0]), 498, rtol=1e-5)
    assert total([0.0, 1.0]) > total([0.0, 0.0])
    point = jnp.array([2.0, 0.5])
    slope = jax.grad(total)(point)
    for k in range(2):
        step = 1e-3 * jnp.eye(2)[k]
        difference = (total(point + step) - total(point - step)) / 2e-3
        np.testing.assert_allclose(slope[k], difference, rtol=1e-5)


def test_derivatives_where_shares_are_tiny():
    """Shares of 1e-19 among others of 1 do not slow the conjugate gradients."""
    network, demand = ix.traffic.generate_city(8)
    paths = ix.traffic.k_shortest_paths(network, demand, 3)
    game = ix.traffic.RoutingGame(network, demand, paths, eta=0.2, tolled_links=range(20))
    problem = ix.DesignProblem(game, game.total_travel_time, ix.NonNegative((20,)))
    x = ix.traffic.logit_equilibrium(game, jnp.zeros(20)).x
    assert jnp.min(x) < 1e-15
    few = ix.Implicit(tol=1e-8, max_iterations=6)
    assert ix.hypergradient(problem, jnp.zeros(20), x, sensitivity=few).residual < 1e-7
