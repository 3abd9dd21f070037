"""Sets of loop-free paths, and the k shortest of each origin-destination pair."""

import heapq
from collections.abc import Iterator

import equinox as eqx
import numpy as np
from jaxtyping import Int

from .._checks import require_count
from ._network import Demand, Network, require_network, require_whole

# Up to this many nodes the search is not worth a compilation.
_SMALL = 200


class PathSet(eqx.Module):
    """Paths of all pairs, one pair's block after another in the order of `Demand.pairs`.

    - `links`: link indices of path 0, then of path 1, and so on.
    - `offsets`: path `p` holds `links[offsets[p]:offsets[p + 1]]`.
    - `sizes`: number of paths of each pair.
    - `pairs`: origin and destination of each pair.

    **Raises** `ValueError` when these do not fit together. That paths are ways through a network
    is checked by [`RoutingGame`][].
    """

    links: Int[np.ndarray, " entries"]
    offsets: Int[np.ndarray, " paths+1"]
    sizes: Int[np.ndarray, " pairs"]
    pairs: Int[np.ndarray, "pairs 2"]

    def __check_init__(self):
        for name in ("links", "offsets", "sizes", "pairs"):
            require_whole("PathSet", name, getattr(self, name))
        entries, paths = self.links.size, self.number_of_paths
        rising = paths >= 0 and self.offsets[0] == 0 and (np.diff(self.offsets) >= 0).all()
        if not rising or self.offsets[-1] != entries:
            raise ValueError(
                f"`PathSet(offsets=...)` needs numbers that rise from 0 to the {entries} entries "
                f"of `links`, got {self.offsets}"
            )
        fit = self.sizes.shape == self.pairs.shape[:1] and (self.sizes >= 1).all()
        if not fit or self.sizes.sum() != paths:
            raise ValueError(
                f"`PathSet(sizes=...)` needs at least one path a pair of {len(self.pairs)}, "
                f"{paths} in all, got {self.sizes.sum()} in {self.sizes.size} blocks"
            )

    @property
    def number_of_paths(self) -> int:
        return self.offsets.size - 1

    def with_staying(self) -> "PathSet":
        """A last path without links for every pair, for trips that are not made."""
        last = np.cumsum(self.sizes)
        lengths = np.insert(np.diff(self.offsets), last, 0)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return PathSet(self.links, offsets, self.sizes + 1, self.pairs)

    def broken(self, network: Network) -> int | None:
        """The first path that is no way from its origin to its destination, if there is one."""
        if self.links.size and not 0 <= self.links.min() <= self.links.max() < len(network.tail):
            entry = np.argmax((self.links < 0) | (self.links >= len(network.tail)))
            return int(np.searchsorted(self.offsets, entry, side="right")) - 1
        # Nodes at which links are left, and entered, with the pair's ends around them.
        ends = np.repeat(self.pairs, self.sizes, axis=0)
        left = np.insert(network.head[self.links], self.offsets[:-1], ends[:, 0])
        entered = np.insert(network.tail[self.links], self.offsets[1:], ends[:, 1])
        apart = np.flatnonzero(left != entered)
        places = self.offsets[1:] + np.arange(1, self.number_of_paths + 1)
        return int(np.searchsorted(places, apart[0], side="right")) if apart.size else None

    def path(self, index: int) -> Int[np.ndarray, " length"]:
        """Links of one path, in the order in which they are driven."""
        return self.links[self.offsets[index] : self.offsets[index + 1]]


