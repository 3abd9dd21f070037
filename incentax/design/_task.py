"""What a design without a scheme is given, with all that can be refused refused."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._checks import require_count, require_key
from ._problem import DesignProblem


class Task(NamedTuple):
    """A problem, where to start, at most how many steps from each start, starts, and a key."""

    problem: DesignProblem
    theta: PyTree
    x: Array
    steps: int
    starts: int
    key: PRNGKeyArray


def task_at_door(
    problem: DesignProblem,
    theta0: PyTree,
    *,
    x0: Array | None,
    steps: int | None,
    starts: int | None,
    key: PRNGKeyArray | None,
    owner: str = "design",
) -> Task:
    """A task from the arguments of `design`, or of another owner, in one precision."""
    if not isinstance(problem, DesignProblem):
        raise TypeError(f"`{owner}(problem)` needs a `DesignProblem`, got {problem!r}")
    steps = require_count(owner, "steps", 1000 if steps is None else steps)
    theta, x = problem.at_door(owner, ("theta0", "x0"), theta0, x0)
    # One precision for all: that of the incentive, its set, or the operator, whichever is finest.
    bounds = problem.incentive_set.constraints(theta).lower
    dtype = jnp.result_type(x, bounds, *jax.tree.leaves(problem.incentive_set.centre()))
    dtype = jnp.result_type(dtype, *jax.tree.leaves(theta))
    theta, x = jax.tree.map(lambda leaf: leaf.astype(dtype), (theta, x))
    size = x.size + sum(leaf.size for leaf in jax.tree.leaves(theta))
    if starts is None:
        starts = 16 if size <= 64 else 4 if size <= 500 else 1
    starts = require_count(owner, "starts", starts)
    key = jax.random.key(0) if key is None else key
    require_key(owner, key)
    return Task(problem, theta, x, steps, starts, key)


def spread_starts(problem: DesignProblem, theta: PyTree, starts: int, key: PRNGKeyArray) -> PyTree:
    """`theta` twice and points around it, along a leading axis: in the box where there is one, else
    normal with a width from 1 to 10 times the size of `theta`; all in the incentive set."""
    flat, unravel = ravel_pytree(theta)
    incentives = problem.incentive_set.constraints(theta)
    width = incentives.upper - incentives.lower
    boxed = jnp.isfinite(width)
    low = jnp.where(boxed, incentives.lower, 0)

    def one(index: Array) -> PyTree:
        key_box, key_wide = jax.random.split(jax.random.fold_in(key, index))
        inside = low + jnp.where(boxed, width, 0) * jax.random.uniform(
            key_box, flat.shape, flat.dtype
        )
        share = index.astype(flat.dtype) / max(starts - 1, 1)
        spread = jnp.maximum(jnp.max(jnp.abs(flat)), 1) * 10.0**share
        wide = flat + spread * jax.random.normal(key_wide, flat.shape, flat.dtype)
        point = problem.incentive_set.project(unravel(jnp.where(boxed, inside, wide)))
        return jax.tree.map(lambda a, b: jnp.where(index <= 1, a, b), theta, point)

    return jax.vmap(one)(jnp.arange(starts))
