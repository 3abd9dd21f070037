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


NETWORK, DEMAND = ix.traffic.sioux_falls()
PATHS = ix.traffic.k_shortest_paths(NETWORK, DEMAND, 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: t.assign(DEMAND, NETWORK), r"assign\(network=...\)` needs a `Network`"),
        (lambda t: t.assign(NETWORK, None), r"assign\(demand=...\)` needs a `Demand`, got None"),
        (lambda t: t.assign(NETWORK, DEMAND, gap="x"), r"gap=...\)` needs a number, got 'x'"),
        (lambda t: t.assign(NETWORK, DEMAND, gap=[1, None]), r"gap=...\)` needs a number"),
        (lambda t: t.assign(NETWORK, DEMAND, start=3), r"start=...\)` needs an `Assignment`"),
        (lambda t: t.assign(NETWORK, DEMAND, tolls={1: "a"}), r"tolls=...\)` needs numbers"),
        (lambda t: t.assign(NETWORK, DEMAND, tolls="abc"), r"tolls=...\)` needs numbers, got 'abc"),
        (lambda t: t.generate_paths(DEMAND, NETWORK), "generate_paths(.|\n)*needs a `Network`"),
        (lambda t: t.cheap_paths(NETWORK, DEMAND, "a"), r"costs=...\)` needs numbers, got 'a'"),
        (lambda t: t.grow_paths(NETWORK, DEMAND, DEMAND, [1.0] * 76), "needs a `PathSet`"),
        (lambda t: t.join_paths(), "needs sets of paths, got none"),
        (lambda t: t.join_paths(PATHS, DEMAND), "needs a `PathSet`, got Demand"),
        (lambda t: t.RoutingGame(NETWORK, DEMAND, None), r"paths=...\)` needs a `PathSet`"),
        (lambda t: t.RoutingGame(NETWORK, DEMAND, PATHS, eta="a"), r"eta=...\)` needs a number"),
        (
            lambda t: t.RoutingGame(NETWORK, DEMAND, PATHS, toll_weight="a"),
            r"toll_weight=...\)` needs a number, got 'a'",
        ),
        (lambda t: t.MarkovianGame(DEMAND, NETWORK, eta=1.0), "needs a `Network`, got Demand"),
        (lambda t: t.most_congested(DEMAND, [1.0] * 76, 3), "needs a `Network`, got Demand"),
        (lambda t: t.Demand([[0, 1]], ["a"]), r"Demand\(trips=...\)` needs numbers"),
    ],
)
def test_arguments_of_another_kind_are_named(call, words):
    with pytest.raises(TypeError, match=words):
        call(ix.traffic)


def test_tolls_by_the_names_of_links_are_refused():
    with pytest.raises(ValueError, match=r"needs links in 0\.\.75, got '1-2'"):
        ix.traffic.assign(NETWORK, DEMAND, tolls={"1-2": 1.0})
