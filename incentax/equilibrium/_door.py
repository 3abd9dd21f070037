"""Checks at the door of every verb that takes a game, an incentive and a strategy."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._checks import as_float, is_traced, require, warn
from .._compile import compiled, shape_of
from .._devices import on_host
from ..games import AbstractGame
from ..sets import AbstractSet


def as_incentive(owner: str, name: str, theta: PyTree) -> PyTree:
    """`theta` with float arrays for leaves; `TypeError` for what is none."""
    for leaf in jax.tree.leaves(theta):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int):
            raise TypeError(
                f"`{owner}({name}=...)` needs a pytree of arrays, got a leaf {leaf!r}; of a module "
                "take the arrays: `arrays, rest = eqx.partition(module, eqx.is_inexact_array)`, "
                "and put it together again inside of operator and objective with `eqx.combine`"
            )
    return jax.tree.map(as_float, theta)


def inside(owner: str, name: str, point: PyTree, point_set: AbstractSet) -> PyTree:
    """`point` as float arrays, refused unless it has the shape of the set and lies inside.

    A start, by a name that ends in 0, is projected, with a warning where values are known.
    """
    point = as_incentive(owner, name, point)
    point_set.check_shape(owner, name, point)
    projected, finite, far = _held_against(point_set, point)
    start = name.endswith("0")
    kind = "start" if start else "point of its set"
    rule = f"`{owner}({name}=...)` needs a finite {kind}"

    def checked(leaf: Array, nearest: Array, finite: Array, far: Array) -> Array:
        near = finite & (start | ~far)
        return require(leaf, near, rule, {"value": leaf, "nearest point": nearest})

    if is_traced(finite, far):
        outside = is_traced(far)
    else:
        finite, far = jax.tree.map(on_host, (finite, far))
        outside = any(map(np.any, jax.tree.leaves(far)))
    checked_point = jax.tree.map(checked, point, projected, finite, far)
    if not start or not outside:
        return checked_point
    if not is_traced(far):
        warn(f"`{owner}({name}=...)` lies outside of its set: going on from the nearest point.")
    return jax.tree.map(
        lambda at, bad, near: jnp.where(bad, near, at), checked_point, far, projected
    )


@compiled
def _held_against(point_set: AbstractSet, point: PyTree) -> tuple[PyTree, PyTree, PyTree]:
    """The nearest point, where `point` is finite, and where it is far from it."""
    projected = point_set.project(point)

    def far(leaf: Array, nearest: Array) -> Array:
        return ~(
            jnp.abs(leaf - nearest) <= jnp.sqrt(jnp.finfo(leaf.dtype).eps) * (1 + jnp.abs(leaf))
        )

    return projected, jax.tree.map(jnp.isfinite, point), jax.tree.map(far, point, projected)


_centre = compiled(lambda strategies: strategies.centre())
_operator = compiled(lambda game, theta, x: game.operator(theta, x))


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
        x = _centre(strategies)
        if strategies.shape is None:
            x = jnp.broadcast_to(x, _shape_of_strategy(owner, name, game, theta, x))
    # Refuses an operator of another shape; play goes on in the precision of what it returns.
    return x.astype(shape_of(_operator, game, theta, x).dtype)


def _shape_of_strategy(
    owner: str, name: str | None, game: AbstractGame, theta: PyTree, x: Array
) -> tuple[int, ...]:
    """The shape that the operator returns for a scalar, if it also maps it to itself."""
    untold = "the strategy set does not say the shape of x, and the operator does not tell it"
    unknown = (
        f"`{owner}({name}=...)` needs a strategy, or the game a set with a shape, as "
        f"`ix.NonNegative((n,))`: {untold}, got None"
    )
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
