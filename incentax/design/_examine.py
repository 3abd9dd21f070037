"""What a search has found: whether it is stationary, at bounds, or at a kink."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._results import ENDINGS, RESULTS
from .._tree import tree_where
from ._problem import DesignProblem
from ._search import Evaluation, ExactObjective, Search

# Coordinate directions that are probed at a kink.
_PROBES = 20


class Ending(eqx.Module):
    """A point that a search ended at, examined in exact terms."""

    theta: PyTree
    x: Array
    objective: Float[Array, ""]
    stationarity: Float[Array, ""]
    ending: ENDINGS
    result: RESULTS


def examine(
    problem: DesignProblem, end: Search, theta0: PyTree, key: PRNGKeyArray, entropic: bool | None
) -> Ending:
    """Whether a search ended at a stationary point, by its gradient or by probes around it.

    The gradient counts as zero when what the projection on the incentive set leaves of it is
    below 1e-5 of its two parts, the direct one and the one through `x*`, or could change the
    objective by 1e-7 of itself while `theta` changes by its own size. Where active constraints
    have no multiplier, or the gradient is not zero, the objective is computed at small steps along
    the coordinates and in random directions: at a kink none may descend at more than a hundredth
    of the slope.
    """
    flat, unravel = end.theta, ravel_pytree(theta0)[1]
    exact = ExactObjective(problem, theta0, entropic)

    def projected(flat: Array) -> Array:
        return ravel_pytree(problem.incentive_set.project(unravel(flat)))[0]

    size = jnp.maximum(jnp.max(jnp.abs(flat)), 1)
    axes = jnp.eye(flat.size, dtype=flat.dtype)[:_PROBES]
    random = jax.random.normal(key, (2 * min(flat.size, _PROBES), flat.size), flat.dtype)
    random = random / jnp.linalg.norm(random, axis=1, keepdims=True)
    fixed = jnp.concatenate([jnp.zeros_like(axes[:1]), axes, -axes, random])
    number = len(fixed)

    def verdict(at: Evaluation) -> tuple[Array, Array, Array, Array]:
        """Whether the gradient is zero, whether a bound makes it so, what is left, its scale."""
        theta = unravel(flat)
        direct = ravel_pytree(jax.grad(problem.objective)(theta, at.x))[0]
        parts = jnp.linalg.norm(direct) + jnp.linalg.norm(at.gradient - direct)
        parts = parts + 1e-2 * jnp.abs(at.objective) / size
        left = jnp.linalg.norm(flat - projected(flat - at.gradient))
        zero = left <= 1e-5 * parts
        return zero, zero & (jnp.linalg.norm(at.gradient) > 1e-5 * parts), left, parts

    def going_on(carry):
        index, at, _ = carry
        zero, *_ = verdict(at)
        enough = (index > 0) & zero & (at.degenerate == 0)
        return (index < 2 * number) & ~enough

    def look(carry):
        index, at, steepest = carry
        length = size * jnp.where(index < number, 1e-4, 1e-6)
        # The first direction of each length is that of descent.
        slope = jnp.linalg.norm(at.gradient)
        descent = -at.gradient / jnp.where(slope > 0, slope, 1)
        direction = jnp.where(index % number == 0, descent, fixed[index % number])
        probe = jnp.where(index == 0, flat, projected(flat + length * direction))
        found = exact(probe, at.x, None)
        gained = (at.objective - found.objective) / length
        gained = jnp.where(jnp.isfinite(gained) & (index > 0), gained, 0)
        return (
            index + 1,
            tree_where(index == 0, found, at),
            jnp.maximum(steepest, gained),
        )

    nowhere = jnp.full((), jnp.inf, flat.dtype)
    unknown = Evaluation(nowhere, jnp.zeros_like(flat), end.x, None, jnp.int32(0))
    first = jnp.int32(0), unknown, jnp.zeros((), flat.dtype)
    _, at, steepest = jax.lax.while_loop(going_on, look, first)
    zero, at_bounds, left, parts = verdict(at)
    rounding = 1e-8 * jnp.abs(at.objective) / (1e-4 * size)
    held = steepest <= jnp.maximum(1e-2 * parts, rounding)
    good = jnp.isfinite(at.objective) & held
    at_rest = ENDINGS.where(at_bounds, ENDINGS.at_bounds, ENDINGS.stationary)
    ending = ENDINGS.where(zero, at_rest, ENDINGS.kink)
    return Ending(
        theta=unravel(flat),
        x=at.x,
        objective=at.objective,
        stationarity=left,
        ending=ENDINGS.where(good, ending, ENDINGS.not_stationary),
        result=RESULTS.where(good, RESULTS.successful, RESULTS.not_stationary),
    )
