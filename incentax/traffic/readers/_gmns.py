"""Networks in the General Modeling Network Specification (GMNS)."""

import csv

import numpy as np

from .._network import Demand, Network
from ._tables import demand_of, FilePath, LinkRow, network_of, Place


def read_gmns(
    links: FilePath, nodes: FilePath | None = None, demand: FilePath | None = None
) -> tuple[Network, Demand | None]:
    r"""A network and its demand from CSV files of the General Modeling Network Specification.

    **Arguments:**

    - `links`: `link.csv` with `from_node_id`, `to_node_id`, `capacity` (a lane an hour where
      there is a column `lanes`) and one of `free_flow_time` (or `vdf_fftt`, minutes), or `length`
      and `free_speed` (the time is their quotient times 60, in minutes). `vdf_alpha` and
      `vdf_beta` are `b` and `power` of the link time, 0.15 and 4 where they are missing; `vdf_toll`
      or `toll` is a fixed cost in the unit of time. `directed` 0 is a road in both directions.
    - `nodes`: `node.csv` with `node_id`, and `x_coord` and `y_coord`; nodes with a `zone_id` are
      centroids, which paths do not pass through if `node_type` says so.
    - `demand`: CSV with `o_zone_id`, `d_zone_id`, `volume`.

    **Raises** `ValueError` with file, line and what was expected there; `OSError` for a file that
    cannot be read. Warns of a link that stands twice; both are kept.

    !!! example

        >>> import incentax as ix, tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "link.csv").write_text(
        ...     "from_node_id,to_node_id,capacity,length,free_speed\n7,9,1800,2,60\n"
        ... )
        >>> _ = (folder / "demand.csv").write_text("o_zone_id,d_zone_id,volume\n7,9,900\n")
        >>> network, demand = ix.traffic.read_gmns(
        ...     folder / "link.csv", demand=folder / "demand.csv"
        ... )
        >>> network.free_flow_time, network.name_of_link(0)
        (array([2.]), '1 (7-9)')
    """
    node_rows = [] if nodes is None else _rows(nodes, ("node_id",))
    link_rows = []
    for place, row in _rows(links, ("from_node_id", "to_node_id", "capacity")):
        link_rows += _links(place, row)
    names = [row["node_id"] for _, row in node_rows]
    for number, (place, row) in enumerate(node_rows):
        if row["node_id"] in names[:number]:
            raise place.refused("a node that has not stood before", row["node_id"])
    if not node_rows:
        names = _in_order({str(end) for row in link_rows for end in (row.tail, row.head)})
    centroids = {row["node_id"] for _, row in node_rows if _is_centroid(row)}
    names = [n for n in names if n in centroids] + [n for n in names if n not in centroids]
    network = network_of(
        link_rows,
        names,
        first_through_node=len(centroids),
        position=_positions(node_rows, names),
    )
    if demand is None:
        return network, None
    zones = _zones(node_rows)

    def node_of(place: Place, zone: str) -> str:
        nodes = zones.get(zone, []) if zones else [zone]
        if len(nodes) != 1:
            raise place.refused(f"a zone that is one node, or has one centroid, for {zone}", nodes)
        return nodes[0]

    rows = [
        (
            place,
            node_of(place, row["o_zone_id"]),
            node_of(place, row["d_zone_id"]),
            place.number(row["volume"], "volume"),
        )
        for place, row in _rows(demand, ("o_zone_id", "d_zone_id", "volume"))
    ]
    return network, demand_of(network, rows)


def _zones(rows: list[tuple[Place, dict[str, str]]]) -> dict[str, list[str]]:
    """Of every zone its nodes; its centroids alone where it has some."""
    zones: dict[str, list[tuple[bool, str]]] = {}
    for _, row in rows:
        if row.get("zone_id"):
            zones.setdefault(row["zone_id"], []).append((_is_centroid(row), row["node_id"]))
    return {
        zone: [name for centroid, name in nodes if centroid] or [name for _, name in nodes]
        for zone, nodes in zones.items()
    }


def _in_order(names: set[str]) -> list[str]:
    """By number where all are numbers."""
    return sorted(
        names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )


def _is_centroid(row: dict[str, str]) -> bool:
    return "centroid" in row.get("node_type", "").lower()


def _rows(path: FilePath, needed: tuple[str, ...]) -> list[tuple[Place, dict[str, str]]]:
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        missing = [name for name in needed if name not in header]
        if missing:
            raise Place(path, 1).refused(f"a column {missing[0]}", ", ".join(header) or "nothing")
        rows = []
        for row in reader:
            place = Place(path, reader.line_num)
            if None in row or None in row.values():
                more = len(row.get(None) or ())  # pyright: ignore[reportArgumentType]
                count = more + sum(row[name] is not None for name in header)
                raise place.refused(f"{len(header)} columns", count)
            rows.append((place, {name: value.strip() for name, value in row.items()}))
    return rows


def _links(place: Place, row: dict[str, str]) -> list[LinkRow]:
    """The link of a row, and the one back where the road has both directions."""

    def number(default: float | None, *names: str) -> float:
        for name in names:
            if row.get(name):
                return place.number(row[name], name)
        if default is None:
            raise place.refused(f"a number for {' or '.join(names)}", "an empty column")
        return default

    if any(row.get(name) for name in ("free_flow_time", "vdf_fftt")):
        time = number(None, "free_flow_time", "vdf_fftt")
    else:
        speed = number(None, "free_speed")
        if speed <= 0:
            raise place.refused("a free_speed > 0", speed)
        time = 60 * number(None, "length") / speed
    link = LinkRow(
        place,
        row["from_node_id"],
        row["to_node_id"],
        number(None, "capacity") * number(1.0, "lanes"),
        time,
        number(0.15, "vdf_alpha", "b"),
        number(4.0, "vdf_beta", "power"),
        number(0.0, "vdf_toll", "toll"),
    )
    if row.get("directed", "1").lower() in ("0", "false"):
        return [link, link._replace(tail=link.head, head=link.tail)]
    return [link]


def _positions(rows: list[tuple[Place, dict[str, str]]], names: list[str]) -> np.ndarray | None:
    if not rows or not all(row.get("x_coord") and row.get("y_coord") for _, row in rows):
        return None
    found = {
        row["node_id"]: [place.number(row[name], name) for name in ("x_coord", "y_coord")]
        for place, row in rows
    }
    return np.asarray([found[name] for name in names])
