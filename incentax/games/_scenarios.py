"""Games that are played apart, under one incentive."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._tree import as_pytree_function
from ..sets import AbstractStrategySet, side_by_side
from ._base import AbstractGame, AggregativeForm, Lanes, Rational, StrategySet


class ScenarioGame(AbstractGame):
    """The game of every scenario, side by side: they share the incentive, and nothing else.

    `game_of`: the game of one scenario, a function of its data; `data`: with a leading axis;
    `one`: the shape of a scenario's strategy.
    """

    game_of: Callable[[PyTree], AbstractGame]
    data: PyTree
    count: int = eqx.field(static=True)
    one: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, game_of: Callable[[PyTree], AbstractGame], data: PyTree):
        self.game_of, self.data = as_pytree_function(game_of), data
        self.count = len(jax.tree.leaves(data)[0])
        first = game_of(jax.tree.map(lambda leaf: leaf[0], data))
        if first.moves:
            raise ValueError("scenarios need strategy sets that do not depend on theta")
        self.one = first.strategies(None).shape or ()
        self.strategies(None)  # refused here, if at all

    @property
    def lanes(self) -> Lanes:
        return Lanes(self.game_of, self.data, self.count, self.one)

    def _in_lanes(self, function: Callable, *rest: Any) -> Any:
        return jax.vmap(lambda datum, *rest: function(self.game_of(datum), *rest))(self.data, *rest)

    @property
    def strategy_set(self) -> StrategySet:  # pyright: ignore[reportIncompatibleVariableOverride]
        sets: AbstractStrategySet = self._in_lanes(lambda game: game.strategies(None))
        return side_by_side(sets, self.count)

    def unchecked_operator(self, theta: PyTree, x: Array) -> Array:
        lanes = self.lanes
        return self._in_lanes(lambda game, x: game.operator(theta, x), lanes.split(x)).reshape(
            x.shape
        )

    def log_operator(self, theta: PyTree, x: Array, log_x: Array) -> Array:
        parts = [self.lanes.split(leaf) for leaf in (x, log_x)]
        value = self._in_lanes(lambda game, x, log_x: game.log_operator(theta, x, log_x), *parts)
        return value.reshape(x.shape)

    def dispersed(self, eta: Array) -> "ScenarioGame | None":
        first = self.game_of(jax.tree.map(lambda leaf: leaf[0], self.data))
        if first.dispersed(eta) is None:
            return None
        return ScenarioGame(_Dispersed(self.game_of, eta), self.data)

    @property
    def weights(self) -> Float[Array, "*x"] | None:
        if self.game_of(jax.tree.map(lambda leaf: leaf[0], self.data)).weights is None:
            return None
        weights = self._in_lanes(lambda game: game.weights)
        return weights.reshape(self.strategies(None).shape)

    @property
    def entropic(self) -> Bool[Array, ""] | None:
        if self.game_of(jax.tree.map(lambda leaf: leaf[0], self.data)).entropic is None:
            return None
        return jnp.all(self._in_lanes(lambda game: jnp.all(game.entropic)))


class _Dispersed(eqx.Module):
    game_of: Callable[[PyTree], AbstractGame]
    eta: Array

    def __call__(self, datum: PyTree) -> AbstractGame:
        game = self.game_of(datum).dispersed(self.eta)
        assert game is not None
        return game


class ThroughGame(AbstractGame):
    """A game whose incentive is a function of another one: `F(part(theta), x)`."""

    game: AbstractGame
    part: Callable[[PyTree], PyTree]

    def __init__(self, game: AbstractGame, part: Callable[[PyTree], PyTree]):
        self.game, self.part = game, as_pytree_function(part)

    @property
    def strategy_set(self) -> StrategySet:  # pyright: ignore[reportIncompatibleVariableOverride]
        if not self.game.moves:
            return self.game.strategy_set
        return lambda theta: self.game.strategies(self.part(theta))

    def unchecked_operator(self, theta: PyTree, x: Array) -> Array:
        return self.game.operator(self.part(theta), x)

    def log_operator(self, theta: PyTree, x: Array, log_x: Array) -> Array:
        return self.game.log_operator(self.part(theta), x, log_x)

    def own_equilibrium(
        self,
        theta: PyTree,
        x: Array,
        tol: Array | float,
        *,
        max_steps: int,
        entropic: bool | None,
    ) -> tuple[Array, Array, Array] | None:
        part = self.part(theta)
        return self.game.own_equilibrium(part, x, tol, max_steps=max_steps, entropic=entropic)

    def dispersed(self, eta: Array) -> "ThroughGame | None":
        game = self.game.dispersed(eta)
        return None if game is None else ThroughGame(game, self.part)

    def potential_diagonal(self, theta: PyTree, x: Array) -> Array | None:
        return self.game.potential_diagonal(self.part(theta), x)

    @property
    def weights(self) -> Float[Array, "*x"] | None:
        return self.game.weights

    @property
    def entropic(self) -> Bool[Array, ""] | None:
        return self.game.entropic

    @property
    def rational(self) -> Rational | None:
        found = self.game.rational
        if found is None:
            return None
        return Rational(ThroughGame(found.game, self.part), found.eta, found.epsilon)

    @property
    def aggregative_form(self) -> AggregativeForm | None:
        form = self.game.aggregative_form
        if form is None:
            return None
        return AggregativeForm(_Of(form.operator, self.part), _Of(form.aggregate, self.part))

    @property
    def lanes(self) -> Lanes | None:
        found = self.game.lanes
        if found is None:
            return None
        return Lanes(_LaneThrough(found.game_of, self.part), found.data, found.count, found.one)


class _Of(eqx.Module):
    function: Callable
    part: Callable[[PyTree], PyTree]

    def __call__(self, theta: PyTree, *rest: Array) -> Array:
        return self.function(self.part(theta), *rest)


class _LaneThrough(eqx.Module):
    game_of: Callable[[PyTree], AbstractGame]
    part: Callable[[PyTree], PyTree]

    def __call__(self, datum: PyTree) -> ThroughGame:
        return ThroughGame(self.game_of(datum), self.part)
