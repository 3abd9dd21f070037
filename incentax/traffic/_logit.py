"""Logit equilibrium by Newton's method in link flows."""

from functools import partial

import equinox as eqx
from jaxtyping import Array, Float, Int

from .._checks import as_float, require, require_count, require_positive
from .._compile import compiled
from ..equilibrium import natural_residual
from ._logit_loading import logit_shares
from ._routing import RoutingGame


class LogitEquilibrium(eqx.Module):
    """Answer of [`logit_equilibrium`][].

    - `x`: path proportions.
    - `residual`: `max |x - project(x - F(theta, x))|`, recomputed at `x`.
    - `steps`: Newton steps taken.
    """

    x: Float[Array, " paths"]
    residual: Float[Array, ""]
    steps: Int[Array, ""]


def logit_equilibrium(
    game: RoutingGame,
    theta: Float[Array, " tolled"],
    x0: Float[Array, " paths"] | None = None,
    *,
    tol: float = 1e-12,
    max_steps: int = 50,
) -> LogitEquilibrium:
    """The stochastic user equilibrium of a routing game with `eta > 0`, in a few Newton steps.

    Solves `V(t(v) + toll) - v = 0` for the link flows `v`, where `V` loads the demand by the
    logit shares `x ∝ exp(-path cost / eta)`, with steps halved until the imbalance falls. With
    `M = -∂V/∂cost`, symmetric and positive semidefinite, and `T' = dt/dv`, the Newton step is
    `dv = r - M T'^1/2 w` for the imbalance `r`, where `(I + T'^1/2 M T'^1/2) w = T'^1/2 r` by
    conjugate gradients. C. F. Daganzo, Y. Sheffi, *Transportation Science* 11 (1977) 253-274, for
    the equilibrium.

    **Arguments:**

    - `game`, `theta`: a routing game with `eta > 0` and its tolls.
    - `x0`: where to start; the centre of the strategy set when left out.
    - `tol`: on the imbalance of flows, relative to the largest flow.
    - `max_steps`: bound on Newton steps; where they do not arrive, on those at each of eleven
      falling dispersions. Read `residual` to see what was reached.

    **Raises** `TypeError` for another game; `ValueError` for `eta = 0` and for elastic demand,
    which [`solve_equilibrium`][] solves, and for a `tol` or `max_steps` that is not positive.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.second_best_tolls(eta=1.0, paths=2)
        >>> found = ix.traffic.logit_equilibrium(instance.problem.game, instance.theta0)
        >>> bool(found.residual < 1e-3)
        True
    """
    rule = "`logit_equilibrium(game)` needs"
    if not isinstance(game, RoutingGame):
        raise TypeError(f"{rule} a `RoutingGame`, got {type(game).__name__}")
    if game.costs.staying is not None:
        raise ValueError(f"{rule} a demand that is not elastic: take `ix.solve_equilibrium`")
    eta = require(game.eta, game.eta > 0, f"{rule} eta > 0", game.eta)
    game = eqx.tree_at(lambda game: game.eta, game, eta)
    near = require_positive("logit_equilibrium", "tol", tol)
    max_steps = require_count("logit_equilibrium", "max_steps", max_steps)
    start = game.strategy_set.centre() if x0 is None else as_float(x0)
    return _solved(game, as_float(theta), start, near, max_steps=max_steps)


@partial(compiled, lasting=True)
def _solved(
    game: RoutingGame, theta: Array, start: Array, tol: Array, *, max_steps: int
) -> LogitEquilibrium:
    x, steps = logit_shares(game, theta, start, tol, max_steps)
    return LogitEquilibrium(x, natural_residual(game, theta, x), steps)
