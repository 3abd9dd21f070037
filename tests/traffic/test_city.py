"""Made-up cities, and which links to toll."""

import json

import numpy as np
import pytest

import incentax as ix
from incentax.experiments import network_tolls


@pytest.mark.parametrize("plan", ["grid", "ring-radial"])
def test_a_city_is_connected_and_the_same_again(plan):
    network, demand = ix.traffic.generate_city(5, 6, plan=plan, zones=8, seed=3)
    again, trips = ix.traffic.generate_city(5, 6, plan=plan, zones=8, seed=3)
    np.testing.assert_array_equal(network.capacity, again.capacity)
    np.testing.assert_array_equal(demand.trips, trips.trips)
    assert network.number_of_nodes == (30 if plan == "grid" else 31)
    assert len(demand.trips) == 8 * 7
    # Every road has both directions, alike.
    there = dict(zip(zip(network.tail, network.head), network.free_flow_time))
    assert all(there[b, a] == time for (a, b), time in there.items())
    assert len(there) == network.number_of_links
    found = ix.traffic.assign(network, demand, gap=1e-8)
    load = found.flows / network.capacity
    assert 0.3 < load.mean() < 3
    _, few = ix.traffic.generate_city(5, 6, plan=plan, zones=8, seed=3, load=0.5)
    np.testing.assert_allclose(few.trips, demand.trips / 2)


def test_a_city_of_rings_around_two_radials():
    network, demand = ix.traffic.generate_city(2, 2, plan="ring-radial")
    assert network.number_of_nodes == 5
    assert ix.traffic.assign(network, demand).reached


def test_links_to_toll():
    network, _ = ix.traffic.sioux_falls()
    assert len(ix.traffic.cordon(network, [9, 15])) == 7
    with pytest.raises(ValueError, match=r"0\.\.23, got 24"):
        ix.traffic.cordon(network, [24])
    with pytest.raises(ValueError, match="got none"):
        ix.traffic.cordon(network, list(range(24)))
    with pytest.raises(ValueError, match="at most 76 links, got 77"):
        ix.traffic.most_congested(network, np.ones(76), 77)
    for bad in ({"rows": 1}, {"rows": 3, "zones": 10}, {"rows": 3, "plan": "star"}):
        with pytest.raises(ValueError, match="generate_city"):
            ix.traffic.generate_city(**bad)


def _told(*_):
    pass


@pytest.mark.slow
def test_tolls_of_a_network_are_written_as_its_file_names_them():
    network, demand = ix.traffic.generate_city(4, zones=5, load=2.0)
    options = network_tolls.TollOptions(toll_links=("6-7", "1"), steps=30)
    outcome = network_tolls.run(network, demand, options, _told)
    tolled = [row for row in outcome.links if row["toll"] is not None]
    assert [(row["from"], row["to"]) for row in tolled] == [("1", "2"), ("6", "7")]
    summary = outcome.summary
    assert summary["logit"]["with_tolls"] <= summary["logit"]["without_tolls"]
    assert summary["certificate"]["equilibrium_residual"] < 1e-8
    lines = network_tolls.as_csv(outcome).splitlines()
    assert lines[0] == "link,from,to,toll,flow,cost"
    assert len(lines) == network.number_of_links + 1
    features = json.loads(network_tolls.as_geojson(outcome) or "")["features"]
    assert features[0]["properties"]["link"] == 1
    assert features[0]["geometry"]["coordinates"] == network.position[[0, 1]].tolist()
    # What a logit equilibrium without tolls costs is solved anew.
    instance = ix.problems.network_tolls(network, demand, [0])
    game = instance.problem.game
    x = ix.traffic.logit_equilibrium(game, np.zeros(1)).x
    if len(summary["rounds"]) == 1:
        np.testing.assert_allclose(
            game.total_travel_time(None, x), summary["logit"]["without_tolls"], rtol=1e-9
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"toll_links": ("99-1",)}, r"rows in 1\.\.48, or ends as in 1-2, got 99-1"),
        ({"toll_links": ("0",)}, r"rows in 1\.\.48"),
        ({"cordon": ("x",)}, "nodes of the network, got x"),
        ({"all": True, "most_congested": 3}, "--most-congested and --all"),
        ({"most_congested": 99}, "at most 48 links"),
    ],
)
def test_links_that_are_none(options, words):
    network, demand = ix.traffic.generate_city(4, zones=3)
    with pytest.raises(ValueError, match=words):
        network_tolls.run(network, demand, network_tolls.TollOptions(**options), _told)
