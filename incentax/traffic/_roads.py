"""The network behind a routing game's paths: what the best path of all would cost."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._network import Demand, Network


class Roads(eqx.Module):
    """Links by their ends, and the pairs of a demand."""

    tail: Int[Array, " links"]
    head: Int[Array, " links"]
    pairs: Int[Array, "pairs 2"]
    nodes: int = eqx.field(static=True)
    first_through: int = eqx.field(static=True)

    def __init__(self, network: Network, demand: Demand):
        self.tail, self.head, self.pairs = (
            jnp.asarray(nodes, jnp.int32) for nodes in (network.tail, network.head, demand.pairs)
        )
        self.nodes, self.first_through = network.number_of_nodes, network.first_through_node

    def least_costs(
        self, cost: Float[np.ndarray, " links"], which: Bool[np.ndarray, " pairs"]
    ) -> Float[np.ndarray, " chosen"]:
        """Of these pairs, over all paths through the network; infinite where there is none."""
        import scipy.sparse  # noqa: PLC0415 (slow to import)
        from scipy.sparse.csgraph import dijkstra  # noqa: PLC0415

        tail, head, pairs = (np.asarray(nodes) for nodes in (self.tail, self.head, self.pairs))
        pairs = pairs[which]
        # A zone that nobody may pass is left from a node of its own.
        first, start = self.first_through, self.nodes
        leaves = np.where(tail < first, tail + start, tail)
        order = np.lexsort((cost, head, leaves))
        _, cheapest = np.unique(np.stack([leaves, head])[:, order], axis=1, return_index=True)
        kept = order[cheapest]  # of parallel links
        ends, size = (leaves[kept], head[kept]), start + first
        graph = scipy.sparse.csr_array((cost[kept], ends), shape=(size, size))
        origins, place = np.unique(pairs[:, 0], return_inverse=True)
        reached = dijkstra(graph, indices=np.where(origins < first, origins + start, origins))
        return np.where(pairs[:, 0] == pairs[:, 1], 0.0, reached[place, pairs[:, 1]])
