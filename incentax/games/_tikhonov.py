"""Agents whom a vanishing incentive draws towards a target."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from .._checks import as_float, require_positive
from ._base import AbstractGame, AggregativeForm, StrategySet


class Tikhonov(AbstractGame):
    """A game with a term that draws every strategy towards a target.

        F(theta, x) + weight (x - target)     (divided by the game's own weights, if it has some)

    A monotone game may have a continuum of equilibria; with a positive weight it has one, and as
    the weight vanishes that tends to the equilibrium nearest to the target (A. N. Tikhonov 1963;
    as an incentive of the regulator, arXiv 2604.26746). See [`nearest_equilibrium`][] for the
    limit, and [`Nearest`][] for designs that count on it.

    **Arguments:**

    - `game`: the game.
    - `target`: of the shape of `x`, or a number.
    - `weight`: positive, in costs a unit of `x`.

    !!! example

        Two routes share a road: how flow is split between them is left open.

        >>> import incentax as ix, jax.numpy as jnp
        >>> routes = ix.Game(lambda t, h: jnp.stack([h[0] + h[1], h[0] + h[1], 2 * h[2]]),
        ...                  ix.Simplex(3))
        >>> drawn = ix.Tikhonov(routes, jnp.array([1.0, 0.0, 0.0]), 1e-4)
        >>> print(ix.solve_equilibrium(drawn, None).x.round(2) + 0)
        [0.67 0.   0.33]
    """

    game: AbstractGame
    target: Float[Array, "..."]
    weight: Float[Array, ""]

    def __init__(self, game: AbstractGame, target: ArrayLike, weight: ArrayLike):
        if not isinstance(game, AbstractGame):
            raise TypeError(f"`Tikhonov(game, ...)` needs a game, got {game!r}")
        self.game, self.target = game, as_float(target)
        self.weight = require_positive("Tikhonov", "weight", weight)

    @property
    def strategy_set(self) -> StrategySet:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.game.strategy_set

    def _drawn(self, x: Array) -> Array:
        target = jnp.broadcast_to(self.target, x.shape).astype(x.dtype)
        drawn = self.weight.astype(x.dtype) * (x - target)
        return drawn if self.game.weights is None else drawn * _inverse(self.game.weights, x)

    @property
    def weights(self) -> Float[Array, "*x"] | None:
        return self.game.weights

    @property
    def entropic(self) -> Bool[Array, ""] | None:
        return self.game.entropic

    def potential_diagonal(self, theta: PyTree, x: Array) -> Array | None:
        own = self.game.potential_diagonal(theta, x)
        if own is None:
            return None
        weight = self.weight.astype(x.dtype)
        own_weights = self.game.weights
        return own + (weight if own_weights is None else weight * _inverse(own_weights, x))

    def unchecked_operator(self, theta: PyTree, x: Array) -> Array:
        return self.game.operator(theta, x) + self._drawn(x)

    def log_operator(self, theta: PyTree, x: Array, log_x: Array) -> Array:
        return self.game.log_operator(theta, x, log_x) + self._drawn(x)

    @property
    def aggregative_form(self) -> AggregativeForm | None:
        form = self.game.aggregative_form
        if form is None:
            return None
        return AggregativeForm(_Drawn(form.operator, self._drawn), form.aggregate)


def _inverse(weights: Array, x: Array) -> Array:
    """Who has no weight counts like anybody."""
    known = weights.astype(x.dtype)
    return 1 / jnp.where(known > 0, known, 1)


class _Drawn(eqx.Module):
    operator: Callable[[PyTree, Array, Array], Array]
    term: Callable[[Array], Array]

    def __call__(self, theta: PyTree, x: Array, aggregate: Array) -> Array:
        return self.operator(theta, x, aggregate) + self.term(x)


def vanishing_weights(game: AbstractGame, theta: PyTree, x: Array) -> Float[Array, " weights"]:
    """Falling weights, in parts of the steepness of the costs at `x`; the last one tells a limit to
    what the precision of `x` allows."""
    probe = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    value, steep = jax.jvp(lambda x: game.operator(theta, x), (x,), (probe,))
    size = jnp.linalg.norm(steep.ravel()) / jnp.linalg.norm(probe.ravel())
    size = jnp.where(jnp.isfinite(size) & (size > 0), size, 1 + jnp.max(jnp.abs(value)))
    last = -7.0 if x.dtype == jnp.float64 else -3.0
    return size * jnp.logspace(-1.0, last, 4, dtype=x.dtype)
