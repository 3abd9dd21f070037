"""Sets of the paths that traffic uses: found from equilibria, joined, and grown under tolls."""

from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from ..._checks import require_count, require_kind, require_one_of, require_positive, warn
from .._network import Demand, Network, require_link_costs, require_network
from .._paths import PathSet
from ._assign import assign, Assignment, compiled_kernels, Objective, Pairs, Tolls


def generate_paths(
    network: Network,
    demand: Demand,
    *,
    at: Objective | Sequence[Objective] = ("user", "system"),
    tolls: Tolls = None,
    tolerance: float = 1e-6,
    gap: float = 1e-12,
    most: int = 1000,
    start: Assignment | None = None,
    progress: bool | Callable[[int, float, float], object] = False,
) -> PathSet:
    """The paths that are used at user equilibrium and at the system optimum.

    Of every pair each loop-free path whose cost is within `(1 + tolerance)` of the least one, costs
    being those at the equilibrium (marginal costs at the system optimum), joined. Needs the extra
    `traffic`.

    **Arguments:**

    - `network`, `demand`: see [`Network`][], [`Demand`][].
    - `at`: "user", "system", or both.
    - `tolls`: of the user equilibrium; see [`assign`][].
    - `tolerance`: `>= 0`, relative.
    - `gap`: to which the equilibria are found; far below `tolerance`, or paths are missed.
    - `most`: paths a pair, at each of the two.
    - `start`, `progress`: an assignment to begin from, and who is told of each iteration, see
      [`assign`][].

    **Raises** what [`assign`][] raises. Warns where a pair has more than `most` paths.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.sioux_falls()
        >>> ix.traffic.generate_paths(network, demand).number_of_paths
        942
    """
    require_network("generate_paths", network, demand)
    at = (at,) if isinstance(at, str) else at
    if not at:
        raise ValueError('`generate_paths(at=...)` needs "user", "system" or both, got neither')
    share = float(require_positive("generate_paths", "tolerance", tolerance, strictly=False))
    most = require_count("generate_paths", "most", most)
    sets, found = [], start
    for objective in at:
        require_one_of("generate_paths", "at", objective, get_args(Objective))
        charged = tolls if objective == "user" else None
        how = {"tolls": charged, "objective": objective, "gap": gap, "progress": progress}
        found = assign(network, demand, start=found, **how)
        sets.append(_cheap("generate_paths", network, demand, found.costs, (share, most)))
    return join_paths(*sets)


def cheap_paths(
    network: Network,
    demand: Demand,
    costs: Float[ArrayLike, " links"],
    *,
    tolerance: float = 0.0,
    most: int = 1000,
) -> PathSet:
    """Of every pair the loop-free paths within `(1 + tolerance)` of the least cost, `most` at most.

    `costs`: `>= 0`, one a link. Needs the extra `traffic`.

    **Raises** `ValueError` for pairs without a path (named) and negative costs. Warns where a pair
    has more than `most` paths.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.sioux_falls()
        >>> ix.traffic.cheap_paths(network, demand, network.free_flow_time).number_of_paths
        564
    """
    require_network("cheap_paths", network, demand)
    share = float(require_positive("cheap_paths", "tolerance", tolerance, strictly=False))
    most = require_count("cheap_paths", "most", most)
    cost = require_link_costs("cheap_paths", "costs", network, costs)
    return _cheap("cheap_paths", network, demand, cost, (share, most))


def _cheap(
    owner: str, network: Network, demand: Demand, cost: np.ndarray, limits: tuple[float, int]
) -> PathSet:
    paths, cut = _paths_within(owner, network, demand, cost, limits)
    if cut:
        most = limits[1]
        warn(f"`{owner}`: some pairs have more than {most} such paths. Going on with {most}.")
    return paths


def _paths_within(
    owner: str, network: Network, demand: Demand, cost: np.ndarray, limits: tuple[float, int]
) -> tuple[PathSet, bool]:
    """[`cheap_paths`][] without checks, and whether some pair has more. `limits`: the tolerance,
    and how many paths a pair."""
    kernels, table = compiled_kernels(), Pairs(network, demand)
    if len(table.order) < len(demand.pairs):
        within = demand.pairs[demand.pairs[:, 0] == demand.pairs[:, 1]][0, 0]
        raise ValueError(
            f"`{owner}(demand=...)` needs pairs of two nodes, got trips within node "
            + network.name_of_node(int(within))
        )
    graph, trips = kernels.graph_of(network), kernels.Trips(*table.ranges)
    origins = table.origins.astype(np.int64)
    links, lengths, sizes, cut = kernels.cheap_paths(graph, origins, cost, trips, limits)
    if (sizes < 0).any():
        raise table.unconnected(owner, int(np.argmin(sizes)))
    return _grouped(demand.pairs, np.repeat(table.order, sizes), links, lengths), cut


# Partial paths of a pair, and the longest path that ties are counted for.
_MOST_PARTIAL, _LONGEST = 1_000_000, 4096


