"""Arithmetic on pytrees, and functions as pytrees."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, PyTree


def as_pytree_function(function: Callable) -> Callable:
    """A plain function becomes a `jtu.Partial`, a pytree without leaves; modules stay as they are.

    So a game is a pytree whose leaves are arrays only, which `jax.jit` and `jax.vmap` accept.
    """
    if not callable(function):
        raise TypeError(f"a function is needed here, got {function!r}")
    if isinstance(function, eqx.Module | jtu.Partial):
        return function  # pyright: ignore[reportReturnType]
    try:
        hash(function)
    except TypeError:  # programs are told apart by their functions
        return jtu.Partial(function.__call__)
    return jtu.Partial(function)


def tree_norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm of all leaves together."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def tree_subtract(left: PyTree, right: PyTree) -> PyTree:
    """Leafwise `left - right`."""
    return jax.tree.map(jnp.subtract, left, right)


def tree_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every entry of every floating leaf is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def tree_where(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    """Leafwise `where` with one condition for the whole tree; typed keys pass too."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
