"""Two regions of Sioux Falls, each with tolls of its own over the same drivers."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int

from .. import traffic
from .._checks import require_count, require_positive
from ..design import LeadersProblem
from ..sets import Box


class Regions(NamedTuple):
    """Leaders "east" and "west", where they start, and the links of each that carry tolls."""

    problem: LeadersProblem
    theta0: dict[str, Array]
    tolled_links: dict[str, np.ndarray]
    network: traffic.Network


class _OwnTime(eqx.Module):
    """Time that is spent on the links of a region."""

    game: traffic.RoutingGame
    links: Int[Array, " links"]

    def __call__(self, theta: dict[str, Array], x: Array) -> Array:
        del theta
        flows = self.game.link_flows(x)
        return jnp.sum((flows * self.game.link_times(flows))[self.links])


class _Joined(eqx.Module):
    """The tolls of both regions in the order of the tolled links."""

    places: dict[str, Int[Array, " links"]]
    count: int = eqx.field(static=True)

    def __call__(self, theta: dict[str, Array]) -> Array:
        tolls = jnp.zeros(self.count, theta["east"].dtype)
        for name, places in self.places.items():
            tolls = tolls.at[places].set(theta[name])
        return tolls


def two_regions(eta: ArrayLike = 1.0, paths: int = 5, max_toll: ArrayLike = 10.0) -> Regions:
    """Two regions of Sioux Falls: each tolls its own links to save time on these.

    The network is cut between its eastern and western nodes, half of them each; a link belongs to
    the region in which it begins. The 20 links of [`second_best_tolls`][] carry tolls, each set by
    its region, which minimises the time that drivers spend on its own links and would have them
    drive through the other one.

    **Arguments:** see [`second_best_tolls`][].

    **Raises** `ValueError` for an argument outside its range.

    !!! example

        >>> import incentax as ix
        >>> regions = ix.problems.two_regions(paths=2)
        >>> {name: len(links) for name, links in regions.tolled_links.items()}
        {'east': 9, 'west': 11}
    """
    eta = require_positive("two_regions", "eta", eta)
    max_toll = require_positive("two_regions", "max_toll", max_toll)
    require_count("two_regions", "paths", paths)
    network, demand = traffic.sioux_falls()
    tolled = np.asarray(traffic.TOLLED_LINKS)
    game = traffic.RoutingGame(
        network,
        demand,
        traffic.k_shortest_paths(network, demand, paths),
        eta=eta,
        tolled_links=tolled,
    )
    assert network.position is not None
    across = network.position[:, 0]
    east = across > np.median(across)
    inside = {"east": east[network.tail], "west": ~east[network.tail]}
    places = {name: np.flatnonzero(there[tolled]) for name, there in inside.items()}
    own = {
        name: _OwnTime(game, jnp.asarray(np.flatnonzero(there))) for name, there in inside.items()
    }
    sets = {name: Box(jnp.zeros(len(at)), max_toll) for name, at in places.items()}
    join = _Joined({name: jnp.asarray(at) for name, at in places.items()}, len(tolled))
    return Regions(
        problem=LeadersProblem(game, own, sets, join=join),
        theta0={name: jnp.zeros(len(at)) for name, at in places.items()},
        tolled_links={name: tolled[at] for name, at in places.items()},
        network=network,
    )