def k_shortest_compiled(
    network: Network, demand: Demand, k: int, times: Int[np.ndarray, " links"]
) -> PathSet:
    """[`k_shortest_paths`][] by the times of links in whole numbers, without checks."""
    kernels, pairs = compiled_kernels(), demand.pairs.astype(np.int64)
    order = np.lexsort((pairs[:, 0], pairs[:, 1]))
    cost = times * _LONGEST + 1
    links, lengths, sizes = kernels.k_shortest(
        kernels.graph_of(network), cost, pairs[order], k, _MOST_PARTIAL
    )
    if (sizes < 0).any():
        names = [network.name_of_node(int(n)) for n in pairs[order][int(np.argmin(sizes))]]
        raise ValueError(
            f"`k_shortest_paths(k={k})` needs more than {_MOST_PARTIAL:,} partial paths from node "
            f"{names[0]} to node {names[1]}: take the paths that traffic uses, `generate_paths`"
        )
    if (sizes == 0).any():
        names = [network.name_of_node(int(n)) for n in pairs[order][int(np.argmin(sizes))]]
        raise ValueError(
            "`k_shortest_paths(demand=...)` needs a path for every pair, got none from node "
            f"{names[0]} to node {names[1]}"
        )
    return _grouped(demand.pairs, np.repeat(order, sizes), links, lengths)


def join_paths(*sets: PathSet) -> PathSet:
    """All paths of these sets, each once, pair by pair in the order of the sets.

    **Raises** `ValueError` for sets of other pairs.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.sioux_falls()
        >>> few = ix.traffic.k_shortest_paths(network, demand, 2)
        >>> more = ix.traffic.k_shortest_paths(network, demand, 3)
        >>> ix.traffic.join_paths(few, more).number_of_paths
        1584
    """
    if not sets:
        raise TypeError("`join_paths(...)` needs sets of paths, got none")
    for other in sets:
        require_kind("join_paths", "sets", other, PathSet)
    pairs = sets[0].pairs
    for other in sets:
        if not np.array_equal(other.pairs, pairs):
            raise ValueError(
                "`join_paths(...)` needs paths of the same pairs in the same order, got those of "
                f"{len(pairs)} and of {len(other.pairs)} pairs"
            )
    pair = np.concatenate([np.repeat(np.arange(len(pairs)), found.sizes) for found in sets])
    links = np.concatenate([found.links for found in sets])
    lengths = np.concatenate([np.diff(found.offsets) for found in sets])
    # A loop-free path is the set of its links: the sum of a random number for each tells it.
    number = np.random.default_rng(0).integers(0, 2**63, int(links.max()) + 1, np.uint64)
    sums = np.add.reduceat(number[links], np.cumsum(lengths) - lengths)
    _, first = np.unique(np.stack([pair.astype(np.uint64), sums]), axis=1, return_index=True)
    kept = np.zeros(len(pair), bool)
    kept[first] = True
    return _grouped(pairs, pair[kept], links[np.repeat(kept, lengths)], lengths[kept])


def _grouped(
    pairs: np.ndarray, pair: np.ndarray, links: np.ndarray, lengths: np.ndarray
) -> PathSet:
    """Paths, given in any order with the pair of each, pair by pair."""
    order = np.argsort(pair, kind="stable")
    begins = np.cumsum(lengths) - lengths
    sorted_ = lengths[order]
    offsets = np.concatenate([[0], np.cumsum(sorted_)])
    places = np.repeat(begins[order] - offsets[:-1], sorted_)
    places += np.arange(offsets[-1])
    return PathSet(links[places], offsets, np.bincount(pair, minlength=len(pairs)), pairs)


def grow_paths(
    network: Network, demand: Demand, paths: PathSet, costs: Float[ArrayLike, " links"]
) -> tuple[PathSet, float]:
    """`paths` and every pair's best path at these link costs; the share of trips whose best path
    was missing.

    What a design with a fixed set of paths leaves out: at the costs under its tolls a share of 0
    says that no driver has a better path outside of the set.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.sioux_falls()
        >>> few = ix.traffic.k_shortest_paths(network, demand, 1)
        >>> busy = ix.traffic.assign(network, demand)
        >>> _, missing = ix.traffic.grow_paths(network, demand, few, busy.costs)
        >>> print(missing > 0.1)
        True
    """
    require_network("grow_paths", network, demand)
    require_kind("grow_paths", "paths", paths, PathSet)
    cost = require_link_costs("grow_paths", "costs", network, costs)
    if not np.array_equal(paths.pairs, demand.pairs):
        raise ValueError(
            "`grow_paths(paths=...)` needs the paths of the pairs of the demand, in their order, "
            f"got those of {len(paths.pairs)} pairs"
        )
    best, _ = _paths_within("grow_paths", network, demand, cost, (0.0, 1))
    known = np.add.reduceat(cost[paths.links], paths.offsets[:-1])
    least = np.minimum.reduceat(known, np.cumsum(paths.sizes) - paths.sizes)
    reached = np.add.reduceat(cost[best.links], best.offsets[:-1])
    missing = reached < least * (1 - 1e-9)
    share = float(demand.trips[missing].sum() / demand.trips.sum())
    return (join_paths(paths, best) if missing.any() else paths), share
