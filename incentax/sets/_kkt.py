"""Equilibria over linear constraints: interior point, then an active set finish.

On `{lower <= x <= upper, C x = d, A x <= b}` the variational inequality of `F` has the KKT system

    F(x) + C^T y + A^T z - w = 0 ,   0 <= z  ⊥  b - A x >= 0 ,   C x = d ,

where `w` is positive only on a lower and negative only on an upper bound. Facchinei and Pang,
*Finite-Dimensional Variational Inequalities and Complementarity Problems* (2003), chapters 9, 11.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

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
    Linearise,
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


@dataclass(frozen=True)
class _System:
    """`F` with its Jacobian over the constraints, and which residuals count as what.

    `aim`: to be reached; `tol`: good enough where nothing is gained any more; `ready`: mean
    complementarity below which Newton's method takes over; `unit`: of a pull towards an anchor.
    """

    linearise: Linearise
    operator: Callable[[Array], Array]
    constraints: LinearConstraints
    box: Bounds
    aim: Array
    tol: Array | float
    ready: Array
    unit: Array

    def pulled(self, run: _Run, x: Array) -> Array:
        """`F(x) + pull (x - anchor)`."""
        return self.operator(x) + run.pull * (x - run.anchor)

    def linearised(self, run: _Run, x: Array) -> tuple[Array, AbstractJacobian]:
        """The same with its Jacobian."""
        value, jacobian = self.linearise(x)
        return value + run.pull * (x - run.anchor), jacobian.shifted(run.pull)

    def residual(self, point: KKTPoint, value: Array) -> Array:
        """What a point leaves of the KKT system, infinite where that is not finite."""
        found = _residual(self.constraints, point, value)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)


def solve_kkt(
    linearise: Linearise,
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
    first = _first_point(constraints, start, multipliers)
    value, jacobian = linearise(first.x)
    unit = jnp.max(jnp.abs(jacobian.diagonal()), initial=0.0)
    size = jnp.maximum(1, jnp.maximum(jnp.max(jnp.abs(first.x)), finite_max(value)))
    system = _System(
        linearise=linearise,
        operator=operator,
        constraints=constraints,
        box=Bounds(constraints),
        aim=jnp.maximum(1e-4 * tol, 20 * jnp.finfo(start.dtype).eps * size),
        tol=tol,
        ready=jnp.asarray(1e-6, start.dtype) * jnp.minimum(size, 1e3),
        unit=jnp.where(jnp.isfinite(unit) & (unit > 0), unit, 1),
    )
    residual = system.residual(first, value)
    run = _Run(
        point=first,
        residual=residual,
        best=first,
        least=residual,
        interior=interior_start(operator, constraints, first.x),
        finishing=jnp.isfinite(residual),
        level=system.ready,
        pull=jnp.zeros((), start.dtype),
        anchor=first.x,
        lowest=residual,
        idle=jnp.int32(0),
        count=jnp.int32(0),
        stuck=jnp.asarray(skip),
    )

    def going_on(run: _Run) -> Array:
        return (run.least > system.aim) & (run.count < max_steps) & ~run.stuck

    run = jax.lax.while_loop(going_on, lambda run: _step(system, run), run)
    return run.best, run.least, run.count


def _first_point(
    constraints: LinearConstraints, start: Array, multipliers: tuple[Array, Array] | None
) -> KKTPoint:
    x = jnp.clip(start, constraints.lower, constraints.upper)
    if multipliers is None:
        levels = constraints.equality_level, constraints.inequality_level
        return KKTPoint(x, *(jnp.zeros_like(level, x.dtype) for level in levels))
    return KKTPoint(x, *(jnp.where(jnp.isfinite(given), given, 0) for given in multipliers))


def _step(system: _System, run: _Run) -> _Run:
    """One linear system, and what follows from it for the run."""
    stepped = run.finishing
    run = jax.lax.cond(stepped, partial(_newton, system), partial(_interior, system), run)
    true = system.residual(run.point, system.operator(run.point.x))
    least = jnp.minimum(true, run.least)
    idle = jnp.where(run.residual < 0.9 * run.lowest, 0, run.idle + 1)
    # What rounding leaves is not improved by any other problem.
    stalled = idle >= _PATIENCE
    refused = stepped & ~run.finishing
    good_enough = (stalled | refused) & (least <= system.tol)
    run = replace(
        run,
        best=tree_where(true < run.least, run.point, run.best),
        least=least,
        idle=idle,
        lowest=jnp.minimum(run.lowest, run.residual),
        stuck=run.stuck | good_enough | (stalled & ~jnp.isfinite(least)),
    )
    away = run.pull * jnp.max(jnp.abs(run.point.x - run.anchor), initial=0.0)
    solved = (run.pull > 0) & (run.residual <= jnp.maximum(0.1 * away, system.aim))
    anew = partial(_anchored_anew, system)
    return jax.lax.cond(stalled | solved, anew, lambda run, _: run, run, solved)


def _newton(system: _System, run: _Run) -> _Run:
    """Newton's step on the active set, of the length that leaves least; or the point as it is."""
    point, constraints, box = run.point, system.constraints, system.box
    value, jacobian = system.linearised(run, point.x)
    force = reduced(constraints, point, value)
    x, z = point.x, point.inequality
    at_lower, at_upper = box.active(x, force)
    free = ~(at_lower | at_upper)
    room = constraints.inequality_level - constraints.inequality @ x
    taut = z > room
    rows = KKTRows(*(side.astype(x.dtype) for side in (free, ~free, taut, ~taut)))
    target = jnp.where(at_lower, box.low, jnp.where(at_upper, box.high, 0))
    step = jacobian.factor(rows, constraints)(
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
        return reached, system.residual(reached, system.pulled(run, reached.x))

    reached, residuals = jax.vmap(along)(jnp.asarray(LENGTHS, x.dtype))
    chosen = jnp.argmin(residuals)
    reached, residual = jax.tree.map(lambda leaf: leaf[chosen], (reached, residuals))
    # The multipliers of a first guess are zero: the first step finds them.
    rows_alone = (run.count == 0) & (constraints.inequality_level.size > 0)
    better = (residual < 0.9 * run.residual) | (rows_alone & (residual < jnp.inf))
    return _moved_to(run, reached, better, residual)


def _interior(system: _System, run: _Run) -> _Run:
    """An interior point step; where complementarity is small Newton's method goes on."""
    now = interior_step(
        partial(system.linearised, run),
        partial(system.pulled, run),
        system.constraints,
        system.box,
        run.interior,
    )
    mean = complementarity(system.constraints, system.box, now)
    residual = system.residual(now.point, system.pulled(run, now.point.x))
    ready = (mean <= run.level) | (residual <= 1e-2 * jnp.sqrt(run.level))
    broken = ~jnp.isfinite(mean) | ((mean > 0) & (mean < 1e-24))
    moved = _moved_to(run, now.point, ready & (residual < jnp.inf), residual)
    return replace(
        moved,
        interior=now,
        level=jnp.where(ready, jnp.minimum(run.level, mean) * 1e-2, run.level),
        idle=jnp.where(broken, _PATIENCE, run.idle),
    )


def _moved_to(run: _Run, point: KKTPoint, better: Array, residual: Array) -> _Run:
    return replace(
        run,
        point=tree_where(better, point, run.point),
        residual=jnp.where(better, residual, run.residual),
        finishing=better,
        count=run.count + 1,
    )


def _anchored_anew(system: _System, run: _Run, solved: Array) -> _Run:
    """A new anchor: where the problem was solved a weaker pull, else a stronger one."""
    point = tree_where(solved, run.point, run.best)
    weaker = jnp.where(run.pull < 1e-10 * system.unit, 0, 0.1 * run.pull)
    residual = system.residual(point, system.operator(point.x))
    return replace(
        run,
        point=point,
        residual=residual,
        interior=interior_start(system.operator, system.constraints, point.x),
        finishing=jnp.asarray(True),
        level=system.ready,
        pull=jnp.where(solved, weaker, jnp.maximum(10 * run.pull, system.unit)),
        anchor=point.x,
        lowest=residual,
        idle=jnp.int32(0),
    )


def _residual(constraints: LinearConstraints, point: KKTPoint, value: Array) -> Array:
    pull = reduced(constraints, point, value)
    # `x - clip(x - pull)`, without the rounding that hides a pull on a large x.
    moved = jnp.clip(pull, point.x - constraints.upper, point.x - constraints.lower)
    missed = constraints.equality(point.x) - constraints.equality_level
    room = constraints.inequality_level - constraints.inequality @ point.x
    slack = jnp.minimum(point.inequality, room)
    return jnp.max(jnp.abs(jnp.concatenate([moved, missed, slack])), initial=0.0)
