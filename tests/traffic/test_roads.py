"""Whose best path is not listed, by hand and beside paths that are grown."""

import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix

# A street past the second zone, which nobody may pass, a long way round, and two parallel links.
#   0 -> 1 (free), 1 -> 2 (1), 0 -> 3 (4), 3 -> 2 (4 or 3)
_ENDS = np.array([[0, 1], [1, 2], [0, 3], [3, 2], [3, 2]])


def _network(first_through, times=(0.0, 1.0, 4.0, 4.0, 3.0)):
    return ix.traffic.Network(
        _ENDS[:, 0],
        _ENDS[:, 1],
        np.ones(5),
        np.asarray(times),
        np.zeros(5),
        np.ones(5),
        4,
        first_through_node=first_through,
    )


def _game(network, trips=(3.0, 1.0), listed=((2, 3), (1,)), **more):
    demand = ix.traffic.Demand(np.array([[0, 2], [1, 2]]), np.asarray(trips))
    links = np.concatenate(listed)
    offsets = np.cumsum([0, *map(len, listed)])
    sizes = np.array([1, len(listed) - 1])
    paths = ix.traffic.PathSet(links, offsets, sizes, demand.pairs)
    return ix.traffic.RoutingGame(network, demand, paths, eta=1.0, **more)


@pytest.mark.parametrize(
    ("first_through", "listed", "share"),
    [
        (0, ((2, 3), (1,)), 0.75),  # past node 1 it is 1 instead of 8
        (2, ((2, 3), (1,)), 0.75),  # by the other of the parallel links
        (2, ((2, 4), (1,)), 0.0),  # there is nothing better: node 1 is no way
        (0, ((0, 1), (1,)), 0.0),
    ],
)
def test_by_hand(first_through, listed, share):
    game = _game(_network(first_through), listed=listed)
    assert game.outside(jnp.zeros(5), jnp.ones(2)) == share
    assert game.outside(jnp.full(5, -9.0), jnp.ones(2)) is None


def test_classes_and_trips_that_are_not_made():
    """A toll of 8 sends those on whom it weighs double the way round."""
    tolls = jnp.array([0.0, 8.0, 0.0, 0.0, 0.0])
    network = _network(0, (0.0, 1.0, 4.0, 4.0, 4.0))
    demand = ix.traffic.Demand(np.array([[0, 2], [0, 2]]), np.array([3.0, 1.0]))
    paths = ix.traffic.PathSet(
        np.array([0, 1, 0, 1]), np.array([0, 2, 4]), np.ones(2, int), demand.pairs
    )
    game = ix.traffic.RoutingGame(network, demand, paths, eta=1.0, toll_weight=np.array([0.5, 2.0]))
    assert game.outside(tolls, jnp.ones(2)) == 0.25
    elastic = _game(_network(0), inverse_demand=lambda trips: 10 - trips)
    x = jnp.array([0.5, 0.5, 1.0, 0.0])
    np.testing.assert_allclose(elastic.outside(jnp.zeros(5), x), 1.5 / 2.5)


def test_the_certificate_says_what_growing_adds():
    network, demand = ix.traffic.sioux_falls()
    paths = ix.traffic.k_shortest_paths(network, demand, 1)
    game = ix.traffic.RoutingGame(network, demand, paths, eta=1.0, tolled_links=[5])
    problem = ix.DesignProblem(game, game.total_travel_time, ix.Box(0.0, 5.0))
    tolls, x = jnp.array([2.0]), ix.solve_equilibrium(game, jnp.array([2.0])).x
    costs = np.array(game.link_times(game.link_flows(x)))
    costs[5] += 2.0
    _, missing = ix.traffic.grow_paths(network, demand, paths, costs)
    found = ix.certify(problem, tolls, x)
    assert 0.5 < missing < 1
    np.testing.assert_allclose(found.outside, missing, rtol=1e-12)
    assert f"{100 * missing:.3g} % of agents have a better strategy" in found.verdict
    assert "share with a better strategy" in str(found)
    plain = ix.Game(lambda theta, x: x - theta, ix.Box(0.0, 4.0))
    other = ix.DesignProblem(plain, lambda theta, x: jnp.sum(x**2), ix.Reals())
    found = ix.certify(other, jnp.zeros(1))
    assert np.isnan(found.outside)
    assert "better strategy" not in found.verdict + str(found)
