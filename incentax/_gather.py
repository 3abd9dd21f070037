"""Values from known places and sums into them, without a word about places that do not exist.

JAX would count negative places from the end, in a second table of places which XLA keeps for every
loop: of tolls for Chicago 184 MB of temporary memory in place of 102.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int

_KNOWN: Any = {"mode": "promise_in_bounds", "wrap_negative_indices": False}


def gathered(values: Array, places: Int[Array, "..."]) -> Array:
    """`values[places]`; places lie in `0..len(values) - 1`."""
    return values.at[places].get(**_KNOWN)


def sums_of(values: Array, group: Int[Array, " values"], groups: int) -> Array:
    """Of every group the sum; groups stand together, in order."""
    return jnp.zeros(groups, values.dtype).at[group].add(values, indices_are_sorted=True, **_KNOWN)
