"""What every game offers, and the plain game of a user's own operator."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import poisoning
from .._compile import traced_once
from .._tree import as_pytree_function
from ..sets import AbstractSet, AbstractStrategySet

StrategySet = AbstractStrategySet | Callable[[PyTree], AbstractStrategySet]


class AggregativeForm(eqx.Module):
    """`F(theta, x) = operator(theta, x, s)` with `s = aggregate(theta, x)` of small dimension.

    For fixed `s` the operator is coordinatewise: entry `i` depends on `x` through `x_i` alone.
    """

    operator: Callable[[PyTree, Array, Array], Array]
    aggregate: Callable[[PyTree, Array], Array]


class Rational(eqx.Module):
    """A quantal response taken apart: `F = game.operator + eta (log(x + epsilon) + 1)`."""

    game: "AbstractGame"
    eta: Float[Array, "..."]
    epsilon: Float[Array, "..."]


class Lanes(eqx.Module):
    """Games that are played apart: `game_of(datum)` for each entry of `data`, `count` of them, each
    with strategies of the shape `one`."""

    game_of: Callable[[PyTree], "AbstractGame"]
    data: PyTree
    count: int = eqx.field(static=True)
    one: tuple[int, ...] = eqx.field(static=True)

    def split(self, x: Array) -> Array:
        """Strategies, along a leading axis."""
        return x.reshape(self.count, *self.one)


class AbstractGame(eqx.Module):
    """Agents with a strategy set and an operator `F(theta, x)` that each wants to go down along."""

    strategy_set: eqx.AbstractVar[StrategySet]

    def strategies(self, theta: PyTree) -> AbstractStrategySet:
        """The strategy set under `theta`, where it is a function of the incentive."""
        strategy_set = self.strategy_set
        if not isinstance(strategy_set, AbstractStrategySet):
            with poisoning():
                strategy_set = strategy_set(theta)
            if not isinstance(strategy_set, AbstractStrategySet):
                raise TypeError(
                    f"`strategy_set(theta)` needs to return a set, got {strategy_set!r}"
                )
        return strategy_set

    @property
    def moves(self) -> bool:
        """Whether the strategy set depends on `theta`."""
        return not isinstance(self.strategy_set, AbstractStrategySet)

    @abc.abstractmethod
    def unchecked_operator(self, theta: PyTree, x: Float[Array, "*x"]) -> Array:
        """The stacked marginal cost as the user's functions return it."""

    def operator(self, theta: PyTree, x: Float[Array, "*x"]) -> Float[Array, "*x"]:
        """The stacked marginal cost; raises `ValueError` unless it has the shape of `x`."""
        value = self.unchecked_operator(theta, x)
        if jnp.shape(value) != jnp.shape(x):
            raise ValueError(
                f"`operator(theta, x)` needs to return the shape of x, {jnp.shape(x)}, "
                f"got {jnp.shape(value)}"
            )
        return value

    def log_operator(
        self, theta: PyTree, x: Float[Array, "*x"], log_x: Float[Array, "*x"]
    ) -> Float[Array, "*x"]:
        """`operator(theta, x)` for an `x` whose logarithm is known, exact where `x` underflows."""
        del log_x
        return self.operator(theta, x)

    def own_equilibrium(
        self,
        theta: PyTree,
        x: Float[Array, "*x"],
        tol: Array | float,
        *,
        max_steps: int,
        entropic: bool | None,
    ) -> tuple[Float[Array, "*x"], Int[Array, ""], Float[Array, ""]] | None:
        """By a method of the game's own, from `x`: the equilibrium, the steps taken, and the
        residual that rounding leaves there (0 if it is that of any game); `None` where there is no
        such method, and the general ones serve. `entropic`: where that is known, see there."""
        del theta, x, tol, max_steps, entropic
        return None

    def dispersed(self, eta: Float[Array, ""]) -> "AbstractGame | None":
        """The same game with choices dispersed by `eta`, where large games have that smoother
        equilibrium at hand; a designer that follows it as `eta` falls passes local optima. Else
        `None`."""
        del eta
        return None

    def potential_diagonal(self, theta: PyTree, x: Float[Array, "*x"]) -> Float[Array, "*x"] | None:
        """Where `weights F` is known to be the gradient of a convex function: the diagonal of
        `∂F/∂x`, else `None`. Large sensitivity systems of such games are solved by conjugate
        gradients, which it preconditions."""
        del theta, x
        return None

    def externality(self, theta: PyTree, x: Float[Array, "*x"]) -> PyTree | None:
        """Like `theta`, where the game knows it: what an action that carries a price costs others
        at the margin. Else `None`."""
        del theta, x
        return None

    def outside(self, theta: PyTree, x: Float[Array, "*x"]) -> float | None:
        """The share of agents for whom the best strategy is none that the game lists, as a path
        that is not among a [`RoutingGame`][]'s; `None` where that is not known. Of known values."""
        del theta, x
        return None

    @property
    def lanes(self) -> Lanes | None:
        """The games that this one consists of, where they have nothing in common but the incentive:
        their equilibria and adjoint systems are solved side by side. Else `None`."""
        return None

    @property
    def weights(self) -> Float[Array, "*x"] | None:
        """Weights `lambda` in which the game is known to be judged for monotonicity, an entry each
        of `x`, or `None`: `sum lambda_i (F_i(x) - F_i(y)) (x_i - y_i) >= 0`."""
        return None

    @property
    def entropic(self) -> Bool[Array, ""] | None:
        """Whether costs rise like `log x` at the boundary, so that every strategy is used."""
        return None

    @property
    def rational(self) -> Rational | None:
        """The game without its entropy, and the entropy, or `None` when it has none."""
        return None

    @property
    def aggregative_form(self) -> AggregativeForm | None:
        """How the operator passes through a small aggregate, or `None` when it does not."""
        return None


class Game(AbstractGame):
    """Any variational inequality: find `x` in the set with `<F(theta, x), y - x> >= 0` for all `y`.

    **Arguments:**

    - `operator`: pure function `(theta, x) -> F` of the shape of `x`, in costs (a reward enters
      with a minus sign).
    - `strategy_set`: the set of all agents' strategies, or a function of `theta` that returns it
      (capacities, caps, budgets that the designer moves).

    **Raises** `TypeError` when `operator` is no function or `strategy_set` no strategy set.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.NonNegative())
        >>> ix.solve_equilibrium(game, jnp.array([1.0, -1.0])).x.round(4).tolist()
        [1.0, 0.0]
    """

    _operator: Callable[[PyTree, Array], Array]
    strategy_set: StrategySet

    def __init__(self, operator: Callable, strategy_set: StrategySet):
        self._operator = as_pytree_function(operator)
        self.strategy_set = require_strategy_set("Game", strategy_set)

    def unchecked_operator(self, theta: PyTree, x: Array) -> Array:
        return traced_once(self._operator, theta, x)


def require_strategy_set(owner: str, strategy_set: StrategySet) -> StrategySet:
    """The strategy set, or the function that returns it; `TypeError` for anything else."""
    if isinstance(strategy_set, AbstractStrategySet):
        return strategy_set
    if isinstance(strategy_set, AbstractSet) or not callable(strategy_set):
        raise TypeError(
            f"`{owner}(strategy_set=...)` needs a set of one array such as `ix.Box` or "
            f"`ix.Simplex`, or a function of theta that returns one, got {strategy_set!r}"
        )
    return as_pytree_function(strategy_set)
