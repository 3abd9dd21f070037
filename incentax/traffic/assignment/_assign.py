"""Where traffic settles: user equilibrium and system optimum of a whole network."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, Literal

import numpy as np
from jaxtyping import ArrayLike, Float

from ..._checks import (
    require_count,
    require_kind,
    require_numbers,
    require_one_of,
    require_positive,
    warn,
)
from .._network import Demand, Network, require_network

Objective = Literal["user", "system"]
Tolls = ArrayLike | Mapping[int, float] | None


@dataclass(frozen=True, eq=False)
class Assignment:
    """Answer of [`assign`][]; prints as a table.

    - `flows`, `costs`: of every link; costs with fixed costs and tolls, in the unit of time (for
      "system" marginal costs, which the optimum equalises).
    - `relative_gap`: share of all costs that drivers would save on shortest paths, costs unchanged:
      0 at equilibrium.
    - `average_excess_cost`: the same saving, a trip.
    - `total_travel_time`: sum of flow times time, fixed costs included, without tolls.
    - `beckmann`: sum of integrals of link costs, tolls included, which an equilibrium minimises.
    - `marginal_cost_tolls`: `v t'(v)`, under which the system optimum is an equilibrium.
    - `history`: relative gap after every iteration.
    - `reached`: whether the gap that was asked for was reached.
    - `bushes`: where `assign(start=...)` goes on from.
    """

    network: Network
    demand: Demand
    objective: Objective
    tolls: Float[np.ndarray, " links"]
    flows: Float[np.ndarray, " links"]
    costs: Float[np.ndarray, " links"]
    history: Float[np.ndarray, " iterations"]
    average_excess_cost: float
    reached: bool
    bushes: Any = field(repr=False)

    @property
    def relative_gap(self) -> float:
        """The last of the history."""
        return float(self.history[-1])

    @property
    def total_travel_time(self) -> float:
        """Sum of flow times time, without tolls."""
        return float(self.flows @ _time(self.network, self.flows))

    @property
    def beckmann(self) -> float:
        """Sum of integrals of link costs."""
        b, power = np.asarray(self.network.b), np.asarray(self.network.power)
        mean = _time(self.network, self.flows, b / (power + 1)) + self.tolls
        return float(self.flows @ mean)

    @property
    def marginal_cost_tolls(self) -> Float[np.ndarray, " links"]:
        """What one more driver on a link costs the others there."""
        b, power = np.asarray(self.network.b), np.asarray(self.network.power)
        return _time(self.network, self.flows, b * power) - _time(self.network, self.flows, 0 * b)

    def __str__(self) -> str:
        rows = [
            ("total travel time", f"{self.total_travel_time:.10g}"),
            ("relative gap", f"{self.relative_gap:.2e}"),
            ("average excess cost", f"{self.average_excess_cost:.2e}"),
            ("Beckmann value", f"{self.beckmann:.10g}"),
            ("iterations", str(len(self.history))),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def assign(
    network: Network,
    demand: Demand,
    *,
    tolls: Tolls = None,
    objective: Objective = "user",
    gap: float = 1e-6,
    max_iterations: int = 500,
    start: Assignment | None = None,
    progress: bool | Callable[[int, float, float], object] = False,
) -> Assignment:
    """Link flows at user equilibrium, or at the system optimum, of a network of any size.

    No path enumeration: Algorithm B (R. B. Dial 2006) on bushes, one for each origin, compiled by
    numba (extra `traffic`). At a gap of 1e-6 total travel time is right to about 1e-5.

    **Arguments:**

    - `network`, `demand`: see [`Network`][], [`Demand`][], [`read_tntp`][].
    - `tolls`: `>= 0` or below, added to link costs, in the unit of time: one a link, or
      `{link: toll}` with links counted from 0. Costs with tolls must not be negative.
    - `objective`: "user" equilibrium, or "system" optimum (least total travel time).
    - `gap`: relative gap at which to stop.
    - `max_iterations`: bound on rounds over all origins, each with up to ten rounds of shifts.
    - `start`: an assignment of the same network's links and the same demand to begin from, as
      under other tolls.
    - `progress`: `True` writes a line an iteration to standard error; or a function of iteration,
      gap and seconds.

    **Raises** `ValueError` for pairs without a path (named), tolls on links that do not exist, and
    a network whose bushes do not fit into memory; `ImportError` without numba. Warns where the gap
    is not reached.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.sioux_falls()
        >>> print(round(ix.traffic.assign(network, demand, gap=1e-10).total_travel_time))
        7480225
    """
    require_network("assign", network, demand)
    kernels = compiled_kernels()
    require_one_of("assign", "objective", objective, get_args(Objective))
    level = float(require_positive("assign", "gap", gap))
    rounds = require_count("assign", "max_iterations", max_iterations)
    charged = tolls_of_links("assign", network, tolls)
    if objective == "system" and tolls is not None:
        raise ValueError(
            "`assign(tolls=...)` has no meaning for the system optimum: tolls are transfers"
        )
    table = Pairs(network, demand)
    trips = kernels.Trips(*table.ranges)
    links = np.zeros((3, network.number_of_links))
    costs = _costs(network, charged, objective)
    traffic = kernels.Traffic(kernels.graph_of(network), costs, *links)
    if start is None:
        bushes = _new_bushes(network, table)
        missing = kernels.begin(traffic, bushes, trips)
        if missing >= 0:
            raise table.unconnected("assign", missing)
    else:
        require_kind("assign", "start", start, Assignment)
        bushes = _bushes_of(start, network, demand)
        kernels.add_up(traffic, bushes)
    tell = _show_progress if progress is True else progress or None
    history, excess = _equilibrate((traffic, bushes, trips), level, rounds, tell)
    reached = history[-1] <= level
    if not reached:
        warn(f"`assign`: relative gap {history[-1]:.1e} after {rounds} iterations, not {level:g}.")
    return Assignment(
        network,
        demand,
        objective,
        tolls=charged,
        flows=traffic.flow,
        costs=traffic.cost,
        history=np.asarray(history),
        average_excess_cost=excess / float(trips.number.sum()),
        reached=reached,
        bushes=bushes,
    )


# Shifts go on between two renewals of the bushes until so little of the excess is left.
_LEFT, _SWEEPS = 0.02, 10


def _equilibrate(
    state: tuple, level: float, rounds: int, tell: Callable[[int, float, float], object] | None
) -> tuple[list[float], float]:
    """Renews bushes and shifts flows until the gap is small; its history, and the last excess."""
    kernels, (traffic, bushes, trips) = compiled_kernels(), state
    left = np.zeros(len(bushes.origin))
    history, excess, began = [], np.inf, time.perf_counter()
    for number in range(1, rounds + 1):
        first = kernels.sweep(traffic, bushes, left, True, 0.0)
        for sweep in range(_SWEEPS):
            floor = _LEFT * left.max() if sweep else 0.0
            if kernels.sweep(traffic, bushes, left, False, floor) < _LEFT * first:
                break
        kernels.add_up(traffic, bushes)
        spent = float(traffic.flow @ traffic.cost)
        excess = spent - kernels.least_cost(traffic, bushes, trips)
        history.append(excess / spent if spent > 0 else 0.0)
        if tell is not None:
            tell(number, history[-1], time.perf_counter() - began)
        if history[-1] <= level:
            break
    return history, excess


def _show_progress(number: int, gap: float, seconds: float) -> None:
    sys.stderr.write(f"iteration {number:4d}   relative gap {gap:.2e}   {seconds:.1f} s\n")
    sys.stderr.flush()


def compiled_kernels() -> Any:
    """The compiled part, which needs an extra."""
    try:
        from . import kernels  # noqa: PLC0415  # numba is of an extra, and takes half a second
    except ImportError:
        raise ImportError(
            '`ix.traffic.assign` needs numba: pip install "incentax[traffic]"'
        ) from None
    return kernels


class Pairs:
    """Pairs by their origin: which origins, and where in the table each one's pairs stand."""

    def __init__(self, network: Network, demand: Demand):
        largest = int(demand.pairs.max())
        if largest >= network.number_of_nodes or demand.pairs.min() < 0:
            raise ValueError(
                f"`assign(demand=...)` needs nodes in 0..{network.number_of_nodes - 1}, got "
                f"{largest if demand.pairs.min() >= 0 else demand.pairs.min()}"
            )
        self.network, self.demand = network, demand
        apart = np.flatnonzero(demand.pairs[:, 0] != demand.pairs[:, 1])
        if not apart.size:
            raise ValueError(
                "`assign(demand=...)` needs trips between two nodes, got trips within nodes alone"
            )
        self.order = apart[np.lexsort((demand.pairs[apart, 1], demand.pairs[apart, 0]))]
        self.pairs, trips = demand.pairs[self.order], np.asarray(demand.trips, float)[self.order]
        self.origins, first = np.unique(self.pairs[:, 0], return_index=True)
        # Where the pairs of each origin begin, their destinations, their trips.
        self.ranges = np.append(first, len(self.pairs)), self.pairs[:, 1].astype(np.int64), trips

    def unconnected(self, owner: str, pair: int) -> ValueError:
        """The error that names a pair without a path."""
        names = [self.network.name_of_node(int(node)) for node in self.pairs[pair]]
        return ValueError(
            f"`{owner}(demand=...)` needs a path for every pair with trips, got none from node "
            f"{names[0]} to node {names[1]}"
        )


