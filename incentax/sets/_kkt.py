"""Equilibria over linear constraints: interior point, then an active set finish.

On `{lower <= x <= upper, C x = d, A x <= b}` the variational inequality of `F` has the KKT system

    F(x) + C^T y + A^T z - w = 0 ,   0 <= z  ⊥  b - A x >= 0 ,   C x = d ,

where `w` is positive only on a lower and negative only on an upper bound. Facchinei and Pang,
*Finite-Dimensional Variational Inequalities and Complementarity Problems* (2003), chapters 9, 11.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._tree import tree_where
from ._constraints import LinearConstraints
from ._jacobians import AbstractJacobian, KKTRows

# Lengths of step that are tried, in shares of the longest.
_LENGTHS = (1.0, 0.5, 0.2, 0.05, 0.01)


class KKTPoint(eqx.Module):
    """Strategy, multipliers of the equalities and of the inequalities."""

    x: Float[Array, " d"]
    equality: Float[Array, " rows"]
    inequality: Float[Array, " more"]


class _Interior(eqx.Module):
    """A point with all complementary pairs positive."""

    point: KKTPoint
    slack: Float[Array, " more"]
    above: Float[Array, " d"]
    below: Float[Array, " d"]


class _Run(eqx.Module):
    best: KKTPoint
    residual: Float[Array, ""]
    interior: _Interior
    finishing: Bool[Array, ""]
    level: Float[Array, ""]
    count: Int[Array, ""]
    stuck: Bool[Array, ""]


def solve_kkt(
    linearise: Callable[[Array], tuple[Array, AbstractJacobian]],
    operator: Callable[[Array], Array],
    constraints: LinearConstraints,
    start: Array,
    *,
    tol: Array | float,
    max_steps: int = 150,
    skip: Bool[Array, ""] | bool = False,
) -> tuple[KKTPoint, Float[Array, ""], Int[Array, ""]]:
    """A KKT point, its residual and the number of linear systems that it took.

    `linearise(x)` returns the operator and its Jacobian. Newton's method on the active set comes
    first, so that a good start is kept; where it stalls an interior point method takes over, and
    hands back when its complementarity is small.
    """
    box = _Bounds(constraints)

    def begin(x: Array) -> KKTPoint:
        x = jnp.clip(x, constraints.lower, constraints.upper)
        return KKTPoint(
            x,
            jnp.zeros_like(constraints.equality_level, x.dtype),
            jnp.zeros_like(constraints.inequality_level, x.dtype),
        )

    def residual_of(point: KKTPoint, value: Array) -> Array:
        return _residual(constraints, point, value)

    def newton(run: _Run) -> _Run:
        point = run.best
        value, jacobian = linearise(point.x)
        pull = _reduced(constraints, point, value)
        x, z = point.x, point.inequality
        at_lower, at_upper = box.active(x, pull)
        free = ~(at_lower | at_upper)
        room = constraints.inequality_level - constraints.inequality @ x
        taut = z > room
        dtype = x.dtype
        rows = KKTRows(
            free.astype(dtype), (~free).astype(dtype), taut.astype(dtype), (~taut).astype(dtype)
        )
        target = jnp.where(at_lower, box.low, jnp.where(at_upper, box.high, 0))
        solve = jacobian.factor(rows, constraints)
        dx, dy, dz = solve(
            jnp.where(free, -pull, target - x),
            constraints.equality_level - constraints.equality(x),
            jnp.where(taut, room, z),
        )
        reached, residual = best_length(point, (dx, dy, dz), 1.0)
        better = residual < 0.9 * run.residual
        first = run.count == 0
        # The multipliers of a first guess are zero: the first step finds them.
        better = better | (first & (residual < jnp.inf) & (constraints.inequality_level.size > 0))
        kept = tree_where(better, reached, point)
        return _Run(
            best=kept,
            residual=jnp.where(better, residual, run.residual),
            interior=run.interior,
            finishing=better,
            level=run.level,
            count=run.count + 1,
            stuck=~better & (run.residual <= tol),
        )

    def best_length(point: KKTPoint, step, longest) -> tuple[KKTPoint, Array]:
        def along(length):
            moved = KKTPoint(
                jnp.clip(point.x + length * step[0], constraints.lower, constraints.upper),
                point.equality + length * step[1],
                jnp.maximum(point.inequality + length * step[2], 0),
            )
            residual = residual_of(moved, operator(moved.x))
            return moved, jnp.where(jnp.isfinite(residual), residual, jnp.inf)

        moved, residuals = jax.vmap(along)(longest * jnp.asarray(_LENGTHS, point.x.dtype))
        chosen = jnp.argmin(residuals)
        return jax.tree.map(lambda leaf: leaf[chosen], moved), residuals[chosen]

    def interior(run: _Run) -> _Run:
        now = _interior_step(linearise, operator, constraints, box, run.interior)
        mean = _complementarity(constraints, box, now)
        residual = residual_of(now.point, operator(now.point.x))
        ready = (mean <= run.level) | (residual <= 1e-2 * jnp.sqrt(run.level))
        better = ready & (residual < jnp.inf)
        broken = ~jnp.isfinite(mean) | (mean < 1e-24)
        return _Run(
            best=tree_where(better, now.point, run.best),
            residual=jnp.where(better, residual, run.residual),
            interior=now,
            finishing=better,
            level=jnp.where(ready, jnp.minimum(run.level, mean) * 1e-2, run.level),
            count=run.count + 1,
            stuck=broken,
        )

    def step(run: _Run) -> _Run:
        return jax.lax.cond(run.finishing, newton, interior, run)

    def going_on(run: _Run) -> Array:
        return (run.residual > aim) & (run.count < max_steps) & ~run.stuck

    first = begin(start)
    value = operator(first.x)
    residual = residual_of(first, value)
    size = jnp.maximum(1, jnp.maximum(jnp.max(jnp.abs(first.x)), _finite_max(value)))
    aim = jnp.maximum(1e-4 * tol, 20 * jnp.finfo(start.dtype).eps * size)
    run = _Run(
        best=first,
        residual=jnp.where(jnp.isfinite(residual), residual, jnp.inf),
        interior=_interior_start(operator, constraints, box, first.x),
        finishing=jnp.isfinite(residual),
        level=jnp.asarray(1e-6, start.dtype) * jnp.minimum(size, 1e3),
        count=jnp.int32(0),
        stuck=jnp.asarray(skip),
    )
    run = jax.lax.while_loop(going_on, step, run)
    return run.best, run.residual, run.count


def _finite_max(value: Array) -> Array:
    return jnp.max(jnp.where(jnp.isfinite(value), jnp.abs(value), 0), initial=0.0)


class _Bounds(eqx.Module):
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


def _reduced(constraints: LinearConstraints, point: KKTPoint, value: Array) -> Array:
    """`F + C^T y + A^T z`."""
    return (
        value
        + constraints.equality.transpose(point.equality)
        + point.inequality @ constraints.inequality
    )


def _residual(constraints: LinearConstraints, point: KKTPoint, value: Array) -> Array:
    pull = _reduced(constraints, point, value)
    moved = point.x - jnp.clip(point.x - pull, constraints.lower, constraints.upper)
    missed = constraints.equality(point.x) - constraints.equality_level
    room = constraints.inequality_level - constraints.inequality @ point.x
    slack = jnp.minimum(point.inequality, room)
    return jnp.max(jnp.abs(jnp.concatenate([moved, missed, slack])), initial=0.0)


def _complementarity(constraints: LinearConstraints, box: _Bounds, now: _Interior) -> Array:
    """Mean product of the complementary pairs."""
    products, pairs = _products(constraints, box, now)
    pairs = pairs.astype(products.dtype)
    return jnp.where(pairs > 0, products / jnp.maximum(pairs, 1), 0)


def _products(constraints, box, now):
    x, z = now.point.x, now.point.inequality
    low, high = box.has_low & ~box.fixed, box.has_high & ~box.fixed
    total = (
        jnp.sum(jnp.where(low, (x - box.low) * now.above, 0))
        + jnp.sum(jnp.where(high, (box.high - x) * now.below, 0))
        + jnp.sum(now.slack * z)
    )
    return total, jnp.sum(low) + jnp.sum(high) + z.size


def _interior_start(operator, constraints, box, x) -> _Interior:
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
    return _Interior(
        KKTPoint(
            x,
            jnp.zeros_like(constraints.equality_level, dtype),
            size * jnp.ones_like(slack),
        ),
        slack,
        jnp.where(box.has_low & ~box.fixed, size, 0).astype(dtype),
        jnp.where(box.has_high & ~box.fixed, size, 0).astype(dtype),
    )


def _interior_step(linearise, operator, constraints, box, now: _Interior) -> _Interior:
    """Mehrotra's predictor and corrector, with a length that keeps the residuals in check."""
    point, x, z, s = now.point, now.point.x, now.point.inequality, now.slack
    value, jacobian = linearise(x)
    low, high = box.has_low & ~box.fixed, box.has_high & ~box.fixed
    above = jnp.where(low, x - box.low, 1)
    below = jnp.where(high, box.high - x, 1)
    dual = _reduced(constraints, point, value) - now.above + now.below
    primal = constraints.equality_level - constraints.equality(x)
    excess = constraints.inequality @ x + s - constraints.inequality_level
    own = now.above / above + now.below / below
    scale = jnp.where(box.fixed, 0, 1 / (1 + own))
    rows = KKTRows(scale, jnp.where(box.fixed, 1, own * scale), z / (s + z), s / (s + z))
    solve = jacobian.factor(rows, constraints)

    def direction(target_low, target_high, target_slack):
        g_x = -dual + jnp.where(low, target_low / above - now.above, 0)
        g_x = g_x - jnp.where(high, target_high / below - now.below, 0)
        g_x = jnp.where(box.fixed, box.low - x, scale * g_x)
        g_z = -(target_slack - s * z + z * excess) / (s + z)
        dx, dy, dz = solve(g_x, primal, g_z)
        ds = -excess - constraints.inequality @ dx
        d_above = jnp.where(low, (target_low - now.above * dx) / above - now.above, 0)
        d_below = jnp.where(high, (target_high + now.below * dx) / below - now.below, 0)
        return dx, dy, dz, ds, d_above, d_below

    def longest(step):
        dx, _, dz, ds, d_above, d_below = step

        def reach(value, change, mask):
            return jnp.min(
                jnp.where(mask & (change < 0), -value / jnp.where(change < 0, change, -1), jnp.inf),
                initial=jnp.inf,
            )

        everywhere = jnp.ones_like(s, bool)
        return jnp.minimum(
            1.0,
            jnp.min(
                jnp.asarray(
                    [
                        reach(above, dx, low),
                        reach(below, -dx, high),
                        reach(s, ds, everywhere),
                        reach(z, dz, everywhere),
                        reach(now.above, d_above, low),
                        reach(now.below, d_below, high),
                    ]
                )
            ),
        )

    def moved(step, length):
        dx, dy, dz, ds, d_above, d_below = step
        return _Interior(
            KKTPoint(x + length * dx, point.equality + length * dy, z + length * dz),
            s + length * ds,
            now.above + length * d_above,
            now.below + length * d_below,
        )

    mean = _complementarity(constraints, box, now)
    zero = jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros_like(s)
    predictor = direction(*zero)
    after = _complementarity(constraints, box, moved(predictor, longest(predictor)))
    centring = jnp.clip((after / jnp.where(mean > 0, mean, 1)) ** 3, 1e-6, 1.0) * mean
    dx, _, dz, ds, d_above, d_below = predictor
    step = direction(centring - dx * d_above, centring + dx * d_below, centring - ds * dz)
    length = jnp.where(longest(step) >= 1, 1.0, 0.995 * longest(step))

    def merit(at: _Interior, value):
        left = _reduced(constraints, at.point, value) - at.above + at.below
        left = jnp.where(box.fixed, 0, left)
        missed = constraints.equality(at.point.x) - constraints.equality_level
        over = constraints.inequality @ at.point.x + at.slack - constraints.inequality_level
        size = jnp.sqrt(jnp.sum(left**2) + jnp.sum(missed**2) + jnp.sum(over**2))
        products, _ = _products(constraints, box, at)
        return size + products

    def along(share):
        reached = moved(step, share * length)
        return reached, merit(reached, operator(reached.point.x))

    reached, merits = jax.vmap(along)(jnp.asarray(_LENGTHS, x.dtype))
    before = merit(now, value)
    fine = merits <= before
    # The longest length that does not make things worse, else the one that does least harm.
    merits = jnp.where(jnp.isfinite(merits), merits, jnp.inf)
    chosen = jnp.where(jnp.any(fine), jnp.argmax(fine), jnp.argmin(merits))
    return jax.tree.map(lambda leaf: leaf[chosen], reached)
