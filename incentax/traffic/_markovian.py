"""Route choice at every crossing, without a list of paths."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._checks import is_traced, require_positive
from .._linear import inverse
from ..games import AbstractGame
from ..sets import Reals
from ._link_newton import AbstractLoading, newton_in_link_flows, slope_of
from ._links import LinkIncentives, LinkTimes
from ._network import Demand, Network

# Up to this many nodes the matrix of all pairs of nodes is affordable.
_MOST = 3000


class MarkovianGame(AbstractGame):
    """Drivers choose the next link at every crossing, by logit; `theta` tolls links.

    Towards a destination `d` the expected cost from node `i` is

        W_i = -eta log sum over links a = (i, j) of exp(-(t_a(v_a) + theta_a + W_j) / eta),  W_d = 0

    and link `a` takes the share `exp((W_i - t_a - theta_a - W_j) / eta)` of the flow through `i`:
    J.-B. Baillon and R. Cominetti, "Markovian traffic equilibrium", *Mathematical Programming* 111
    (2008) 33-56. It is logit choice among all walks, cycles included, of which none is listed. The
    strategy `x` is the flows on links, and the operator what is missing of their equilibrium,

        F(theta, x) = x - V(t(x) + theta),

    where `V` loads the demand: minus the derivative of what all trips cost by link costs.

    **Arguments:**

    - `network`, `demand`: see [`Network`][], [`Demand`][]; up to 3,000 nodes.
    - `eta`: positive dispersion of choice, in the network's unit of time. With many short links and
      a large `eta` (or with negative tolls) walks in circles have no finite cost; a small one
      underflows where costs are more than 700 `eta` (87 in float32). Costs and flows are NaN then.
    - `tolled_links`: links that carry a toll, counted from 0; every link when left out.

    **Raises** `ValueError` for an `eta` that is not positive or for which there is no equilibrium
    at free-flow times, for links outside the network or named twice, for pairs of one node or
    without a path, and for too many nodes.

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
    ends: Int[Array, "links 2"]
    pairs: Int[Array, "pairs 2"]
    trips: Float[Array, " pairs"]
    nodes: int = eqx.field(static=True)

    def __init__(
        self,
        network: Network,
        demand: Demand,
        *,
        eta: ArrayLike,
        tolled_links: Sequence[int] | np.ndarray | None = None,
    ):
        count, closed = network.number_of_nodes, network.first_through_node
        if count + closed > _MOST:
            raise ValueError(
                f"`MarkovianGame(network=...)` needs at most {_MOST} nodes (zones that no path may "
                f"pass count twice), got {count + closed}"
            )
        self.eta = require_positive("MarkovianGame", "eta", eta)
        self.link_times = LinkTimes(network)
        self.acts = LinkIncentives("MarkovianGame", network, tolled_links)
        self.flows = Reals((network.number_of_links,))
        # Zones that no path may pass are entered at a copy, from which no link leads on.
        head = np.where(network.head < closed, network.head + count, network.head)
        ends = np.where(demand.pairs[:, 1] < closed, demand.pairs[:, 1] + count, demand.pairs[:, 1])
        self.ends = jnp.asarray(np.stack([network.tail, head], axis=1))
        self.pairs = jnp.asarray(np.stack([demand.pairs[:, 0], ends], axis=1))
        self.trips = jnp.asarray(demand.trips, float)
        self.nodes = count + closed
        _refuse_unconnected(network, demand, np.stack([network.tail, head]), ends, self.nodes)
        if not is_traced((self.eta, self.link_times)):
            free = np.asarray(self.loaded(self.link_times(jnp.zeros(network.number_of_links))))
            if not np.isfinite(free).all():
                raise ValueError(
                    "`MarkovianGame(eta=...)` needs an eta at which walks have finite expected "
                    "costs at free-flow times: too large a one leads in circles, too small a one "
                    f"underflows; got {float(self.eta):g}"
                )

    @property
    def strategy_set(self) -> Reals:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.flows

    def expected_costs(self, costs: Float[Array, " links"]) -> Float[Array, " pairs"]:
        """`W` of every pair at these link costs."""
        eta, (tail, head) = self.eta.astype(costs.dtype), self.ends.T
        weight = jnp.zeros((self.nodes, self.nodes), costs.dtype)
        weight = weight.at[tail, head].add(jnp.exp(-costs / eta))
        # Sums over all walks; those that reach the destination once are what is left when walks
        # from there to itself are divided out.
        walks = inverse(jnp.eye(self.nodes, dtype=costs.dtype) - weight)
        # Sums over walks are never negative unless they diverge.
        sound = jnp.all(walks >= -1e-9 * jnp.max(jnp.diagonal(walks)))
        origin, destination = self.pairs.T
        shares = walks[origin, destination] / walks[destination, destination]
        return -eta * jnp.log(shares) * jnp.where(sound, 1, jnp.nan).astype(costs.dtype)

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
        loading = _Loading(self, theta)
        start = jnp.where(jnp.any(x > 0), x, self.loaded(loading.costs(jnp.zeros_like(x))))
        flows, _, steps = newton_in_link_flows(loading, start, tol, max_steps)
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
