"""Feedback that the agents receive in place of their true marginal costs.

Feedback is any function `(key, operator_value) -> estimate`; `None` stands for exact feedback.
"""

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from . import _checks


class Gaussian(eqx.Module):
    """`F + s N(0, I)`: unbiased, with mean squared error `s^2` an entry.

    The feedback of Liu et al. (2022), Assumption 5.3 and section 7.

    **Arguments:**

    - `standard_deviation`: `s >= 0`, a number or one an entry of `x`, in units of cost.

    **Raises** `ValueError` when it is negative.

    !!! example

        >>> import incentax as ix, jax, jax.numpy as jnp
        >>> feedback = ix.noise.Gaussian(0.0)
        >>> feedback(jax.random.key(0), jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    standard_deviation: Float[Array, "..."]

    def __init__(self, standard_deviation: ArrayLike):
        self.standard_deviation = _checks.require_positive(
            "Gaussian", "standard_deviation", standard_deviation, strictly=False
        )

    def __call__(self, key: PRNGKeyArray, operator_value: Array) -> Array:
        draw = jax.random.normal(key, operator_value.shape, operator_value.dtype)
        return operator_value + self.standard_deviation.astype(operator_value.dtype) * draw
