"""Which links to toll."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import ArrayLike, Float, Int

from .._checks import require_count, require_kind, require_numbers
from ._network import Network


def most_congested(
    network: Network, flows: Float[ArrayLike, " links"], number: int
) -> Int[np.ndarray, " number"]:
    """The links with the largest delay over free-flow time, `b (flow / capacity)^power`, in order.

    **Raises** `ValueError` when the network has fewer links.

    !!! example

        >>> import incentax as ix
        >>> network, demand = ix.traffic.sioux_falls()
        >>> found = ix.traffic.assign(network, demand)
        >>> [network.name_of_link(k) for k in ix.traffic.most_congested(network, found.flows, 2)]
        ['19 (8-6)', '16 (6-8)']
    """
    require_kind("most_congested", "network", network, Network)
    number = require_count("most_congested", "number", number)
    if number > network.number_of_links:
        raise ValueError(
            f"`most_congested(number=...)` needs at most {network.number_of_links} links, "
            f"got {number}"
        )
    flow, links = require_numbers("most_congested", "flows", flows), network.number_of_links
    if flow.shape != (links,) or not (flow >= 0).all():
        raise ValueError(
            f"`most_congested(flows)` needs one number >= 0 a link, shape ({links},), got "
            + (f"shape {flow.shape}" if flow.shape != (links,) else f"{flow[~(flow >= 0)][0]:g}")
        )
    load = flow / np.asarray(network.capacity)
    delay = np.asarray(network.b) * load ** np.asarray(network.power)
    # Without a free-flow time nothing is delayed.
    delay = np.where(np.asarray(network.free_flow_time) > 0, delay, 0)
    return np.argsort(-delay, kind="stable")[:number]


def cordon(network: Network, nodes: Sequence[int]) -> Int[np.ndarray, " links"]:
    """The links that lead into a set of nodes, counted from 0, from outside of it.

    **Raises** `ValueError` for nodes that do not exist, and when no link leads in.

    !!! example

        >>> import incentax as ix
        >>> network, _ = ix.traffic.sioux_falls()
        >>> [network.name_of_link(link) for link in ix.traffic.cordon(network, [0, 1])]
        ['5 (3-1)', '14 (6-2)']
    """
    require_kind("cordon", "network", network, Network)
    inside = np.zeros(network.number_of_nodes, bool)
    for node in nodes:
        if not 0 <= node < network.number_of_nodes:
            raise ValueError(
                f"`cordon(nodes)` needs nodes in 0..{network.number_of_nodes - 1}, got {node}"
            )
        inside[node] = True
    links = np.flatnonzero(~inside[network.tail] & inside[network.head])
    if not links.size:
        raise ValueError("`cordon(nodes)` needs nodes with a way in from others, got none")
    return links
