"""Sums over all walks of a network, by elimination of its nodes in nested halves."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._linear import inverse

# Nodes that are eliminated at once at the bottom, starts of the search for a cut, the least share
# of nodes on either side of it, and columns that are solved at once.
_LEAF, _STARTS, _SIDE, _COLUMNS = 150, 8, 0.45, 128


class _Level(eqx.Module):
    """Groups of nodes that are eliminated at once: the front of each is its own nodes, then its
    rim, the nodes that are left to which it is tied.

    `own`: nodes, filled up with one that does not exist; `rim`: how many; `links`: those that the
    groups' nodes end or begin, and `at`, their group, row and column; `below`: place of every node
    of a front in the rim of the first and of the second child; `above`: place of every rim node in
    the parent's front. One past the end stands for none.
    """

    own: Int[Array, "groups own"]
    rim: int = eqx.field(static=True)
    links: Int[Array, " some"]
    at: Int[Array, "3 some"]
    below: Int[Array, "2 groups front"]
    above: Int[Array, "groups rim"]


class Dissection(eqx.Module):
    """An order of elimination for `I - A`, where `A_ij` is the sum of weights of the links `i, j`.

    Separators first found are eliminated last: A. George, "Nested dissection of a regular finite
    element mesh", *SIAM Journal on Numerical Analysis* 10 (1973) 345-363. With `n` nodes of a road
    network the work is about `n^1.5` where that of a dense matrix is `n^3`.
    """

    levels: tuple[_Level, ...]
    place: Int[Array, " nodes"]
    to: Int[Array, " destinations"]
    ends: Int[Array, "links 2"]

    def __init__(self, ends: Int[np.ndarray, "links 2"], nodes: int, to: np.ndarray):
        self.ends, self.to = jnp.asarray(ends), jnp.asarray(to)
        self.levels = _levels(ends, nodes)
        owned = np.concatenate([np.ravel(level.own) for level in self.levels])
        place = np.zeros(nodes + 1, int)
        place[owned] = np.arange(len(owned))
        self.place = jnp.asarray(place[:-1])

    def _sums_over_walks(self, weight: Float[Array, " links"]) -> Float[Array, "nodes columns"]:
        """`(I - A)^-1` in the columns of the destinations: of all walks from each node to one of
        them the sum of products of weights. NaN where sums over walks are infinite."""
        factors, sound = self._factors(jax.lax.stop_gradient(weight))
        tail, head = self.ends.T
        nodes, ends = len(self.place), self.to

        def columns(ends: Array) -> Array:
            return jax.lax.custom_linear_solve(
                lambda z: z - jnp.zeros_like(z).at[tail].add(weight[:, None] * z[head]),
                jax.nn.one_hot(ends, nodes, dtype=weight.dtype, axis=0),
                solve=lambda _, b: self._solved(factors, b),
                transpose_solve=lambda _, b: self._solved(_transposed(factors), b),
            )

        parts = -(-len(ends) // _COLUMNS)
        if parts == 1:
            found = columns(ends)
        else:
            filled = jnp.resize(ends, (parts, -(-len(ends) // parts)))
            found = jax.lax.map(columns, filled).swapaxes(0, 1)
            found = found.reshape(nodes, -1)[:, : len(ends)]
        return found * jnp.where(sound, 1, jnp.nan).astype(found.dtype)

    def expected_costs(
        self, costs: Float[Array, " links"], eta: Float[Array, ""], pairs: Int[Array, "pairs 3"]
    ) -> Float[Array, " pairs"]:
        """`W` of pairs, each with the column of its destination."""
        origin, destination, column = pairs.T
        # Sums over all walks; those that reach the destination once are what is left when walks
        # from there to itself are divided out.
        walks = self._sums_over_walks(jnp.exp(-costs / eta))
        return -eta * jnp.log(walks[origin, column] / walks[destination, column])

    def _factors(self, weight: Array) -> tuple[list[tuple[Array, ...]], Bool[Array, ""]]:
        """Of every level, from the bottom: the inverse of the block of own nodes, and the blocks to
        and from the rim; and whether `I - A` is an M-matrix, as it is where all sums are finite."""
        factors, sound, passed = [], jnp.bool_(True), None
        for level in self.levels:
            groups, own = level.own.shape
            diagonal = jnp.arange(own)
            front = jnp.zeros((groups, own + level.rim, own + level.rim), weight.dtype)
            front = front.at[*level.at].add(-weight[level.links])
            front = front.at[:, diagonal, diagonal].add(1)
            if passed is not None:
                padded = jnp.pad(passed, ((0, 0), (0, 1), (0, 1)))
                for child, at in enumerate(level.below):
                    front += jax.vmap(lambda u, i: u[jnp.ix_(i, i)])(padded[child::2], at)
            pivot = jax.vmap(inverse)(front[:, :own, :own])
            # The inverse of an M-matrix has no negative entry; on the diagonal here none below 1.
            rounding = float(jnp.finfo(pivot.dtype).eps) ** 0.6
            sound &= jnp.all(pivot >= -rounding * jnp.max(jnp.abs(pivot)))
            sound &= jnp.all(jnp.diagonal(pivot, axis1=1, axis2=2) > 0.5)
            to_rim, from_rim = front[:, :own, own:], front[:, own:, :own]
            passed = front[:, own:, own:] - from_rim @ (pivot @ to_rim)
            factors.append((pivot, to_rim, from_rim))
        return factors, sound

    def _solved(self, factors: list[tuple[Array, ...]], right_side: Array) -> Array:
        filled = jnp.pad(right_side, ((0, 1), (0, 0)))
        passed, found = None, []
        for level, (pivot, _, from_rim) in zip(self.levels, factors):
            own = level.own.shape[1]
            side = filled[level.own]
            rest = jnp.zeros((len(side), level.rim, side.shape[2]), side.dtype)
            if passed is not None:
                padded = jnp.pad(passed, ((0, 0), (0, 1), (0, 0)))
                first, second = level.below
                got = _rows(padded[::2], first) + _rows(padded[1::2], second)
                side, rest = side + got[:, :own], got[:, own:]
            found.append(pivot @ side)
            passed = rest - from_rim @ found[-1]
        fronts = None
        for index in reversed(range(len(found))):
            level, (pivot, to_rim, _) = self.levels[index], factors[index]
            if fronts is not None:
                padded = jnp.pad(fronts, ((0, 0), (0, 1), (0, 0)))
                rim = _rows(jnp.repeat(padded, 2, axis=0), level.above)
                found[index] -= pivot @ (to_rim @ rim)
                fronts = jnp.concatenate([found[index], rim], axis=1)
            else:
                fronts = found[index]
        width = right_side.shape[1]
        return jnp.concatenate([one.reshape(-1, width) for one in found])[self.place]


_rows = jax.vmap(lambda fronts, rows: fronts[rows])


def _transposed(factors: list[tuple[Array, ...]]) -> list[tuple[Array, ...]]:
    turned = [tuple(jnp.swapaxes(block, 1, 2) for block in blocks) for blocks in factors]
    return [(pivot, from_rim, to_rim) for pivot, to_rim, from_rim in turned]


def _neighbours(ends: np.ndarray, nodes: int) -> Any:
    """The network as a symmetric sparse matrix."""
    from scipy.sparse import csr_array  # noqa: PLC0415  # heavy

    both = np.concatenate([ends, ends[:, ::-1]])
    matrix = csr_array((np.ones(len(both)), both.T), shape=(nodes, nodes))
    matrix.sum_duplicates()
    return matrix


def _groups(neighbours: Any, nodes: int) -> list[list[np.ndarray]]:
    """Nodes that are eliminated at once, from the top: a separator, those of its halves, and so on;
    at last the halves themselves."""
    found, parts = [], [np.arange(nodes)]
    for _ in range(max(0, round(np.log2(nodes / _LEAF)))):
        halved = [_halved(neighbours[part][:, part]) for part in parts]
        sides = [part[side] for part, (_, *two) in zip(parts, halved) for side in two]
        if max(map(len, sides)) > 0.7 * max(map(len, parts)):
            break  # no small set of nodes parts them
        found.append([part[cut] for part, (cut, *_) in zip(parts, halved)])
        parts = sides
    return [*found, parts]


def _halved(tied: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A small set of nodes without which nothing ties one half of the others to the other half."""
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415  # heavy

    size, draw = tied.shape[0], np.random.default_rng(0)
    _, label = connected_components(tied, directed=False)
    members = [np.flatnonzero(label == k) for k in np.argsort(-np.bincount(label))]
    least, best = np.inf, (np.arange(0), np.arange(0), np.arange(size))
    for _ in range(_STARTS if size > 1 else 0):
        depth = _depths(tied, members, draw)
        within = np.cumsum(np.bincount(depth))
        off = np.abs(within / size - 0.5)
        for level in np.flatnonzero(off <= max(0.5 - _SIDE, off.min())):
            bordering = tied @ (depth == level + 1).astype(float) > 0
            cut = (depth == level) & bordering
            if cut.sum() < least:
                near, far = (depth <= level) & ~cut, depth > level
                least = cut.sum()
                best = np.flatnonzero(cut), np.flatnonzero(near), np.flatnonzero(far)
    return best


