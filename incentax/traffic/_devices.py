"""The pairs of a routing game over several devices."""

import heapq
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from .._checks import require_count
from .._devices import automatic, over_devices
from ..sets import Blocks
from ._incidence import AbstractIncidence, SparseIncidence
from ._network import Demand
from ._paths import PathSet
from ._routing import RoutingGame

# Part of all trips that a pair carries which is there to fill up.
_FEW = 1e-20


class EvenPairs(NamedTuple):
    """Pairs in an order that is shared out evenly; see [`even_pairs`][].

    - `demand`, `paths`: what a [`RoutingGame`][] takes.
    - `pair`: of every pair the one given that it is, or whose nodes it has.
    - `place`: where the paths given stand: `x[place]` are their proportions.
    """

    demand: Demand
    paths: PathSet
    pair: Int[np.ndarray, " pairs"]
    place: Int[np.ndarray, " given_paths"]


def even_pairs(demand: Demand, paths: PathSet, shares: int) -> EvenPairs:
    """The same traffic in `shares` parts with as many pairs and as many paths each.

    Pairs are dealt out by their numbers of paths, the largest first. What a part lacks are pairs
    with the nodes of the one whose path is shortest, that path as often as it takes, and 1e-20 of
    all trips: no flow feels them.

    **Raises** `ValueError` for paths of other pairs than the demand's, and for fewer pairs than
    parts.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.sioux_falls()
        >>> paths = ix.traffic.generate_paths(network, demand)
        >>> even = ix.traffic.even_pairs(demand, paths, 8)
        >>> len(demand.pairs), len(even.demand.pairs), paths.number_of_paths % 8
        (528, 536, 6)
        >>> even.paths.number_of_paths % 8
        0
    """
    shares, pairs = require_count("even_pairs", "shares", shares), len(demand.pairs)
    if not np.array_equal(paths.pairs, demand.pairs):
        raise ValueError(
            f"`even_pairs(paths)` needs the paths of the demand's {pairs} pairs, in their order, "
            f"got those of {len(paths.pairs)} pairs"
        )
    if shares > pairs:
        raise ValueError(f"`even_pairs(shares)` needs at most the {pairs} pairs, got {shares}")
    parts = _dealt(paths.sizes, shares)
    load = [int(paths.sizes[part].sum()) for part in parts]
    count, size = _least_frame([len(part) for part in parts], load)
    shortest = int(np.argmin(np.diff(paths.offsets)))
    filler = int(np.searchsorted(np.cumsum(paths.sizes), shortest, side="right"))
    first = np.cumsum(paths.sizes) - paths.sizes
    pair, sizes, path, fills = [], [], [], []
    for part, own in zip(parts, load):
        more, missing = count - len(part), size - own
        pair += [*part, *[filler] * more]
        fills += [False] * len(part) + [True] * more
        sizes += [*paths.sizes[part], *((missing + k) // more for k in range(more))]
        path += [p for one in part for p in range(first[one], first[one] + paths.sizes[one])]
        path += [shortest] * missing
    pair, path, fills = np.asarray(pair), np.asarray(path), np.asarray(fills)
    place = np.empty(paths.number_of_paths, int)
    real = ~np.repeat(fills, sizes)
    place[path[real]] = np.flatnonzero(real)
    lengths = np.diff(paths.offsets)[path]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    entry = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - paths.offsets[path], lengths)
    trips = np.where(fills, _FEW * demand.trips.sum(), demand.trips[pair])
    return EvenPairs(
        Demand(demand.pairs[pair], trips, demand.within_zones),
        PathSet(paths.links[entry], offsets, np.asarray(sizes), demand.pairs[pair]),
        pair,
        place,
    )


def _least_frame(counts: list[int], loads: list[int]) -> tuple[int, int]:
    """Pairs and paths of a part: what fills up stands in pairs of its own, of a path at least."""
    count = max(counts)
    while True:
        size = max(load + count - own for own, load in zip(counts, loads))
        if all(own < count or load == size for own, load in zip(counts, loads)):
            return count, size
        count += 1


def _dealt(sizes: np.ndarray, shares: int) -> list[list[int]]:
    """Pairs of each part, in their order: the largest goes to the part that has least."""
    if len(sizes) % shares == 0 and (sizes == sizes[0]).all():
        return np.arange(len(sizes)).reshape(shares, -1).tolist()
    least = [(0, 0, part) for part in range(shares)]
    parts: list[list[int]] = [[] for _ in range(shares)]
    for one in np.argsort(-sizes, kind="stable").tolist():
        load, count, part = heapq.heappop(least)
        parts[part].append(one)
        heapq.heappush(least, (load + int(sizes[one]), count + 1, part))
    return [sorted(part) for part in parts]


class _SharedIncidence(AbstractIncidence):
    """Incidences of the paths of every device, along a leading axis."""

    parts: SparseIncidence

    def __init__(self, whole: SparseIncidence, shares: int):
        links, paths = whole.along.values, whole.along.groups // shares
        link, path = whole.entries()
        parts = []
        for share in range(shares):
            own = path // paths == share
            parts.append(SparseIncidence(links, paths, (link[own], path[own] - share * paths)))
        rows = [max(rows) for rows in zip(*(part.rows for part in parts))]
        parts = [part.filled_up(*rows) for part in parts]
        self.parts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)

    def over_links(self, path_values: Float[Array, " paths"]) -> Float[Array, " links"]:
        shares = self.parts.along.group.shape[0]
        own = path_values.reshape(shares, -1)
        return jnp.sum(jax.vmap(SparseIncidence.over_links)(self.parts, own), axis=0)

    def along_paths(self, link_values: Float[Array, " links"]) -> Float[Array, " paths"]:
        along = jax.vmap(SparseIncidence.along_paths, in_axes=(0, None))
        return along(self.parts, link_values).ravel()


