"""What a link costs, and how an incentive acts on it."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._network import Network


class LinkTimes(eqx.Module):
    """`t0 (1 + b (flow / capacity)^power) + fixed cost` of the flows on links, in their dtype."""

    free_flow_time: Float[Array, " links"]
    b: Float[Array, " links"]
    capacity: Float[Array, " links"]
    power: Float[Array, " links"]
    fixed_cost: Float[Array, " links"]

    def __init__(self, network: Network):
        self.free_flow_time = jnp.asarray(network.free_flow_time, float)
        self.b = jnp.asarray(network.b, float)
        self.capacity = jnp.asarray(network.capacity, float)
        self.power = jnp.asarray(network.power, float)
        self.fixed_cost = jnp.asarray(network.fixed_cost, float)

    def __call__(
        self, flows: Float[Array, " links"], added: Float[Array, " links"] | float = 0.0
    ) -> Float[Array, " links"]:
        """Of every link, with so much capacity `added`."""
        link = jax.tree.map(lambda leaf: leaf.astype(flows.dtype), self)
        # A link whose capacity is taken away has no time at all.
        capacity = link.capacity + added
        load = flows / jnp.where(capacity > 0, capacity, 1)
        used = load > 0
        # An empty link is kept out of the power, whose derivative at 0 can be NaN; 0^0 is 1.
        at_rest = jnp.where(link.power == 1, load, (link.power == 0).astype(flows.dtype))
        congestion = jnp.where(used, jnp.where(used, load, 1) ** link.power, at_rest)
        times = link.free_flow_time * (1 + link.b * congestion) + link.fixed_cost
        return jnp.where(capacity > 0, times, jnp.nan)


class LinkIncentives(eqx.Module):
    """How an incentive acts on links: tolls first, then added capacities."""

    tolled_links: Int[Array, " tolled"]
    widened_links: Int[Array, " widened"]
    links: int = eqx.field(static=True)
    owner: str = eqx.field(static=True)

    def __init__(
        self,
        owner: str,
        network: Network,
        tolled_links: Sequence[int] | np.ndarray | None,
        widened_links: Sequence[int] | np.ndarray = (),
    ):
        self.links, self.owner = network.number_of_links, owner
        tolled = np.arange(self.links) if tolled_links is None else tolled_links
        self.tolled_links = _chosen(owner, network, "tolled_links", tolled)
        self.widened_links = _chosen(owner, network, "widened_links", widened_links)

    def check(self, theta: Array) -> None:
        """`ValueError` for another shape."""
        tolled, widened = self.tolled_links.size, self.widened_links.size
        if jnp.shape(theta) != (tolled + widened,):
            more = f" and one added capacity a widened link ({widened})" if widened else ""
            raise ValueError(
                f"`{self.owner}.operator(theta, x)` needs one toll a tolled link ({tolled})"
                f"{more}, shape ({tolled + widened},), got {jnp.shape(theta)}"
            )

    def tolls(self, theta: Array) -> Float[Array, " links"]:
        """Of every link."""
        self.check(theta)
        tolls = theta[: self.tolled_links.size]
        return jnp.zeros(self.links, theta.dtype).at[self.tolled_links].set(tolls)

    def added(self, theta: Array | None) -> Float[Array, " links"] | float:
        """Capacity of every link beyond the network's."""
        if theta is None:
            return 0.0
        self.check(theta)
        if not self.widened_links.size:
            return 0.0
        added = theta[self.tolled_links.size :]
        return jnp.zeros(self.links, theta.dtype).at[self.widened_links].set(added)


def _chosen(
    owner: str, network: Network, name: str, links: Sequence[int] | np.ndarray
) -> Int[Array, " links"]:
    chosen = np.asarray(links)
    chosen = chosen.astype(int) if chosen.size == 0 else chosen
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
        raise TypeError(f"`{owner}({name}=...)` needs link numbers, got {links!r}")
    outside = chosen[(chosen < 0) | (chosen >= network.number_of_links)]
    if outside.size:
        raise ValueError(
            f"`{owner}({name}=...)` needs links in 0..{network.number_of_links - 1}, "
            f"got {outside[0]}"
        )
    values, counts = np.unique(chosen, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"`{owner}({name}=...)` needs each link once, got {values[counts > 1][0]} "
            f"{counts.max()} times"
        )
    return jnp.asarray(chosen)
