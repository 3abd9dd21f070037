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
from ._interior import (
    Bounds,
    complementarity,
    finite_max,
    interior_start,
    interior_step,
    InteriorPoint,
    KKTPoint,
    LENGTHS,
    reduced,
)
from ._jacobians import AbstractJacobian, KKTRows


class _Run(eqx.Module):
    best: KKTPoint
    residual: Float[Array, ""]
    interior: InteriorPoint
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
    box = Bounds(constraints)

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
        pull = reduced(constraints, point, value)
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

        moved, residuals = jax.vmap(along)(longest * jnp.asarray(LENGTHS, point.x.dtype))
        chosen = jnp.argmin(residuals)
        return jax.tree.map(lambda leaf: leaf[chosen], moved), residuals[chosen]

    def interior(run: _Run) -> _Run:
        now = interior_step(linearise, operator, constraints, box, run.interior)
        mean = complementarity(constraints, box, now)
        residual = residual_of(now.point, operator(now.point.x))
        ready = (mean <= run.level) | (residual <= 1e-2 * jnp.sqrt(run.level))
        better = ready & (residual < jnp.inf)
        broken = ~jnp.isfinite(mean) | ((mean > 0) & (mean < 1e-24))
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
    size = jnp.maximum(1, jnp.maximum(jnp.max(jnp.abs(first.x)), finite_max(value)))
    aim = jnp.maximum(1e-4 * tol, 20 * jnp.finfo(start.dtype).eps * size)
    run = _Run(
        best=first,
        residual=jnp.where(jnp.isfinite(residual), residual, jnp.inf),
        interior=interior_start(operator, constraints, first.x),
        finishing=jnp.isfinite(residual),
        level=jnp.asarray(1e-6, start.dtype) * jnp.minimum(size, 1e3),
        count=jnp.int32(0),
        stuck=jnp.asarray(skip),
    )
    run = jax.lax.while_loop(going_on, step, run)
    return run.best, run.residual, run.count


def _residual(constraints: LinearConstraints, point: KKTPoint, value: Array) -> Array:
    pull = reduced(constraints, point, value)
    moved = point.x - jnp.clip(point.x - pull, constraints.lower, constraints.upper)
    missed = constraints.equality(point.x) - constraints.equality_level
    room = constraints.inequality_level - constraints.inequality @ point.x
    slack = jnp.minimum(point.inequality, room)
    return jnp.max(jnp.abs(jnp.concatenate([moved, missed, slack])), initial=0.0)
