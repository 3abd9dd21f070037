"""Communication graphs: who hears whom, and the weights with which estimates are averaged."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from . import _checks

# Draws of a random graph until one is connected.
_DRAWS = 1000
# Rounds of row and column scaling; they converge linearly.
_ROUNDS = 100_000


class Graph(eqx.Module):
    """A strongly connected graph of players with doubly stochastic weights.

    Made by [`erdos_renyi`][], [`ring`][], [`star`][], [`complete`][], [`from_adjacency`][] or
    [`from_networkx`][].

    - `adjacency`: whether player `i` hears player `j`; nobody is a neighbour of itself.
    - `weights`: `W`, doubly stochastic, positive on the diagonal and where `i` hears `j`.
    """

    adjacency: Bool[Array, "players players"]
    weights: Float[Array, "players players"]

    @property
    def players(self) -> int:
        """Number of players."""
        return self.adjacency.shape[0]

    @property
    def messages(self) -> Int[Array, ""]:
        """Messages of one round: one along every directed edge."""
        return jnp.sum(self.adjacency, dtype=jnp.int32)

    @property
    def metropolis(self) -> Float[Array, "players players"]:
        """Metropolis weights; `ValueError` for a graph with directions."""
        adjacency = np.asarray(self.adjacency)
        if not (adjacency == adjacency.T).all():
            raise ValueError(
                "`Graph.metropolis` needs an undirected graph, got one in which some hear others "
                "who do not hear them: use `Graph.weights`"
            )
        return jnp.asarray(_metropolis(adjacency))

    @property
    def second_singular_value(self) -> Float[Array, ""]:
        """`sigma` of the weights: how much of a disagreement survives a round, below 1."""
        return jnp.linalg.svd(self.weights, compute_uv=False)[1]


def from_adjacency(adjacency: ArrayLike, *, weights: ArrayLike | None = None) -> Graph:
    """The graph in which player `i` hears player `j` where `adjacency[i, j]` is not zero.

    Weights, when not given: of an undirected graph by the Metropolis rule,
    `w_ij = 1 / (1 + max(deg_i, deg_j))` on edges and `w_ii = 1 - sum of w_ij`; of a directed one by
    Sinkhorn balancing of its adjacency and diagonal (R. Sinkhorn and P. Knopp, *Pacific Journal of
    Mathematics* 21 (1967)).

    **Raises** `ValueError` for a matrix that is not square, a graph that is not strongly connected,
    and weights that are negative, miss the edges, or are not doubly stochastic.

    !!! example

        >>> import incentax as ix
        >>> graph = ix.graphs.from_adjacency([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
        >>> print(graph.weights.round(3))
        [[0.667 0.333 0.   ]
         [0.333 0.333 0.333]
         [0.    0.333 0.667]]
    """
    heard = np.asarray(adjacency)
    if heard.ndim != 2 or heard.shape[0] != heard.shape[1] or len(heard) < 2:
        raise ValueError(
            "`from_adjacency(adjacency)` needs a square matrix of at least two players, got shape "
            f"{heard.shape}"
        )
    if not (np.isfinite(heard.astype(float)) & (heard >= 0)).all():
        raise ValueError("`from_adjacency(adjacency)` needs finite entries >= 0")
    heard = (heard != 0) & ~np.eye(len(heard), dtype=bool)
    unreached = _unreached(heard)
    if unreached is not None:
        raise ValueError(
            "`graphs` need to be strongly connected (from every player to every other by steps "
            f"from one who is heard), got one in which player {unreached[1]} is not reached by "
            f"player {unreached[0]}"
        )
    if weights is None:
        matrix = _metropolis(heard) if (heard == heard.T).all() else _balanced(heard)
    else:
        matrix = np.asarray(weights, float)
        _check_weights(matrix, heard)
    return Graph(jnp.asarray(heard), jnp.asarray(matrix, float))


def from_networkx(graph) -> Graph:
    """The graph of a `networkx.Graph` or `networkx.DiGraph`, nodes in its order.

    An edge `i -> j` of a directed graph means that `j` hears `i`.

    !!! example

        >>> import incentax as ix, networkx
        >>> int(ix.graphs.from_networkx(networkx.path_graph(4)).messages)
        6
    """
    if not (hasattr(graph, "is_multigraph") and not graph.is_multigraph()):
        raise TypeError(
            f"`from_networkx(graph)` needs a `networkx.Graph` or `networkx.DiGraph`, got {graph!r}"
        )
    index = {node: k for k, node in enumerate(graph.nodes)}
    heard = np.zeros((len(index), len(index)), bool)
    for start, end in graph.edges:
        heard[index[end], index[start]] = True
        if not graph.is_directed():
            heard[index[start], index[end]] = True
    return from_adjacency(heard)


def erdos_renyi(n: int, p: float, key: PRNGKeyArray) -> Graph:
    """Every pair of `n` players is joined with probability `p`; drawn until it is connected.

    **Raises** `ValueError` for `n < 2`, `p` outside (0, 1], and when 1,000 draws are not connected.

    !!! example

        >>> import incentax as ix, jax
        >>> graph = ix.graphs.erdos_renyi(10, 0.5, jax.random.key(0))
        >>> graph.players, bool(graph.second_singular_value < 1)
        (10, True)
    """
    _checks.require_count("erdos_renyi", "n", n, 2)
    if not 0 < p <= 1:
        raise ValueError(f"`erdos_renyi(p=...)` needs 0 < p <= 1, got {p}")
    for draw in range(_DRAWS):
        joined = jax.random.bernoulli(jax.random.fold_in(key, draw), p, (n, n))
        upper = np.triu(np.asarray(joined), 1)
        if _unreached(upper | upper.T) is None:
            return from_adjacency(upper | upper.T)
    raise ValueError(
        f"`erdos_renyi(n={n}, p={p})` needs a p that joins the players, got {_DRAWS} draws that "
        f"were not connected: above log(n) / n = {np.log(n) / n:.2g} most are"
    )


def ring(n: int) -> Graph:
    """Players in a circle, each hears the two beside it.

    !!! example

        >>> import incentax as ix
        >>> int(ix.graphs.ring(5).messages)
        10
    """
    return _from_rule("ring", n, lambda i, j: (np.abs(i - j) == 1) | (np.abs(i - j) == n - 1))


def star(n: int) -> Graph:
    """Player 0 hears everyone and is heard by everyone.

    !!! example

        >>> import incentax as ix
        >>> int(ix.graphs.star(5).messages)
        8
    """
    return _from_rule("star", n, lambda i, j: (i == 0) ^ (j == 0))


def complete(n: int) -> Graph:
    """Everyone hears everyone.

    !!! example

        >>> import incentax as ix
        >>> abs(round(float(ix.graphs.complete(5).second_singular_value), 6))
        0.0
    """
    return _from_rule("complete", n, lambda i, j: i != j)


def _from_rule(owner: str, n: int, rule: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Graph:
    _checks.require_count(owner, "n", n, 2)
    i, j = np.indices((n, n))
    return from_adjacency(rule(i, j))


def _unreached(heard: np.ndarray) -> tuple[int, int] | None:
    """Two players without a path from the first to the second, if any."""
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415 (slow to import)

    if connected_components(heard.T, directed=True, connection="strong")[0] == 1:
        return None
    reach = np.eye(len(heard), dtype=bool) | heard.T
    while True:
        further = reach @ reach
        if (further == reach).all():
            break
        reach = further
    start, end = np.argwhere(~reach)[0]
    return int(start), int(end)


def _metropolis(heard: np.ndarray) -> np.ndarray:
    degree = heard.sum(1)
    weights = np.where(heard, 1 / (1 + np.maximum(degree[:, None], degree[None, :])), 0.0)
    return weights + np.diag(1 - weights.sum(1))


def _balanced(heard: np.ndarray) -> np.ndarray:
    """Rows and columns scaled in turn until both sum to one."""
    weights = heard + np.eye(len(heard))
    for _ in range(_ROUNDS):
        weights /= weights.sum(1, keepdims=True)
        weights /= weights.sum(0, keepdims=True)
        if np.abs(weights.sum(1) - 1).max() < 1e-14:
            break
    return weights


def _check_weights(matrix: np.ndarray, heard: np.ndarray) -> None:
    if matrix.shape != heard.shape:
        raise ValueError(
            f"`from_adjacency(weights=...)` needs shape {heard.shape}, got {matrix.shape}"
        )
    needed = heard | np.eye(len(heard), dtype=bool)
    if not ((matrix > 0) == needed).all() or (matrix < 0).any():
        i, j = np.argwhere(((matrix > 0) != needed) | (matrix < 0))[0]
        raise ValueError(
            "`from_adjacency(weights=...)` needs weights that are positive on edges and on the "
            f"diagonal and zero elsewhere, got {matrix[i, j]} at index ({i}, {j})"
        )
    for axis, name in ((1, "row"), (0, "column")):
        sums = matrix.sum(axis)
        worst = int(np.argmax(np.abs(sums - 1)))
        if abs(sums[worst] - 1) > 1e-8:
            raise ValueError(
                "`from_adjacency(weights=...)` needs doubly stochastic weights, got a sum of "
                f"{sums[worst]} in {name} {worst}"
            )
