"""Ragged products of simplices."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from .._checks import require_positive
from ._base import AbstractFace, AbstractStrategySet
from ._box import check_shape_of_array


class Blocks(eqx.Module):
    """Consecutive blocks of a flat array: sums over them and values spread over them."""

    ids: Int[Array, " d"]
    count: int = eqx.field(static=True)
    # Equal blocks are rows of a matrix, which is several times faster than segment sums.
    equal_size: int | None = eqx.field(static=True)

    def sum(self, v: Array) -> Array:
        if self.equal_size is not None:
            # A product with ones: XLA would fuse a sum into its use and redo it for every entry.
            rows, ones = v.reshape(self.count, self.equal_size), jnp.ones(self.equal_size, v.dtype)
            return jnp.matmul(rows, ones, precision=jax.lax.Precision.HIGHEST)
        return jax.ops.segment_sum(v, self.ids, self.count, indices_are_sorted=True)

    def max(self, v: Array) -> Array:
        if self.equal_size is not None:
            return jnp.max(v.reshape(self.count, self.equal_size), axis=1)
        return jax.ops.segment_max(v, self.ids, self.count, indices_are_sorted=True)

    def spread(self, per_block: Array) -> Array:
        if self.equal_size is not None:
            # `jnp.repeat` is ten times slower than this on CPU.
            return jnp.broadcast_to(per_block[:, None], (self.count, self.equal_size)).ravel()
        return per_block[self.ids]


class SimplexFace(AbstractFace):
    """Motions in the geometry of the entropy, where `dx = sqrt(x) w` and unused strategies stay."""

    scale: Float[Array, " d"]
    relaxation: Float[Array, " d"]
    degenerate: Int[Array, ""]
    used: Bool[Array, " d"]
    normal: Float[Array, " d"]
    blocks: Blocks

    def project(self, w: Array) -> Array:
        w = jnp.where(self.used, w, 0)
        return w - self.normal * self.blocks.spread(self.blocks.sum(self.normal * w))

    def response(self, diagonal: Array) -> Callable[[Array], Array]:
        blocks = self.blocks
        share = jnp.square(self.scale) / jnp.where(self.used, diagonal, 1)
        mean_share = share / blocks.spread(blocks.sum(share))
        return lambda g: share * (g - blocks.spread(blocks.sum(mean_share * g)))


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
        sizes = self.blocks.sum(jnp.ones(self.shape, self.total.dtype))
        return self.blocks.spread(self.total / sizes)

    def project(self, x: Array) -> Array:
        return _project(x, self.total.astype(x.dtype), self.blocks)

    def normalise_log(self, log_x: Array) -> tuple[Array, Array]:
        """`(x, log x)` with `log x` shifted so that every block of `x` has its total."""
        relative = log_x - self.blocks.spread(self.blocks.max(log_x))
        weight = jnp.exp(relative)
        scale = self.total.astype(log_x.dtype) / self.blocks.sum(weight)
        spread = self.blocks.spread
        return weight * spread(scale), relative + spread(jnp.log(scale))

    def face(self, x: Array, operator_value: Array, step_size: Array | float) -> SimplexFace:
        del step_size  # a strategy that is not used stays so under entropic play of any step
        # What a share below rounding does is below rounding: it counts as unused.
        total = self.blocks.spread(self.total.astype(x.dtype))
        used = x > jnp.finfo(x.dtype).eps * total
        positive = jnp.where(used, x, 0)
        mass = self.blocks.spread(self.blocks.sum(positive))
        cost = jnp.where(used, operator_value, 0)
        mean = self.blocks.spread(self.blocks.sum(positive * cost)) / mass
        close = jnp.sqrt(jnp.finfo(x.dtype).eps)
        tempting = (x <= jnp.finfo(x.dtype).tiny) & (
            operator_value <= mean + close * (1 + jnp.abs(mean))
        )
        return SimplexFace(
            scale=jnp.sqrt(positive),
            relaxation=jnp.where(used, jnp.maximum(cost - mean, 0), 0),
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
    x = x - blocks.spread(blocks.max(x))

    def shifted(kept: Array) -> Array:
        excess = blocks.sum(jnp.where(kept, x, 0)) - total
        count = blocks.sum(kept.astype(x.dtype))
        return x - blocks.spread(excess / count)

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
    count = blocks.sum(kept.astype(x.dtype))
    dx = jnp.zeros_like(x) if dx is None else dx
    dtotal = jnp.zeros_like(total) if dtotal is None else dtotal
    excess = (blocks.sum(jnp.where(kept, dx, 0)) - dtotal) / count
    return point, jnp.where(kept, dx - blocks.spread(excess), 0)
