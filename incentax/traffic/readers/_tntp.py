"""Networks and trips in the format of the TransportationNetworks collection."""

import re

import numpy as np

from ..._checks import require_positive, warn
from .._network import Demand, Network
from ._tables import demand_of, FilePath, LinkRow, network_of, Place, read_lines

_COLUMNS = (
    "init_node", "term_node", "capacity", "length", "free_flow_time", "b", "power", "speed",
    "toll", "link_type",
)  # fmt: skip
# Total of the trips as the file states it, which is rounded.
_ROUNDING = 1e-4


def read_tntp(
    net: FilePath,
    trips: FilePath | None = None,
    nodes: FilePath | None = None,
    *,
    toll_weight: float = 0.0,
    distance_weight: float = 0.0,
) -> tuple[Network, Demand | None]:
    r"""A network and its demand from files of the TransportationNetworks collection (TNTP).

    Nodes are counted from 0 in the order of their numbers and keep these as `Network.node_names`;
    links keep the order of the file. Demand within a zone is in `Demand.within_zones`; pairs
    without trips are left out.

    **Arguments:**

    - `net`, `trips`: the files; without trips the demand is `None`.
    - `nodes`: file with positions.
    - `toll_weight`, `distance_weight`: `>= 0`, what a unit of the columns toll and length costs, in
      the unit of time: `fixed_cost = toll_weight toll + distance_weight length`.

    **Raises** `ValueError` with file, line and what was expected there: a number that is none, a
    node that is not in the network, a capacity or time out of its range, trips of another network,
    fewer rows or trips than the file says it has (as when it was cut). `OSError` for a file that
    cannot be read. Warns of a link that stands twice (both are kept), and of links of length 0
    whose time is infinite or missing (it is then 0).

    !!! example

        >>> import incentax as ix, tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "net").write_text(
        ...     "<NUMBER OF ZONES> 2\n<FIRST THRU NODE> 1\n<NUMBER OF LINKS> 1\n"
        ...     "<END OF METADATA>\n1 2 100 1 5 0.15 4 ;"
        ... )
        >>> _ = (folder / "trips").write_text("<END OF METADATA>\nOrigin 1\n2 : 50;")
        >>> network, demand = ix.traffic.read_tntp(folder / "net", folder / "trips")
        >>> network.name_of_link(0), demand.trips
        ('1 (1-2)', array([50.]))
    """
    weights = (
        float(require_positive("read_tntp", "toll_weight", toll_weight, strictly=False)),
        float(require_positive("read_tntp", "distance_weight", distance_weight, strictly=False)),
    )
    metadata, rows = _parts(net)
    timeless: list[int] = []
    found = (_link(place, text, weights, timeless) for place, text in rows)
    links = [row for row in found if row is not None]
    if timeless:
        warn(
            f"{net}: {len(timeless)} links of length 0 have no finite free_flow_time, the first in "
            f"line {timeless[0]}. Going on with 0."
        )
    _complete(net, metadata, "NUMBER OF LINKS", len(links))
    names = sorted({int(str(end)) for row in links for end in (row.tail, row.head)})
    stated = _stated(metadata, "NUMBER OF NODES")
    if stated is not None and names and names[0] < 1:
        row = next(row for row in links if names[0] in (row.tail, row.head))
        raise row.place.refused("nodes numbered from 1", f"node {names[0]}")
    if stated is not None and len(names) > stated:
        raise ValueError(
            f"{net}: expected {stated} nodes, as its <NUMBER OF NODES> says, got {len(names)}, the "
            f"last {names[-1]}"
        )
    numbered = not names or (stated is not None and names[-1] <= stated and names[0] >= 1)
    if numbered and stated is not None:
        names = list(range(1, stated + 1))
    first = _stated(metadata, "FIRST THRU NODE") or 0
    network = network_of(
        links,
        names,
        first_through_node=int(np.searchsorted(names, first)),
        position=None if nodes is None else _positions(nodes, names),
    )
    if trips is None:
        return network, None
    zones = _stated(metadata, "NUMBER OF ZONES") if numbered else None
    return network, _demand(trips, network, zones)


def _parts(path: FilePath) -> tuple[dict[str, tuple[Place, str]], list[tuple[Place, str]]]:
    """Metadata by their name, and the rows after them without comments."""
    metadata: dict[str, tuple[Place, str]] = {}
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        tag = re.match(r"\s*<([^>]*)>(.*)", line)
        if tag:
            name = tag.group(1).strip().upper()
            if name == "END OF METADATA":
                _require_order(path, lines[number:], number + 1)
                texts = enumerate((text.partition("~")[0] for text in lines[number:]), number + 1)
                return metadata, [(Place(path, at), text) for at, text in texts if text.strip()]
            metadata[name] = Place(path, number), tag.group(2).partition("~")[0].strip()
    raise ValueError(f"{path}: expected a line <END OF METADATA>, got {len(lines)} lines without")


