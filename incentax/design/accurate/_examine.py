"""What a search has found: whether it is stationary, at bounds, or at a kink."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..._results import ENDINGS, RESULTS
from ..._tree import tree_where
from ...sensitivity import Implicit
from .._problem import DesignProblem, evaluate_hypergradient
from ._b_stationarity import unit_of
from ._search import Evaluation, ExactObjective

# Coordinate directions that are probed at a kink.
_PROBES = 20
# Relative residual of an adjoint system that has no solution.
NO_DERIVATIVE = 1e-4


class Ending(eqx.Module):
    """A point that a search ended at, examined in exact terms."""

    theta: PyTree
    x: Array
    objective: Float[Array, ""]
    stationarity: Float[Array, ""]
    ending: ENDINGS
    result: RESULTS


def examine(
    problem: DesignProblem, theta: PyTree, x: Array, key: PRNGKeyArray, entropic: bool | None
) -> Ending:
    """Whether `theta` is stationary, by its gradient or by probes around it.

    What the projection on the incentive set leaves of the gradient counts as zero when it is below
    1e-5 of the gradient's two parts, the direct one and the one through `x*` (`sqrt(eps)` in single
    precision), or when by the curvature along it the optimum is nearer than 1e-6 of the unit of
    `theta`: the width of its box, or its size. Where active
    constraints have no multiplier, or the gradient is not zero, the objective is computed at small
    steps along the coordinates and in random directions: at a kink none may descend at more than a
    thousandth of the slope, and the gradient jumps as much over short steps as over long ones.
    Where the adjoint system has no solution nothing of that is evidence. `x` is the equilibrium.
    """
    start, unravel = ravel_pytree(theta)
    exact = ExactObjective(problem, theta, entropic)
    incentives = problem.incentive_set.constraints(theta)
    rows = incentives.inequality_level.size + incentives.equality_level.size
    eps = float(jnp.finfo(start.dtype).eps)
    none, nearly, no_answer = max(1e-5, eps**0.5), max(1e-6, eps**0.5), max(NO_DERIVATIVE, eps**0.4)
    exists = evaluate_hypergradient(problem, theta, x, Implicit()).residual <= no_answer
    # Everything below in units of the entries of theta.
    unit = unit_of(incentives, start)
    flat = start / unit

    def projected(flat: Array) -> Array:
        return ravel_pytree(problem.incentive_set.project(unravel(unit * flat)))[0] / unit

    def evaluated(flat: Array, near: Array) -> Evaluation:
        found = exact(unit * flat, near, None)
        return eqx.tree_at(lambda e: e.gradient, found, unit * found.gradient)

    axes = jnp.eye(flat.size, dtype=flat.dtype)[:_PROBES]
    random = jax.random.normal(key, (2 * min(flat.size, _PROBES), flat.size), flat.dtype)
    random = random / jnp.linalg.norm(random, axis=1, keepdims=True)
    long, short = eps**0.25, eps**0.375
    fixed = jnp.concatenate([jnp.zeros((2, flat.size), flat.dtype), axes, -axes, random])
    number = len(fixed)

    def left_of(gradient: Array) -> Array:
        """The gradient's norm, without what points out of the set; a short step tells it."""
        norm = jnp.linalg.norm(gradient)
        length = 1e-3 / jnp.where(norm > 0, norm, 1)
        if rows:
            return jnp.linalg.norm(flat - projected(flat - length * gradient)) / length
        # Between bounds every entry has a width of its own.
        longest = 1e-3 * (incentives.upper - incentives.lower) / unit
        step = jnp.clip(length * gradient, -longest, longest)
        taken = (flat - projected(flat - step)) / jnp.where(step == 0, 1, step)
        return jnp.linalg.norm(taken * gradient)

    def verdict(at: Evaluation, curvature: Array, around: Array) -> tuple[Array, Array]:
        """Whether the gradient is zero, and the size of its parts.

        `around` is the largest gradient that was seen close by.
        """
        direct, through = jax.grad(problem.objective, (0, 1))(theta, at.x)
        direct = unit * ravel_pytree(direct)[0]
        parts = jnp.linalg.norm(direct) + jnp.linalg.norm(at.gradient - direct)
        left = left_of(at.gradient)
        near = (left <= nearly * curvature) | (left <= 1e-6 * around)
        # What rounding makes of strategies that hardly move with theta.
        moving = jnp.linalg.norm(through.ravel()) * jnp.max(jnp.abs(at.x))
        near = near | (left <= 1e3 * eps * moving)
        return (left <= none * parts) | near, parts

    def going_on(carry):
        index, at, steepest, curvature, _, around = carry
        zero, parts = verdict(at, curvature, around)
        smooth_end = (index > 1) & zero & (at.degenerate == 0) & exists
        # A probe that descends settles the question too.
        return (index < 2 * number) & ~smooth_end & (steepest <= 1e-3 * parts)

    def look(carry):
        index, at, steepest, curvature, jumps, around = carry
        length = jnp.where(index < number, long, short)
        # The point itself first, then the direction of descent, then those that are fixed.
        slope = jnp.linalg.norm(at.gradient)
        descent = -at.gradient / jnp.where(slope > 0, slope, 1)
        direction = jnp.where(index % number == 1, descent, fixed[index % number])
        probe = jnp.where(index == 0, flat, projected(flat + length * direction))
        found = evaluated(probe, at.x)
        rounding = 100 * jnp.finfo(flat.dtype).eps * jnp.abs(at.objective)
        gained = (at.objective - found.objective - rounding) / length
        gained = jnp.where(jnp.isfinite(gained) & (index > 0), gained, 0)
        solved = jnp.isfinite(found.objective) & (index > 0)
        moved, change = probe - flat, found.gradient - at.gradient
        bent = moved @ change / jnp.maximum(moved @ moved, jnp.finfo(flat.dtype).tiny)
        changed = jnp.where(solved, jnp.linalg.norm(change), 0)
        return (
            index + 1,
            tree_where(index == 0, found, at),
            jnp.maximum(steepest, gained),
            jnp.where((index == 1) & solved, bent, curvature),
            jumps.at[index // number].max(changed),
            jnp.maximum(around, jnp.where(solved, jnp.linalg.norm(found.gradient), 0)),
        )

    nowhere = jnp.full((), jnp.inf, flat.dtype)
    unknown = Evaluation(nowhere, jnp.zeros_like(flat), x, None, jnp.int32(0))
    nothing = jnp.zeros((), flat.dtype)
    first = jnp.int32(0), unknown, nothing, nothing, jnp.zeros(2, flat.dtype), nothing
    _, at, steepest, curvature, jumps, around = jax.lax.while_loop(going_on, look, first)
    zero, parts = verdict(at, curvature, around)
    # Of a gradient that is zero but for rounding, bounds take nothing away.
    norm = jnp.linalg.norm(at.gradient)
    at_bounds = zero & (left_of(at.gradient) < 0.5 * norm) & (norm > none * parts)
    held = steepest <= 1e-3 * parts
    # At a kink the gradient jumps however short the step; elsewhere its change shrinks with it.
    kinked = (jumps[1] > 0.3 * jumps[0]) & (jumps[1] > 0.1 * norm)
    good = jnp.isfinite(at.objective) & held & (zero | kinked | ~exists)
    at_rest = ENDINGS.where(at_bounds, ENDINGS.at_bounds, ENDINGS.stationary)
    # With constraints at rest that have no multiplier, the gradient is one of several.
    ending = ENDINGS.where(zero & (at.degenerate == 0), at_rest, ENDINGS.undecided)
    ending = ENDINGS.where(exists, ending, ENDINGS.no_derivative)
    result = RESULTS.where(exists, RESULTS.successful, RESULTS.no_derivative)
    stepped = unravel(start - at.gradient / unit)
    moved = ravel_pytree(problem.incentive_set.project(stepped))[0]
    return Ending(
        theta=theta,
        x=at.x,
        objective=at.objective,
        stationarity=jnp.linalg.norm(start - moved),
        ending=ENDINGS.where(good, ending, ENDINGS.not_stationary),
        result=RESULTS.where(good, result, RESULTS.not_stationary),
    )
