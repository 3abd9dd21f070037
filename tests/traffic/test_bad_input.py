"""Networks and path sets made by hand that do not fit together are refused with words."""

from typing import Any

import numpy as np
import pytest

import incentax as ix
from incentax.traffic import Network, PathSet, RoutingGame


@pytest.fixture(scope="module")
def made():
    network, demand = ix.traffic.sioux_falls()
    return network, demand, ix.traffic.k_shortest_paths(network, demand, 3)


def test_a_link_put_wrong_breaks_its_path_and_no_other(made):
    network, _, paths = made
    assert paths.broken(network) is None
    key = np.random.default_rng(0)
    for wrong in (76, -1, None):
        for entry in key.integers(paths.links.size, size=20):
            links = paths.links.copy()
            links[entry] = (links[entry] + 1) % 76 if wrong is None else wrong
            path = np.searchsorted(paths.offsets, entry, side="right") - 1
            made_wrong = PathSet(links, paths.offsets, paths.sizes, paths.pairs)
            assert made_wrong.broken(network) == path


def test_paths_that_are_no_ways_are_refused(made):
    network, demand, paths = made
    links = paths.links.copy()
    links[3] = 70
    broken = PathSet(links, paths.offsets, paths.sizes, paths.pairs)
    with pytest.raises(ValueError, match=r"ways through the network, got path 1 from node 1 to 2"):
        RoutingGame(network, demand, broken)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"offsets": slice(0, -1)}, r"offsets=.*rise from 0 to the \d+ entries"),
        ({"offsets": slice(0, 0)}, r"offsets="),
        ({"sizes": slice(0, -1)}, r"sizes=.*1584 in all, got 1581 in 527 blocks"),
        ({"links": "float"}, r"links=.*whole numbers"),
    ],
)
def test_path_sets_that_do_not_fit(made, change, words):
    arrays = {name: getattr(made[2], name) for name in ("links", "offsets", "sizes", "pairs")}
    for name, how in change.items():
        arrays[name] = arrays[name].astype(float) if how == "float" else arrays[name][how]
    with pytest.raises(ValueError, match=words):
        PathSet(**arrays)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tail": np.array([0.0])}, r"tail=.*whole numbers.*float64"),
        ({"node_names": np.array(["a"])}, r"node_names=.*one entry a node, 2, got 1"),
        ({"position": np.zeros((3, 2))}, r"position=.*one entry a node, 2, got 3"),
        ({"number_of_nodes": 2.5}, r"number_of_nodes=.*a whole number >= 0, got 2.5"),
        ({"first_through_node": -1}, r"first_through_node=.*a whole number >= 0, got -1"),
    ],
)
def test_networks_that_do_not_fit(change, words):
    ones = {name: np.ones(1) for name in ("capacity", "free_flow_time", "b", "power")}
    ends = {"tail": np.array([0]), "head": np.array([1])}
    Network(**ends, **ones, number_of_nodes=2)
    made: dict[str, Any] = {**ends, **ones, "number_of_nodes": 2, **change}
    with pytest.raises(ValueError, match=words):
        Network(**made)


def test_flows_that_are_none():
    network, _ = ix.traffic.sioux_falls()
    with pytest.raises(ValueError, match=r"one number >= 0 a link, shape \(76,\), got nan"):
        ix.traffic.most_congested(network, np.full(76, np.nan), 2)
    with pytest.raises(
        ValueError, match=r"one number >= 0 a link, shape \(76,\), got shape \(3,\)"
    ):
        ix.traffic.most_congested(network, np.ones(3), 2)
