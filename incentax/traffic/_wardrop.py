"""Wardrop shares of paths, where nobody's path costs more than another: projected Newton steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, Float, Int

from ._link_newton import slope_of
from ._logit_loading import rough_logit_shares

# A start that leaves a larger relative gap is led there by logit shares of falling dispersion, in
# parts of the mean cost of a trip.
_FAR, _DISPERSIONS = 1e-3, (1e-2, 1e-3, 1e-4)
_INNER_STEPS = 200


def wardrop_shares(
    game: Any, theta: Array, start: Array, tol: Array | float, max_steps: int
) -> tuple[Float[Array, " paths"], Int[Array, ""]]:
    """Path proportions at user equilibrium, without checks; and the steps taken.

    D. P. Bertsekas, E. M. Gafni, *Mathematical Programming Study* 17 (1982) 139-159: of every pair
    the path with the largest flow takes what the others leave; paths without flow that cost more
    are held there, and the rest moves by a Newton step, its system solved by conjugate gradients.
    `tol`: on the excess cost of a path or its share, whichever is less.
    """
    steps = _Steps(game, theta, start)
    state = steps.at(start)
    state = jax.lax.cond(state.gap > _FAR, steps.led, lambda state: state, state)

    def going_on(state: _State) -> Array:
        return (state.excess > tol) & (state.steps < max_steps) & state.moved

    state = jax.lax.while_loop(going_on, steps.step, state)
    return state.x, state.steps


class _State(NamedTuple):
    """`rise` of path costs above their pair's least, its largest or the share, whichever is less,
    as `excess`, the relative `gap`, and the mean `cost` of a trip."""

    x: Float[Array, " paths"]
    rise: Float[Array, " paths"]
    excess: Float[Array, ""]
    gap: Float[Array, ""]
    cost: Float[Array, ""]
    steps: Int[Array, ""]
    moved: Bool[Array, ""]


class _Steps:
    """Steps of one game at one incentive."""

    def __init__(self, game: Any, theta: Array, start: Array):
        self.game, self.theta, self.start = game, theta, start
        trips = game.flows.trips.astype(start.dtype)
        # Pairs without trips choose as those with few would.
        self.trips = jnp.maximum(trips, 1e-12 * jnp.max(trips))
        self.blocks, self.eps = game.simplex.blocks, float(jnp.finfo(start.dtype).eps)

    def at(self, x: Array) -> _State:
        costs = self.game.costs(self.theta, x, self.game.link_flows(x))
        rise = costs + self.blocks.transpose(self.blocks.max(-costs))
        weight = self.trips * x
        spent = jnp.sum(weight * jnp.abs(costs))
        gap = jnp.sum(weight * rise) / jnp.where(spent > 0, spent, 1)
        excess = jnp.max(jnp.minimum(rise, x))
        mean = spent / jnp.sum(weight)
        return _State(x, rise, excess, gap, mean, jnp.int32(0), jnp.isfinite(excess))

    def led(self, state: _State) -> _State:
        """By logit shares, from those at the start's dispersion on."""

        def to_less(x: Array, part: Array) -> tuple[Array, Array]:
            eta = part * state.cost
            reached, steps = rough_logit_shares(self.game, self.theta, x, 1e-3, 30, eta=eta)
            return jnp.where(jnp.all(jnp.isfinite(reached)), reached, x), steps

        x, steps = jax.lax.scan(to_less, state.x, jnp.asarray(_DISPERSIONS, state.x.dtype))
        led = self.at(x)._replace(steps=jnp.sum(steps, dtype=jnp.int32))
        return jax.tree.map(lambda new, old: jnp.where(led.gap < state.gap, new, old), led, state)

    def step(self, state: _State) -> _State:
        """One Newton step, shortened until the potential falls."""
        x, blocks = state.x, self.blocks
        basic = self._basic(x)
        rise = state.rise - blocks.transpose(blocks(jnp.where(basic, state.rise, 0)))
        flows = self.game.link_flows(x)
        slope = slope_of(lambda flows: self.game.link_times(flows, self.theta), flows)
        diagonal = self.trips * self.game.flows.incidence.along_paths(slope)
        diagonal = jnp.maximum(diagonal, 1e-8 * jnp.max(diagonal))
        emptied = (x * diagonal <= rise) & (x <= 1e-6)
        held = ((x <= 1e-10) | emptied) & (rise > 0) & ~basic
        # What the held ones still have goes to the largest.
        given = jnp.where(held, -self.trips * x, 0)
        given = jnp.where(basic, -blocks.transpose(blocks(given)), given)
        toward = self._newton(rise, slope, diagonal, (~held, given), state.gap)

        def reached_by(length: Array) -> tuple[Array, _State]:
            others = jnp.where(basic, 0, jnp.maximum(x + length * toward, 0))
            sums = blocks(others)
            others = others / blocks.transpose(jnp.maximum(sums, 1))
            rest = blocks.transpose(jnp.maximum(1 - jnp.minimum(sums, 1), 0))
            return length, self.at(jnp.where(basic, rest, others))

        def too_long(trial: tuple[Array, _State]) -> Array:
            length, there = trial
            weight = self.trips * (there.x - x)
            # Where costs rise less at the end than they fell at the start the potential, whose
            # slope is convex along the way, has fallen.
            slopes = jnp.sum(weight * rise), jnp.sum(weight * there.rise)
            fallen = slopes[1] <= 0.5 * jnp.abs(slopes[0])
            return ~(fallen & there.moved) & (length > 1e-6)

        length, there = jax.lax.while_loop(
            too_long, lambda trial: reached_by(trial[0] / 2), reached_by(jnp.ones((), x.dtype))
        )
        moved = (length > 1e-6) & jnp.any(there.x != x)
        there = jax.tree.map(lambda new, old: jnp.where(moved, new, old), there, state)
        return there._replace(steps=state.steps + 1, moved=moved)

    def _basic(self, x: Array) -> Bool[Array, " paths"]:
        """The first path of every pair whose share is largest."""
        blocks, places = self.blocks, jnp.arange(x.size)
        largest = x >= blocks.transpose(blocks.max(x))
        first = -blocks.max(jnp.where(largest, -places, -x.size))
        return places == blocks.transpose(first)

    def _newton(
        self,
        rise: Array,
        slope: Array,
        diagonal: Array,
        moved: tuple[Array, Array],
        gap: Array,
    ) -> Float[Array, " paths"]:
        """Shares that change so that free paths of a pair come to the same cost, to first order.

        `moved`: which paths are free, and flows that change whatever those do. In path flows the
        system is symmetric.
        """
        free, given = moved
        blocks, incidence = self.blocks, self.game.flows.incidence
        inverse = jnp.where(free, self.trips / diagonal, 0)
        number = blocks(free.astype(rise.dtype))
        whole = blocks(inverse)

        def project(values: Array) -> Array:
            kept = jnp.where(free, values, 0)
            return jnp.where(free, kept - blocks.transpose(blocks(kept) / number), 0)

        def felt(flows: Array) -> Array:
            return project(incidence.along_paths(slope * incidence.over_links(flows)))

        def precondition(left: Array) -> Array:
            scaled = inverse * left
            return scaled - inverse * blocks.transpose(blocks(scaled) / whole)

        tol = jnp.clip(jnp.sqrt(gap), 1e-3, 0.1)
        right_side = -project(rise) - felt(given)
        solve: Any = cg  # its types take a number for an array
        flows, _ = solve(felt, right_side, tol=tol, maxiter=_INNER_STEPS, M=precondition)
        return (jnp.where(jnp.all(jnp.isfinite(flows)), flows, 0) + given) / self.trips