def _depths(tied: Any, members: list[np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """Links from the edge of each part, one part after the other."""
    from scipy.sparse.csgraph import breadth_first_order  # noqa: PLC0415  # heavy

    depth, deepest = np.zeros(tied.shape[0], int), 0
    for part in members:
        edge = breadth_first_order(tied, draw.choice(part), directed=False)[0][-1]
        order, before = breadth_first_order(tied, edge, directed=False)
        depth[edge] = deepest
        for node in order[1:]:
            depth[node] = depth[before[node]] + 1
        deepest = depth[order[-1]] + 1
    return depth


def _levels(ends: np.ndarray, nodes: int) -> tuple[_Level, ...]:
    """From the bottom."""
    neighbours = _neighbours(ends, nodes)
    groups = _groups(neighbours, nodes)
    depth, group, row = (np.zeros(nodes, int) for _ in range(3))
    for level, those in enumerate(groups):
        for index, own in enumerate(those):
            depth[own], group[own], row[own] = level, index, np.arange(len(own))
    rims = _rims(groups, neighbours, depth)
    width = [max(1, *map(len, those)) for those in groups]
    border = [max(len(rim) for rim in those) for those in rims]
    first = np.where(depth[ends[:, 0]] >= depth[ends[:, 1]], ends[:, 0], ends[:, 1])

    def places(level: int, index: int, of: np.ndarray) -> np.ndarray:
        """Where these nodes stand in a front."""
        outer = width[level] + np.searchsorted(rims[level][index], of)
        return np.where(depth[of] == level, row[of], outer)

    def one(level: int) -> _Level:
        those, last, top = groups[level], level + 1 == len(groups), level == 0
        own = np.full((len(those), width[level]), nodes)
        none = 0 if top else width[level - 1] + border[level - 1]
        above = np.full((len(those), border[level]), none)
        none = 0 if last else border[level + 1]
        below = np.full((2, len(those), width[level] + border[level]), none)
        for index, mine in enumerate(those):
            own[index, : len(mine)] = mine
            if not top:
                rim = rims[level][index]
                above[index, : len(rim)] = places(level - 1, index // 2, rim)
            for child in range(0 if last else 2):
                rim = rims[level + 1][2 * index + child]
                below[child, index, places(level, index, rim)] = np.arange(len(rim))
        links = np.flatnonzero(depth[first] == level)
        index = group[first[links]]
        at = [places(level, int(g), ends[link]) for g, link in zip(index, links)]
        at = np.stack([index, *np.reshape(np.array(at, int), (-1, 2)).T])
        own, links, at, below, above = map(jnp.asarray, (own, links, at, below, above))
        return _Level(own, border[level], links, at, below, above)

    return tuple(one(level) for level in reversed(range(len(groups))))


def _rims(
    groups: list[list[np.ndarray]], neighbours: Any, depth: np.ndarray
) -> list[list[np.ndarray]]:
    """Of every group the nodes above it to which it or what lies below it is tied, sorted."""
    found: list[list[np.ndarray]] = [[] for _ in groups]
    for level in reversed(range(len(groups))):
        for index, own in enumerate(groups[level]):
            below = found[level + 1][2 * index : 2 * index + 2] if level + 1 < len(groups) else []
            tied = np.unique(np.concatenate([neighbours[own].indices, *below]))
            found[level].append(tied[depth[tied] < level])
    return found
