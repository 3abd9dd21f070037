"""In which units constraints and the objective count beside one another."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from ..._compile import compiled
from .._constraint import limits_of
from .._problem import DesignProblem
from .._task import spread_starts
from ..accurate import unit_of

# What a violation of one unit costs to begin with, in parts of what the objective changes by.
WEIGHT = 10.0


def kept_to(dtype: jnp.dtype) -> float:
    """Parts of a unit to which a constraint can be kept in a precision."""
    return max(1e-7, 100 * float(jnp.finfo(dtype).eps))


@compiled
def units_of(problem: DesignProblem, theta: PyTree, x: Array, key: Array) -> tuple[Array, Array]:
    """What counts as one of each constraint's value, and of the objective's: what they change by
    over the units of incentive and strategy, the most at the start and at points around it."""
    width = unit_of(problem.incentive_set.constraints(theta), ravel_pytree(theta)[0])
    size = jnp.maximum(1, jnp.abs(x.ravel()))

    def values(theta: PyTree, x: Array) -> Array:
        at = limits_of(problem.constraints, theta, x)
        return jnp.concatenate([problem.objective(theta, x)[None], at.value])

    def changes(theta: PyTree) -> Array:
        direct, through = jax.jacrev(values, (0, 1))(theta, x)
        rows = jax.vmap(lambda leaf: ravel_pytree(leaf)[0])(direct)
        felt = jnp.abs(through.reshape(len(rows), -1)) @ size
        return jnp.abs(rows) @ width + felt

    met = jax.vmap(changes)(spread_starts(problem, theta, 6, key))
    largest = jnp.max(jnp.where(jnp.isfinite(met), met, 0), axis=0)
    largest = jnp.where(largest > 0, largest, 1)
    return largest[1:], largest[0]
