"""To networkx and back."""

import networkx
import numpy as np
import pytest

import incentax as ix


def test_there_and_back():
    network, _ = ix.traffic.sioux_falls()
    back = ix.traffic.from_networkx(ix.traffic.to_networkx(network))
    for key in ("tail", "head", "capacity", "free_flow_time", "b", "power", "position"):
        np.testing.assert_array_equal(getattr(back, key), getattr(network, key))
    assert back.name_of_link(7) == network.name_of_link(7)


def test_graphs_that_do_not_fit():
    graph = networkx.DiGraph()
    graph.add_edge("a", "b", capacity=1.0)
    with pytest.raises(ValueError, match="`free_flow_time` of the edge a-b, got none"):
        ix.traffic.from_networkx(graph)
    with pytest.raises(ValueError, match="undirected"):
        ix.traffic.from_networkx(graph.to_undirected())
    graph.edges["a", "b"]["free_flow_time"] = -1.0
    with pytest.raises(ValueError, match="free_flow_time >= 0, got -1"):
        ix.traffic.from_networkx(graph)


def test_nodes_of_any_kind_and_keys_of_any_order():
    graph = networkx.DiGraph(networkx.grid_2d_graph(2, 2))
    for edge in graph.edges:
        graph.edges[edge].update(capacity=1.0, free_flow_time=1.0)
    network = ix.traffic.from_networkx(graph)
    assert network.name_of_node(1) == str((1, 0)) or network.name_of_node(1) == str((0, 1))
    assert set(ix.traffic.to_networkx(network).nodes) == set(graph.nodes)
    mixed = networkx.MultiDiGraph()
    for key in range(12):
        mixed.add_edge(1, "a", 11 - key, capacity=1.0, free_flow_time=float(11 - key))
    times = ix.traffic.from_networkx(mixed).free_flow_time
    np.testing.assert_array_equal(times, np.arange(12))
    mixed.add_edge("a", 1, capacity=None, free_flow_time=1.0)
    with pytest.raises(ValueError, match="a number for capacity"):
        ix.traffic.from_networkx(mixed)