def share_pairs(tree: Any, game: RoutingGame, mesh: Mesh) -> Any:
    """`tree` with the paths of every pair on one device, and all else on every device.

    What it leads to is computed where it lies, along the last axis of the mesh: a step of play sums
    link flows by one all-reduce, and tolls, times and the linear system of the links are the same
    everywhere. Verbs and schemes serve as they are, derivatives included.

    **Arguments:**

    - `tree`: a [`DesignProblem`][], a [`RoutingGame`][], strategies, or a pytree of them. An array
      is shared out along its last axis if that has an entry a path, or a pair.
    - `game`: whose paths they are.
    - `mesh`: the last axis takes the pairs; the first one may take the lanes of [`ensemble`][].

    **Raises** `ValueError` where the pairs do not fall into as many parts as there are devices,
    with as many pairs and paths each: [`even_pairs`][] brings any into this order.

    !!! example

        >>> import incentax as ix, jax, numpy as np
        >>> instance = ix.problems.second_best_tolls(paths=2)
        >>> mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("pairs",))
        >>> game = instance.problem.game
        >>> problem, x0 = ix.traffic.share_pairs((instance.problem, instance.x0), game, mesh)
        >>> tuple(x0.sharding.spec)
        ('pairs',)
    """
    if not isinstance(game, RoutingGame):
        raise TypeError(f"`share_pairs(game)` needs a `RoutingGame`, got {type(game).__name__}")
    if not isinstance(mesh, Mesh):
        raise TypeError(f"`share_pairs(mesh)` needs a `jax.sharding.Mesh`, got {mesh!r}")
    axis, blocks = mesh.axis_names[-1], game.simplex.blocks
    paths, pairs, shares = len(blocks.ids), blocks.count, mesh.shape[axis]
    if not _is_even(blocks, shares):
        raise ValueError(
            f"`share_pairs(mesh)` needs {shares} parts, the devices along {axis!r}, with as many "
            f"pairs and paths each, got {pairs} pairs with {paths} paths: make the game of what "
            f"`ix.traffic.even_pairs(demand, paths, {shares})` returns"
        )
    mesh = automatic(mesh)

    def put(leaf: Any, *along: str | None) -> Any:
        spread = NamedSharding(mesh, PartitionSpec(*along))
        return over_devices(jnp.asarray(leaf), spread)

    def place(node: Any) -> Any:
        if isinstance(node, _SharedIncidence):
            return jax.tree.map(lambda leaf: put(leaf, axis), node)
        if isinstance(node, Blocks):
            along = (axis,) if len(node.ids) == paths else ()
            return eqx.tree_at(lambda blocks: blocks.ids, node, put(node.ids, *along))
        if not isinstance(node, jax.Array | np.ndarray):
            return node
        along = node.ndim > 0 and node.shape[-1] in (paths, pairs)
        return put(node, *(None,) * (node.ndim - 1), axis) if along else put(node)

    def is_whole(node: Any) -> bool:
        if isinstance(node, SparseIncidence):
            return node.along.groups == paths
        return isinstance(node, Blocks | _SharedIncidence)

    def parted(node: Any) -> Any:
        if isinstance(node, Blocks) and len(node.ids) == paths and node.equal_size is None:
            return Blocks(node.ids, node.count, None, shares)
        if isinstance(node, SparseIncidence):
            return _SharedIncidence(node, shares)
        return node

    tree = jax.tree.map(parted, tree, is_leaf=is_whole)
    return jax.tree.map(place, tree, is_leaf=is_whole)


def _is_even(blocks: Blocks, shares: int) -> bool:
    if blocks.count % shares or len(blocks.ids) % shares:
        return False
    ids, own = np.asarray(blocks.ids).reshape(shares, -1), blocks.count // shares
    return bool((ids // own == np.arange(shares)[:, None]).all())