def tolls_of_links(owner: str, network: Network, tolls: Tolls) -> Float[np.ndarray, " links"]:
    """One toll a link, from one a link or from some by their links."""
    links = network.number_of_links
    if tolls is None:
        return np.zeros(links)
    if isinstance(tolls, Mapping):
        charged = np.zeros(links)
        numbers = require_numbers(owner, "tolls", list(tolls.values()))
        for link, toll in zip(tolls, numbers):
            if not isinstance(link, int | np.integer) or not 0 <= link < links:
                raise ValueError(
                    f"`{owner}(tolls=...)` needs links in 0..{links - 1}, got {link!r}"
                )
            charged[link] = toll
    else:
        charged = require_numbers(owner, "tolls", tolls)
    if charged.shape != (links,) or not np.isfinite(charged).all():
        raise ValueError(
            f"`{owner}(tolls=...)` needs one finite toll a link, shape ({links},), got "
            f"{'a toll that is not finite' if charged.shape == (links,) else charged.shape}"
        )
    least = np.asarray(network.free_flow_time) + np.asarray(network.fixed_cost) + charged
    if (least < 0).any():
        link = int(np.argmin(least))
        raise ValueError(
            f"`{owner}(tolls=...)` needs costs >= 0 with tolls, got {least[link]:g} on link "
            f"{network.name_of_link(link)} when it is empty"
        )
    return charged


