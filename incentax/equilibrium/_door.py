"""Checks at the door of every verb that takes a game, an incentive and a strategy."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._checks import as_float, require
from ..games import AbstractGame
from ..sets import AbstractSet


def inside(owner: str, name: str, point: PyTree, point_set: AbstractSet) -> PyTree:
    """`point` as float arrays, refused unless it has the shape of the set and lies inside."""
    point = jax.tree.map(as_float, point)
    point_set.check_shape(owner, name, point)
    projected = point_set.project(point)
    rule = f"`{owner}({name}=...)` needs a finite point of its set"

    def checked(leaf: Array, nearest: Array) -> Array:
        tolerance = jnp.sqrt(jnp.finfo(leaf.dtype).eps) * (1 + jnp.abs(leaf))
        near = jnp.isfinite(leaf) & (jnp.abs(leaf - nearest) <= tolerance)
        return require(leaf, near, rule, {"value": leaf, "nearest point": nearest})

    return jax.tree.map(checked, point, projected)


def strategy_at_door(
    owner: str, name: str | None, game: AbstractGame, theta: PyTree, given: Array | None
) -> Array:
    """`given`, or the centre of the strategy set in the shape that the operator asks for.

    `name` is that of the argument, `None` where there is none.
    """
    strategies = game.strategies(theta)
    if given is not None and name is not None:
        x = inside(owner, name, given, strategies)
    else:
        x = strategies.centre()
        if strategies.shape is None:
            x = jnp.broadcast_to(x, _shape_of_strategy(owner, name, game, theta, x))
    # Refuses an operator of another shape; play goes on in the precision of what it returns.
    return x.astype(jax.eval_shape(game.operator, theta, x).dtype)


def _shape_of_strategy(
    owner: str, name: str | None, game: AbstractGame, theta: PyTree, x: Array
) -> tuple[int, ...]:
    """The shape that the operator returns for a scalar, if it also maps it to itself."""
    untold = "the strategy set does not say the shape of x, and the operator does not tell it"
    unknown = f"`{owner}({name}=...)` needs a strategy: {untold}, got None"
    if name is None:
        unknown = f"`{owner}` needs a strategy set that has a shape, as `ix.Reals((n,))`: {untold}"
    try:
        shape = _operator_shape(game, theta, jax.ShapeDtypeStruct((), x.dtype))
        if _operator_shape(game, theta, jax.ShapeDtypeStruct(shape, x.dtype)) == shape:
            return shape
    except Exception as error:
        raise ValueError(unknown) from error
    raise ValueError(unknown)


def _operator_shape(game: AbstractGame, theta: PyTree, x: jax.ShapeDtypeStruct):
    return jax.eval_shape(game.unchecked_operator, theta, x).shape
