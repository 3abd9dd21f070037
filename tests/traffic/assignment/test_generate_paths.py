"""Path sets from equilibria."""

import networkx
import numpy as np
import pytest

import incentax as ix

from ..files import stored


def test_all_paths_within_a_share_of_the_least_cost():
    """As networkx enumerates them."""
    network, _ = ix.traffic.sioux_falls()
    demand = ix.traffic.Demand([[0, 19], [12, 1]], [1.0, 1.0])
    paths = ix.traffic.cheap_paths(network, demand, network.free_flow_time, tolerance=0.3)
    graph = ix.traffic.to_networkx(network)
    for pair, (origin, destination) in enumerate(demand.pairs + 1):
        least = networkx.shortest_path_length(graph, origin, destination, "free_flow_time")
        wanted = set()
        for way in networkx.all_simple_edge_paths(graph, origin, destination, cutoff=12):
            links = [key for _, _, key in way]
            if network.free_flow_time[links].sum() <= 1.3 * least + 1e-9:
                wanted.add(tuple(links))
        first = paths.sizes[:pair].sum()
        found = {tuple(paths.path(first + k)) for k in range(paths.sizes[pair])}
        assert found == wanted
        assert len(found) == paths.sizes[pair]


def test_sioux_falls_at_equilibrium_and_optimum():
    network, demand = ix.traffic.sioux_falls()
    both = ix.traffic.generate_paths(network, demand)
    assert both.number_of_paths == 942
    user = ix.traffic.generate_paths(network, demand, at="user")
    system = ix.traffic.generate_paths(network, demand, at=["system"])
    assert ix.traffic.join_paths(user, system).number_of_paths == 942
    # The equilibrium on these paths is that of the network.
    game = ix.traffic.RoutingGame(network, demand, both)
    x = ix.solve_equilibrium(game, np.zeros(76)).x
    np.testing.assert_allclose(game.total_travel_time(None, x), 7_480_225.345, rtol=1e-6)


def test_joined_paths_keep_pairs_and_order():
    network, demand = ix.traffic.sioux_falls()
    few = ix.traffic.k_shortest_paths(network, demand, 2)
    more = ix.traffic.k_shortest_paths(network, demand, 4)
    joined = ix.traffic.join_paths(few, more)
    for key in ("links", "offsets", "sizes", "pairs"):
        np.testing.assert_array_equal(getattr(joined, key), getattr(more, key))
    other = ix.traffic.k_shortest_paths(network, ix.traffic.Demand([[0, 1]], [1.0]), 1)
    with pytest.raises(ValueError, match="same pairs"):
        ix.traffic.join_paths(few, other)


def test_paths_grow_until_none_is_missing():
    network, demand = ix.traffic.sioux_falls()
    paths = ix.traffic.k_shortest_paths(network, demand, 1)
    costs = ix.traffic.assign(network, demand).costs
    grown, missing = ix.traffic.grow_paths(network, demand, paths, costs)
    assert 0.1 < missing < 1
    again, none = ix.traffic.grow_paths(network, demand, grown, costs)
    assert none == 0
    assert again is grown


def test_refusals():
    network, demand = ix.traffic.sioux_falls()
    with pytest.raises(ValueError, match="neither"):
        ix.traffic.generate_paths(network, demand, at=[])
    with pytest.raises(ValueError, match="'best'"):
        ix.traffic.generate_paths(network, demand, at=["best"])
    with pytest.raises(ValueError, match=r"shape \(76,\), got shape \(3,\)"):
        ix.traffic.cheap_paths(network, demand, np.ones(3))
    with pytest.raises(ValueError, match="one cost >= 0 a link"):
        ix.traffic.cheap_paths(network, demand, -np.ones(76))
    within = ix.traffic.Demand([[0, 1], [3, 3]], [1.0, 2.0])
    with pytest.raises(ValueError, match="within node 4"):
        ix.traffic.cheap_paths(network, within, np.ones(76))
    with pytest.warns(UserWarning, match="more than 2 such paths"):
        paths = ix.traffic.cheap_paths(network, demand, np.ones(76), tolerance=0.5, most=2)
    assert paths.sizes.max() == 2


def test_paths_of_a_city():
    network, demand = stored("Anaheim")
    paths = ix.traffic.generate_paths(network, demand)
    assert paths.number_of_paths == 2_173
    # Zones are ends, not ways.
    inner = np.setdiff1d(paths.links, paths.links[paths.offsets[:-1]])
    assert (network.tail[inner] >= network.first_through_node).all()


@pytest.mark.slow
def test_k_shortest_paths_compiled_are_those_of_the_search(monkeypatch):
    """Ties too; and a city in seconds."""
    network, demand = ix.traffic.sioux_falls()
    expected = ix.traffic.k_shortest_paths(network, demand, 6)
    monkeypatch.setattr("incentax.traffic._paths._SMALL", 0)
    found = ix.traffic.k_shortest_paths(network, demand, 6)
    for key in ("links", "offsets", "sizes", "pairs"):
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key))
    island = ix.traffic.Network([0], [1], [1.0], [1.0], [1.0], [1.0], 3)
    with pytest.raises(ValueError, match="from node 1 to node 3"):
        ix.traffic.k_shortest_paths(island, ix.traffic.Demand([[0, 2]], [1.0]), 1)
    monkeypatch.setattr("incentax.traffic.assignment._generate_paths._MOST_PARTIAL", 50)
    with pytest.raises(ValueError, match="more than 50 partial paths from node"):
        ix.traffic.k_shortest_paths(network, demand, 6)
    monkeypatch.undo()
    network, demand = stored("Winnipeg")
    assert ix.traffic.k_shortest_paths(network, demand, 3).number_of_paths == 13_032
