"""How far a strategy is from equilibrium."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..games import AbstractGame


def natural_residual(
    game: AbstractGame, theta: PyTree, x: Array, operator_value: Array | None = None
) -> Float[Array, ""]:
    """`max |x - project(x - F(theta, x))|`: 0 exactly at an equilibrium.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.NonNegative())
        >>> float(ix.natural_residual(game, jnp.array([1.0, -1.0]), jnp.array([0.5, 0.0])))
        0.5

    `operator_value` may be passed where it is known better than `game.operator(theta, x)` gives
    it, as from `log x`.
    """
    value = game.operator(theta, x) if operator_value is None else operator_value
    residual = jnp.max(jnp.abs(game.strategies(theta).displacement(x, value)))
    # A bound would hide an infinite cost.
    return jnp.where(jnp.all(jnp.isfinite(value)), residual, jnp.nan)


def magnification(game: AbstractGame, theta: PyTree, x: Array) -> Float[Array, ""]:
    """What costs in a small unit are multiplied with, at least 1.

    Else any strategy would seem close to equilibrium: where costs are 1e-9, so is
    `x - project(x - F)`. Their unit is the larger of `F` and of its change when `x` moves by about
    1, each entry by another length.
    """
    along = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    value, slope = jax.jvp(lambda x: game.operator(theta, x), (x,), (along,))
    sizes = jnp.stack([jnp.max(jnp.abs(value)), jnp.max(jnp.abs(slope))])
    largest = jnp.max(jnp.where(jnp.isfinite(sizes), sizes, 1))
    return jnp.where((largest > 0) & (largest < 1), 1 / jnp.where(largest > 0, largest, 1), 1)
