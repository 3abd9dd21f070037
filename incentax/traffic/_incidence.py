"""Which links a path uses: path values summed over links, link values summed along paths."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._gather import gathered, sums_of
from ._paths import PathSet

# Up to this many entries the matrix itself is the fastest.
_DENSE = 1_000_000


class AbstractIncidence(eqx.Module):
    """The linear map from values of paths to values of links, and its transpose."""

    @abc.abstractmethod
    def over_links(self, path_values: Float[Array, " paths"]) -> Float[Array, " links"]:
        """Of every link the sum over the paths that use it."""

    @abc.abstractmethod
    def along_paths(self, link_values: Float[Array, " links"]) -> Float[Array, " paths"]:
        """Of every path the sum over its links."""


def incidence_of(number_of_links: int, paths: PathSet) -> AbstractIncidence:
    """The form that is fastest at this size."""
    if number_of_links * paths.number_of_paths <= _DENSE:
        return DenseIncidence(number_of_links, paths)
    return SparseIncidence(number_of_links, paths.number_of_paths, entries_of(paths))


class DenseIncidence(AbstractIncidence):
    """The matrix itself, for networks of up to some hundred links."""

    matrix: Float[Array, "links paths"]

    def __init__(self, number_of_links: int, paths: PathSet):
        matrix = np.zeros((number_of_links, paths.number_of_paths))
        np.add.at(matrix, entries_of(paths), 1.0)
        self.matrix = jnp.asarray(matrix)

    def over_links(self, path_values: Float[Array, " paths"]) -> Float[Array, " links"]:
        return self.matrix.astype(path_values.dtype) @ path_values

    def along_paths(self, link_values: Float[Array, " links"]) -> Float[Array, " paths"]:
        return link_values @ self.matrix.astype(link_values.dtype)


class SparseIncidence(AbstractIncidence):
    """Gathers in both directions, each the transpose of the other for JAX too: never a scatter over
    all entries."""

    along: "_Sums"
    over: "_Sums"

    def __init__(
        self, number_of_links: int, number_of_paths: int, entries: tuple[np.ndarray, np.ndarray]
    ):
        """`entries`: links, and the paths that use them, path by path."""
        link, path = entries
        order = np.argsort(link, kind="stable")
        self.along = _Sums(path, link, (number_of_paths, number_of_links), 8)
        self.over = _Sums(link[order], path[order], (number_of_links, number_of_paths), 16)

    @property
    def rows(self) -> tuple[int, int]:
        """Of its two tables."""
        return len(self.along.group), len(self.over.group)

    def filled_up(self, along: int, over: int) -> "SparseIncidence":
        """With tables of so many rows, the last of which add nothing."""
        tables = (self.along.filled_up(along), self.over.filled_up(over))
        return eqx.tree_at(lambda one: (one.along, one.over), self, tables)

    def entries(self) -> tuple[np.ndarray, np.ndarray]:
        """What it was made of."""
        columns = np.stack([np.asarray(column) for column in self.along.columns], axis=1)
        row, place = np.nonzero(columns < self.along.values)
        return columns[row, place], np.asarray(self.along.group)[row]

    def over_links(self, path_values: Float[Array, " paths"]) -> Float[Array, " links"]:
        return _transposable(self.over, self.along, path_values)

    def along_paths(self, link_values: Float[Array, " links"]) -> Float[Array, " paths"]:
        return _transposable(self.along, self.over, link_values)


def entries_of(paths: PathSet) -> tuple[np.ndarray, np.ndarray]:
    """Links, and the paths that use them, path by path."""
    path = np.arange(paths.number_of_paths, dtype=np.int32)
    return paths.links, np.repeat(path, np.diff(paths.offsets))


class _Sums(eqx.Module):
    """Sums of values over groups, from rows of as many entries as there are columns.

    `columns[j][r]` is the value that row `r` adds in place `j` (one past the last: nothing); rows
    of one group stand together.
    """

    columns: tuple[Int[Array, " rows"], ...]
    group: Int[Array, " rows"]
    groups: int = eqx.field(static=True)
    values: int = eqx.field(static=True)

    def __init__(self, group: np.ndarray, value: np.ndarray, sizes: tuple[int, int], width: int):
        self.groups, self.values = sizes
        count = np.bincount(group, minlength=self.groups).astype(np.int32)
        rows = -(-count // width)
        within = np.arange(group.size, dtype=np.int32)
        within -= np.repeat(np.cumsum(count, dtype=np.int32) - count, count)
        row = np.repeat(np.cumsum(rows, dtype=np.int32) - rows, count)
        row += within // width
        table = np.full((width, rows.sum()), self.values, np.int32)
        table[within % width, row] = value
        self.columns = tuple(jnp.asarray(column) for column in table)
        self.group = jnp.asarray(np.repeat(np.arange(self.groups, dtype=np.int32), rows))

    def filled_up(self, rows: int) -> "_Sums":
        more = (0, rows - len(self.group))
        columns = tuple(
            jnp.pad(column, more, constant_values=self.values) for column in self.columns
        )
        group = jnp.pad(self.group, more, constant_values=self.groups - 1)
        return eqx.tree_at(lambda one: (one.columns, one.group), self, (columns, group))

    def __call__(self, values: Float[Array, " values"]) -> Float[Array, " groups"]:
        padded = jnp.append(values, 0)
        row = gathered(padded, self.columns[0])
        for column in self.columns[1:]:
            row = row + gathered(padded, column)
        return sums_of(row, self.group, self.groups)


def _transposable(forward: _Sums, backward: _Sums, values: Array) -> Array:
    """`forward(values)`, which JAX transposes into `backward`.

    As the second half of `[[I, 0], [-forward, I]] (values, sums) = (values, 0)`: a linear system is
    the one thing whose transpose JAX lets its user give in all modes of differentiation.
    """
    n = forward.values

    def system(both: Array) -> Array:
        return jnp.concatenate([both[:n], both[n:] - forward(both[:n])])

    def solve(_, both: Array) -> Array:
        return jnp.concatenate([both[:n], both[n:] + forward(both[:n])])

    def solve_transposed(_, both: Array) -> Array:
        return jnp.concatenate([both[:n] + backward(both[n:]), both[n:]])

    extended = jnp.append(values, jnp.zeros(forward.groups, values.dtype))
    return jax.lax.custom_linear_solve(system, extended, solve, solve_transposed)[n:]
