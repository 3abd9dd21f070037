"""Finitely many players, each with a cost of its own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._compile import traced_once
from .._tree import as_pytree_function
from ._base import AbstractGame, require_strategy_set, StrategySet


class AtomicGame(AbstractGame):
    """Player `i` minimises `J_i(theta, x)` over its own `x_i`: `F_i = ∂J_i/∂x_i` by autodiff.

    **Arguments:**

    - `cost`: pure function `(theta, x) -> (players,)`, where the first axis of `x` is the player.
    - `strategy_set`: the set of all players' strategies, or a function of `theta` that returns it.

    **Raises** `ValueError` when `cost` does not return one number a player.

    !!! example

        A Cournot duopoly with price `16 - x_1 - x_2` and no cost of production:

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.AtomicGame(lambda theta, x: x * (x.sum() - 16), ix.Box(-10.0, 10.0))
        >>> print(game.operator(None, jnp.array([4.0, 4.0])))
        [-4. -4.]
    """

    _cost: Callable[[PyTree, Array], Array]
    strategy_set: StrategySet

    def __init__(self, cost: Callable, strategy_set: StrategySet):
        self._cost = as_pytree_function(cost)
        self.strategy_set = require_strategy_set("AtomicGame", strategy_set)

    def cost(self, theta: PyTree, x: Float[Array, "players ..."]) -> Float[Array, " players"]:
        """Cost of every player."""
        if x.ndim == 0:
            raise ValueError(
                "`AtomicGame(cost=...)` needs an x whose first axis is the player, got shape ()"
            )
        costs = traced_once(self._cost, theta, x)
        if costs.shape != x.shape[:1]:
            raise ValueError(
                "`cost(theta, x)` needs to return one number a player, shape "
                f"{x.shape[:1]}, got {costs.shape}"
            )
        return costs

    def own_operator(self, theta: PyTree, x: Array, player: Array) -> Array:
        """`∂J_i/∂x_i` of one player, at what it takes everyone's strategies to be."""
        if x[player].size == 1:
            # Forward, twice as fast: others' costs are not computed where they can be told apart.
            unit = jnp.zeros_like(x).at[player].set(1)
            _, slopes = jax.jvp(lambda x: self.cost(theta, x), (x,), (unit,))
            return slopes[player].reshape(x.shape[1:])

        def own_cost(own: Array) -> Array:
            return self.cost(theta, x.at[player].set(own))[player]

        return jax.grad(own_cost)(x[player])

    def unchecked_operator(self, theta: PyTree, x: Array) -> Array:
        if x.ndim == 0:
            return self.cost(theta, x)  # refuses
        return jax.vmap(lambda i: self.own_operator(theta, x, i))(jnp.arange(x.shape[0]))
