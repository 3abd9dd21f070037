"""Expected costs of the walks that come nearer to their destination with every link."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# Distances that are told apart, relative.
_APART = 1e-12


class Onward(eqx.Module):
    """Links that lead nearer to a destination at given costs: those of R. B. Dial, "A probabilistic
    multipath traffic assignment model which obviates path enumeration", *Transportation Research* 5
    (1971) 83-111, as seen from the destination.

    `order`: for every destination its links by the distance of their tails, filled up with one that
    does not exist.
    """

    ends: Int[Array, "links 2"]
    to: Int[Array, " destinations"]
    nodes: int = eqx.field(static=True)
    order: Int[Array, "most destinations"]
    nearer: Bool[Array, "links destinations"]

    def __init__(self, ends: np.ndarray, nodes: int, to: np.ndarray, costs: np.ndarray):
        far = _distances(ends, nodes, to, costs)
        tail, head = far[ends[:, 0]], far[ends[:, 1]]
        nearer = head < tail * (1 - _APART)
        nearer &= np.isfinite(tail)
        first = np.argsort(np.where(nearer, tail, np.inf), axis=0, kind="stable")
        first = first[: max(1, nearer.sum(axis=0).max())]
        known = np.take_along_axis(nearer, first, axis=0)
        self.nodes = nodes
        self.ends, self.to = jnp.asarray(ends), jnp.asarray(to)
        self.order = jnp.asarray(np.where(known, first, len(ends)).astype(np.int32))
        self.nearer = jnp.asarray(nearer)

    def expected_costs(
        self, costs: Float[Array, " links"], eta: Float[Array, ""], pairs: Int[Array, "pairs 3"]
    ) -> Float[Array, " pairs"]:
        """`W` of pairs, each with the column of its destination."""
        origin, _, column = pairs.T
        return _expected(self, costs, eta)[0][origin, column]

    def least_costs(self, costs: Array) -> Array:
        """Of every node, infinite without a way."""
        (tail, head), costs = self._ends(), jnp.append(costs, jnp.inf)

        def visit(found: Array, link: Array) -> tuple[Array, None]:
            column = jnp.arange(link.size)
            along = costs[link] + found[head[link], column]
            return found.at[tail[link], column].min(along), None

        start = jnp.full((self.nodes, self.to.size), jnp.inf, costs.dtype)
        start = start.at[self.to, jnp.arange(self.to.size)].set(0)
        return jax.lax.scan(visit, start, self.order)[0]

    def summed(self, share: Array, right_side: Array, *, back: bool = True) -> Array:
        """`(I - P)^-1 b`, from the destinations back, or else `(I - P')^-1 b` towards them."""
        near, far = self._ends() if back else self._ends()[::-1]
        share = jnp.pad(share, ((0, 1), (0, 0)))

        def visit(found: Array, link: Array) -> tuple[Array, None]:
            column = jnp.arange(link.size)
            more = share[link, column] * found[far[link], column]
            return found.at[near[link], column].add(more), None

        return jax.lax.scan(visit, right_side, self.order, reverse=not back)[0]

    def _ends(self) -> tuple[Array, Array]:
        """With those of the link that does not exist."""
        tail, head = jnp.pad(self.ends, ((0, 1), (0, 0))).T
        return tail, head


@jax.custom_jvp
def _expected(onward: Onward, costs: Array, eta: Array) -> tuple[Array, Array]:
    """`W` of every node and destination, infinite without a way; and the shares `P` of the links,
    as constants."""
    tail, head = onward.ends.T
    least = onward.least_costs(costs)
    # No sum is less than 1: the logarithm is of what other ways add to the best one.
    away = jnp.where(onward.nearer, (costs[:, None] + least[head]) - least[tail], jnp.inf)
    weight = jnp.exp(-away / eta)
    first = jnp.zeros_like(least).at[onward.to, jnp.arange(onward.to.size)].set(1)
    sums = onward.summed(weight, first)
    share = weight * sums[head] / jnp.where(sums[tail] > 0, sums[tail], 1)
    return least - eta * jnp.log(sums), share


@_expected.defjvp
def _expected_jvp(
    primals: tuple[Onward, Array, Array], tangents: tuple[Any, Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """`(I - P) dW = P dc`."""
    onward, costs, eta = primals
    _, rise, wider = tangents
    found, share = _expected(onward, costs, eta)
    tail, head = onward.ends.T
    known = jnp.where(jnp.isfinite(found), found, 0)
    excess = (known[tail] - known[head] - costs[:, None]) / eta
    excess = jnp.where(onward.nearer, excess, 0)
    # Shares as they were found, which rounding in W does not reach, with the derivatives of W.
    moving = share * jnp.exp(excess - jax.lax.stop_gradient(excess))
    felt = moving * (rise[:, None] + wider * excess)
    moved = jax.lax.custom_linear_solve(
        lambda x: x - jnp.zeros_like(x).at[tail].add(moving * x[head]),
        jnp.zeros_like(found).at[tail].add(felt),
        solve=lambda _, b: onward.summed(share, b),
        transpose_solve=lambda _, b: onward.summed(share, b, back=False),
    )
    return (found, share), (moved, jnp.zeros_like(share))


def _distances(ends: np.ndarray, nodes: int, to: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """From every node to these, along the first axis; of equal ones fewer links are nearer."""
    from scipy.sparse import coo_array  # noqa: PLC0415  # heavy
    from scipy.sparse.csgraph import dijkstra  # noqa: PLC0415

    little = 1e-6 * (np.median(costs[costs > 0]) if costs.any() else 1.0)
    # Of parallel links the cheapest, which a sparse matrix would add up.
    order = np.lexsort((costs, ends[:, 0], ends[:, 1]))
    first = np.r_[True, (np.diff(ends[order], axis=0) != 0).any(axis=1)]
    kept = order[first]
    back = coo_array((costs[kept] + little, ends[kept, ::-1].T), shape=(nodes, nodes)).tocsr()
    return dijkstra(back, indices=to).T
