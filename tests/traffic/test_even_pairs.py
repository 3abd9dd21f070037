"""Pairs in an order that devices share out evenly."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.traffic import even_pairs

NETWORK, DEMAND = ix.traffic.sioux_falls()
SHORTEST = {k: ix.traffic.k_shortest_paths(NETWORK, DEMAND, k) for k in (1, 3)}
RAGGED = ix.traffic.generate_paths(NETWORK, DEMAND)


@pytest.mark.parametrize("shares", [1, 2, 5, 7, 528])
@pytest.mark.parametrize("paths", [RAGGED, SHORTEST[3]], ids=["ragged", "three each"])
def test_parts_have_as_many_pairs_and_paths(paths, shares):
    even = even_pairs(DEMAND, paths, shares)
    sizes = even.paths.sizes.reshape(shares, -1)
    assert (sizes.sum(axis=1) == sizes[0].sum()).all()
    assert (sizes >= 1).all()
    assert even.paths.number_of_paths <= 1.1 * paths.number_of_paths + 10 * shares
    for given, there in enumerate(even.place):
        np.testing.assert_array_equal(paths.path(given), even.paths.path(there))
    owner = np.repeat(even.pair, even.paths.sizes)
    np.testing.assert_array_equal(
        owner[even.place], np.repeat(np.arange(len(DEMAND.pairs)), paths.sizes)
    )


def test_pairs_that_are_even_stay_as_they_are():
    even = even_pairs(DEMAND, SHORTEST[3], 8)
    np.testing.assert_array_equal(even.demand.trips, DEMAND.trips)
    np.testing.assert_array_equal(even.place, np.arange(SHORTEST[3].number_of_paths))


def test_equal_blocks_stay_equal():
    assert set(even_pairs(DEMAND, SHORTEST[3], 5).paths.sizes) == {3}


@pytest.mark.parametrize("eta", [1.0, pytest.param(0.0, marks=pytest.mark.slow)])
def test_the_equilibrium_is_the_same(eta):
    even = even_pairs(DEMAND, RAGGED, 5)
    alone = ix.traffic.RoutingGame(NETWORK, DEMAND, RAGGED, eta=eta)
    evened = ix.traffic.RoutingGame(NETWORK, *even[:2], eta=eta)
    theta = jnp.zeros(NETWORK.number_of_links)
    flows = [game.link_flows(ix.solve_equilibrium(game, theta).x) for game in (alone, evened)]
    np.testing.assert_allclose(*flows, rtol=1e-6)


def test_what_cannot_be_dealt_out_is_refused():
    with pytest.raises(ValueError, match="at most the 528 pairs, got 529"):
        even_pairs(DEMAND, RAGGED, 529)
    other = dataclasses.replace(DEMAND, pairs=DEMAND.pairs[::-1])
    with pytest.raises(ValueError, match="paths of the demand's 528 pairs, in their order"):
        even_pairs(other, RAGGED, 2)
