"""Route choice at every crossing, without a list of paths."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._checks import is_traced, require_positive
from .._compile import compiled
from ..games import AbstractGame
from ..sets import Reals
from ._dissection import Dissection
from ._link_newton import AbstractLoading, newton_as_dispersion_falls, slope_of
from ._links import LinkIncentives, LinkTimes
from ._network import Demand, Network, require_link_costs, require_network
from ._onward import Onward

# Nodes times destinations: expected costs that are affordable, at some 300 bytes each.
_MOST = 25_000_000


class MarkovianGame(AbstractGame):
    """Drivers choose the next link at every crossing, by logit; `theta` tolls links.

    Towards a destination `d` the expected cost from node `i` is

        W_i = -eta log sum over links a = (i, j) of exp(-(t_a(v_a) + theta_a + W_j) / eta),  W_d = 0

    and link `a` takes the share `exp((W_i - t_a - theta_a - W_j) / eta)` of the flow through `i`:
    J.-B. Baillon and R. Cominetti, "Markovian traffic equilibrium", *Mathematical Programming* 111
    (2008) 33-56. It is logit choice among all walks, cycles included, of which none is listed; or,
    `nearer_at` some link costs, among those walks which come nearer to their destination with every
    link (R. B. Dial, *Transportation Research* 5 (1971) 83-111), and none of these is a cycle. The
    strategy `x` is the flows on links, and the operator what is missing of their equilibrium,

        F(theta, x) = x - V(t(x) + theta),

    where `V` loads the demand: minus the derivative of what all trips cost by link costs.

    **Arguments:**

    - `network`, `demand`: see [`Network`][], [`Demand`][].
    - `eta`: positive dispersion of choice, in the network's unit of time. Where links are short
      beside `eta` (or tolls negative) walks in circles have no finite cost, and all costs are NaN,
      though no trip passes there; where costs are more than 700 `eta` (87 in float32) sums over all
      walks underflow, and costs are infinite. Flows are NaN then.
    - `tolled_links`: links that carry a toll, counted from 0; every link when left out.
    - `nearer_at`: `>= 0` and finite, a cost for every link, such as `network.free_flow_time` or the
      `costs` of an assignment; of equal distances one of fewer links is nearer. It takes any `eta`,
      links without time, and negative tolls. All walks when left out.

    Memory and work are those of some numbers for every node and destination, or `nearer_at` for
    every link and destination. Up to 25 million nodes times destinations are taken.

    **Raises** `ValueError` for an `eta` that is not positive or for which there is no equilibrium
    at free-flow times, for links outside the network or named twice, for costs that are no such
    numbers, for pairs of one node or without a path, and for a network that is too large.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> network, demand = ix.traffic.sioux_falls()
        >>> game = ix.traffic.MarkovianGame(network, demand, eta=1.0, tolled_links=[0, 1])
        >>> found = ix.solve_equilibrium(game, jnp.zeros(2))
        >>> print(round(float(game.total_travel_time(None, found.x)), -3))
        7434000.0
    """

    link_times: LinkTimes
    acts: LinkIncentives
    eta: Float[Array, ""]
    flows: Reals
    pairs: Int[Array, "pairs 3"]
    trips: Float[Array, " pairs"]
    choice: Dissection | Onward

    def __init__(
        self,
        network: Network,
        demand: Demand,
        *,
        eta: ArrayLike,
        tolled_links: Sequence[int] | np.ndarray | None = None,
        nearer_at: ArrayLike | None = None,
    ):
        owner = "MarkovianGame"
        require_network(owner, network, demand)
        count, closed = network.number_of_nodes, network.first_through_node
        # Zones that no path may pass are entered at a copy, from which no link leads on.
        head = np.where(network.head < closed, network.head + count, network.head)
        last = np.where(demand.pairs[:, 1] < closed, demand.pairs[:, 1] + count, demand.pairs[:, 1])
        destinations, column = np.unique(last, return_inverse=True)
        work = (count + closed) * len(destinations)
        if work > _MOST:
            raise ValueError(
                f"`MarkovianGame(network=..., demand=...)` needs at most {_MOST:,} expected costs, "
                f"one for every node and destination, got {work:,}"
            )
        self.eta = require_positive(owner, "eta", eta)
        self.link_times = LinkTimes(network)
        self.acts = LinkIncentives(owner, network, tolled_links)
        self.flows = Reals((network.number_of_links,))
        _refuse_unconnected(network, demand, np.stack([network.tail, head]), last, count + closed)
        self.pairs = jnp.asarray(np.stack([demand.pairs[:, 0], last, np.ravel(column)], axis=1))
        self.trips = jnp.asarray(demand.trips, float)
        links = np.stack([network.tail, head], axis=1), count + closed, destinations
        if nearer_at is None:
            self.choice = Dissection(*links)
        else:
            near = require_link_costs(owner, "nearer_at", network, nearer_at)
            if not np.isfinite(near).all():
                raise ValueError(f"`{owner}(nearer_at=...)` needs finite costs, got {near.max()}")
            self.choice = Onward(*links, near)
        if not is_traced((self.eta, self.link_times)):
            free = np.asarray(_loaded(self, self.link_times(jnp.zeros(network.number_of_links))))
            if not np.isfinite(free).all():
                raise ValueError(
                    "`MarkovianGame(eta=...)` needs an eta at which walks have finite expected "
                    "costs at free-flow times: too large a one leads in circles, too small a one "
                    f"underflows; got {float(self.eta):g}. With `nearer_at=network.free_flow_time` "
                    "drivers take links that lead nearer to their destination alone, at any eta"
                )

    @property
    def strategy_set(self) -> Reals:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.flows

    def expected_costs(self, costs: Float[Array, " links"]) -> Float[Array, " pairs"]:
        """`W` of every pair at these link costs."""
        return self.choice.expected_costs(costs, self.eta.astype(costs.dtype), self.pairs)

    def loaded(self, costs: Float[Array, " links"]) -> Float[Array, " links"]:
        """`V`: flows that the demand makes of these link costs."""
        trips = self.trips.astype(costs.dtype)
        return jax.grad(lambda costs: trips @ self.expected_costs(costs))(costs)

    def unchecked_operator(self, theta: Array, x: Array) -> Array:
        costs = self.link_times(jnp.maximum(x, 0)) + self.acts.tolls(theta.astype(x.dtype))
        return x - self.loaded(costs)

    def own_equilibrium(
        self,
        theta: Array,
        x: Array,
        tol: Array | float,
        *,
        max_steps: int,
        entropic: bool | None,
    ) -> tuple[Array, Array, Array]:
        del entropic

        def at(wide: Array) -> AbstractLoading:
            wider = self.eta.astype(wide.dtype) * wide
            return _Loading(eqx.tree_at(lambda game: game.eta, self, wider), theta)

        unloaded = _Loading(self, theta).costs(jnp.zeros_like(x))
        start = jnp.where(jnp.any(x > 0), x, self.loaded(unloaded))
        # Here strategies are flows, and `tol` is on these; there it is on their shares.
        tol = tol / jnp.maximum(jnp.max(jnp.abs(start)), 1)
        flows, _, steps = newton_as_dispersion_falls(at, start, None, tol, max_steps)
        return flows, steps, jnp.zeros((), flows.dtype)

    def externality(self, theta: Array, x: Array) -> Array:
        """`v t'(v)` of the tolled links: the time that one more driver costs all others."""
        del theta
        return (x * slope_of(self.link_times, x))[self.acts.tolled_links]

    def link_flows(self, x: Float[Array, " links"]) -> Float[Array, " links"]:
        """Flow on every link: the strategy itself."""
        return x

    def total_travel_time(self, theta: Array | None, x: Float[Array, " links"]) -> Float[Array, ""]:
        """`sum of v_e t_e(v_e)`: tolls are transfers and do not count."""
        del theta
        return jnp.sum(x * self.link_times(x))


_loaded = compiled(lambda game, costs: game.loaded(costs))


def _refuse_unconnected(
    network: Network, demand: Demand, links: np.ndarray, destination: np.ndarray, nodes: int
) -> None:
    from scipy.sparse import coo_array  # noqa: PLC0415  # heavy
    from scipy.sparse.csgraph import dijkstra  # noqa: PLC0415

    matrix = coo_array((np.ones(links.shape[1]), tuple(links)), shape=(nodes, nodes)).tocsr()
    origins, row = np.unique(demand.pairs[:, 0], return_inverse=True)
    hops = dijkstra(matrix, indices=origins, unweighted=True)[row.ravel(), destination]
    for bad, kind in (
        (demand.pairs[:, 0] == demand.pairs[:, 1], "pairs of two nodes, got trips within"),
        (~np.isfinite(hops), "a path for every pair, got none from"),
    ):
        if bad.any():
            names = [network.name_of_node(int(n)) for n in demand.pairs[int(np.argmax(bad))]]
            raise ValueError(
                f"`MarkovianGame(demand=...)` needs {kind} node {' to node '.join(names)}"
            )


class _Loading(AbstractLoading):
    """What drivers make of the costs at link flows; see [`AbstractLoading`][]."""

    def __init__(self, game: MarkovianGame, theta: Array):
        self.game, self.theta = game, theta

    def link_times(self, flows: Array) -> Array:
        return self.game.link_times(flows)

    def costs(self, flows: Array) -> Array:
        """With tolls."""
        return self.game.link_times(flows) + self.game.acts.tolls(self.theta.astype(flows.dtype))

    def imbalance(self, flows: Array) -> tuple[None, Array]:
        return None, self.game.loaded(self.costs(flows)) - flows

    def response(self, flows: Array, with_them: None) -> Callable[[Array], Array]:
        del with_them
        _, push = jax.linearize(self.game.loaded, self.costs(flows))
        return lambda rise: -push(rise)
