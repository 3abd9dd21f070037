"""Interior points over linear constraints: Mehrotra's steps, and the central path.

S. Mehrotra, *SIAM Journal on Optimization* 2 (1992); Facchinei and Pang, *Finite-Dimensional
Variational Inequalities and Complementarity Problems* (2003), chapter 11.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._constraints import LinearConstraints
from ._jacobians import AbstractJacobian, KKTRows

Linearise = Callable[[Array], tuple[Array, AbstractJacobian]]
# Lengths of step that are tried, in shares of the longest.
LENGTHS = (1.0, 0.5, 0.2, 0.05, 0.01)


class KKTPoint(eqx.Module):
    """Strategy, multipliers of the equalities and of the inequalities."""

    x: Float[Array, " d"]
    equality: Float[Array, " rows"]
    inequality: Float[Array, " more"]


class InteriorPoint(eqx.Module):
    """A point with all complementary pairs positive."""

    point: KKTPoint
    slack: Float[Array, " more"]
    above: Float[Array, " d"]
    below: Float[Array, " d"]


def finite_max(value: Array) -> Array:
    """Largest size of the entries that are finite."""
    return jnp.max(jnp.where(jnp.isfinite(value), jnp.abs(value), 0), initial=0.0)


class Bounds(eqx.Module):
    """Bounds with infinite ones made harmless."""

    low: Array
    high: Array
    has_low: Array
    has_high: Array
    fixed: Array

    def __init__(self, constraints: LinearConstraints):
        self.has_low, self.has_high = (
            jnp.isfinite(constraints.lower),
            jnp.isfinite(constraints.upper),
        )
        self.low = jnp.where(self.has_low, constraints.lower, 0)
        self.high = jnp.where(self.has_high, constraints.upper, 0)
        both = self.has_low & self.has_high
        self.fixed = both & (self.high <= self.low)

    def active(self, x: Array, pull: Array) -> tuple[Array, Array]:
        """Where the step `x - pull` reaches a bound."""
        at_lower = self.has_low & ((x - pull <= self.low) | self.fixed)
        return at_lower, self.has_high & (x - pull >= self.high) & ~at_lower


def reduced(constraints: LinearConstraints, point: KKTPoint, value: Array) -> Array:
    """`F + C^T y + A^T z`."""
    return (
        value
        + constraints.equality.transpose(point.equality)
        + point.inequality @ constraints.inequality
    )


def complementarity(constraints: LinearConstraints, box: Bounds, now: InteriorPoint) -> Array:
    """Mean product of the complementary pairs."""
    products, pairs = _products(constraints, box, now)
    number = jnp.sum(pairs).astype(products.dtype)
    return jnp.sum(products * pairs.astype(products.dtype)) / jnp.maximum(number, 1)


def _products(
    constraints: LinearConstraints, box: Bounds, now: InteriorPoint
) -> tuple[Array, Array]:
    """Products of the complementary pairs, and where there is a pair."""
    x, z = now.point.x, now.point.inequality
    low, high = box.has_low & ~box.fixed, box.has_high & ~box.fixed
    products = [(x - box.low) * now.above, (box.high - x) * now.below, now.slack * z]
    return jnp.concatenate(products), jnp.concatenate([low, high, jnp.ones(z.shape, bool)])


def _distance(
    constraints: LinearConstraints, box: Bounds, now: InteriorPoint, target: Array | float
) -> Array:
    products, pairs = _products(constraints, box, now)
    return jnp.sum(jnp.where(pairs, jnp.abs(products - target), 0))


def _mismatch(
    constraints: LinearConstraints, box: Bounds, at: InteriorPoint, value: Array
) -> tuple[Array, Array, Array]:
    """What the three equations of an interior point leave: dual, equalities, slacks."""
    left = reduced(constraints, at.point, value) - at.above + at.below
    return (
        jnp.where(box.fixed, 0, left),
        constraints.equality(at.point.x) - constraints.equality_level,
        constraints.inequality @ at.point.x + at.slack - constraints.inequality_level,
    )


def interior_start(
    operator: Callable[[Array], Array], constraints: LinearConstraints, x: Array
) -> InteriorPoint:
    """A point near `x`, off all bounds, with multipliers of the operator's size."""
    box = Bounds(constraints)
    both = box.has_low & box.has_high
    width = jnp.where(both, box.high - box.low, jnp.inf)
    margin = jnp.minimum(0.1 * jnp.maximum(1, jnp.abs(x)), 0.25 * width)
    x = jnp.where(box.has_low, jnp.maximum(x, box.low + margin), x)
    x = jnp.where(box.has_high, jnp.minimum(x, box.high - margin), x)
    x = jnp.where(box.fixed, box.low, x)
    value = operator(x)
    size = jnp.maximum(1, jnp.mean(jnp.abs(jnp.where(jnp.isfinite(value), value, 0))))
    room = constraints.inequality_level - constraints.inequality @ x
    slack = jnp.maximum(room, 0.1 * jnp.maximum(1, jnp.abs(room)))
    dtype = x.dtype
    return InteriorPoint(
        KKTPoint(
            x,
            jnp.zeros_like(constraints.equality_level, dtype),
            size * jnp.ones_like(slack),
        ),
        slack,
        jnp.where(box.has_low & ~box.fixed, size, 0).astype(dtype),
        jnp.where(box.has_high & ~box.fixed, size, 0).astype(dtype),
    )


