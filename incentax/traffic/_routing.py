"""Route choice: a nonatomic game in path proportions whose agents meet in link flows."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._checks import is_traced, require_kind, require_positive
from .._tree import as_pytree_function
from ..games import AbstractGame, AggregativeForm, AggregativeGame, QuantalResponse, Rational
from ..sets import Simplex
from ._incidence import AbstractIncidence, DenseIncidence, incidence_of
from ._link_newton import slope_of
from ._links import LinkIncentives, LinkTimes
from ._logit_loading import logit_shares
from ._network import Demand, Network, require_network
from ._paths import PathSet
from ._roads import Roads
from ._wardrop import wardrop_shares


class _LinkFlows(eqx.Module):
    """Flow on every link, from the proportions of paths."""

    incidence: AbstractIncidence
    trips: Float[Array, " paths"]

    def __call__(self, theta: Array | None, x: Array) -> Array:
        del theta
        return self.incidence.over_links(self.trips.astype(x.dtype) * x)


class _Staying(eqx.Module):
    """Trips that are not made: a last entry in the block of every pair, without a link.

    `cost(trips)`: the cost at which so many trips of each pair are made.
    """

    cost: Callable[[Array], Array]
    entry: Int[Array, " pairs"]
    trips: Float[Array, " pairs"]

    def __call__(self, x: Array) -> Float[Array, " pairs"]:
        made = self.trips.astype(x.dtype) * (1 - x[self.entry])
        value = self.cost(made)
        if jnp.shape(value) != made.shape:
            raise ValueError(
                f"`inverse_demand(trips)` needs to return a cost for each of {made.size} pairs, "
                f"got shape {jnp.shape(value)}"
            )
        return value

    def check(self) -> None:
        """`ValueError` where costs do not fall as trips rise; of known values only."""
        more = 0.5 * self.trips
        low, high = self.cost(more), self.cost(self.trips)
        if is_traced((low, high)) or jnp.shape(low) != self.trips.shape:
            return
        rise = float(jnp.vdot(more, high - low))
        if rise > 1e-9 * float(jnp.vdot(more, jnp.abs(high))):
            raise ValueError(
                "`RoutingGame(inverse_demand=...)` needs costs that fall as trips rise, got a mean "
                f"of {jnp.mean(low):g} for half of all trips and of {jnp.mean(high):g} for all"
            )


class _PathCosts(eqx.Module):
    """Time plus tolls along every path, from the flows on links."""

    incidence: AbstractIncidence
    link_times: LinkTimes
    acts: LinkIncentives
    toll_weight: Float[Array, " paths"] | None
    staying: _Staying | None

    def __call__(self, theta: Array, x: Array, flows: Array) -> Array:
        theta = theta.astype(flows.dtype)
        times, tolls = self.link_times(flows, self.acts.added(theta)), self.acts.tolls(theta)
        along = self.incidence.along_paths
        if self.toll_weight is None:
            costs = along(times + tolls)
        else:
            costs = along(times) + self.toll_weight.astype(flows.dtype) * along(tolls)
        if self.staying is not None:
            costs = costs.at[self.staying.entry].set(self.staying(x))
        return costs


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
    - `widened_links`: links whose capacity is designed too: `theta` goes on with what is added to
      each (the continuous network design problem; an investment cost is the objective's).
    - `toll_weight`: positive, one number a pair: what a toll of 1 weighs for its drivers, such as
      the inverse of their value of time. Classes of drivers are pairs that stand several times in
      `demand`, each with a weight of its own; they share the links.
    - `inverse_demand`: elastic demand: a function from the trips made, one number a pair, to the
      cost at which so many are made, falling in each. `demand.trips` is what would be made for
      nothing; every block of `x` then has one more entry, the share that stays at home (N. H.
      Gartner, *Transportation Science* 14 (1980) 174-191: excess demand as a path of its own).

    `x` holds path proportions, blocks in the order of `demand.pairs`.

    **Raises** `ValueError` for a negative `eta`, for tolled or widened links outside the network or
    named twice, for weights that are not positive, for an inverse demand that rises, for paths of
    other pairs than the demand's, and for paths that are no ways through the network.

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
    roads: Roads

    def __init__(
        self,
        network: Network,
        demand: Demand,
        paths: PathSet,
        *,
        eta: ArrayLike = 0.0,
        tolled_links: Sequence[int] | np.ndarray | None = None,
        widened_links: Sequence[int] | np.ndarray = (),
        toll_weight: ArrayLike | None = None,
        inverse_demand: Callable[[Array], Array] | None = None,
    ):
        require_network("RoutingGame", network, demand)
        require_kind("RoutingGame", "paths", paths, PathSet)
        if not np.array_equal(paths.pairs, demand.pairs):
            raise ValueError(
                "`RoutingGame(paths=...)` needs the paths of the pairs of the demand, in their "
                f"order ({len(demand.pairs)} pairs), got those of {len(paths.pairs)} pairs"
            )
        broken = paths.broken(network)
        if broken is not None:
            pair = paths.pairs[np.searchsorted(np.cumsum(paths.sizes), broken, side="right")]
            ends = " to ".join(network.name_of_node(node) for node in pair.tolist())
            raise ValueError(
                f"`RoutingGame(paths=...)` needs ways through the network, got path {broken} from "
                f"node {ends} by the links {paths.path(broken).tolist()}"
            )
        staying = None
        if inverse_demand is not None:
            paths = paths.with_staying()
            last = jnp.asarray(np.cumsum(paths.sizes) - 1)
            staying = _Staying(
                as_pytree_function(inverse_demand), last, jnp.asarray(demand.trips, float)
            )
            staying.check()
        weight = None
        if toll_weight is not None:
            one = require_positive("RoutingGame", "toll_weight", toll_weight)
            if one.shape not in ((), (len(demand.pairs),)):
                raise ValueError(
                    "`RoutingGame(toll_weight=...)` needs one number a pair, shape "
                    f"({len(demand.pairs)},), got {one.shape}"
                )
            one = jnp.broadcast_to(one, (len(demand.pairs),))
            weight = jnp.repeat(one, paths.sizes, total_repeat_length=paths.number_of_paths)
        acts = LinkIncentives("RoutingGame", network, tolled_links, widened_links)
        incidence = incidence_of(network.number_of_links, paths)
        trips = jnp.asarray(np.repeat(demand.trips, paths.sizes), float)
        self.flows = _LinkFlows(incidence, trips)
        self.costs = _PathCosts(incidence, LinkTimes(network), acts, weight, staying)
        self.simplex, self.roads = Simplex(paths.sizes), Roads(network, demand)
        self.eta = require_positive("RoutingGame", "eta", eta, strictly=False)

    def with_trips(self, trips: ArrayLike) -> "RoutingGame":
        """The same network and paths with other trips, one number `>= 0` a pair; traced ones too,
        as for scenarios of demand (see [`ScenarioProblem`][])."""
        pairs = self.simplex.blocks.count
        each = require_positive("RoutingGame.with_trips", "trips", trips, strictly=False)
        if each.shape != (pairs,):
            raise ValueError(
                f"`RoutingGame.with_trips(trips)` needs one number a pair, shape ({pairs},), got "
                f"{each.shape}"
            )
        spread = each[self.simplex.blocks.ids].astype(self.flows.trips.dtype)
        game = eqx.tree_at(lambda game: game.flows.trips, self, spread)
        if self.costs.staying is None:
            return game
        return eqx.tree_at(lambda game: game.costs.staying.trips, game, each)

    @property
    def logit(self) -> QuantalResponse:
        """The same game, put together from its parts."""
        return QuantalResponse(AggregativeGame(self.costs, self.flows, self.simplex), self.eta)

    @property
    def tolled_links(self) -> Int[Array, " tolled"]:
        """Links that carry a toll, in the order of `theta`; rows of the network, from 0."""
        return self.costs.acts.tolled_links

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

    def dispersed(self, eta: Array) -> "RoutingGame | None":
        if not self._large or self.costs.staying is not None:
            return None
        return eqx.tree_at(lambda game: game.eta, self, eta.astype(self.eta.dtype))

    def externality(self, theta: Array, x: Array) -> Array | None:
        """`v t'(v)` of the tolled links: the time that one more driver costs all others."""
        if self.costs.acts.widened_links.size or self.costs.toll_weight is not None:
            return None  # a capacity is no price, and a toll weighs something else for each class
        flows = self.link_flows(x)
        slope = slope_of(lambda flows: self.link_times(flows, theta), flows)
        return (flows * slope)[self.tolled_links]

    def potential_diagonal(self, theta: Array, x: Array) -> Array | None:
        # What costs the pair that stays at home depends on other pairs as its user likes.
        if self.costs.staying is not None:
            return None
        flows = self.link_flows(x)
        slope = slope_of(lambda flows: self.link_times(flows, theta), flows)
        rise = self.flows.incidence.along_paths(slope) * self.flows.trips.astype(x.dtype)
        return rise + self.eta.astype(x.dtype) / jnp.where(x > 0, x, 1)

    @property
    def entropic(self) -> Bool[Array, ""]:
        return self.logit.entropic

    @property
    def rational(self) -> Rational:
        return self.logit.rational

    @property
    def aggregative_form(self) -> AggregativeForm | None:
        return self.logit.aggregative_form

    def own_equilibrium(
        self,
        theta: Array,
        x: Array,
        tol: Array | float,
        *,
        max_steps: int,
        entropic: bool | None,
    ) -> tuple[Array, Array, Array] | None:
        # Those who stay feel their own number too.
        if self.costs.staying is not None or entropic is None:
            return None
        if entropic:
            reached, steps = logit_shares(self, theta, x, tol, max_steps)
            return reached, steps, self._rounding(theta, reached)
        if not self._large:
            return None  # without dispersion the general method is as fast
        reached, steps = wardrop_shares(self, theta, x, 10 * tol, max_steps)
        return reached, steps, jnp.zeros((), x.dtype)

    def _rounding(self, theta: Array, x: Array) -> Float[Array, ""]:
        """Costs are known to their last digits, logit shares to as much by the dispersion, and what
        that moves costs by is more where these are steep."""
        flows = self.link_flows(x)
        costs = self.costs(theta, x, flows)
        slope = slope_of(lambda flows: self.link_times(flows, theta), flows)
        steep = jnp.max(self.flows.incidence.along_paths(slope * flows))
        return 4 * float(jnp.finfo(x.dtype).eps) * jnp.max(jnp.abs(costs)) / self.eta * steep

    def outside(self, theta: Array, x: Array) -> float | None:
        """The share of trips, of those that are made, with a better path through the network than
        all that are listed; `None` where costs are negative or unknown."""
        flows = self.link_flows(x)
        times, tolls = self.link_times(flows, theta), self.costs.acts.tolls(theta)
        own, blocks, staying = self.costs(theta, x, flows), self.simplex.blocks, self.costs.staying
        trips = np.array(self.flows.trips * x)
        if staying is not None:
            own = own.at[staying.entry].set(jnp.inf)
            trips[np.asarray(staying.entry)] = 0
        first = np.flatnonzero(np.diff(blocks.ids, prepend=-1))  # path of every pair
        listed = np.minimum.reduceat(np.asarray(own), first)
        weight = self.costs.toll_weight
        weights = np.ones(len(first)) if weight is None else np.asarray(weight)[first]
        better = np.zeros(len(first), bool)
        near = 1 - max(1e-9, 100 * float(jnp.finfo(x.dtype).eps))
        for one in np.unique(weights):
            cost, pairs = np.asarray(times + one * tolls, float), weights == one
            if not (cost >= 0).all():
                return None
            better[pairs] = self.roads.least_costs(cost, pairs) < near * listed[pairs]
        made = np.add.reduceat(trips, first)
        return float(made[better].sum() / max(made.sum(), np.finfo(float).tiny))

    @property
    def _large(self) -> bool:
        return not isinstance(self.flows.incidence, DenseIncidence)

    def link_flows(self, x: Float[Array, " paths"]) -> Float[Array, " links"]:
        """Flow on every link."""
        return self.flows(None, x)

    def link_times(
        self, flows: Float[Array, " links"], theta: Array | None = None
    ) -> Float[Array, " links"]:
        """Time on every link at given flows, without tolls; with the capacities of `theta`."""
        return self.costs.link_times(flows, self.costs.acts.added(theta))

    def total_travel_time(self, theta: Array | None, x: Float[Array, " paths"]) -> Float[Array, ""]:
        """`sum of v_e t_e(v_e)`: tolls are transfers and do not count."""
        flows = self.link_flows(x)
        return jnp.sum(flows * self.link_times(flows, theta))
