"""Route choice among links that lead nearer to the destination, and sums over all walks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.traffic._dissection import Dissection


def _onward_paths(network, demand, costs):
    """All paths whose every link leads nearer to the destination, by depth-first search."""
    far = np.full((network.number_of_nodes,) * 2, np.inf)
    np.fill_diagonal(far, 0)
    np.minimum.at(far, (network.tail, network.head), costs)
    for k in range(len(far)):
        far = np.minimum(far, far[:, k, None] + far[k])
    links, offsets, sizes = [], [0], []
    for origin, end in demand.pairs:
        stack, count = [(origin, ())], 0
        while stack:
            node, path = stack.pop()
            if node == end:
                links += path
                offsets.append(len(links))
                count += 1
                continue
            for link in np.flatnonzero(network.tail == node):
                if far[network.head[link], end] < far[node, end] - 1e-9:
                    stack.append((network.head[link], (*path, link)))
        sizes.append(count)
    return ix.traffic.PathSet(np.array(links), np.array(offsets), np.array(sizes), demand.pairs)


@pytest.mark.parametrize("eta", [2.0, 0.05])
def test_it_is_logit_choice_of_the_paths_that_lead_nearer(eta):
    network, demand = ix.traffic.sioux_falls()
    costs = ix.traffic.assign(network, demand, gap=1e-4).costs
    paths = _onward_paths(network, demand, costs)
    assert paths.number_of_paths > 1000
    tolled = ix.traffic.TOLLED_LINKS[:3]
    listed = ix.traffic.RoutingGame(network, demand, paths, eta=eta, tolled_links=tolled)
    walked = ix.traffic.MarkovianGame(
        network, demand, eta=eta, tolled_links=tolled, nearer_at=costs
    )
    theta = jnp.array([1.0, 0.5, 2.0])
    by_paths = ix.solve_equilibrium(listed, theta, tol=1e-11)
    found = ix.solve_equilibrium(walked, theta)
    np.testing.assert_allclose(found.x, listed.link_flows(by_paths.x), rtol=1e-6, atol=1e-4)
    box = ix.Box(jnp.zeros(3), 10.0)
    slopes = [
        ix.hypergradient(ix.DesignProblem(game, game.total_travel_time, box), theta, x).value
        for game, x in ((listed, by_paths.x), (walked, found.x))
    ]
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-5)


def _tiny():
    """A zone whose links have no time, two roads that are parallel, and a way back."""
    return ix.traffic.Network(
        [0, 1, 1, 2, 2, 1, 3], [1, 2, 2, 1, 3, 0, 2], [9.0] * 7,
        [0.0, 2, 3, 1, 0, 0, 0], [0.0] * 7, [1.0] * 7, 4,
    )  # fmt: skip


def test_links_without_time_and_parallel_ones():
    """Cheaper than nothing in circles, which all walks would take; shares are those of the two."""
    network, demand = _tiny(), ix.traffic.Demand([[0, 3]], [6.0])
    game = ix.traffic.MarkovianGame(network, demand, eta=0.5, nearer_at=network.free_flow_time)
    share = 1 / (1 + np.exp(-1 / 0.5))
    flows = ix.solve_equilibrium(game, jnp.zeros(7)).x
    np.testing.assert_allclose(flows, [6, 6 * share, 6 - 6 * share, 0, 6, 0, 0], atol=1e-9)
    costs = game.link_times(flows)
    np.testing.assert_allclose(game.expected_costs(costs), [2 + 0.5 * np.log(share)])
    with pytest.raises(ValueError, match="With `nearer_at"):
        ix.traffic.MarkovianGame(network, demand, eta=0.5)


def test_tolls_below_zero_small_dispersion_and_single_precision():
    network, demand = _tiny(), ix.traffic.Demand([[0, 3]], [6.0])
    game = ix.traffic.MarkovianGame(network, demand, eta=1e-4, nearer_at=network.free_flow_time)
    paid = jnp.zeros(7).at[2].set(-1.0)
    for dtype in (jnp.float64, jnp.float32):
        found = ix.solve_equilibrium(game, paid.astype(dtype), jnp.zeros(7, dtype), tol=1e-5)
        np.testing.assert_allclose(found.x, [6, 3, 3, 0, 6, 0, 0], atol=1e-3)


def test_the_derivative_by_eta():
    network, demand = _tiny(), ix.traffic.Demand([[0, 3]], [6.0])

    def expected(eta):
        game = ix.traffic.MarkovianGame(network, demand, eta=eta, nearer_at=network.free_flow_time)
        return game.expected_costs(game.link_times(jnp.zeros(7)))[0]

    by_hand = -np.log(1 + np.exp(-2)) - 2 * np.exp(-2) / (1 + np.exp(-2))
    np.testing.assert_allclose(jax.grad(expected)(0.5), by_hand, rtol=1e-12)


def test_a_circle_without_a_way_on_does_not_spoil_derivatives():
    network = ix.traffic.Network(
        [0, 0, 1, 0, 3, 4], [1, 2, 2, 3, 4, 3], [5.0] * 6, [1.0, 2.5, 1, 1, 1, 1], [1.0] * 6,
        [1.0] * 6, 5,
    )  # fmt: skip
    demand = ix.traffic.Demand([[0, 2]], [3.0])

    def flow(eta):
        game = ix.traffic.MarkovianGame(network, demand, eta=eta, nearer_at=network.free_flow_time)
        return game.loaded(game.link_times(jnp.zeros(6)))[0]

    # The share of 0-1-2, which is half a unit of time shorter.
    share = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(flow(0.5), 3 * share, rtol=1e-12)
    slope = -3 * share * (1 - share) * 0.5 / 0.5**2
    np.testing.assert_allclose(jax.grad(flow)(0.5), slope, rtol=1e-12)


def test_a_large_mark_on_another_link_changes_nothing():
    network = ix.traffic.Network(
        [0, 1, 2, 0, 3], [1, 2, 3, 3, 0], [5.0] * 5, [1.0] * 5, [0.0] * 5, [1.0] * 5, 4
    )
    demand = ix.traffic.Demand([[0, 3]], [1.0])
    for mark in (1.0, 1e9):
        near = [1, 1, 1, 50, mark]
        game = ix.traffic.MarkovianGame(network, demand, eta=1.0, nearer_at=near)
        expected = game.expected_costs(jnp.ones(5))
        np.testing.assert_allclose(expected, 1 - np.log(1 + np.exp(-2)))


def test_a_circle_without_end_beside_large_sums():
    """A toll far below zero makes one sum large, and does not hide that another has no value."""
    network = ix.traffic.Network(
        [0, 2, 3, 3], [1, 3, 2, 4], [1.0] * 4, [5.0] * 4, [0.0] * 4, [1.0] * 4, 5
    )
    demand = ix.traffic.Demand([[0, 1], [2, 4]], [1.0, 1.0])
    game = ix.traffic.MarkovianGame(network, demand, eta=1.0)
    tolls = jnp.array([-30.0, -6, -6, 0])
    assert ix.solve_equilibrium(game, tolls, throw=False).result != ix.RESULTS.successful
    assert jnp.isnan(game.expected_costs(5 + tolls)).all()


def test_refusals():
    network, demand = _tiny(), ix.traffic.Demand([[0, 3]], [6.0])
    with pytest.raises(ValueError, match=r"nearer_at=...\)` needs one cost >= 0 a link"):
        ix.traffic.MarkovianGame(network, demand, eta=1.0, nearer_at=[1.0, 2.0])
    with pytest.raises(ValueError, match="needs finite costs, got inf"):
        ix.traffic.MarkovianGame(network, demand, eta=1.0, nearer_at=[np.inf] * 7)
    with pytest.raises(ValueError, match="got -1"):
        ix.traffic.MarkovianGame(network, demand, eta=1.0, nearer_at=[-1.0] * 7)


def _grid(side):
    node = np.arange(side * side).reshape(side, side)
    east = np.stack([node[:, :-1].ravel(), node[:, 1:].ravel()], axis=1)
    south = np.stack([node[:-1].ravel(), node[1:].ravel()], axis=1)
    return np.concatenate([east, south, east[:, ::-1], south[:, ::-1], east[:3]])


def test_sums_over_walks_are_columns_of_the_inverse():
    """On 9 nodes at once, and by halves on 722 in two pieces that nothing ties."""
    for side, parts, levels in ((3, 1, 1), (19, 2, 3)):
        ends = np.concatenate([_grid(side) + k * side * side for k in range(parts)])
        nodes = parts * side * side
        weight = np.random.default_rng(0).uniform(0.05, 0.25, len(ends))
        dense = np.eye(nodes)
        np.subtract.at(dense, tuple(ends.T), weight)
        to = np.random.default_rng(1).permutation(nodes)[:150]
        order = Dissection(ends, nodes, to)
        assert len(order.levels) == levels
        inverse = np.linalg.inv(dense)
        found = order._sums_over_walks(jnp.asarray(weight))
        np.testing.assert_allclose(found, inverse[:, to], rtol=1e-9, atol=1e-12)
        change = np.random.default_rng(2).normal(size=weight.size)
        moved = np.zeros_like(dense)
        np.add.at(moved, tuple(ends.T), change)
        _, slope = jax.jvp(order._sums_over_walks, (jnp.asarray(weight),), (jnp.asarray(change),))
        by_hand = (inverse @ moved @ inverse)[:, to]
        np.testing.assert_allclose(slope, by_hand, rtol=1e-7, atol=1e-9)
        (back,) = jax.vjp(order._sums_over_walks, jnp.asarray(weight))[1](slope)
        pulled = np.zeros_like(dense)
        pulled[:, to] = slope
        by_hand = inverse.T @ pulled @ inverse.T
        np.testing.assert_allclose(back, by_hand[tuple(ends.T)], rtol=1e-7, atol=1e-9)
        single = order._sums_over_walks(jnp.asarray(weight, jnp.float32))
        np.testing.assert_allclose(single, inverse[:, to], rtol=1e-3, atol=1e-4)
        # A circle anywhere whose weights are more than 1 makes all sums infinite.
        endless = weight.copy()
        endless[-3], endless[(ends == ends[-3, ::-1]).all(axis=1)] = 1.5, 1.5
        assert np.isnan(order._sums_over_walks(jnp.asarray(endless))).all()


def test_a_looser_tolerance_is_met_where_a_tighter_one_is():
    """Flows are some ten thousands, and the tolerance is on these."""
    network, demand = ix.traffic.sioux_falls()
    tolled = ix.traffic.TOLLED_LINKS[:3]
    game = ix.traffic.MarkovianGame(
        network, demand, eta=0.5, tolled_links=tolled, nearer_at=network.free_flow_time
    )
    for tol in (1e-8, 1e-5, 1e-4, 1e-3):
        found = ix.solve_equilibrium(game, jnp.zeros(3), tol=tol)
        assert found.residual <= tol