@dataclass(frozen=True)
class _Linearised:
    """The equations of an interior point, linearised where it stands.

    `above`, `below`: distances from the bounds, 1 where there is none; `low`, `high`: where there
    is one; `solve`: of the reduced system, whose rows are `scale` times those of the equations.
    """

    constraints: LinearConstraints
    box: Bounds
    now: InteriorPoint
    low: Array
    high: Array
    above: Array
    below: Array
    mismatch: tuple[Array, Array, Array]
    scale: Array
    solve: Callable

    def direction(self, target_low: Array, target_high: Array, target_slack: Array) -> "_Step":
        """The step after which the products have these values, to first order."""
        now, (dual, missed, excess) = self.now, self.mismatch
        z, s = now.point.inequality, now.slack
        g_x = -dual + jnp.where(self.low, target_low / self.above - now.above, 0)
        g_x = g_x - jnp.where(self.high, target_high / self.below - now.below, 0)
        g_x = jnp.where(self.box.fixed, self.box.low - now.point.x, self.scale * g_x)
        g_z = -(target_slack - s * z + z * excess) / (s + z)
        dx, dy, dz = self.solve(g_x, -missed, g_z)
        ds = -excess - self.constraints.inequality @ dx
        d_above = (target_low - now.above * dx) / self.above - now.above
        d_below = (target_high + now.below * dx) / self.below - now.below
        return _Step(
            dx, dy, dz, ds, jnp.where(self.low, d_above, 0), jnp.where(self.high, d_below, 0)
        )

    def longest(self, step: "_Step") -> Array:
        """The share of a step, 1 at most, after which the first factor is zero."""
        now = self.now
        factors = [
            jnp.where(self.low, self.above, jnp.inf),
            jnp.where(self.high, self.below, jnp.inf),
            now.slack,
            now.point.inequality,
            jnp.where(self.low, now.above, jnp.inf),
            jnp.where(self.high, now.below, jnp.inf),
        ]
        value = jnp.concatenate(factors)
        change = jnp.concatenate([step.x, -step.x, step.slack, step.z, step.above, step.below])
        reach = jnp.where(change < 0, -value / jnp.where(change < 0, change, -1), jnp.inf)
        return jnp.minimum(1.0, jnp.min(reach, initial=jnp.inf))

    def moved(self, step: "_Step", length: Array) -> InteriorPoint:
        """The point after a share of a step."""
        now, point = self.now, self.now.point
        return InteriorPoint(
            KKTPoint(
                point.x + length * step.x,
                point.equality + length * step.y,
                point.inequality + length * step.z,
            ),
            now.slack + length * step.slack,
            now.above + length * step.above,
            now.below + length * step.below,
        )


class _Step(NamedTuple):
    """A motion of strategy, multipliers, slacks, and what the bounds bear."""

    x: Array
    y: Array
    z: Array
    slack: Array
    above: Array
    below: Array


def _linearised(
    jacobian: AbstractJacobian,
    value: Array,
    constraints: LinearConstraints,
    box: Bounds,
    now: InteriorPoint,
) -> _Linearised:
    x, z, s = now.point.x, now.point.inequality, now.slack
    low, high = box.has_low & ~box.fixed, box.has_high & ~box.fixed
    above, below = jnp.where(low, x - box.low, 1), jnp.where(high, box.high - x, 1)
    own = now.above / above + now.below / below
    scale = jnp.where(box.fixed, 0, 1 / (1 + own))
    rows = KKTRows(scale, jnp.where(box.fixed, 1, own * scale), z / (s + z), s / (s + z))
    return _Linearised(
        constraints=constraints,
        box=box,
        now=now,
        low=low,
        high=high,
        above=above,
        below=below,
        mismatch=_mismatch(constraints, box, now, value),
        scale=scale,
        solve=jacobian.factor(rows, constraints),
    )


