"""Cities of any size, made up from a seed."""

from typing import get_args, Literal

import numpy as np

from .._checks import require_count, require_one_of, require_positive
from ._network import Demand, Network

Plan = Literal["grid", "ring-radial"]
# Every so many streets one is an avenue, wider and faster.
_AVENUE = 4
# Kilometres between crossings; km/h and vehicles an hour on streets and on avenues.
_BLOCK, _SPEEDS, _CAPACITIES = 0.5, (30.0, 50.0), (900.0, 1800.0)


def generate_city(
    rows: int,
    columns: int | None = None,
    *,
    plan: Plan = "grid",
    zones: int | None = None,
    load: float = 1.0,
    seed: int = 0,
) -> tuple[Network, Demand]:
    """A made-up city: two-way streets, avenues, zones, and trips that fall off with distance.

    Times are in minutes, `t0 (1 + 0.15 (flow / capacity)^4)`; crossings are half a kilometre apart.

    **Arguments:**

    - `rows`, `columns`: crossings of a "grid" (as many columns as rows when left out); rings and
      radial roads of a "ring-radial" one, around a centre.
    - `plan`: "grid" or "ring-radial".
    - `zones`: crossings at which trips begin and end, spread at random; all when left out.
    - `load`: kilometres of all trips by the straight line, as a share of what all links carry at
      capacity.
    - `seed`: of capacities, zones and trips.

    **Raises** `ValueError` for fewer than two rows or columns, more zones than crossings or fewer
    than two, and a load that is not positive.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.generate_city(10, zones=20)
        >>> network.number_of_nodes, network.number_of_links, len(demand.trips)
        (100, 360, 380)
    """
    rows = require_count("generate_city", "rows", rows, least=2)
    columns = require_count(
        "generate_city", "columns", rows if columns is None else columns, least=2
    )
    require_one_of("generate_city", "plan", plan, get_args(Plan))
    load = float(require_positive("generate_city", "load", load))
    position, roads, wide = (_grid if plan == "grid" else _rings)(rows, columns)
    nodes, rng = len(position), np.random.default_rng(seed)
    count = nodes if zones is None else require_count("generate_city", "zones", zones, least=2)
    if count > nodes:
        raise ValueError(f"`generate_city(zones=...)` needs at most {nodes} zones, got {count}")
    length = np.linalg.norm(position[roads[:, 0]] - position[roads[:, 1]], axis=1)
    time = 60 * length / np.where(wide, _SPEEDS[1], _SPEEDS[0])
    capacity = np.where(wide, _CAPACITIES[1], _CAPACITIES[0]) * rng.uniform(0.8, 1.2, len(roads))
    both = np.concatenate([roads, roads[:, ::-1]])
    order = np.lexsort((both[:, 1], both[:, 0]))
    links = 2 * len(roads)
    network = Network(
        tail=both[order, 0],
        head=both[order, 1],
        capacity=np.tile(capacity, 2)[order],
        free_flow_time=np.tile(time, 2)[order],
        b=np.full(links, 0.15),
        power=np.full(links, 4.0),
        number_of_nodes=nodes,
        position=position,
    )
    ends = np.sort(rng.permutation(nodes)[:count])
    pairs = np.stack(np.meshgrid(ends, ends, indexing="ij"), axis=-1).reshape(-1, 2)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    distance = np.linalg.norm(position[pairs[:, 0]] - position[pairs[:, 1]], axis=1)
    trips = np.exp(-distance / (0.4 * np.ptp(position))) * rng.exponential(1.0, len(pairs))
    room = 2 * (capacity * length).sum()
    return network, Demand(pairs, trips * load * room / (trips * distance).sum())


def _grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, roads by their ends, and which are avenues."""
    node = np.arange(rows * columns).reshape(rows, columns)
    row, column = np.divmod(np.arange(rows * columns), columns)
    along = np.stack([node[:, :-1].ravel(), node[:, 1:].ravel()], axis=1)
    across = np.stack([node[:-1].ravel(), node[1:].ravel()], axis=1)
    wide = np.concatenate([row[along[:, 0]] % _AVENUE == 0, column[across[:, 0]] % _AVENUE == 0])
    return _BLOCK * np.stack([column, row], axis=1), np.concatenate([along, across]), wide


def _rings(rings: int, radials: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The centre is node 0; ring by ring from there."""
    angle = 2 * np.pi * np.arange(radials) / radials
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    radius = _BLOCK * np.arange(1, rings + 1)
    position = np.concatenate([np.zeros((1, 2)), (radius[:, None, None] * unit).reshape(-1, 2)])
    node = 1 + np.arange(rings * radials).reshape(rings, radials)
    inward = np.concatenate([np.zeros((1, radials), int), node[:-1]])
    outward = np.stack([inward.ravel(), node.ravel()], axis=1)
    around = np.stack([node.ravel(), np.roll(node, -1, axis=1).ravel()], axis=1)
    around = around if radials > 2 else around[::2]
    rays = np.tile(np.arange(radials) % _AVENUE == 0, rings)
    circles = np.repeat(np.arange(rings) % _AVENUE == _AVENUE - 1, len(around) // rings)
    return position, np.concatenate([outward, around]), np.concatenate([rays, circles])
