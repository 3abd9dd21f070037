"""Sets of one kind and shape side by side, as one set."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import block_diag
from jaxtyping import Array

from ._base import AbstractStrategySet
from ._box import Box, Reals
from ._constraints import Blocks
from ._polyhedron import Polyhedron
from ._simplex import Simplex


def side_by_side(sets: AbstractStrategySet, count: int) -> AbstractStrategySet:
    """The product of `count` sets that differ in their numbers alone, which have a leading axis.

    A point has a leading axis too, but on simplices, where points are flat: block after block.

    **Raises** `ValueError` for sets without a shape, `TypeError` for sets of another kind.
    """
    one = jax.tree.map(lambda leaf: leaf[0], sets)
    if one.shape is None:
        raise ValueError(
            f"scenarios need a strategy set that has a shape, as `ix.NonNegative((n,))`, got {one}"
        )
    if isinstance(sets, Simplex):
        blocks, number = one.blocks, one.blocks.count
        first = number * jnp.arange(count)[:, None]
        ids = (blocks.ids[None, :] + first).ravel()
        joined = Blocks(ids, number * count, blocks.equal_size)
        return eqx.tree_at(lambda s: (s.blocks, s.total), sets, (joined, sets.total.ravel()))
    if isinstance(sets, Box):
        shape = (count, *one.shape)
        bounds = jax.vmap(
            lambda s: tuple(jnp.broadcast_to(b, shape[1:]) for b in (s.lower, s.upper))
        )(sets)
        return eqx.tree_at(lambda s: (s.lower, s.upper), sets, bounds)
    if isinstance(sets, Reals):
        return Reals((count, *one.shape))
    if isinstance(sets, Polyhedron):
        return _polyhedra(sets, (count, *one.shape))
    raise TypeError(f"scenarios need boxes, simplices or polyhedra, got {type(sets).__name__}")


def _polyhedra(sets: Polyhedron, shape: tuple[int, ...]) -> Polyhedron:
    def rows(parts: tuple[Array, Array]) -> tuple[Array, Array]:
        return block_diag(*parts[0]), parts[1].ravel()

    joined = eqx.tree_at(
        lambda s: (s.lower, s.upper, s.equality, s.inequality, s.middle),
        sets,
        (
            sets.lower.ravel(),
            sets.upper.ravel(),
            rows(sets.equality),
            rows(sets.inequality),
            sets.middle.ravel(),
        ),
    )
    object.__setattr__(joined, "size", shape)
    return joined
