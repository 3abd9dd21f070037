"""What a search has found: whether it is stationary, at bounds, or at a kink."""

from typing import NamedTuple

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
from ._levels import Evaluation, ExactObjective

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
    flat, _ = ravel_pytree(theta)
    here = _Here(problem, theta, entropic)
    size, dtype = flat.size, flat.dtype
    axes = jnp.eye(size, dtype=dtype)[:_PROBES]
    random = jax.random.normal(key, (2 * min(size, _PROBES), size), dtype)
    random = random / jnp.linalg.norm(random, axis=1, keepdims=True)
    fixed = jnp.concatenate([jnp.zeros((2, size), dtype), axes, -axes, random])
    number = len(fixed)
    exists = here.exists(x)
    long, short = here.eps**0.25, here.eps**0.375

    def going_on(carry):
        index, at, seen = carry
        zero, parts = here.verdict(at, seen)
        smooth_end = (index > 1) & zero & (at.degenerate == 0) & exists
        # A probe that descends settles the question too.
        return (index < 2 * number) & ~smooth_end & (seen.steepest <= 1e-3 * parts)

    def look(carry):
        index, at, seen = carry
        length = jnp.where(index < number, long, short)
        # The point itself first, then the direction of descent, then those that are fixed.
        slope = jnp.linalg.norm(at.gradient)
        descent = -at.gradient / jnp.where(slope > 0, slope, 1)
        direction = jnp.where(index % number == 1, descent, fixed[index % number])
        probe = jnp.where(index == 0, here.flat, here.projected(here.flat + length * direction))
        found = here.evaluated(probe, at.x)
        seen = here.noted(seen, index, at, (probe, found, length), index // number)
        return index + 1, tree_where(index == 0, found, at), seen

    nowhere = jnp.full((), jnp.inf, dtype)
    unknown = Evaluation(nowhere, jnp.zeros_like(flat), x, None, jnp.int32(0))
    nothing = jnp.zeros((), dtype)
    first = jnp.int32(0), unknown, _Seen(nothing, nothing, nothing, jnp.zeros(2, dtype))
    _, at, seen = jax.lax.while_loop(going_on, look, first)
    return _ending(here, at, seen, exists)


class _Seen(NamedTuple):
    """What the probes have met: the steepest descent, the curvature along the first of them, the
    largest gradient, and its largest jump over long and over short steps."""

    steepest: Array
    curvature: Array
    around: Array
    jumps: Array


class _Here:
    """The objective around an incentive, in units of the incentive's entries."""

    def __init__(self, problem: DesignProblem, theta: PyTree, entropic: bool | None):
        start, self.unravel = ravel_pytree(theta)
        self.problem, self.theta, self.start = problem, theta, start
        self.exact = ExactObjective(problem, theta, entropic)
        self.incentives = problem.incentive_set.constraints(theta)
        self.eps = float(jnp.finfo(start.dtype).eps)
        self.none = max(1e-5, self.eps**0.5)
        self.unit = unit_of(self.incentives, start)
        self.flat = start / self.unit

    def exists(self, x: Array) -> Array:
        """Whether the adjoint system has a solution."""
        found = evaluate_hypergradient(self.problem, self.theta, x, Implicit())
        return found.residual <= max(NO_DERIVATIVE, self.eps**0.4)

    def projected(self, flat: Array) -> Array:
        """The nearest incentive of the set."""
        point = self.problem.incentive_set.project(self.unravel(self.unit * flat))
        return ravel_pytree(point)[0] / self.unit

    def evaluated(self, flat: Array, near: Array) -> Evaluation:
        """The objective and its gradient."""
        found = self.exact(self.unit * flat, near, None)
        return eqx.tree_at(lambda e: e.gradient, found, self.unit * found.gradient)

    def left_of(self, gradient: Array) -> Array:
        """The gradient's norm, without what points out of the set; a short step tells it."""
        norm = jnp.linalg.norm(gradient)
        length = 1e-3 / jnp.where(norm > 0, norm, 1)
        if self.incentives.inequality_level.size + self.incentives.equality_level.size:
            return (
                jnp.linalg.norm(self.flat - self.projected(self.flat - length * gradient)) / length
            )
        # Between bounds every entry has a width of its own.
        longest = 1e-3 * (self.incentives.upper - self.incentives.lower) / self.unit
        step = jnp.clip(length * gradient, -longest, longest)
        taken = (self.flat - self.projected(self.flat - step)) / jnp.where(step == 0, 1, step)
        return jnp.linalg.norm(taken * gradient)

    def verdict(self, at: Evaluation, seen: _Seen) -> tuple[Array, Array]:
        """Whether the gradient is zero, and the size of its parts."""
        direct, through = jax.grad(self.problem.objective, (0, 1))(self.theta, at.x)
        direct = self.unit * ravel_pytree(direct)[0]
        parts = jnp.linalg.norm(direct) + jnp.linalg.norm(at.gradient - direct)
        left = self.left_of(at.gradient)
        nearly = max(1e-6, self.eps**0.5)
        near = (left <= nearly * seen.curvature) | (left <= 1e-6 * seen.around)
        # What rounding makes of strategies that hardly move with theta.
        moving = jnp.linalg.norm(through.ravel()) * jnp.max(jnp.abs(at.x))
        near = near | (left <= 1e3 * self.eps * moving)
        return (left <= self.none * parts) | near, parts

    def noted(
        self,
        seen: _Seen,
        index: Array,
        at: Evaluation,
        met: tuple[Array, Evaluation, Array],
        which: Array,
    ) -> _Seen:
        """What one more probe, `met` at a distance, adds; the first one is the point itself."""
        probe, found, length = met
        rounding = 100 * self.eps * jnp.abs(at.objective)
        gained = (at.objective - found.objective - rounding) / length
        gained = jnp.where(jnp.isfinite(gained) & (index > 0), gained, 0)
        solved = jnp.isfinite(found.objective) & (index > 0)
        moved, change = probe - self.flat, found.gradient - at.gradient
        bent = moved @ change / jnp.maximum(moved @ moved, jnp.finfo(probe.dtype).tiny)
        changed = jnp.where(solved, jnp.linalg.norm(change), 0)
        steep = jnp.where(solved, jnp.linalg.norm(found.gradient), 0)
        return _Seen(
            steepest=jnp.maximum(seen.steepest, gained),
            curvature=jnp.where((index == 1) & solved, bent, seen.curvature),
            around=jnp.maximum(seen.around, steep),
            jumps=seen.jumps.at[which].max(changed),
        )


def _ending(here: _Here, at: Evaluation, seen: _Seen, exists: Array) -> Ending:
    zero, parts = here.verdict(at, seen)
    # Of a gradient that is zero but for rounding, bounds take nothing away.
    norm = jnp.linalg.norm(at.gradient)
    at_bounds = zero & (here.left_of(at.gradient) < 0.5 * norm) & (norm > here.none * parts)
    held = seen.steepest <= 1e-3 * parts
    # At a kink the gradient jumps however short the step; elsewhere its change shrinks with it.
    kinked = (seen.jumps[1] > 0.3 * seen.jumps[0]) & (seen.jumps[1] > 0.1 * norm)
    good = jnp.isfinite(at.objective) & held & (zero | kinked | ~exists)
    at_rest = ENDINGS.where(at_bounds, ENDINGS.at_bounds, ENDINGS.stationary)
    # With constraints at rest that have no multiplier, the gradient is one of several.
    ending = ENDINGS.where(zero & (at.degenerate == 0), at_rest, ENDINGS.undecided)
    ending = ENDINGS.where(exists, ending, ENDINGS.no_derivative)
    result = RESULTS.where(exists, RESULTS.successful, RESULTS.no_derivative)
    stepped = here.unravel(here.start - at.gradient / here.unit)
    moved = ravel_pytree(here.problem.incentive_set.project(stepped))[0]
    return Ending(
        theta=here.theta,
        x=at.x,
        objective=at.objective,
        stationarity=jnp.linalg.norm(here.start - moved),
        ending=ENDINGS.where(good, ending, ENDINGS.not_stationary),
        result=RESULTS.where(good, result, RESULTS.not_stationary),
    )
