"""How an objective without a least value is told."""

from typing import Any

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, PyTree

from ..._compile import compiled
from .._problem import DesignProblem

# An objective below this that still falls has no least value, whatever its unit.
_BOTTOMLESS = -1e30


def falls_on(objective: Any, slope: Any, theta: Any) -> Any:
    """Whether going further by a share of the way so far would change the objective by a share."""
    return slope * abs(theta).max(initial=0.0) > 1e-6 * abs(objective)


def is_bottomless(objective: Any, slope: Any, theta: Any) -> Any:
    """Whether an objective is as low as none with a least value, and falls on."""
    return (objective < _BOTTOMLESS) & falls_on(objective, slope, theta)


@compiled
def is_far(
    problem: DesignProblem, start: PyTree, flat: Array, objective: Array, slope: ArrayLike
) -> Array:
    """Whether an incentive is where only an objective without a least value leads; `slope`: of the
    objective there."""
    incentives, kind = problem.incentive_set.constraints(start), jnp.finfo(flat.dtype)
    free = jnp.isinf(incentives.lower) | jnp.isinf(incentives.upper)
    size = jnp.max(jnp.abs(ravel_pytree(start)[0]), initial=1.0)
    far = jnp.max(jnp.where(free, jnp.abs(flat), 0), initial=0.0) > size / float(kind.eps) ** 1.25
    far = far & falls_on(objective, slope, flat)
    return jnp.any(free) & (far | is_bottomless(objective, slope, flat))
