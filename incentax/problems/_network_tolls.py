"""Second-best tolls on a network of any size."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from .. import traffic
from .._checks import require_positive
from ..design import DesignProblem
from ..sets import Box
from ._instance import Instance


def network_tolls(
    network: traffic.Network,
    demand: traffic.Demand,
    tolled_links: Sequence[int] | np.ndarray | None = None,
    *,
    paths: traffic.PathSet | None = None,
    eta: ArrayLike = 1.0,
    max_toll: ArrayLike = 10.0,
) -> Instance:
    """Tolls on some links of a network that minimise total travel time at equilibrium.

    **Arguments:**

    - `network`, `demand`: yours, or those of `traffic.read_tntp`, `traffic.generate_city`.
    - `tolled_links`: links that carry a toll, counted from 0; all when left out.
      `traffic.most_congested` and `traffic.cordon` choose some.
    - `paths`: those of `traffic.generate_paths` when left out (extra `traffic`).
    - `eta`: dispersion of route choice in the network's unit of time; 0 for none, at Wardrop
      equilibrium.
    - `max_toll`: positive upper bound of every toll, in the same unit.

    **Raises** `ValueError` for an argument outside its range.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.generate_city(4, zones=6)
        >>> instance = ix.problems.network_tolls(network, demand, [0, 5])
        >>> instance.theta0.shape
        (2,)
    """
    eta = require_positive("network_tolls", "eta", eta, strictly=False)
    max_toll = require_positive("network_tolls", "max_toll", max_toll)
    paths = traffic.generate_paths(network, demand) if paths is None else paths
    game = traffic.RoutingGame(network, demand, paths, eta=eta, tolled_links=tolled_links)
    links = game.tolled_links.size
    choice = "logit route choice" if jnp.all(eta > 0) else "cheapest routes"
    return Instance(
        problem=DesignProblem(game, game.total_travel_time, Box(jnp.zeros(links), max_toll)),
        theta0=jnp.zeros(links),
        x0=game.strategy_set.centre(),
        description=f"second-best tolls on {links} of {network.number_of_links} links, {choice}",
        network=network,
    )
