"""Ragged products of simplices."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from .._checks import require_positive
from .._compile import compiled
from ._base import AbstractFace, AbstractStrategySet
from ._box import check_shape_of_array
from ._constraints import Blocks, LinearConstraints


class SimplexFace(AbstractFace):
    """Motions in the geometry of the entropy, where `dx = sqrt(x) w` and unused strategies stay."""

    scale: Float[Array, " d"]
    relaxation: Float[Array, " d"]
    degenerate: Int[Array, ""]
    displacement: Float[Array, " d"]
    used: Bool[Array, " d"]
    normal: Float[Array, " d"]
    blocks: Blocks

    def carry(
        self, constraints: LinearConstraints, x: Array, operator_value: Array
    ) -> tuple[Array, Array]:
        level = constraints.equality_level
        share = level / self.blocks(x)
        return x * self.blocks.transpose(share), jnp.zeros_like(operator_value)

    def multipliers(self, operator_value: Array) -> tuple[Array, Array]:
        # All that are used cost the same: how the mean is weighted is of no matter.
        weight = jax.lax.stop_gradient(self.normal**2)
        cost = jnp.where(self.used, operator_value, 0)
        return -self.blocks(weight * cost), jnp.zeros(0, operator_value.dtype)

    def project(self, w: Array) -> Array:
        w = jnp.where(self.used, w, 0)
        return w - self.normal * self.blocks.transpose(self.blocks(self.normal * w))

    def response(self, diagonal: Array) -> Callable[[Array], Array]:
        blocks = self.blocks
        share = jnp.square(self.scale) / jnp.where(self.used, diagonal, 1)
        mean_share = share / blocks.transpose(blocks(share))
        return lambda g: share * (g - blocks.transpose(blocks(mean_share * g)))


class Simplex(AbstractStrategySet):
    """Blocks of `x`, one after another, each `>= 0` and summing to its total.

    **Arguments:**

    - `sizes`: length of each block; an `int` is one block.
    - `total`: positive sum of each block, one number for all or one a block.

    **Raises** `ValueError` unless there is a block, every size is at least 1 and every total is
    positive.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> ix.Simplex([2, 3]).centre().round(2).tolist()
        [0.5, 0.5, 0.33, 0.33, 0.33]
        >>> ix.Simplex(2).project(jnp.array([2.0, 0.0])).tolist()
        [1.0, 0.0]
    """

    blocks: Blocks
    total: Float[Array, " blocks"]

    def __init__(self, sizes: int | Sequence[int] | np.ndarray, *, total: ArrayLike = 1.0):
        counts = np.atleast_1d(np.asarray(sizes))
        if counts.ndim != 1 or counts.size == 0:
            raise ValueError(f"`Simplex(sizes)` needs at least one block, got {sizes!r}")
        if not np.issubdtype(counts.dtype, np.integer):
            raise TypeError(f"`Simplex(sizes)` needs whole numbers, got {sizes!r}")
        if counts.min() < 1:
            index = int(np.argmin(counts))
            raise ValueError(
                f"`Simplex(sizes)` needs every size >= 1, got {counts[index]} at index {index}"
            )
        totals = require_positive("Simplex", "total", total)
        if totals.shape not in ((), counts.shape):
            raise ValueError(
                f"`Simplex(total=...)` needs one number or shape {counts.shape}, "
                f"got shape {totals.shape}"
            )
        equal = int(counts[0]) if (counts == counts[0]).all() else None
        ids = np.repeat(np.arange(counts.size), counts)
        self.blocks = Blocks(jnp.asarray(ids), int(counts.size), equal)
        self.total = jnp.broadcast_to(totals, counts.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.blocks.ids.shape

    def check_shape(self, owner: str, name: str, x: PyTree) -> None:
        check_shape_of_array(owner, name, x, self.shape)

    def centre(self) -> Array:
        sizes = self.blocks(jnp.ones(self.shape, self.total.dtype))
        return self.blocks.transpose(self.total / sizes)

    def constraints(self, x: Array) -> LinearConstraints:
        none, zero = jnp.zeros((0, x.size), x.dtype), jnp.zeros(x.size, x.dtype)
        total = self.total.astype(x.dtype)
        return LinearConstraints(zero, zero + jnp.inf, self.blocks, total, none, none[:, 0])

    def project(self, x: Array) -> Array:
        return _project(x, self.total.astype(x.dtype), self.blocks)

    def normalise_log(self, log_x: Array) -> tuple[Array, Array]:
        """`(x, log x)` with `log x` shifted so that every block of `x` has its total."""
        relative = log_x - self.blocks.transpose(self.blocks.max(log_x))
        weight = jnp.exp(relative)
        scale = self.total.astype(log_x.dtype) / self.blocks(weight)
        spread = self.blocks.transpose
        return weight * spread(scale), relative + spread(jnp.log(scale))

    def displacement(self, x: Array, force: Array) -> Array:
        return x - self.project(x - force)

    def multipliers(self, x: Array, operator_value: Array) -> tuple[Array, Array]:
        return self.blocks.max(-operator_value), jnp.zeros(0, x.dtype)

    def face(self, x: Array, operator_value: Array, step_size: Array | float) -> SimplexFace:
        # The face itself is that of entropic play: what is not used stays so, whatever the step.
        # What a share below rounding does is below rounding: it counts as unused.
        total = self.blocks.transpose(self.total.astype(x.dtype))
        used = x > jnp.finfo(x.dtype).eps * total
        positive = jnp.where(used, x, 0)
        mass = self.blocks.transpose(self.blocks(positive))
        cost = jnp.where(used, operator_value, 0)
        mean = self.blocks.transpose(self.blocks(positive * cost)) / mass
        eps = float(jnp.finfo(x.dtype).eps)
        close = eps**0.5
        # What an equilibrium leaves of equal costs to rounding holds nobody back.
        size = self.blocks.transpose(self.blocks.max(jnp.abs(cost)))
        held_back = used & (cost - mean > eps**0.6 * size)
        tempting = (x <= jnp.finfo(x.dtype).tiny) & (
            operator_value <= mean + close * (1 + jnp.abs(mean))
        )
        return SimplexFace(
            scale=jnp.sqrt(positive),
            displacement=self.displacement(x, step_size * operator_value),
            relaxation=jnp.where(held_back, cost - mean, 0),
            degenerate=jnp.sum(tempting, dtype=jnp.int32),
            used=used,
            normal=jnp.sqrt(positive / mass),
            blocks=self.blocks,
        )


@eqx.filter_custom_jvp
def _project(x: Array, total: Array, blocks: Blocks) -> Array:
    """Euclidean projection on every block by the finite method of C. Michelot, *Journal of
    Optimization Theory and Applications* 50 (1986): drop what the shifted point makes negative
    until nothing is. Shifted first so that the largest entry of a block is 0, which changes nothing
    but keeps that entry from being rounded away."""
    return _michelot(x, total, blocks)


@compiled
def _michelot(x: Array, total: Array, blocks: Blocks) -> Array:
    x = x - blocks.transpose(blocks.max(x))

    def shifted(kept: Array) -> Array:
        excess = blocks(jnp.where(kept, x, 0)) - total
        count = blocks(kept.astype(x.dtype))
        return x - blocks.transpose(excess / count)

    def unfinished(carry):
        kept, point = carry
        return jnp.any(kept & (point <= 0))

    def drop(carry):
        kept, point = carry
        kept = kept & (point > 0)
        return kept, shifted(kept)

    everything = jnp.ones(x.shape, bool)
    kept, point = jax.lax.while_loop(unfinished, drop, (everything, shifted(everything)))
    return jnp.where(kept, point, 0)


@_project.def_jvp
def _project_jvp(primals, tangents):
    x, total, blocks = primals
    dx, dtotal, _ = tangents
    point = _project(x, total, blocks)
    kept = point > 0
    count = blocks(kept.astype(x.dtype))
    dx = jnp.zeros_like(x) if dx is None else dx
    dtotal = jnp.zeros_like(total) if dtotal is None else dtotal
    excess = (blocks(jnp.where(kept, dx, 0)) - dtotal) / count
    return point, jnp.where(kept, dx - blocks.transpose(excess), 0)
