"""How far a strategy is from equilibrium."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..games import AbstractGame


def natural_residual(
    game: AbstractGame, theta: PyTree, x: Array, operator_value: Array | None = None
) -> Float[Array, ""]:
    """`max |x - project(x - F(theta, x))|`: 0 exactly at an equilibrium.

    `operator_value` may be passed where it is known better than `game.operator(theta, x)` gives
    it, as from `log x`.
    """
    value = game.operator(theta, x) if operator_value is None else operator_value
    return jnp.max(jnp.abs(x - game.strategy_set.project(x - value)))