def k_shortest_paths(network: Network, demand: Demand, k: int) -> PathSet:
    """The `k` shortest loop-free paths of every pair, by free-flow time.

    Ties are broken by the number of links, then by the sequence of nodes (then of links, where
    links are parallel). A pair with fewer than `k` paths gets them all.

    Best-first search on partial paths with the exact time to go as the bound, so complete paths
    leave the queue in their final order. Beyond 200 nodes it is compiled, with the extra `traffic`.
    Where detours of nearly no length abound, partial paths are too many for it; the paths that
    traffic uses are found by [`generate_paths`][] on any network.

    **Raises** `ValueError` when `k < 1`, a pair has no path, or one needs more than a million
    partial paths.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.sioux_falls()
        >>> ix.traffic.k_shortest_paths(network, demand, 5).number_of_paths
        2640
    """
    require_network("k_shortest_paths", network, demand)
    k = require_count("k_shortest_paths", "k", k)
    largest = demand.pairs.max()
    if largest >= network.number_of_nodes:
        raise ValueError(
            f"`k_shortest_paths(demand=...)` needs nodes in 0..{network.number_of_nodes - 1}, "
            f"got {largest}"
        )
    # Sums of the same times in another order differ in the last bits. As whole multiples of a
    # billionth of the longest they tie, as they do on paper.
    times = np.asarray(network.free_flow_time)
    unit = 1e-9 * max(float(times.max(initial=0.0)), 1e-300)
    if network.number_of_nodes > _SMALL:
        from .assignment import k_shortest_compiled  # noqa: PLC0415  # needs an extra

        return k_shortest_compiled(network, demand, k, np.rint(times / unit).astype(np.int64))
    time = [round(value / unit) for value in times.tolist()]
    outgoing = _adjacency(network, network.tail)
    incoming = _adjacency(network, network.head)
    to_go: dict[int, list[tuple[float, int]]] = {}
    links: list[int] = []
    lengths: list[int] = []
    sizes: list[int] = []
    for origin, destination in demand.pairs.tolist():
        if destination not in to_go:
            to_go[destination] = _shortest_to(network, time, incoming, destination)
        search = _paths_in_order(
            network, time, outgoing, to_go[destination], origin, destination=destination
        )
        found = [path for path, _ in zip(search, range(k), strict=False)]
        if not found:
            raise ValueError(
                f"`k_shortest_paths(demand=...)` needs a path for every pair, got none from node "
                f"{network.name_of_node(origin)} to node {network.name_of_node(destination)}"
            )
        sizes.append(len(found))
        lengths.extend(len(path) for path in found)
        for path in found:
            links.extend(path)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return PathSet(np.asarray(links), offsets, np.asarray(sizes), demand.pairs)


def _adjacency(network: Network, end: np.ndarray) -> list[list[int]]:
    table: list[list[int]] = [[] for _ in range(network.number_of_nodes)]
    for link, node in enumerate(end.tolist()):
        table[node].append(link)
    return table


def _shortest_to(
    network: Network, time: list[int], incoming: list[list[int]], destination: int
) -> list[tuple[float, int]]:
    """Least (time, number of links) from every node to the destination, in that order."""
    tail = network.tail.tolist()
    best: list[tuple[float, int]] = [(np.inf, 0)] * network.number_of_nodes
    best[destination] = (0, 0)
    queue: list[tuple[float, int, int]] = [(0, 0, destination)]
    while queue:
        spent, count, node = heapq.heappop(queue)
        if (spent, count) > best[node]:
            continue
        if node != destination and node < network.first_through_node:
            continue
        for link in incoming[node]:
            candidate = (spent + time[link], count + 1)
            if candidate < best[tail[link]]:
                best[tail[link]] = candidate
                heapq.heappush(queue, (*candidate, tail[link]))
    return best


def _paths_in_order(
    network: Network,
    time: list[int],
    outgoing: list[list[int]],
    to_go: list[tuple[float, int]],
    origin: int,
    *,
    destination: int,
) -> Iterator[tuple[int, ...]]:
    head = network.head.tolist()
    if not np.isfinite(to_go[origin][0]) or origin == destination:
        return

    def key(spent: int, count: int, node: int):
        return spent + to_go[node][0], count + to_go[node][1]

    # Time and links in all, nodes, links, time so far: in this order they settle what comes next.
    queue: list[tuple[float, int, tuple[int, ...], tuple[int, ...], int]] = [
        (*key(0, 0, origin), (origin,), (), 0)
    ]
    while queue:
        _, _, nodes, path, spent = heapq.heappop(queue)
        node = nodes[-1]
        if node == destination:
            yield path
            continue
        if node != origin and node < network.first_through_node:
            continue
        for link in outgoing[node]:
            following = head[link]
            if following in nodes or not np.isfinite(to_go[following][0]):
                continue
            total = spent + time[link]
            heapq.heappush(
                queue,
                (
                    *key(total, len(path) + 1, following),
                    (*nodes, following),
                    (*path, link),
                    total,
                ),
            )
