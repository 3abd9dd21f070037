"""Logit equilibrium by Newton's method in link flows."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._compile import compiled
from ..equilibrium import natural_residual
from ..sets import Simplex
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


@partial(compiled, lasting=True)
def logit_equilibrium(
    game: RoutingGame,
    theta: Float[Array, " tolled"],
    x0: Float[Array, " paths"] | None = None,
    *,
    tol: float = 1e-10,
    max_steps: int = 50,
) -> LogitEquilibrium:
    """The stochastic user equilibrium of a routing game with `eta > 0`, in a few Newton steps.

    Solves `V(t(v) + toll) - v = 0` for the link flows `v`, where `V` loads the demand by the
    logit shares `x ∝ exp(-path cost / eta)`, with the exact Jacobian (links by links) and steps
    halved until the imbalance falls. C. F. Daganzo, Y. Sheffi, *Transportation Science* 11 (1977)
    253-274, for the equilibrium.

    **Arguments:**

    - `game`, `theta`: a routing game with `eta > 0` and its tolls.
    - `x0`: where to start; the centre of the strategy set when left out.
    - `tol`: on the imbalance of flows, relative to the largest flow.
    - `max_steps`: bound on Newton steps; read `residual` to see what was reached.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.second_best_tolls(eta=1.0, paths=2)
        >>> found = ix.traffic.logit_equilibrium(instance.problem.game, instance.theta0)
        >>> bool(found.residual < 1e-3)
        True
    """
    simplex = game.strategy_set
    assert isinstance(simplex, Simplex)
    start = simplex.centre() if x0 is None else x0
    eta = game.eta.astype(start.dtype)

    def shares(flows: Array) -> Array:
        costs = game.costs(theta, start, flows)
        return simplex.normalise_log(-costs / eta)[0]

    def imbalance(flows: Array) -> Array:
        return game.link_flows(shares(flows)) - flows

    def going_on(carry):
        count, flows, left, moved = carry
        return (jnp.max(jnp.abs(left)) > tol * jnp.max(flows)) & (count < max_steps) & moved

    def advance(carry):
        count, flows, left, _ = carry
        newton = jnp.linalg.solve(jax.jacfwd(imbalance)(flows), -left)

        def too_long(trial):
            length, candidate = trial
            worse = jnp.linalg.norm(candidate) > (1 - 1e-4 * length) * jnp.linalg.norm(left)
            return (worse | jnp.any(jnp.isnan(candidate))) & (length > 1e-6)

        def shorten(trial):
            length = trial[0] / 2
            return length, imbalance(jnp.maximum(flows + length * newton, 0))

        full = (jnp.ones((), flows.dtype), imbalance(jnp.maximum(flows + newton, 0)))
        length, reached = jax.lax.while_loop(too_long, shorten, full)
        moved = length > 1e-6
        following = jnp.maximum(flows + length * newton, 0)
        return (
            count + 1,
            jnp.where(moved, following, flows),
            jnp.where(moved, reached, left),
            moved,
        )

    flows = game.link_flows(start)
    carry = (jnp.int32(0), flows, imbalance(flows), jnp.bool_(True))
    steps, flows, _, _ = jax.lax.while_loop(going_on, advance, carry)
    x = shares(flows)
    return LogitEquilibrium(x, natural_residual(game, theta, x), steps)
