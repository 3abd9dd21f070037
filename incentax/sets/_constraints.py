"""Linear constraints: the form in which every strategy set can be written."""

import abc
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._gather import gathered, sums_of


class AbstractRows(eqx.Module):
    """The matrix `C` of linear equalities `C x = d`."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " rows"]:
        """`C x`."""

    @abc.abstractmethod
    def transpose(self, y: Float[Array, " rows"]) -> Float[Array, " d"]:
        """`C^T y`."""

    @abc.abstractmethod
    def dense(self, dtype: jnp.dtype) -> Float[Array, "rows d"]:
        """The matrix itself."""


class Rows(AbstractRows):
    """A dense matrix; no rows at all when there is no equality."""

    matrix: Float[Array, "rows d"]

    def __call__(self, x: Array) -> Array:
        return self.matrix.astype(x.dtype) @ x

    def transpose(self, y: Array) -> Array:
        return y @ self.matrix.astype(y.dtype)

    def dense(self, dtype: jnp.dtype) -> Array:
        return self.matrix.astype(dtype)


class Blocks(AbstractRows):
    """Consecutive blocks of a flat array: sums over them and values spread over them."""

    ids: Int[Array, " d"]
    count: int = eqx.field(static=True)
    # Equal blocks are rows of a matrix, which is several times faster than segment sums.
    equal_size: int | None = eqx.field(static=True)
    # Parts of the array, with as many entries and blocks each, that lie on devices of their own.
    shares: int = eqx.field(static=True, default=1)

    def __call__(self, x: Array) -> Array:
        if self.equal_size is not None:
            # A product with ones: XLA would fuse a sum into its use and redo it for every entry.
            rows, ones = x.reshape(self.count, self.equal_size), jnp.ones(self.equal_size, x.dtype)
            return jnp.matmul(rows, ones, precision=jax.lax.Precision.HIGHEST)
        return self._segments(sums_of, x)

    def max(self, v: Array) -> Array:
        if self.equal_size is not None:
            return jnp.max(v.reshape(self.count, self.equal_size), axis=1)
        return self._segments(partial(jax.ops.segment_max, indices_are_sorted=True), v)

    def transpose(self, y: Array) -> Array:
        if self.equal_size is not None:
            # `jnp.repeat` is ten times slower than this on CPU.
            return jnp.broadcast_to(y[:, None], (self.count, self.equal_size)).ravel()
        if self.shares == 1:
            return gathered(y, self.ids)
        return jax.vmap(gathered)(y.reshape(self.shares, -1), self._own_ids()).ravel()

    def _segments(self, reduce: Callable[..., Array], x: Array) -> Array:
        if self.shares == 1:
            return reduce(x, self.ids, self.count)
        own = self.count // self.shares

        def one(x: Array, ids: Array) -> Array:
            return reduce(x, ids, own)

        return jax.vmap(one)(x.reshape(self.shares, -1), self._own_ids()).ravel()

    def _own_ids(self) -> Int[Array, "shares d/shares"]:
        """Counted from the first block of each part."""
        first = jnp.arange(self.shares, dtype=self.ids.dtype) * (self.count // self.shares)
        return self.ids.reshape(self.shares, -1) - first[:, None]

    def dense(self, dtype: jnp.dtype) -> Array:
        return (self.ids[None, :] == jnp.arange(self.count)[:, None]).astype(dtype)


class LinearConstraints(eqx.Module):
    """`{x : lower <= x <= upper, C x = d, A x <= b}` for a flat `x`."""

    lower: Float[Array, " d"]
    upper: Float[Array, " d"]
    equality: AbstractRows
    equality_level: Float[Array, " rows"]
    inequality: Float[Array, "more d"]
    inequality_level: Float[Array, " more"]


def bounds_alone(lower: Array, upper: Array) -> LinearConstraints:
    """Bounds without equalities or inequalities."""
    none, no_rows = jnp.zeros(0, lower.dtype), jnp.zeros((0, lower.size), lower.dtype)
    return LinearConstraints(lower, upper, Rows(no_rows), none, no_rows, none)


class Pairs(eqx.Module):
    """What complements what at an `x`: the slack of every constraint, and what pushes against it.

    - `above`, `below`: `x - lower` and `upper - x`; `pull`: `F + C^T y + A^T z`, which they bear.
    - `room`, `push`: slacks and multipliers of the inequalities, in rows of length 1.
    - `thick`: where the bounds do not meet.
    """

    above: Float[Array, " d"]
    below: Float[Array, " d"]
    pull: Float[Array, " d"]
    room: Float[Array, " more"]
    push: Float[Array, " more"]
    thick: Bool[Array, " d"]

    def __init__(
        self,
        constraints: LinearConstraints,
        x: Float[Array, " d"],
        operator_value: Float[Array, " d"],
        multipliers: tuple[Float[Array, " rows"], Float[Array, " more"]],
    ):
        y, z = multipliers
        rows = constraints.inequality
        norm = row_norms(rows)
        self.above, self.below = x - constraints.lower, constraints.upper - x
        self.pull = operator_value + constraints.equality.transpose(y) + z @ rows
        self.room = (constraints.inequality_level - rows @ x) / norm
        self.push = z * norm
        self.thick = constraints.lower < constraints.upper

    @property
    def margin(self) -> Float[Array, ""]:
        """Least of `max(slack, multiplier)`."""
        gap = jnp.minimum(self.above, self.below)
        bounds = jnp.where(self.thick, jnp.maximum(gap, jnp.abs(self.pull)), jnp.inf)
        rows = jnp.maximum(self.room, self.push)
        return jnp.minimum(jnp.min(bounds, initial=jnp.inf), jnp.min(rows, initial=jnp.inf))

    def degenerate(self, close: float | Array) -> Int[Array, ""]:
        """Number of constraints with neither a slack nor a multiplier above `close`."""
        gap = jnp.minimum(self.above, self.below)
        bounds = self.thick & (gap <= close) & (jnp.abs(self.pull) <= close)
        rows = jnp.maximum(self.room, self.push) <= close
        return jnp.sum(bounds, dtype=jnp.int32) + jnp.sum(rows, dtype=jnp.int32)


def row_norms(rows: Float[Array, "rows d"]) -> Float[Array, " rows"]:
    """Lengths of the rows, 1 for a row of zeros."""
    norm = jnp.linalg.norm(rows, axis=1)
    return jnp.where(norm > 0, norm, 1)
