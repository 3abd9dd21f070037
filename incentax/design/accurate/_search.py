"""The accurate designer: sequential quadratic steps along a smoothing homotopy."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._tree import tree_where
from ...sets import InteriorPoint, LinearConstraints
from .._problem import DesignProblem
from ._levels import Evaluation, Levels, mean_cost, scale_of_products
from ._limited_memory import damped_bend, LimitedMemory
from ._quadratic import quadratic_step
from ._smoothed import Smoothing, start_point
from ._unbounded import is_bottomless

# Complementarity products in the course of a run, relative to the size of x and F; 0 is exact.
_LEVELS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# Further ones, where no steps on pieces follow.
_FURTHER = (1e-8, 1e-10, 1e-12, 1e-14)
# Dispersions of choice, relative to the mean cost.
_DISPERSIONS = (1e-2, 1e-3, 1e-4)
_STEPS_A_LEVEL = 25


class Search(eqx.Module):
    """Where a run of the designer stands: a point, a model of the objective, and its best point.

    - `theta`: flat. `objective`, `gradient`, `hessian`: of the level's objective there.
    - `x`: the last exact equilibrium, and whether it was `degenerate`; `central`: the last point
      of the central path, whose products are in units of `scale`.
    - `level`: which smoothing; `fresh`: its objective has not been evaluated yet; `drop`: the
      largest decrease of a step so far.
    - `best_theta`, `best_objective`, `best_x`: the best point among those with exact equilibria.
    - `rows`: objective, norm of its gradient and length of every step.
    """

    theta: Float[Array, " p"]
    objective: Float[Array, ""]
    gradient: Float[Array, " p"]
    hessian: Float[Array, "p p"] | LimitedMemory
    x: Array
    central: InteriorPoint | None
    degenerate: Int[Array, ""]
    scale: Float[Array, ""]
    level: Int[Array, ""]
    fresh: Bool[Array, ""]
    level_steps: Int[Array, ""]
    drop: Float[Array, ""]
    steps: Int[Array, ""]
    rows: Float[Array, "steps 3"]
    best_theta: Float[Array, " p"]
    best_objective: Float[Array, ""]
    best_x: Array


def search(
    problem: DesignProblem,
    theta0: PyTree,
    x0: Array,
    max_steps: int,
    first_level: Int[Array, ""],
    *,
    smoothing: Smoothing | None,
    curved: bool,
    responsive: bool,
    alone: bool,
    entropic: bool | None,
    part: tuple[Search | None, Int[Array, ""]] | None = None,
) -> Search:
    """Minimises along the levels of smoothing from the first one on, the last of them exact.

    Much smoothing leads past local optima, but may ask for incentives that keep agents from what
    smoothing alone made them do, and end far away where nothing depends on them any more.
    `part`: from where a search stands, if it has begun, to so many steps of it.
    `smoothing`: how, if at all; `curved`: second derivatives are affordable, `responsive`: by one
    linear system for each incentive; `alone`: no steps on pieces follow, so that this has to reach
    the end itself.
    """
    flat0, _ = ravel_pytree(theta0)
    # The first level only looks where the start lies; the last one is exact again.
    central = (*_LEVELS, *(_FURTHER if alone else ()))
    between = {None: (), "central": central, "entropy": _DISPERSIONS}[smoothing]
    relative = (0.0, *between, 0.0) if between else (0.0,)
    last = len(relative) - 1
    levels = Levels(
        problem=problem,
        like=theta0,
        shape=x0.shape,
        incentives=problem.incentive_set.constraints(theta0),
        mu=jnp.asarray(relative, flat0.dtype),
        first=first_level,
        tight=last if smoothing == "entropy" else last - 4,
        longest=max_steps if alone else 10,
        smoothing=smoothing,
        curved=curved,
        responsive=responsive,
        entropic=entropic,
    )
    start, until = part or (None, jnp.int32(max_steps))
    if start is None:
        start = _start(levels, flat0, x0, max_steps)

    def going_on(now: Search) -> Array:
        return (now.level <= levels.last) & (now.steps < until)

    return jax.lax.while_loop(going_on, lambda now: _advance(levels, now), start)


def _start(levels: Levels, theta: Array, x: Array, max_steps: int) -> Search:
    dtype, zero = theta.dtype, jnp.int32(0)
    return Search(
        theta=theta,
        objective=jnp.asarray(jnp.inf, dtype),
        gradient=jnp.zeros(theta.size, dtype),
        hessian=LimitedMemory(theta.size, jnp.ones((), dtype))
        if levels.is_forgetful(theta.size)
        else jnp.eye(theta.size, dtype=dtype),
        x=x,
        central=None
        if levels.smoothing != "central"
        else start_point(levels.problem, levels.like, x),
        degenerate=zero,
        scale=jnp.ones((), dtype),
        level=zero,
        fresh=jnp.asarray(True),
        level_steps=zero,
        drop=jnp.zeros((), dtype),
        steps=zero,
        rows=jnp.zeros((max_steps, 3), dtype),
        best_theta=theta,
        best_objective=jnp.asarray(jnp.inf, dtype),
        best_x=x,
    )


def _advance(levels: Levels, now: Search) -> Search:
    """A first look at a level, or a step on it."""
    hessian = levels.model(now)
    if isinstance(hessian, LimitedMemory):
        step, promised = hessian.step(now.gradient)
    else:
        step, promised = quadratic_step(now.gradient, hessian, levels.near(now.theta), now.theta)
    found, theta, fine = _line_search(levels, now, jnp.where(now.fresh, 0, step))
    taken = fine & ~now.fresh
    moved, bent = theta - now.theta, found.gradient - now.gradient
    first = _first_curvature(levels.incentives, theta, found.gradient)
    if isinstance(hessian, LimitedMemory):
        updated = hessian.updated(moved, bent, step, now.gradient)
        first_model = LimitedMemory(theta.size, first)
    else:
        updated = updated_curvature(hessian, moved, bent)
        first_model = first * jnp.eye(theta.size, dtype=theta.dtype)
    begins = now.fresh & (now.level <= levels.first)
    hessian = tree_where(begins, first_model, tree_where(taken, updated, hessian))
    decrease = jnp.where(taken, now.objective - found.objective, 0)
    drop = jnp.maximum(now.drop, decrease)
    done = _is_done(levels, now, fine, (promised, decrease), drop, objective=found.objective)
    if levels.is_free:
        done |= is_bottomless(found.objective, jnp.linalg.norm(found.gradient), theta)
    # The last steps are exact ones, or all that smoothing led to would be lost.
    most = now.rows.shape[0]
    short = (now.steps + 1 >= most - max(1, most // 10)) & (now.level > 0)
    short &= now.level < levels.last
    level = jnp.where(short, levels.last, now.level + done.astype(now.level.dtype))
    done |= short
    # What was found of a trial that was not taken is no part of the point.
    found = tree_where(fine, found, _point_of(now))
    better = levels.is_exact(now.level) & fine & (found.objective < now.best_objective)
    row = jnp.stack([found.objective, jnp.linalg.norm(found.gradient), jnp.linalg.norm(moved)])
    reached = Search(
        theta=theta,
        objective=found.objective,
        gradient=found.gradient,
        hessian=hessian,
        x=found.x,
        central=found.central,
        degenerate=found.degenerate,
        scale=now.scale,
        level=level,
        fresh=done,
        level_steps=jnp.where(done, 0, now.level_steps + (~now.fresh).astype(now.level.dtype)),
        drop=drop,
        steps=now.steps + 1,
        rows=now.rows.at[now.steps].set(row),
        best_theta=jnp.where(better, theta, now.best_theta),
        best_objective=jnp.where(better, found.objective, now.best_objective),
        best_x=jnp.where(better, found.x, now.best_x),
    )
    return reached if levels.smoothing is None else _begin_to_smooth(levels, now, reached)


def _begin_to_smooth(levels: Levels, now: Search, reached: Search) -> Search:
    """After the first look: in which units, from which central point, and at which level."""
    looked, incentive = now.fresh & (now.level == 0), levels.unravel(reached.theta)
    central = reached.central
    if levels.smoothing == "central":
        start = start_point(levels.problem, incentive, reached.x)
        central = tree_where(looked, start, reached.central)
        scale = scale_of_products(levels.problem, incentive, reached.x)
    else:
        scale = mean_cost(levels.problem, incentive, reached.x)
    return replace(
        reached,
        central=central,
        scale=jnp.where(looked, scale, reached.scale),
        level=jnp.where(looked, levels.first, reached.level),
    )


def _point_of(now: Search) -> Evaluation:
    return Evaluation(now.objective, now.gradient, now.x, now.central, now.degenerate)


def _line_search(levels: Levels, now: Search, step: Array) -> tuple[Evaluation, Array, Array]:
    """The first of ever shorter steps that is worth its share, where it leads, and if there is one.

    A first look at a level is one look.
    """
    near, slope, limits = _point_of(now), now.gradient @ step, levels.incentives

    def moved_by(length: Array) -> Array:
        # Rounding must not lead past a bound, where the user's functions may have no value.
        return jnp.clip(now.theta + length * step, limits.lower, limits.upper)

    def shorter(carry):
        length, _, _, tries = carry
        length = length / jnp.where(tries < 3, 2, 5)
        found = levels.evaluate(moved_by(length), near, now.level, now.scale)
        fine = found.objective <= now.objective + 1e-4 * length * slope
        fine = (fine | now.fresh) & jnp.isfinite(found.objective)
        return length, found, fine, tries + 1

    def searching(carry):
        _, _, fine, tries = carry
        return ~fine & (tries < jnp.where(now.fresh, 1, 14))

    first = jnp.asarray(2.0, step.dtype), near, jnp.asarray(False), jnp.int32(0)
    length, found, fine, _ = jax.lax.while_loop(searching, shorter, first)
    return found, jnp.where(fine & ~now.fresh, moved_by(length), now.theta), fine


def _is_done(
    levels: Levels,
    now: Search,
    fine: Array,
    gains: tuple[Array, Array],
    drop: Array,
    *,
    objective: Array,
) -> Array:
    """Whether nothing more is to be had on the level: `gains` are what was promised and got."""
    rounding = 10 * jnp.finfo(objective.dtype).eps * jnp.abs(objective)
    least = jnp.maximum(_least(now.level, levels) * drop, rounding)
    # A model from steps alone needs some in every direction.
    many = _STEPS_A_LEVEL if levels.curved else max(_STEPS_A_LEVEL, 2 * now.theta.size)
    longest = jnp.where(now.level == levels.last, levels.longest, many)
    small = (gains[0] <= least) | (gains[1] <= least)
    stepped = ~now.fresh & (~fine | small | (now.level_steps >= longest))
    looked = now.fresh & (~fine | ((now.level == 0) & (levels.last > 0)))
    return stepped | looked


def _first_curvature(incentives: LinearConstraints, theta: Array, gradient: Array) -> Array:
    """A curvature by which a step changes `theta` by a tenth of its size."""
    size = jnp.max(jnp.abs(gradient)) / (0.1 * _width(incentives, theta))
    return jnp.maximum(size, jnp.finfo(theta.dtype).tiny)


def _least(level: Array, levels: Levels) -> Array:
    """Decrease, relative to the largest so far, below which a level is done."""
    return jnp.where(level == levels.last, 1e-15, jnp.where(level >= levels.tight, 1e-12, 1e-6))


def _width(incentives: LinearConstraints, theta: Array) -> Array:
    width = incentives.upper - incentives.lower
    size = jnp.maximum(1.0, jnp.max(jnp.abs(theta)))
    return jnp.min(jnp.where(jnp.isfinite(width) & (width > 0), width, size), initial=jnp.inf)


def updated_curvature(hessian: Array, moved: Array, bent: Array) -> Array:
    """BFGS with Powell's damping, so that the model stays convex."""
    image = hessian @ moved
    damped, fine = damped_bend(moved, bent, image)
    updated = (
        hessian
        - jnp.outer(image, image) / jnp.where(fine, moved @ image, 1)
        + jnp.outer(damped, damped) / jnp.where(fine, moved @ damped, 1)
    )
    return jnp.where(fine & jnp.all(jnp.isfinite(updated)), updated, hessian)
