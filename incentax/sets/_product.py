"""A set for every leaf of an incentive that is a pytree."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import block_diag
from jaxtyping import PyTree

from ._base import AbstractSet
from ._constraints import LinearConstraints, Rows


class Product(AbstractSet):
    """A pytree of sets for a `theta` of the same structure.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> prices = ix.Product({"toll": ix.Box(0.0, 1.0), "subsidy": ix.NonNegative()})
        >>> theta = {"toll": jnp.array(2.0), "subsidy": jnp.array(-1.0)}
        >>> projected = prices.project(theta)
        >>> float(projected["toll"]), float(projected["subsidy"])
        (1.0, 0.0)
    """

    sets: PyTree

    def __check_init__(self):
        for leaf in jax.tree.leaves(self.sets, is_leaf=_is_set):
            if not _is_set(leaf):
                raise TypeError(f"`Product(sets)` needs a pytree of sets, got a leaf {leaf!r}")

    def project(self, x: PyTree) -> PyTree:
        return jax.tree.map(lambda s, part: s.project(part), self.sets, x, is_leaf=_is_set)

    def constraints(self, x: PyTree) -> LinearConstraints:
        leaves, structure = jax.tree.flatten(self.sets, is_leaf=_is_set)
        parts = [s.constraints(part) for s, part in zip(leaves, structure.flatten_up_to(x))]
        dtype = jnp.result_type(*(part.lower for part in parts))
        return LinearConstraints(
            jnp.concatenate([part.lower for part in parts]),
            jnp.concatenate([part.upper for part in parts]),
            Rows(block_diag(*(part.equality.dense(dtype) for part in parts))),
            jnp.concatenate([part.equality_level for part in parts]),
            block_diag(*(part.inequality for part in parts)),
            jnp.concatenate([part.inequality_level for part in parts]),
        )

    def centre(self) -> PyTree:
        return jax.tree.map(lambda s: s.centre(), self.sets, is_leaf=_is_set)

    def check_shape(self, owner: str, name: str, x: PyTree) -> None:
        leaves, structure = jax.tree.flatten(self.sets, is_leaf=_is_set)
        try:
            parts = structure.flatten_up_to(x)
        except ValueError:
            raise ValueError(
                f"`{owner}({name}=...)` needs the structure of its set, {structure}, "
                f"got {jax.tree.structure(x)}"
            ) from None
        for part_set, part in zip(leaves, parts):
            part_set.check_shape(owner, name, part)


def _is_set(node) -> bool:
    return isinstance(node, AbstractSet)
