"""Games whose agents meet only in an aggregate."""

from collections.abc import Callable

from jaxtyping import Array, PyTree

from .._compile import traced_once
from .._tree import as_pytree_function
from ._base import AbstractGame, AggregativeForm, require_strategy_set, StrategySet


class AggregativeGame(AbstractGame):
    """`F(theta, x) = operator(theta, x, s)` with `s = aggregate(theta, x)` of small dimension.

    Hypergradients then cost one linear system of the size of `s`.

    **Arguments:**

    - `operator`: pure function `(theta, x, s) -> F`; for fixed `s`, entry `i` may depend on `x`
      through `x_i` alone (what breaks this shows as a large residual of the hypergradient).
    - `aggregate`: pure function `(theta, x) -> s`, one array.
    - `strategy_set`: the set of all agents' strategies, or a function of `theta` that returns it.

    !!! example

        Cournot: the marginal cost of firm `i` is `c_i - (p0 - (Q + x_i))`, with total output `Q`.

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.AggregativeGame(
        ...     lambda cost, x, total: cost - (10.0 - total - x),
        ...     lambda cost, x: x.sum(),
        ...     ix.NonNegative(),
        ... )
        >>> ix.solve_equilibrium(game, jnp.array([1.0, 4.0])).x.round(4).tolist()
        [4.0, 1.0]
    """

    _operator: Callable[[PyTree, Array, Array], Array]
    _aggregate: Callable[[PyTree, Array], Array]
    strategy_set: StrategySet

    def __init__(self, operator: Callable, aggregate: Callable, strategy_set: StrategySet):
        self._operator = as_pytree_function(operator)
        self._aggregate = as_pytree_function(aggregate)
        self.strategy_set = require_strategy_set("AggregativeGame", strategy_set)

    def unchecked_operator(self, theta: PyTree, x: Array) -> Array:
        s = traced_once(self._aggregate, theta, x)
        return traced_once(self._operator, theta, x, s)

    @property
    def aggregative_form(self) -> AggregativeForm:
        return AggregativeForm(self._operator, self._aggregate)
