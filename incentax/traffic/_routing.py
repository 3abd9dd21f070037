"""Route choice: a nonatomic game in path proportions whose agents meet in link flows."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._checks import require_positive
from ..games import AbstractGame, AggregativeForm, AggregativeGame, QuantalResponse, Rational
from ..sets import Simplex
from ._incidence import AbstractIncidence, DenseIncidence, incidence_of
from ._logit import logit_shares
from ._network import Demand, Network
from ._paths import PathSet


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

    def __call__(self, flows: Float[Array, " links"]) -> Float[Array, " links"]:
        link = jax.tree.map(lambda leaf: leaf.astype(flows.dtype), self)
        load = flows / link.capacity
        used = load > 0
        # An empty link is kept out of the power, whose derivative at 0 can be NaN; 0^0 is 1.
        at_rest = (link.power == 0).astype(flows.dtype)
        congestion = jnp.where(used, jnp.where(used, load, 1) ** link.power, at_rest)
        return link.free_flow_time * (1 + link.b * congestion) + link.fixed_cost


class _LinkFlows(eqx.Module):
    """Flow on every link, from the proportions of paths."""

    incidence: AbstractIncidence
    trips: Float[Array, " paths"]

    def __call__(self, theta: Array | None, x: Array) -> Array:
        del theta
        return self.incidence.over_links(self.trips.astype(x.dtype) * x)


class _PathCosts(eqx.Module):
    """Time plus tolls along every path, from the flows on links."""

    incidence: AbstractIncidence
    link_times: LinkTimes
    tolled_links: Int[Array, " tolled"]

    def __call__(self, theta: Array, x: Array, flows: Array) -> Array:
        del x
        if jnp.shape(theta) != self.tolled_links.shape:
            raise ValueError(
                "`RoutingGame.operator(theta, x)` needs one toll a tolled link, shape "
                f"{self.tolled_links.shape}, got {jnp.shape(theta)}"
            )
        costs = self.link_times(flows).at[self.tolled_links].add(theta.astype(flows.dtype))
        return self.incidence.along_paths(costs)


class RoutingGame(AbstractGame):
    """Drivers of every pair share themselves out over its paths; `theta` tolls links.

        F_p(theta, x) = sum of (t_e(v_e) + theta_e) over the links e of path p + eta (log x_p + 1)

    with link flows `v = sum of trips x_p over the paths through a link`: Wardrop equilibrium for
    `eta = 0`, logit (stochastic user) equilibrium for `eta > 0`; Liu et al. (2022), section 7.

    **Arguments:**

    - `network`, `demand`, `paths`: see [`Network`][], [`Demand`][], [`k_shortest_paths`][].
    - `eta`: `>= 0`, dispersion of route choice, in the network's unit of time.
    - `tolled_links`: links that carry a toll, counted from 0; every link when left out. `theta`
      has one entry for each, in the unit of time.

    `x` holds path proportions, blocks in the order of `demand.pairs`.

    **Raises** `ValueError` for a negative `eta`, for tolled links outside the network or named
    twice, and for paths of other pairs than the demand's.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> network, demand = ix.traffic.sioux_falls()
        >>> paths = ix.traffic.k_shortest_paths(network, demand, 2)
        >>> game = ix.traffic.RoutingGame(network, demand, paths, eta=1.0, tolled_links=[0, 1])
        >>> game.strategy_set.shape
        (1056,)
    """

    flows: _LinkFlows
    costs: _PathCosts
    eta: Float[Array, ""]
    simplex: Simplex

    def __init__(
        self,
        network: Network,
        demand: Demand,
        paths: PathSet,
        *,
        eta: ArrayLike = 0.0,
        tolled_links: Sequence[int] | np.ndarray | None = None,
    ):
        if not np.array_equal(paths.pairs, demand.pairs):
            raise ValueError(
                "`RoutingGame(paths=...)` needs the paths of the pairs of the demand, in their "
                f"order ({len(demand.pairs)} pairs), got those of {len(paths.pairs)} pairs"
            )
        incidence = incidence_of(network.number_of_links, paths)
        trips = jnp.asarray(np.repeat(demand.trips, paths.sizes), float)
        self.flows = _LinkFlows(incidence, trips)
        self.costs = _PathCosts(incidence, LinkTimes(network), _tolled(network, tolled_links))
        self.simplex = Simplex(paths.sizes)
        self.eta = require_positive("RoutingGame", "eta", eta, strictly=False)

    @property
    def logit(self) -> QuantalResponse:
        """The same game, put together from its parts."""
        return QuantalResponse(AggregativeGame(self.costs, self.flows, self.simplex), self.eta)

    @property
    def tolled_links(self) -> Int[Array, " tolled"]:
        """Links that carry a toll, in the order of `theta`; rows of the network, from 0."""
        return self.costs.tolled_links

    @property
    def strategy_set(self) -> Simplex:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.simplex

    def unchecked_operator(self, theta: Array, x: Array) -> Array:
        return self.logit.unchecked_operator(theta, x)

    def log_operator(self, theta: Array, x: Array, log_x: Array) -> Array:
        return self.logit.log_operator(theta, x, log_x)

    @property
    def weights(self) -> Array:
        # A share of many trips weighs as much as these: in path flows the game is monotone.
        return self.flows.trips / jnp.mean(self.flows.trips)

    @property
    def entropic(self) -> Bool[Array, ""]:
        return self.logit.entropic

    @property
    def rational(self) -> Rational:
        return self.logit.rational

    @property
    def aggregative_form(self) -> AggregativeForm | None:
        return self.logit.aggregative_form

    def entropic_equilibrium(
        self, theta: Array, x: Array, tol: Array | float, max_steps: int
    ) -> tuple[Array, Array] | None:
        # On small networks the general method is as fast.
        if isinstance(self.flows.incidence, DenseIncidence):
            return None
        return logit_shares(self, theta, x, tol, max_steps)

    def link_flows(self, x: Float[Array, " paths"]) -> Float[Array, " links"]:
        """Flow on every link."""
        return self.flows(None, x)

    def link_times(self, flows: Float[Array, " links"]) -> Float[Array, " links"]:
        """Time on every link at given flows, without tolls."""
        return self.costs.link_times(flows)

    def total_travel_time(self, theta: Array | None, x: Float[Array, " paths"]) -> Float[Array, ""]:
        """`sum of v_e t_e(v_e)`: tolls are transfers and do not count."""
        del theta
        flows = self.link_flows(x)
        return jnp.sum(flows * self.link_times(flows))


def _tolled(network: Network, links: Sequence[int] | np.ndarray | None) -> Int[Array, " tolled"]:
    tolled = np.arange(network.number_of_links) if links is None else np.asarray(links)
    tolled = tolled.astype(int) if tolled.size == 0 else tolled
    if tolled.ndim != 1 or not np.issubdtype(tolled.dtype, np.integer):
        raise TypeError(f"`RoutingGame(tolled_links=...)` needs link numbers, got {links!r}")
    outside = tolled[(tolled < 0) | (tolled >= network.number_of_links)]
    if outside.size:
        raise ValueError(
            f"`RoutingGame(tolled_links=...)` needs links in 0..{network.number_of_links - 1}, "
            f"got {outside[0]}"
        )
    values, counts = np.unique(tolled, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"`RoutingGame(tolled_links=...)` needs each link once, got {values[counts > 1][0]} "
            f"{counts.max()} times"
        )
    return jnp.asarray(tolled)
