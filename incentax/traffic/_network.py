"""Road networks and travel demand as plain arrays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._checks import is_traced, require_kind, require_numbers

Numbers = Float[np.ndarray, " links"] | Float[Array, " links"]


def _numbers(values: ArrayLike) -> Numbers:
    return values if isinstance(values, jax.Array) else np.asarray(values, float)


class Network(eqx.Module):
    """A directed road network with link costs `t0 (1 + b (flow / capacity)^power) + fixed_cost`.

    **Arguments:**

    - `tail`, `head`: node at which each link starts and ends, counted from 0.
    - `capacity`, `free_flow_time`, `b`, `power`: one number a link, in the units of the source.
      JAX arrays are kept, so that `RoutingGame` can be built inside `vmap` over them.
    - `number_of_nodes`: nodes are `0 .. number_of_nodes - 1`.
    - `first_through_node`: paths pass only through nodes from this one on (zones before it are
      ends, not ways). 0 when every node may be passed.
    - `position`: where to draw each node, or `None`.
    - `fixed_cost`: part of the cost of a link that no flow changes, such as a distance or a toll
      that is there already, in the unit of time; zero when left out.
    - `node_names`: what people call the nodes, as in the source's file; 1, 2, ... when left out.

    **Raises** `ValueError` when an array has another length than `tail`, `position` or `node_names`
    another than there are nodes, when a node or a number of nodes is outside the network or no
    whole number, or when a capacity is not positive or a time is negative or infinite.
    """

    tail: Int[np.ndarray, " links"] = eqx.field(converter=np.asarray)
    head: Int[np.ndarray, " links"] = eqx.field(converter=np.asarray)
    capacity: Numbers = eqx.field(converter=_numbers)
    free_flow_time: Numbers = eqx.field(converter=_numbers)
    b: Numbers = eqx.field(converter=_numbers)
    power: Numbers = eqx.field(converter=_numbers)
    number_of_nodes: int
    first_through_node: int = 0
    position: Float[np.ndarray, "nodes 2"] | None = None
    fixed_cost: Numbers = eqx.field(converter=_numbers, default=0.0)
    node_names: np.ndarray | None = None

    def __check_init__(self):
        links = self.tail.shape
        if self.fixed_cost.shape == ():
            many = jnp.full if isinstance(self.fixed_cost, jax.Array) else np.full
            object.__setattr__(self, "fixed_cost", many(links, self.fixed_cost))
        for name in ("head", "capacity", "free_flow_time", "b", "power", "fixed_cost"):
            shape = getattr(self, name).shape
            if shape != links:
                raise ValueError(
                    f"`Network({name}=...)` needs one entry a link, shape {links} as `tail`, "
                    f"got shape {shape}"
                )
        for name in ("number_of_nodes", "first_through_node"):
            number = getattr(self, name)
            if not isinstance(number, int | np.integer) or number < 0:
                raise ValueError(f"`Network({name}=...)` needs a whole number >= 0, got {number!r}")
        for name in ("tail", "head"):
            nodes = getattr(self, name)
            require_whole("Network", name, nodes)
            if nodes.size and (nodes.min() < 0 or nodes.max() >= self.number_of_nodes):
                raise ValueError(
                    f"`Network({name}=...)` needs nodes in 0..{self.number_of_nodes - 1}, "
                    f"got {nodes.min()}..{nodes.max()}"
                )
        for name in ("position", "node_names"):
            values = getattr(self, name)
            if values is not None and len(values) != self.number_of_nodes:
                raise ValueError(
                    f"`Network({name}=...)` needs one entry a node, {self.number_of_nodes}, got "
                    f"{len(values)}"
                )
        _refuse("capacity", "positive entries", self.capacity, self.capacity > 0)
        for name in ("free_flow_time", "b", "power", "fixed_cost"):
            values = getattr(self, name)
            fine = (values >= 0) & (values < np.inf)
            _refuse(name, "finite, non-negative entries", values, fine)

    @property
    def number_of_links(self) -> int:
        return self.tail.size

    def name_of_node(self, node: int) -> str:
        """What the node is called in its source."""
        return str(node + 1 if self.node_names is None else self.node_names[node])

    def name_of_link(self, link: int) -> str:
        """Its row in the source, from 1, and its ends, as in `12 (5-6)`."""
        return f"{link + 1} ({self.ends_of_link(link)})"

    def ends_of_link(self, link: int) -> str:
        """The names of its ends, as in `5-6`."""
        return "-".join(self.name_of_node(int(end[link])) for end in (self.tail, self.head))


class Demand(eqx.Module):
    """Trips between pairs of nodes.

    **Arguments:**

    - `pairs`: origin and destination of each pair, counted from 0.
    - `trips`: positive number of trips of each pair.
    - `within_zones`: trips that stay in their zone, which no link carries.
    """

    pairs: Int[np.ndarray, "pairs 2"] = eqx.field(converter=np.asarray)
    trips: Float[np.ndarray, " pairs"] = eqx.field(converter=np.asarray)
    within_zones: float = 0.0

    def __check_init__(self):
        require_numbers("Demand", "trips", self.trips)
        if self.pairs.ndim != 2 or self.pairs.shape != (self.trips.size, 2):
            raise ValueError(
                "`Demand(pairs=..., trips=...)` needs pairs of shape (n, 2) and trips of shape "
                f"(n,), got {self.pairs.shape} and {self.trips.shape}"
            )
        require_whole("Demand", "pairs", self.pairs)
        if self.trips.size == 0:
            raise ValueError("`Demand(trips=...)` needs at least one pair, got none")
        fine = (self.trips > 0) & (self.trips < np.inf)
        _refuse("trips", "finite, positive entries", self.trips, fine, owner="Demand")


def require_network(owner: str, network: object, demand: object) -> None:
    """Refuses what is no network with a demand, as in another order."""
    require_kind(owner, "network", network, Network)
    require_kind(owner, "demand", demand, Demand)


def require_link_costs(
    owner: str, name: str, network: Network, costs: ArrayLike
) -> Float[np.ndarray, " links"]:
    """Numbers `>= 0`, one a link."""
    cost, links = require_numbers(owner, name, costs), network.number_of_links
    if cost.shape != (links,) or not (cost >= 0).all():
        raise ValueError(
            f"`{owner}({name}=...)` needs one cost >= 0 a link, shape ({links},), got "
            + (f"shape {cost.shape}" if cost.shape != (links,) else f"{cost.min():g}")
        )
    return cost


def require_whole(owner: str, name: str, values: np.ndarray):
    """Refuses nodes or links that are not counted in whole numbers."""
    if not np.issubdtype(values.dtype, np.integer) and values.size:
        raise ValueError(
            f"`{owner}({name}=...)` needs whole numbers, counted from 0, got {values.dtype}"
        )


def _refuse(name: str, rule: str, values: ArrayLike, holds: ArrayLike, owner: str = "Network"):
    if is_traced(values):
        return
    values, holds = np.asarray(values), np.asarray(holds)
    if not holds.all():
        index = int(np.argmin(holds))
        raise ValueError(
            f"`{owner}({name}=...)` needs {rule}, got {values[index]} at index {index}"
        )
