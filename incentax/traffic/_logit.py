"""Logit equilibrium by Newton's method in link flows."""

from functools import partial
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, Int

from .._compile import compiled
from ..equilibrium import natural_residual

if TYPE_CHECKING:
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
    game: "RoutingGame",
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
    - `max_steps`: bound on Newton steps; read `residual` to see what was reached.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.second_best_tolls(eta=1.0, paths=2)
        >>> found = ix.traffic.logit_equilibrium(instance.problem.game, instance.theta0)
        >>> bool(found.residual < 1e-3)
        True
    """
    start = game.strategy_set.centre() if x0 is None else x0
    x, steps = logit_shares(game, theta, start, tol, max_steps)
    return LogitEquilibrium(x, natural_residual(game, theta, x), steps)


# Relative residual of the linear system of a Newton step, and a bound on its iterations.
_INNER_TOL, _INNER_STEPS = 1e-3, 200


def logit_shares(
    game: "RoutingGame", theta: Array, start: Array, tol: Array | float, max_steps: int
) -> tuple[Float[Array, " paths"], Int[Array, ""]]:
    """Path proportions at the logit equilibrium, without checks; and the steps taken."""
    loading = _Loading(game, theta, start)

    def going_on(carry):
        count, flows, _, left, moved = carry
        return (jnp.max(jnp.abs(left)) > tol * jnp.max(flows)) & (count < max_steps) & moved

    def advance(carry):
        count, flows, x, left, _ = carry
        newton = loading.newton_step(flows, x, left)

        def too_long(trial):
            length, _, _, candidate = trial
            worse = jnp.linalg.norm(candidate) > (1 - 1e-4 * length) * jnp.linalg.norm(left)
            return (worse | jnp.any(jnp.isnan(candidate))) & (length > 1e-6)

        def reached_by(length):
            trial = jnp.maximum(flows + length * newton, 0)
            return length, trial, *loading.imbalance(trial)

        full = reached_by(jnp.ones((), flows.dtype))
        length, *reached = jax.lax.while_loop(too_long, lambda t: reached_by(t[0] / 2), full)
        moved = length > 1e-6
        chosen = [jnp.where(moved, new, old) for new, old in zip(reached, (flows, x, left))]
        return count + 1, *chosen, moved

    flows = game.link_flows(start)
    carry = (jnp.int32(0), flows, *loading.imbalance(flows), jnp.bool_(True))
    steps, _, x, _, _ = jax.lax.while_loop(going_on, advance, carry)
    return x, steps


class _Loading:
    """Flows `V(t(v) + toll)` that drivers make of the costs at flows `v`, and its derivatives."""

    def __init__(self, game: "RoutingGame", theta: Array, start: Array):
        self.game, self.theta, self.start = game, theta, start
        self.eta = game.eta.astype(start.dtype)
        self.trips = game.flows.trips.astype(start.dtype)

    def imbalance(self, flows: Array) -> tuple[Array, Array]:
        """The shares at these flows, and `V - v`."""
        costs = self.game.costs(self.theta, self.start, flows)
        x = self.game.simplex.normalise_log(-costs / self.eta)[0]
        return x, self.game.link_flows(x) - flows

    def response(self, x: Array, rise: Array) -> Array:
        """`M rise`: what the flows fall by, where link costs rise."""
        blocks, incidence = self.game.simplex.blocks, self.game.flows.incidence
        felt = incidence.along_paths(rise)
        mean = blocks.transpose(blocks(x * felt))
        return incidence.over_links(self.trips * x * (felt - mean)) / self.eta

    def newton_step(self, flows: Array, x: Array, left: Array) -> Array:
        """The `dv` of the docstring above."""

        def times(flows):
            return self.game.link_times(flows, self.theta)

        _, slope = jax.jvp(times, (flows,), (jnp.ones_like(flows),))
        # Infinite on an empty link whose power is below 1: no step there.
        root = jnp.sqrt(jnp.where(jnp.isfinite(slope), jnp.maximum(slope, 0), 0))

        def system(w: Array) -> Array:
            return w + root * self.response(x, root * w)

        w, _ = cg(system, root * left, tol=_INNER_TOL, maxiter=_INNER_STEPS)
        return left - self.response(x, root * w)
