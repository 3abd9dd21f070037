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

# Steps without a gain after which the problem is changed.
_PATIENCE = 40


class _Run(eqx.Module):
    """Where Newton's method stands, where the interior point does, and the best point so far.

    Of `F(x) + pull (x - anchor)`; `residual` and `lowest`, the least since the anchor was set, are
    of that problem, `least` is of `F` itself.
    """

    point: KKTPoint
    residual: Float[Array, ""]
    best: KKTPoint
    least: Float[Array, ""]
    interior: InteriorPoint
    finishing: Bool[Array, ""]
    level: Float[Array, ""]
    pull: Float[Array, ""]
    anchor: Float[Array, " d"]
    lowest: Float[Array, ""]
    idle: Int[Array, ""]
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
    multipliers: tuple[Array, Array] | None = None,
) -> tuple[KKTPoint, Float[Array, ""], Int[Array, ""]]:
    """A KKT point, its residual and the number of linear systems that it took.

    `linearise(x)` returns the operator and its Jacobian. Newton's method on the active set comes
    first, so that a good start is kept; where it stalls an interior point method takes over, and
    hands back when its complementarity is small. Where both stall the same is done for
    `F(x) + c (x - x_k)` from the best point `x_k`, and again from the answer with a smaller `c`:
    proximal point steps (R. T. Rockafellar, *SIAM Journal on Control and Optimization* 14 (1976)),
    which converge for every monotone operator. `multipliers` of equalities and inequalities that
    belong to the start may be given: without them an exact start is not known for one.
    """
    box = Bounds(constraints)

    def begin(x: Array) -> KKTPoint:
        x = jnp.clip(x, constraints.lower, constraints.upper)
        if multipliers is None:
            levels = constraints.equality_level, constraints.inequality_level
            return KKTPoint(x, *(jnp.zeros_like(level, x.dtype) for level in levels))
        known = (jnp.where(jnp.isfinite(given), given, 0) for given in multipliers)
        return KKTPoint(x, *known)

    def residual_of(point: KKTPoint, value: Array) -> Array:
        found = _residual(constraints, point, value)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    def pulled(run: _Run, x: Array) -> Array:
        return operator(x) + run.pull * (x - run.anchor)

    def pulled_linearise(run: _Run, x: Array) -> tuple[Array, AbstractJacobian]:
        value, jacobian = linearise(x)
        return value + run.pull * (x - run.anchor), jacobian.shifted(run.pull)

    def moved_to(run: _Run, point: KKTPoint, better: Array, residual: Array, **other) -> _Run:
        kept = tree_where(better, point, run.point)
        names = ("point", "residual", "finishing", "count", *other)
        values = (
            kept,
            jnp.where(better, residual, run.residual),
            better,
            run.count + 1,
            *other.values(),
        )
        return eqx.tree_at(lambda r: [getattr(r, name) for name in names], run, values)

    def newton(run: _Run) -> _Run:
        point = run.point
        value, jacobian = pulled_linearise(run, point.x)
        force = reduced(constraints, point, value)
        x, z = point.x, point.inequality
        at_lower, at_upper = box.active(x, force)
        free = ~(at_lower | at_upper)
        room = constraints.inequality_level - constraints.inequality @ x
        taut = z > room
        dtype = x.dtype
        rows = KKTRows(
            free.astype(dtype), (~free).astype(dtype), taut.astype(dtype), (~taut).astype(dtype)
        )
        target = jnp.where(at_lower, box.low, jnp.where(at_upper, box.high, 0))
        solve = jacobian.factor(rows, constraints)
        step = solve(
            jnp.where(free, -force, target - x),
            constraints.equality_level - constraints.equality(x),
            jnp.where(taut, room, z),
        )

        def along(length):
            reached = KKTPoint(
                jnp.clip(x + length * step[0], constraints.lower, constraints.upper),
                point.equality + length * step[1],
                jnp.maximum(z + length * step[2], 0),
            )
            return reached, residual_of(reached, pulled(run, reached.x))

        reached, residuals = jax.vmap(along)(jnp.asarray(LENGTHS, dtype))
        chosen = jnp.argmin(residuals)
        reached = jax.tree.map(lambda leaf: leaf[chosen], reached)
        better = residuals[chosen] < 0.9 * run.residual
        first = run.count == 0
        # The multipliers of a first guess are zero: the first step finds them.
        rows_alone = first & (constraints.inequality_level.size > 0)
        better = better | (rows_alone & (residuals[chosen] < jnp.inf))
        return moved_to(run, reached, better, residuals[chosen])

    def interior(run: _Run) -> _Run:
        now = interior_step(
            lambda x: pulled_linearise(run, x),
            lambda x: pulled(run, x),
            constraints,
            box,
            run.interior,
        )
        mean = complementarity(constraints, box, now)
        residual = residual_of(now.point, pulled(run, now.point.x))
        ready = (mean <= run.level) | (residual <= 1e-2 * jnp.sqrt(run.level))
        broken = ~jnp.isfinite(mean) | ((mean > 0) & (mean < 1e-24))
        level = jnp.where(ready, jnp.minimum(run.level, mean) * 1e-2, run.level)
        idle = jnp.where(broken, _PATIENCE, run.idle)
        better = ready & (residual < jnp.inf)
        return moved_to(run, now.point, better, residual, interior=now, level=level, idle=idle)

    def step(run: _Run) -> _Run:
        stepped = run.finishing
        run = jax.lax.cond(stepped, newton, interior, run)
        true = residual_of(run.point, operator(run.point.x))
        best = tree_where(true < run.least, run.point, run.best)
        least = jnp.minimum(true, run.least)
        gained = run.residual < 0.9 * run.lowest
        idle = jnp.where(gained, 0, run.idle + 1)
        lowest = jnp.minimum(run.lowest, run.residual)
        run = eqx.tree_at(
            lambda r: (r.best, r.least, r.idle, r.lowest), run, (best, least, idle, lowest)
        )
        # What rounding leaves is not improved by any other problem.
        stalled = idle >= _PATIENCE
        refused = stepped & ~run.finishing
        stuck = ((stalled | refused) & (least <= tol)) | (stalled & ~jnp.isfinite(least))
        stuck = run.stuck | stuck
        run = eqx.tree_at(lambda r: r.stuck, run, stuck)
        away = run.pull * jnp.max(jnp.abs(run.point.x - run.anchor), initial=0.0)
        solved = (run.pull > 0) & (run.residual <= jnp.maximum(0.1 * away, aim))
        return jax.lax.cond(stalled | solved, change, lambda run, _: run, run, solved)

    def change(run: _Run, solved: Array) -> _Run:
        """A new anchor: where the problem was solved a weaker pull, else a stronger one."""
        point = tree_where(solved, run.point, run.best)
        weaker = jnp.where(run.pull < 1e-10 * unit, 0, 0.1 * run.pull)
        pull = jnp.where(solved, weaker, jnp.maximum(10 * run.pull, unit))
        residual = residual_of(point, operator(point.x))
        return _Run(
            point=point,
            residual=residual,
            best=run.best,
            least=run.least,
            interior=interior_start(operator, constraints, point.x),
            finishing=jnp.asarray(True),
            level=level,
            pull=pull,
            anchor=point.x,
            lowest=residual,
            idle=jnp.int32(0),
            count=run.count,
            stuck=run.stuck,
        )

    def going_on(run: _Run) -> Array:
        return (run.least > aim) & (run.count < max_steps) & ~run.stuck

    first = begin(start)
    value, jacobian = linearise(first.x)
    unit = jnp.max(jnp.abs(jacobian.diagonal()), initial=0.0)
    unit = jnp.where(jnp.isfinite(unit) & (unit > 0), unit, 1)
    residual = residual_of(first, value)
    size = jnp.maximum(1, jnp.maximum(jnp.max(jnp.abs(first.x)), finite_max(value)))
    aim = jnp.maximum(1e-4 * tol, 20 * jnp.finfo(start.dtype).eps * size)
    level = jnp.asarray(1e-6, start.dtype) * jnp.minimum(size, 1e3)
    run = _Run(
        point=first,
        residual=residual,
        best=first,
        least=residual,
        interior=interior_start(operator, constraints, first.x),
        finishing=jnp.isfinite(residual),
        level=level,
        pull=jnp.zeros((), start.dtype),
        anchor=first.x,
        lowest=residual,
        idle=jnp.int32(0),
        count=jnp.int32(0),
        stuck=jnp.asarray(skip),
    )
    run = jax.lax.while_loop(going_on, step, run)
    return run.best, run.least, run.count


def _residual(constraints: LinearConstraints, point: KKTPoint, value: Array) -> Array:
    pull = reduced(constraints, point, value)
    # `x - clip(x - pull)`, without the rounding that hides a pull on a large x.
    moved = jnp.clip(pull, point.x - constraints.upper, point.x - constraints.lower)
    missed = constraints.equality(point.x) - constraints.equality_level
    room = constraints.inequality_level - constraints.inequality @ point.x
    slack = jnp.minimum(point.inequality, room)
    return jnp.max(jnp.abs(jnp.concatenate([moved, missed, slack])), initial=0.0)
