"""The accurate designer: sequential quadratic steps along a smoothing homotopy."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._results import RESULTS
from .._tree import tree_where
from ..equilibrium import find_equilibrium
from ..sensitivity import Implicit
from ..sets import InteriorPoint
from ._problem import DesignProblem, evaluate_hypergradient
from ._quadratic import quadratic_step
from ._reduced import made_convex
from ._smoothed import evaluate_smoothed, smoothed_curvature, start_point

# Complementarity products in the course of a run, relative to the size of x and F; 0 is exact.
_LEVELS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
# Further ones, where no steps on pieces follow.
_FURTHER = (1e-8, 1e-10, 1e-12, 1e-14)
_STEPS_A_LEVEL = 25
# Of the equilibria whose objectives are compared.
_TOL = 1e-10


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
    hessian: Float[Array, "p p"]
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


class Evaluation(eqx.Module):
    """The objective of a level at one incentive, its gradient, and the points that belong to it.

    `objective` is infinite where no equilibrium, or no central point, was found.
    """

    objective: Array
    gradient: Array
    x: Array
    central: InteriorPoint | None
    degenerate: Array


class ExactObjective(eqx.Module):
    """The objective and its gradient at the exact equilibrium; infinite where none is found."""

    problem: DesignProblem
    like: PyTree
    entropic: bool | None = eqx.field(static=True)

    def __call__(self, theta: Array, x: Array, central: InteriorPoint | None) -> Evaluation:
        incentive = ravel_pytree(self.like)[1](theta)
        found_x, _, result = find_equilibrium(
            self.problem.game, incentive, x, None, _TOL, 20_000, self.entropic
        )
        found = evaluate_hypergradient(self.problem, incentive, found_x, Implicit())
        gradient = ravel_pytree(found.value)[0].astype(theta.dtype)
        solved = (result == RESULTS.successful) & jnp.isfinite(found.objective)
        return Evaluation(
            objective=jnp.where(solved, found.objective, jnp.inf),
            gradient=gradient,
            x=jnp.where(solved, found_x, x),
            central=central,
            degenerate=found.degenerate,
        )


def search(
    problem: DesignProblem,
    theta0: PyTree,
    x0: Array,
    max_steps: int,
    first_level: Int[Array, ""],
    *,
    smooth: bool,
    curved: bool,
    alone: bool,
    entropic: bool | None,
) -> Search:
    """Minimises along the levels of smoothing from the first one on, the last of them exact.

    Much smoothing leads past local optima, but may ask for incentives that keep agents from what
    smoothing alone made them do, and end far away where nothing depends on them any more.
    """
    flat0, unravel = ravel_pytree(theta0)
    incentives = problem.incentive_set.constraints(theta0)
    dtype, size = flat0.dtype, flat0.size

    exact = ExactObjective(problem, theta0, entropic)

    levels = (*_LEVELS, *_FURTHER) if alone else _LEVELS
    longest = max_steps if alone else 10
    # The first level only looks where the start lies; the last one is exact again.
    last = len(levels) + 1 if smooth else 0
    relative = jnp.asarray((0.0, *levels, 0.0), dtype)

    def smoothed(theta: Array, before: Evaluation, mu: Array) -> Evaluation:
        incentive = unravel(theta)
        assert before.central is not None
        found = evaluate_smoothed(problem, incentive, before.central, x0.shape, mu)
        gradient, _ = ravel_pytree(found.gradient)
        solved = jnp.isfinite(found.objective) & jnp.all(jnp.isfinite(gradient))
        central = tree_where(solved, found.point, before.central)
        objective = jnp.where(solved, found.objective, jnp.inf)
        return Evaluation(objective, gradient.astype(dtype), before.x, central, jnp.int32(0))

    def evaluate(theta: Array, before: Evaluation, level: Array, scale: Array) -> Evaluation:
        if not smooth:
            return exact(theta, before.x, before.central)
        return jax.lax.cond(
            (level == 0) | (level == last),
            lambda: exact(theta, before.x, before.central),
            lambda: smoothed(theta, before, scale * relative[level]),
        )

    def model(now: Search) -> Array:
        """The curvature of the smoothed objective where that is affordable, else from steps."""
        if not (smooth and curved):
            return now.hessian
        assert now.central is not None
        at, mu = now.central, now.scale * relative[now.level]

        def computed() -> Array:
            curvature = smoothed_curvature(problem, theta0, now.theta, at, x0.shape, mu)
            convex = made_convex(curvature, now.gradient, now.theta)
            return jnp.where(jnp.all(jnp.isfinite(convex)), convex, now.hessian)

        wanted = (now.level > 0) & (now.level < last) & ~now.fresh
        return jax.lax.cond(wanted, computed, lambda: now.hessian)

    def advance(now: Search) -> Search:
        hessian = model(now)
        step, promised = quadratic_step(now.gradient, hessian, incentives, now.theta)
        slope = now.gradient @ step
        step = jnp.where(now.fresh, 0, step)
        before = Evaluation(now.objective, now.gradient, now.x, now.central, now.degenerate)

        def moved_by(length: Array) -> Array:
            # Rounding must not lead past a bound, where the user's functions may have no value.
            return jnp.clip(now.theta + length * step, incentives.lower, incentives.upper)

        def shorter(carry):
            length, _, _, tries = carry
            length = length / jnp.where(tries < 3, 2, 5)
            found = evaluate(moved_by(length), before, now.level, now.scale)
            fine = found.objective <= now.objective + 1e-4 * length * slope
            fine = (fine | now.fresh) & jnp.isfinite(found.objective)
            return length, found, fine, tries + 1

        def searching(carry):
            _, _, fine, tries = carry
            # A first look at a level is one look.
            return ~fine & (tries < jnp.where(now.fresh, 1, 14))

        first = jnp.asarray(2.0, dtype), before, jnp.asarray(False), jnp.int32(0)
        length, found, fine, _ = jax.lax.while_loop(searching, shorter, first)
        taken = fine & ~now.fresh
        theta = jnp.where(taken, moved_by(length), now.theta)
        moved, bent = theta - now.theta, found.gradient - now.gradient
        hessian = jnp.where(taken, _updated(hessian, moved, bent), hessian)
        # A first model: a step that changes theta by a tenth of its size.
        size_of = jnp.maximum(jnp.max(jnp.abs(found.gradient)), jnp.finfo(dtype).tiny)
        first_model = jnp.eye(size, dtype=dtype) * size_of / (0.1 * _width(incentives, theta))
        hessian = jnp.where(now.fresh & (now.level <= first_level), first_model, hessian)
        decrease = jnp.where(taken, now.objective - found.objective, 0)
        drop = jnp.maximum(now.drop, decrease)
        rounding = 10 * jnp.finfo(dtype).eps * jnp.abs(found.objective)
        least = jnp.maximum(_least(now.level, last) * drop, rounding)
        # A model from steps alone needs some in every direction.
        many = _STEPS_A_LEVEL if curved else max(_STEPS_A_LEVEL, 2 * size)
        on_level = jnp.where(now.level == last, longest, many)
        done = ~now.fresh & (
            ~fine | (promised <= least) | (decrease <= least) | (now.level_steps >= on_level)
        )
        looked = now.fresh & (now.level == 0) & (last > 0)
        done = done | looked | (now.fresh & ~fine)
        # What was found of a trial that was not taken is no part of the point.
        found = tree_where(fine, found, before)
        scale, central = now.scale, found.central
        if smooth:
            scale = jnp.where(looked, _scale(problem, unravel(theta), found.x), scale)
            central = tree_where(looked, start_point(problem, unravel(theta), found.x), central)
        is_exact = (now.level == 0) | (now.level == last)
        better = is_exact & fine & (found.objective < now.best_objective)
        row = jnp.stack([found.objective, jnp.linalg.norm(found.gradient), jnp.linalg.norm(moved)])
        return Search(
            theta=theta,
            objective=found.objective,
            gradient=found.gradient,
            hessian=hessian,
            x=found.x,
            central=central,
            degenerate=found.degenerate,
            scale=scale,
            level=jnp.where(looked, first_level, now.level + done.astype(now.level.dtype)),
            fresh=done,
            level_steps=jnp.where(done, 0, now.level_steps + (~now.fresh).astype(now.level.dtype)),
            drop=drop,
            steps=now.steps + 1,
            rows=now.rows.at[now.steps].set(row),
            best_theta=jnp.where(better, theta, now.best_theta),
            best_objective=jnp.where(better, found.objective, now.best_objective),
            best_x=jnp.where(better, found.x, now.best_x),
        )

    zero = jnp.int32(0)
    central = start_point(problem, theta0, x0) if smooth else None
    start = Search(
        theta=flat0,
        objective=jnp.asarray(jnp.inf, dtype),
        gradient=jnp.zeros(size, dtype),
        hessian=jnp.eye(size, dtype=dtype),
        x=x0,
        central=central,
        degenerate=zero,
        scale=jnp.ones((), dtype),
        level=zero,
        fresh=jnp.asarray(True),
        level_steps=zero,
        drop=jnp.zeros((), dtype),
        steps=zero,
        rows=jnp.zeros((max_steps, 3), dtype),
        best_theta=flat0,
        best_objective=jnp.asarray(jnp.inf, dtype),
        best_x=x0,
    )

    def going_on(now: Search) -> Array:
        return (now.level <= last) & (now.steps < max_steps)

    return jax.lax.while_loop(going_on, advance, start)


def _least(level: Array, last: int) -> Array:
    """Decrease, relative to the largest so far, below which a level is done."""
    return jnp.where(level == last, 1e-15, jnp.where(level >= last - 4, 1e-12, 1e-6))


def _scale(problem: DesignProblem, theta: PyTree, x: Array) -> Array:
    """Size of a product of complementary quantities, in any unit of costs."""
    length = jnp.maximum(jnp.mean(jnp.abs(x)), 1e-2)
    along = jnp.full_like(x, length)
    value, moved = jax.jvp(lambda x: problem.game.operator(theta, x), (x,), (along,))
    sizes = [jnp.mean(jnp.abs(jnp.where(jnp.isfinite(v), v, 1))) for v in (value, moved)]
    costs = jnp.maximum(sizes[0], 1e-2 * sizes[1])
    return length * jnp.where(costs > 0, costs, 1)


def _width(incentives, theta: Array) -> Array:
    width = incentives.upper - incentives.lower
    size = jnp.maximum(1.0, jnp.max(jnp.abs(theta)))
    return jnp.min(jnp.where(jnp.isfinite(width) & (width > 0), width, size), initial=jnp.inf)


def _updated(hessian: Array, moved: Array, bent: Array) -> Array:
    """BFGS with Powell's damping, so that the model stays convex."""
    curvature = moved @ bent
    image = hessian @ moved
    quadratic = moved @ image
    share = jnp.where(
        curvature >= 0.2 * quadratic,
        1.0,
        0.8 * quadratic / jnp.where(quadratic > curvature, quadratic - curvature, 1),
    )
    damped = share * bent + (1 - share) * image
    bend = moved @ damped
    fine = (quadratic > 0) & (bend > 0)
    updated = (
        hessian
        - jnp.outer(image, image) / jnp.where(fine, quadratic, 1)
        + jnp.outer(damped, damped) / jnp.where(fine, bend, 1)
    )
    return jnp.where(fine & jnp.all(jnp.isfinite(updated)), updated, hessian)
