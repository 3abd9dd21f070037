"""Second-best tolls on Sioux Falls."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import ArrayLike

from .. import schedules, traffic
from .._checks import is_traced, require_positive
from ..design import DesignAndPlay, DesignProblem
from ..noise import Gaussian
from ..sensitivity import Implicit
from ..sets import Box
from ._instance import Instance


def second_best_tolls(
    eta: ArrayLike = 0.5,
    paths: int = 10,
    max_toll: ArrayLike = 10.0,
    *,
    setting: Literal["A", "B", "C", "D"] = "A",
    noise: ArrayLike = 0.0,
) -> Instance:
    """Tolls on 20 links of Sioux Falls that minimise total travel time at logit equilibrium.

    Liu et al. (2022), section 7. The source states neither its path sets nor `eta` nor the bound
    on tolls nor the constants of its step sizes: they are arguments here, and ours.

    **Arguments:**

    - `eta`: positive dispersion of route choice, in 0.01 h.
    - `paths`: number of shortest paths of each of the 528 pairs.
    - `max_toll`: positive upper bound of every toll, in 0.01 h.
    - `setting`: step sizes of the scheme "design-and-play", see `schedules.setting`.
    - `noise`: standard deviation of the costs that drivers perceive, in 0.01 h. The adjoint system
      is solved to 1e-6 without noise and to 1e-4 with it.

    **Raises** `ValueError` for an argument outside its range.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.second_best_tolls(eta=1.0, paths=5)
        >>> instance.theta0.shape, instance.x0.shape
        ((20,), (2640,))
    """
    eta = require_positive("second_best_tolls", "eta", eta)
    max_toll = require_positive("second_best_tolls", "max_toll", max_toll)
    network, demand = traffic.sioux_falls()
    game = traffic.RoutingGame(
        network,
        demand,
        traffic.k_shortest_paths(network, demand, paths),
        eta=eta,
        tolled_links=traffic.TOLLED_LINKS,
    )
    tolls = Box(jnp.zeros(len(traffic.TOLLED_LINKS)), max_toll)
    problem = DesignProblem(game, game.total_travel_time, tolls)
    exact = not is_traced(noise) and bool(np.all(np.asarray(noise) == 0))
    sizes = schedules.setting(setting, alpha=1e-3, beta=0.1, nu=1e-3)
    scheme = DesignAndPlay(
        optax.sgd(sizes.design),
        play_step=sizes.play,
        mixing=sizes.mixing,
        feedback=None if exact else Gaussian(noise),
        # Noise moves the gradient by per cents: solving for it to the last digit buys nothing.
        sensitivity=Implicit(tol=1e-6 if exact else 1e-4),
    )
    return Instance(
        problem=problem,
        theta0=jnp.zeros(len(traffic.TOLLED_LINKS)),
        x0=game.strategy_set.centre(),
        schemes={"design-and-play": scheme},
        description="second-best tolls on 20 links of Sioux Falls, logit route choice",
        network=network,
    )
