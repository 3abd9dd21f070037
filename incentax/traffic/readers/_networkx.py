"""Networks to and from `networkx`."""

from typing import Any

import numpy as np

from .._network import Network
from ._tables import LinkRow, network_of, Place


def to_networkx(network: Network) -> Any:
    """The network as a `networkx.MultiDiGraph`, links as edges whose keys are their rows.

    Nodes are the network's names and have `position` where it is known. Edges have `capacity`,
    `free_flow_time`, `b`, `power` and `fixed_cost`. Needs `networkx` (extra `traffic`).

    !!! example

        >>> import incentax as ix
        >>> graph = ix.traffic.to_networkx(ix.traffic.sioux_falls()[0])
        >>> graph.number_of_nodes(), graph.edges[1, 2, 0]["free_flow_time"]
        (24, 6.0)
    """
    try:
        import networkx  # noqa: PLC0415  # of an extra
    except ImportError:
        raise ImportError('`to_networkx` needs networkx: pip install "incentax[traffic]"') from None
    count = network.number_of_nodes
    names = np.arange(1, count + 1) if network.node_names is None else network.node_names
    names = names.tolist()
    graph = networkx.MultiDiGraph(first_through_node=network.first_through_node)
    for node, name in enumerate(names):
        known = {} if network.position is None else {"position": tuple(network.position[node])}
        graph.add_node(name, **known)
    for link in range(network.number_of_links):
        values = {key: float(getattr(network, key)[link]) for key in _VALUES}
        graph.add_edge(names[network.tail[link]], names[network.head[link]], link, **values)
    return graph


_VALUES = ("capacity", "free_flow_time", "b", "power", "fixed_cost")


def from_networkx(graph: Any) -> Network:
    """A network from a directed `networkx` graph, its nodes in the order of the graph.

    Edges need `capacity` and `free_flow_time`, and may have `b` (0.15 when left out), `power` (4)
    and `fixed_cost` (0). Edges whose keys are their rows, as [`to_networkx`][] gives them, come in
    that order.

    **Raises** `ValueError` for an undirected graph, or an edge without a value or with a wrong one.

    !!! example

        >>> import incentax as ix, networkx
        >>> graph = networkx.DiGraph()
        >>> graph.add_edge("home", "work", capacity=100.0, free_flow_time=5.0)
        >>> ix.traffic.from_networkx(graph).name_of_link(0)
        '1 (home-work)'
    """
    if not graph.is_directed():
        raise ValueError("`from_networkx(graph)` needs a directed graph, got an undirected one")
    names, rows = list(graph.nodes), []
    edges = list(graph.edges(keys=True, data=True)) if graph.is_multigraph() else [
        (tail, head, 0, data) for tail, head, data in graph.edges(data=True)
    ]  # fmt: skip
    keys = [key for _, _, key, _ in edges]
    if all(isinstance(key, int) for key in keys) and sorted(keys) == list(range(len(edges))):
        edges = sorted(edges, key=lambda edge: edge[2])
    for number, (tail, head, _, data) in enumerate(edges, 1):
        place, given = Place("graph, edges", number), {"b": 0.15, "power": 4.0, "fixed_cost": 0.0}
        given |= data
        for key in ("capacity", "free_flow_time"):
            if key not in given:
                raise place.refused(f"an attribute `{key}` of the edge {tail}-{head}", "none")
        values = [place.number(given[key], key) for key in _VALUES]
        rows.append(LinkRow(place, tail, head, *values))
    position = [graph.nodes[name].get("position") for name in names]
    known = all(place is not None for place in position)
    return network_of(
        rows,
        names,
        first_through_node=int(graph.graph.get("first_through_node", 0)),
        position=np.asarray(position, float) if known else None,
    )
