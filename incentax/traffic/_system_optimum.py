"""The least total travel time that any choice of paths can give."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..equilibrium import solve_equilibrium
from ..games import Game
from ._routing import RoutingGame


class SystemOptimum(eqx.Module):
    """Path proportions of least total travel time over a game's paths.

    - `relative_gap`: no proportions over these paths do better by more than this share of the
      total (the Frank-Wolfe bound of the convex problem).
    """

    x: Float[Array, " paths"]
    total_travel_time: Float[Array, ""]
    relative_gap: Float[Array, ""]


class _MarginalCosts(eqx.Module):
    game: RoutingGame

    def __call__(self, theta: None, x: Array) -> Array:
        """Time plus the delay that one more driver causes to the others, along every path."""
        total = jax.grad(lambda x: self.game.total_travel_time(theta, x))(x)
        return total / self.game.flows.trips.astype(x.dtype)


def system_optimum(game: RoutingGame, *, max_steps: int = 3000) -> SystemOptimum:
    """Minimises `sum of v_e t_e(v_e)` over the path proportions of a routing game.

    It is the Wardrop equilibrium of the game with marginal costs `t_e + v_e t_e'` (W. S. Vickrey
    1969; S. C. Dafermos and F. T. Sparrow 1969), here by `max_steps` extragradient steps.

    !!! example

        >>> import incentax as ix
        >>> game = ix.problems.second_best_tolls(paths=2).problem.game
        >>> bool(ix.traffic.system_optimum(game).relative_gap < 1e-4)
        True
    """
    if not isinstance(game, RoutingGame) or game.costs.staying is not None:
        raise ValueError(
            "`system_optimum(game)` needs a `RoutingGame` without elastic demand: the optimum of "
            f"others is not one of time alone, got {type(game).__name__}"
        )
    simplex = game.simplex
    costs = _MarginalCosts(game)
    x = solve_equilibrium(Game(costs, simplex), None, max_steps=max_steps, throw=False).x
    value = costs(None, x) * game.flows.trips.astype(x.dtype)
    best = simplex.blocks.transpose(-simplex.blocks.max(-value))
    total = game.total_travel_time(None, x)
    return SystemOptimum(x, total, jnp.sum((value - best) * x) / total)
