"""Equilibrium seeking by players who hear their neighbours alone."""

import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from .._checks import is_traced, require_positive
from ..games import AbstractGame, AtomicGame
from ..graphs import Graph
from ..sets import Polyhedron, Simplex
from ._base import AbstractDynamics
from ._seeking import SeekingConstants


class ConsensusSeeking(AbstractDynamics):
    """Every player estimates everyone, averages with its neighbours, and steps for itself.

        y^_i    = sum_j w_ij y_j
        y_ii+   = project_i (y^_ii - a ∇_{x_i} J_i(theta, y^_i))
        y_i,-i+ = y^_i,-i

    Du, Meng, Hu (2025), Algorithm 2, (21a) to (21c), after Bianchi and Grammatico (2021). For small
    steps the estimates of a strongly monotone game converge linearly to `1 ⊗ x*`; see
    [`SeekingConstants`][] for the bounds. A step sends `graph.messages` messages.

    **Arguments:**

    - `graph`: a graph of the players, from `ix.graphs`.
    - `step_size`: `a > 0`.
    - `sizes`: how many entries of a flat `x` belong to each player, one after another; when left
      out the first axis of `x` is the player.
    - `constants`: of the game, see [`seeking_constants`][]: then a step size beyond the one at
      which the bound contracts is warned of.

    **Raises** `ValueError` when the players of graph and game differ, or when the strategy set
    couples them.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.AtomicGame(lambda theta, x: x * (x.sum() - 16), ix.Box(-10.0, 10.0))
        >>> method = ix.ConsensusSeeking(ix.graphs.ring(3), 0.1)
        >>> print(ix.solve_equilibrium(game, None, jnp.zeros(3), method=method).x.round(4))
        [4. 4. 4.]
    """

    graph: Graph
    step_size: Float[Array, ""]
    owner: Int[Array, " d"] | None

    def __init__(
        self,
        graph: Graph,
        step_size: ArrayLike,
        *,
        sizes: Sequence[int] | None = None,
        constants: SeekingConstants | None = None,
    ):
        if not isinstance(graph, Graph):
            raise TypeError(
                f"`ConsensusSeeking(graph)` needs a graph of `ix.graphs`, got {graph!r}"
            )
        self.graph = graph
        self.step_size = require_positive("ConsensusSeeking", "step_size", step_size)
        self.owner = None
        if sizes is not None:
            counts = np.asarray(sizes)
            if counts.shape != (graph.players,) or (counts < 1).any():
                raise ValueError(
                    "`ConsensusSeeking(sizes=...)` needs one size >= 1 for each of the "
                    f"{graph.players} players of the graph, got {sizes!r}"
                )
            self.owner = jnp.asarray(np.repeat(np.arange(graph.players), counts))
        if constants is not None and not is_traced(self.step_size, constants):
            factor = float(constants.contraction_factor(graph, self.step_size))
            if factor >= 1:
                warnings.warn(
                    f"`ConsensusSeeking(step_size={float(self.step_size):g})` lies beyond the "
                    f"bound that contracts: its factor is {factor:.4g} >= 1, and steps up to "
                    f"{float(constants.step_bound(graph)):.3g} are known to converge. Going on.",
                    stacklevel=2,
                )

    def init(self, game: AbstractGame, theta: PyTree, x: Array) -> Float[Array, "players *x"]:
        self.check(game, theta, x)
        return jnp.broadcast_to(x, (self.graph.players, *x.shape))

    def resume(self, game: AbstractGame, theta: PyTree, state: Array) -> Array:
        del game, theta
        return state

    def strategy(self, game: AbstractGame, theta: PyTree, state: Array) -> Array:
        del game, theta
        return self._own(state)

    def operator_value(self, game: AbstractGame, theta: PyTree, state: Array) -> Array:
        # Nobody needs it to play, and it costs as much as a step: no part of the state.
        return game.operator(theta, self._own(state))

    @property
    def messages(self) -> Int[Array, ""]:
        return self.graph.messages

    def step(
        self, game: AbstractGame, theta: PyTree, state: Float[Array, "players *x"], count: Array
    ) -> Float[Array, "players *x"]:
        del count
        estimates, players, shape = state, self.graph.players, state.shape[1:]
        step_size = self.step_size.astype(estimates.dtype)
        weights = self.graph.weights.astype(estimates.dtype)
        heard = (weights @ estimates.reshape(players, -1)).reshape(estimates.shape)
        if isinstance(game, AtomicGame) and self.owner is None:
            slopes = jax.vmap(lambda y, i: game.own_operator(theta, y, i))(
                heard, jnp.arange(players)
            )
        else:
            slopes = self._own(jax.vmap(lambda y: game.operator(theta, y))(heard))
        moved = game.strategies(theta).project(self._own(heard) - step_size * slopes)
        owner = self._owner(moved.size)
        own = owner[None, :] == jnp.arange(players)[:, None]
        flat = jnp.where(own, moved.ravel()[None, :], heard.reshape(players, -1))
        return flat.reshape(players, *shape)

    def _owner(self, size: int) -> Int[Array, " d"]:
        if self.owner is not None:
            return self.owner
        players = self.graph.players
        return jnp.asarray(np.repeat(np.arange(players), size // players))

    def _own(self, estimates: Float[Array, "players *x"]) -> Float[Array, "*x"]:
        """Entry by entry what its owner says."""
        flat = estimates.reshape(self.graph.players, -1)
        size = flat.shape[1]
        return flat[self._owner(size), jnp.arange(size)].reshape(estimates.shape[1:])

    def check(self, game: AbstractGame, theta: PyTree, x: Array) -> None:
        players = self.graph.players
        if self.owner is None and (x.ndim == 0 or x.shape[0] != players):
            raise ValueError(
                f"`ConsensusSeeking(graph)` needs a graph of the game's players, x.shape[0] = "
                f"{x.shape[0] if x.ndim else 'none'}, got one of {players} (or give `sizes`)"
            )
        if self.owner is not None and x.shape != self.owner.shape:
            raise ValueError(
                f"`ConsensusSeeking(sizes=...)` needs sizes that sum to the entries of a flat x, "
                f"shape {x.shape}, got {self.owner.size}"
            )
        strategies = game.strategies(theta)
        coupled = False
        if isinstance(strategies, Polyhedron):
            rows = jnp.concatenate([strategies.equality[0], strategies.inequality[0]])
            if not is_traced(rows):
                owner = np.asarray(self._owner(x.size))
                coupled = any(len(set(owner[row != 0])) > 1 for row in np.asarray(rows))
        if isinstance(strategies, Simplex) and not is_traced(strategies.blocks.ids):
            ids, owner = np.asarray(strategies.blocks.ids), np.asarray(self._owner(x.size))
            coupled = any(len(set(owner[ids == block])) > 1 for block in set(ids.tolist()))
        if coupled:
            raise ValueError(
                "`ConsensusSeeking(graph)` needs a strategy set that is a product over players "
                "(`ix.Box`, or `ix.Simplex` and `ix.Polyhedron` whose blocks and rows are of one "
                f"player each), got {strategies}"
            )
