"""Boundedly rational agents."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from .._checks import require_positive
from ..sets import Simplex
from ._base import AbstractGame, AggregativeForm, Rational, StrategySet


class QuantalResponse(AbstractGame):
    """`F(theta, x) + eta (log(x + epsilon) + 1)`: at equilibrium `x = softmin(cost / eta)`.

    Liu et al. (2022), section 6, Case II. With `eta > 0` a monotone game has one equilibrium.

    **Arguments:**

    - `game`: the game of the rational agents, on simplices.
    - `eta`: `>= 0`, one number or one an entry of `x`, in units of cost.
    - `epsilon`: `>= 0`; a positive one keeps the operator Lipschitz up to the boundary.

    **Raises** `ValueError` when `eta` or `epsilon` is negative.

    Deviations from the source: `log` is cut off at the smallest normal number, where it would be
    minus infinity; entropic play carries `log x` and never meets the cut.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda cost, x: cost, ix.Simplex(2))
        >>> logit = ix.QuantalResponse(game, eta=1.0)
        >>> cost = jnp.log(jnp.array([1.0, 3.0]))
        >>> ix.solve_equilibrium(logit, cost).x.round(4).tolist()
        [0.75, 0.25]
    """

    game: AbstractGame
    eta: Float[Array, "..."]
    epsilon: Float[Array, "..."]

    def __init__(self, game: AbstractGame, eta: ArrayLike, *, epsilon: ArrayLike = 0.0):
        if not isinstance(game, AbstractGame):
            raise TypeError(f"`QuantalResponse(game, eta)` needs a game, got {game!r}")
        if not game.moves and not isinstance(game.strategy_set, Simplex):
            raise ValueError(
                "`QuantalResponse(game, eta)` needs a game on `ix.Simplex(...)`, got one on "
                f"{type(game.strategy_set).__name__}"
            )
        self.game = game
        self.eta = require_positive("QuantalResponse", "eta", eta, strictly=False)
        self.epsilon = require_positive("QuantalResponse", "epsilon", epsilon, strictly=False)

    @property
    def strategy_set(self) -> StrategySet:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.game.strategy_set

    def unchecked_operator(self, theta: PyTree, x: Array) -> Array:
        return self.game.unchecked_operator(theta, x) + self._entropic_term(x)

    def log_operator(self, theta: PyTree, x: Array, log_x: Array) -> Array:
        epsilon = self.epsilon.astype(x.dtype)
        # Without epsilon the logarithm is known, and without rounding.
        logarithm = jnp.where(epsilon > 0, jnp.log(x + epsilon), log_x)
        return self.game.log_operator(theta, x, log_x) + self.eta.astype(x.dtype) * (logarithm + 1)

    @property
    def weights(self) -> Array | None:
        return self.game.weights

    @property
    def entropic(self) -> Bool[Array, ""]:
        return jnp.all(self.eta > 0) & jnp.all(self.epsilon == 0)

    @property
    def rational(self) -> Rational:
        return Rational(self.game, self.eta, self.epsilon)

    @property
    def aggregative_form(self) -> AggregativeForm | None:
        form = self.game.aggregative_form
        if form is None:
            return None
        return AggregativeForm(_Logit(form.operator, self._entropic_term), form.aggregate)

    def _entropic_term(self, x: Array) -> Array:
        floor = float(jnp.finfo(x.dtype).tiny)
        shifted, eta = x + self.epsilon.astype(x.dtype), self.eta.astype(x.dtype)
        # Without an eta, what is not used has no logarithm whose derivatives would be 0 times inf.
        counts = (eta > 0) | (shifted > floor**0.25)
        safe = jnp.where(counts, jnp.maximum(shifted, floor), 1)
        return eta * (jnp.log(safe) + 1)


class _Logit(eqx.Module):
    operator: Callable[[PyTree, Array, Array], Array]
    term: Callable[[Array], Array]

    def __call__(self, theta: PyTree, x: Array, aggregate: Array) -> Array:
        return self.operator(theta, x, aggregate) + self.term(x)