def _costs(network: Network, tolls: np.ndarray, objective: Objective) -> Any:
    b, power = np.asarray(network.b, float), np.asarray(network.power, float)
    return compiled_kernels().Costs(
        np.asarray(network.free_flow_time, float),
        b * (1 + power) if objective == "system" else b,
        np.asarray(network.capacity, float),
        power,
        np.asarray(network.fixed_cost, float) + tolls,
    )


def _time(network: Network, flows: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """Times with fixed costs, without tolls; with another `b` other means of these."""
    load = flows / np.asarray(network.capacity)
    congestion = (np.asarray(network.b) if b is None else b) * load ** np.asarray(network.power)
    return np.asarray(network.free_flow_time) * (1 + congestion) + np.asarray(network.fixed_cost)


def _new_bushes(network: Network, table: Pairs) -> Any:
    rows, links, nodes = len(table.origins), network.number_of_links, network.number_of_nodes
    needed = memory_of_assignment(network, table.demand)
    require_memory("assign", needed, f"{rows} origins x {links} links")
    return compiled_kernels().Bushes(
        origin=table.origins.astype(np.int64),
        links=np.zeros((rows, links), bool),
        flow=np.zeros((rows, links)),
        order=np.zeros((rows, nodes), np.int32),
        reached=np.zeros(rows, np.int64),
    )


def memory_of_assignment(network: Network, demand: Demand) -> int:
    """Bytes that [`assign`][] needs at the most: flows of every origin on every link.

    !!! example

        >>> import incentax as ix
        >>> ix.traffic.memory_of_assignment(*ix.traffic.sioux_falls())
        18720
    """
    rows = len(np.unique(demand.pairs[:, 0]))
    return rows * (9 * network.number_of_links + 4 * network.number_of_nodes)


def _bushes_of(start: Assignment, network: Network, demand: Demand) -> Any:
    fits = (
        start.network.number_of_nodes == network.number_of_nodes
        and start.network.first_through_node == network.first_through_node
        and np.array_equal(start.network.tail, network.tail)
        and np.array_equal(start.network.head, network.head)
        and np.array_equal(start.demand.pairs, demand.pairs)
        and np.array_equal(start.demand.trips, demand.trips)
    )
    if not fits:
        raise ValueError(
            "`assign(start=...)` needs an assignment of the same links and the same demand, got "
            "one of others"
        )
    return type(start.bushes)(*(np.copy(part) for part in start.bushes))


def require_memory(owner: str, needed: int, what: str) -> None:
    """Refuses what will not fit, before the work."""
    try:
        with open("/proc/meminfo") as file:
            rows = dict(line.split(":") for line in file)
        free = 1024 * int(rows["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):  # of another operating system
        return
    if needed > free:
        raise ValueError(
            f"`{owner}` needs about {needed / 1e9:.1f} GB of memory for {what}, got "
            f"{free / 1e9:.1f} GB that are free"
        )