def interior_step(
    linearise: Linearise,
    operator: Callable[[Array], Array],
    constraints: LinearConstraints,
    box: Bounds,
    now: InteriorPoint,
    *,
    target: Array | None = None,
) -> InteriorPoint:
    """Mehrotra's predictor and corrector, with a length that keeps the residuals in check.

    With a `target` towards the point of the central path whose products all have that value.
    """
    value, jacobian = linearise(now.point.x)
    at = _linearised(jacobian, value, constraints, box, now)
    if target is None:
        aim, step = 0.0, _predicted_and_corrected(at)
    else:
        aim, step = target, at.direction(target, target, target)
    length = jnp.where(at.longest(step) >= 1, 1.0, 0.995 * at.longest(step))

    def merits_of(at: InteriorPoint, value: Array) -> tuple[Array, Array]:
        missed = jnp.linalg.norm(jnp.concatenate(_mismatch(constraints, box, at, value)))
        return missed, _distance(constraints, box, at, aim)

    def along(share: Array) -> tuple[InteriorPoint, tuple[Array, Array]]:
        reached = at.moved(step, share * length)
        return reached, merits_of(reached, operator(reached.point.x))

    shares = jnp.asarray(LENGTHS, value.dtype)
    reached, (missed, away) = jax.vmap(along)(shares)
    missed_before, away_before = merits_of(now, value)
    fine = missed + away <= missed_before + away_before
    # From a start that misses the equations by far, products rise first: where that leaves only
    # tiny steps, one counts that takes its share of what is missed away.
    closer = missed <= (1 - 0.5 * shares * length) * missed_before
    fine = jnp.where(jnp.any(fine[:-1]), fine, fine | (closer & (away <= 100 * away_before)))
    # The longest length that does not make things worse, else the one that does least harm.
    merits = jnp.where(jnp.isfinite(missed + away), missed + away, jnp.inf)
    chosen = jnp.where(jnp.any(fine), jnp.argmax(fine), jnp.argmin(merits))
    return jax.tree.map(lambda leaf: leaf[chosen], reached)


def _predicted_and_corrected(at: _Linearised) -> _Step:
    """Mehrotra's step: as much towards the middle as the step without centring asks for."""
    mean = complementarity(at.constraints, at.box, at.now)
    zero, none = jnp.zeros_like(at.above), jnp.zeros_like(at.now.slack)
    predictor = at.direction(zero, zero, none)
    reached = at.moved(predictor, at.longest(predictor))
    after = complementarity(at.constraints, at.box, reached)
    centring = jnp.clip((after / jnp.where(mean > 0, mean, 1)) ** 3, 1e-6, 1.0) * mean
    return at.direction(
        centring - predictor.x * predictor.above,
        centring + predictor.x * predictor.below,
        centring - predictor.slack * predictor.z,
    )


def solve_central(
    linearise: Linearise,
    operator: Callable[[Array], Array],
    constraints: LinearConstraints,
    start: InteriorPoint,
    target: Array,
    *,
    max_steps: int = 60,
) -> tuple[InteriorPoint, Bool[Array, ""]]:
    """The point of the central path whose complementary products all are `target`.

    And whether it was reached. It is a smooth function of everything that the problem depends on.
    """
    box = Bounds(constraints)
    # Bounds that have moved leave the start inside.
    x = start.point.x
    width = jnp.where(box.has_low & box.has_high, box.high - box.low, jnp.inf)
    margin = jnp.minimum(jnp.sqrt(target), 0.25 * width)
    x = jnp.where(box.has_low & (x <= box.low), box.low + margin, x)
    x = jnp.where(box.has_high & (x >= box.high), box.high - margin, x)
    start = eqx.tree_at(lambda s: s.point.x, start, jnp.where(box.fixed, box.low, x))

    def error(at: InteriorPoint) -> Array:
        value = operator(at.point.x)
        size = 1 + finite_max(value)
        left = jnp.max(jnp.abs(jnp.concatenate(_mismatch(constraints, box, at, value)))) / size
        products, pairs = _products(constraints, box, at)
        away = jnp.max(jnp.where(pairs, jnp.abs(products - target), 0), initial=0.0) / target
        # Rounding leaves more than that of the equations in single precision.
        sharp = 1e2 if x.dtype == jnp.float64 else 1e-3
        found = jnp.maximum(1e-4 * away, sharp * left)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    def going_on(carry):
        _, left, count = carry
        return (left > 1e-8) & (count < max_steps)

    def step(carry):
        now, _, count = carry
        now = interior_step(linearise, operator, constraints, box, now, target=target)
        return now, error(now), count + 1

    found, left, _ = jax.lax.while_loop(going_on, step, (start, error(start), jnp.int32(0)))
    return found, left <= 1e-6
