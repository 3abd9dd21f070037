"""What every reader makes of rows: numbers with a place, nodes with a name, links, demand."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..._checks import warn
from .._network import Demand, Network

FilePath = str | PathLike[str]


class Place(NamedTuple):
    """Where in which file something stands."""

    path: FilePath
    line: int

    def refused(self, expected: str, got: object) -> ValueError:
        """The error that names file and line, what was expected there, and what stands there."""
        return ValueError(f"{self.path}, line {self.line}: expected {expected}, got {got}")

    def number(self, text: object, name: str) -> float:
        """A finite number."""
        try:
            value = float(text)  # pyright: ignore[reportArgumentType]
        except (ValueError, TypeError):
            raise self.refused(f"a number for {name}", repr(text)) from None
        if not np.isfinite(value):
            raise self.refused(f"a finite number for {name}", repr(text))
        return value

    def whole(self, text: str, name: str) -> int:
        """A whole number."""
        value = self.number(text, name)
        if value != int(value):
            raise self.refused(f"a whole number for {name}", repr(text))
        return int(value)


def read_lines(path: FilePath) -> list[str]:
    """The lines of a text file, whatever ends them."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise type(error)(f"{path}: {error.strerror}") from None


def as_names(names: Sequence) -> np.ndarray:
    """One entry a node, whatever it is called by."""
    if all(isinstance(name, int) for name in names):
        return np.asarray(names, int)
    array = np.empty(len(names), object)
    array[:] = names
    return array


class LinkRow(NamedTuple):
    """A link as its file has it."""

    place: Place
    tail: object
    head: object
    capacity: float
    free_flow_time: float
    b: float
    power: float
    fixed_cost: float = 0.0


def network_of(
    rows: Sequence[LinkRow],
    names: Sequence,
    *,
    first_through_node: int = 0,
    position: np.ndarray | None = None,
) -> Network:
    """The network of these links between these nodes; the file and line of whatever is wrong."""
    index = {name: node for node, name in enumerate(names)}
    seen: dict[tuple, Place] = {}
    twice: list[tuple[Place, LinkRow]] = []
    columns: list[list] = [[] for _ in range(7)]
    for row in rows:
        for column, name in zip(columns, (row.tail, row.head)):
            if name not in index:
                raise row.place.refused(f"one of the {len(names)} nodes of the network", name)
            column.append(index[name])
        for key in ("free_flow_time", "b", "power", "fixed_cost"):
            if not getattr(row, key) >= 0:
                raise row.place.refused(f"a {key} >= 0", getattr(row, key))
        # Where no flow changes the time a capacity plays no part, and some files have 0 for it.
        idle = row.free_flow_time == 0 or row.b == 0 or row.power == 0
        if row.capacity < 0 or (row.capacity == 0 and not idle):
            raise row.place.refused("a capacity > 0", row.capacity)
        if row[1:] in seen:
            twice.append((seen[row[1:]], row))
        seen[row[1:]] = row.place
        values = (row.capacity or 1.0, row.free_flow_time, row.b, row.power, row.fixed_cost)
        for column, value in zip(columns[2:], values):
            column.append(value)
    if twice:
        first, row = twice[0]
        warn(
            f"{row.place.path}: {len(twice)} links stand twice, the first in lines {first.line} "
            f"and {row.place.line} from {row.tail} to {row.head}. Kept as parallel links."
        )
    tail, head = (np.asarray(column, int) for column in columns[:2])
    capacity, time, b, power, fixed = (np.asarray(column, float) for column in columns[2:])
    return Network(
        tail=tail,
        head=head,
        capacity=capacity,
        free_flow_time=time,
        b=b,
        power=power,
        number_of_nodes=len(names),
        first_through_node=first_through_node,
        position=position,
        fixed_cost=fixed,
        node_names=as_names(names),
    )


def demand_of(network: Network, rows: Sequence[tuple[Place, object, object, float]]) -> Demand:
    """The demand of these (place, origin, destination, trips); what stays in a zone apart."""
    assert network.node_names is not None
    index = {name: node for node, name in enumerate(network.node_names.tolist())}
    trips: dict[tuple[int, int], float] = {}
    within = 0.0
    for place, origin, destination, value in rows:
        if value < 0:
            raise place.refused("a number of trips >= 0", value)
        for name in (origin, destination):
            if name not in index:
                raise place.refused("a node of the network (is it of another network?)", name)
        if origin == destination:
            within += value
        elif value > 0:
            pair = index[origin], index[destination]
            trips[pair] = trips.get(pair, 0.0) + value
    if not trips:
        raise ValueError(f"{rows[0][0].path if rows else 'demand'}: no trips between two zones")
    ordered = sorted(trips)
    return Demand(np.asarray(ordered), np.asarray([trips[pair] for pair in ordered]), within)