def _require_order(path: FilePath, lines: list[str], first: int) -> None:
    """Refuses a heading that names the columns of links in another order."""
    for number, line in enumerate(lines, first):
        if line.lstrip().startswith("~"):
            named = [name for name in line.lower().split() if name in _COLUMNS]
            if len(named) > 6 and named != list(_COLUMNS[: len(named)]):
                raise Place(path, number).refused(
                    f"columns in the order {', '.join(_COLUMNS)}", ", ".join(named)
                )


def _stated(metadata: dict[str, tuple[Place, str]], name: str) -> int | None:
    place, text = metadata.get(name, (None, ""))
    return place.whole(text, f"<{name}>") if place is not None and text else None


def _complete(path: FilePath, metadata: dict, name: str, found: int) -> None:
    stated = _stated(metadata, name)
    if stated is not None and stated != found:
        raise ValueError(
            f"{path}: expected {stated} rows, as its <{name}> says, got {found}"
            + " (is the file cut?)" * (found < stated)
        )


def _link(
    place: Place, text: str, weights: tuple[float, float], timeless_connectors: list[int]
) -> LinkRow | None:
    """A row of the table of links; columns are told apart by tabs where there are any."""
    # Tabs around a row are the file's, and no empty columns.
    content = text.split(";", maxsplit=1)[0].strip()
    if not content:
        return None
    fields = content.split("\t") if "\t" in content else content.split()
    fields = [field.strip() for field in fields]
    if len(fields) < 7:
        raise place.refused(f"7 columns or more ({', '.join(_COLUMNS[:7])})", len(fields))
    row: dict[str, str] = dict(zip(_COLUMNS, fields))
    for name in ("b", "power", "capacity"):
        if not row[name]:
            raise place.refused(f"a number for {name}", "an empty column")
    timeless = row["free_flow_time"].lower() in ("", "inf", "infinity")
    if timeless and place.number(row["length"] or "nan", "length") == 0:
        timeless_connectors.append(place.line)
        row["free_flow_time"] = "0"
    toll, distance = weights
    # A column without weight may hold anything.
    needed: list[str] = ["capacity", "free_flow_time", "b", "power"]
    needed += ["toll"] * (toll > 0) + ["length"] * (distance > 0)
    number = {name: place.number(row.get(name) or "0", name) for name in needed}
    return LinkRow(
        place,
        place.whole(row["init_node"], "init_node"),
        place.whole(row["term_node"], "term_node"),
        number["capacity"],
        number["free_flow_time"],
        number["b"],
        number["power"],
        toll * number.get("toll", 0.0) + distance * number.get("length", 0.0),
    )


def _positions(path: FilePath, names: list[int]) -> np.ndarray:
    found: dict[int, tuple[float, float]] = {}
    for number, line in enumerate(read_lines(path), 1):
        fields, place = line.replace(";", " ").split(), Place(path, number)
        if not fields or not re.fullmatch(r"\d+", fields[0]):
            continue  # a heading
        if len(fields) < 3:
            raise place.refused("a node, its x and its y", line.strip())
        x, y = (place.number(field, "a coordinate") for field in fields[1:3])
        if int(fields[0]) in found:
            raise place.refused("each node once", f"node {fields[0]} again")
        found[int(fields[0])] = x, y
    for name in names:
        if name not in found:
            raise ValueError(f"{path}: expected a position for node {name}, got none")
    return np.asarray([found[name] for name in names])


def _demand(path: FilePath, network: Network, zones: int | None) -> Demand:
    metadata, lines = _parts(path)
    stated = _stated(metadata, "NUMBER OF ZONES")
    if zones is not None and stated is not None and stated != zones:
        raise metadata["NUMBER OF ZONES"][0].refused(
            f"{zones} zones, as in the network (are these the trips of another one?)", stated
        )
    rows, origin, total, known = [], None, 0.0, set()
    for place, text in lines:
        heading, entries = re.match(r"\s*origin\s+(\S+)", text, re.IGNORECASE), text
        if heading:
            # Trips may follow on the same line.
            origin, entries = place.whole(heading.group(1), "an origin"), text[heading.end() :]
        elif origin is None:
            raise place.refused("a line `Origin n` before its trips", text.strip())
        for entry in filter(str.strip, entries.split(";")):
            destination, colon, value = entry.partition(":")
            if not colon:
                raise place.refused("`destination : trips;`", repr(entry.strip()))
            count = place.number(value.strip(), "trips")
            pair = origin, place.whole(destination, "a destination")
            if count < 0:
                raise place.refused("a number of trips >= 0", value.strip())
            if count > 0:  # some files list a pair again without trips
                if pair in known:
                    raise place.refused("each pair of zones once", f"{pair[0]} to {pair[1]} again")
                known.add(pair)
            total += count
            rows.append((place, *pair, count))
    place, text = metadata.get("TOTAL OD FLOW", (None, ""))
    if place is not None and text:
        flow = place.number(text, "<TOTAL OD FLOW>")
        if abs(flow - total) > _ROUNDING * max(abs(flow), 1.0):
            raise ValueError(
                f"{path}: expected {flow:g} trips in all, as its <TOTAL OD FLOW> says, got "
                f"{total:g} (is the file cut?)"
            )
    return demand_of(network, rows)
