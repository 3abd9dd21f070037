"""Constraints for schemes that only go down: their objective becomes an augmented Lagrangian."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from ..._checks import require, require_positive
from ..._tree import tree_where
from .._constraint import named
from .._problem import DesignProblem
from .._scheme import AbstractInfo, AbstractScheme, AbstractSchemeState
from ._penalty import excess, Sides, sides_of
from ._units import scales_of


class AugmentedState(AbstractSchemeState):
    """The scheme's own state, and the multipliers `mu` of all sides, each in its row's `unit`.

    `penalty`: `rho`, in units of the objective.
    """

    theta: PyTree
    own: AbstractSchemeState
    mu: Float[Array, " sides"]
    unit: Float[Array, " rows"]
    penalty: Float[Array, ""]


class _Augmented(eqx.Module):
    problem: DesignProblem
    sides: Sides
    mu: Float[Array, " sides"]
    unit: Float[Array, " rows"]
    penalty: Float[Array, ""]

    def __call__(self, theta: PyTree, x: Array) -> Array:
        e = excess(self.problem.constraints, self.sides, theta, x, self.unit)
        pushed = jnp.maximum(self.mu + self.penalty * e, 0)
        added = jnp.sum(pushed**2 - self.mu**2) / (2 * self.penalty)
        return self.problem.objective(theta, x) + added.astype(x.dtype)


class AugmentedLagrangian(AbstractScheme):
    """A scheme that keeps to the problem's constraints, step by step in the same scan.

        L(theta, x, mu) = f + sum of (max(0, mu + rho e)^2 - mu^2) / (2 rho)
        mu <- max(0, mu + dual rho e)      after every step of the scheme on L

    for the excess `e = c - upper` or `lower - c` of every side, in units of what it changes by over
    the incentive set at the start. `.violation` says how well they are kept in the end; that they
    cannot be is not told. R. T. Rockafellar, *Mathematical Programming* 5 (1973) 354-373.

    **Arguments:**

    - `scheme`: such as [`DesignAndPlay`][], [`DoubleLoop`][] or [`ZerothOrderRegulator`][].
    - `penalty`: `rho`, in parts of what the objective changes by over the incentive set at the
      start; a larger one keeps the constraints better, and asks for shorter steps.
    - `dual`: part of `rho e` by which multipliers move in a step, at most 1; smaller where play
      or the designer is slow.

    A problem with constraints wraps any scheme so by itself, with these defaults.

    **Raises** `TypeError` for what is no scheme, `ValueError` for a step out of range and for a
    problem without constraints.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda tax, x: x + tax - 4, ix.NonNegative((1,)))
        >>> floor = ix.Constraint(lambda tax, x: (tax * x).sum(), lower=3.0, name="revenue")
        >>> taxes = ix.Box(0.0, jnp.full(1, 2.0))
        >>> problem = ix.DesignProblem(
        ...     game, lambda tax, x: (tax**2).sum(), taxes, constraints=[floor]
        ... )
        >>> scheme = ix.AugmentedLagrangian(ix.DoubleLoop(optax.sgd(0.02)), dual=0.2)
        >>> solution = ix.design(problem, jnp.zeros(1), scheme, steps=500)
        >>> print(solution.theta.round(3), solution.multipliers["revenue"].round(3))
        [1.] -1.0
    """

    scheme: AbstractScheme
    penalty: Float[Array, ""]
    dual: Float[Array, ""]

    def __init__(self, scheme: AbstractScheme, *, penalty: ArrayLike = 1.0, dual: ArrayLike = 0.1):
        if not isinstance(scheme, AbstractScheme) or isinstance(scheme, AugmentedLagrangian):
            raise TypeError(f"`AugmentedLagrangian(scheme)` needs a scheme, got {scheme!r}")
        self.scheme = scheme
        self.penalty = require_positive("AugmentedLagrangian", "penalty", penalty)
        dual = require_positive("AugmentedLagrangian", "dual", dual)
        rule = "`AugmentedLagrangian(dual=...)` needs at most 1"
        self.dual = require(dual, dual <= 1, rule, dual)

    @property
    def needs_key(self) -> bool:
        return self.scheme.needs_key

    def check(self, problem: DesignProblem, theta: PyTree, x: Array) -> None:
        if not problem.constraints:
            raise ValueError("`AugmentedLagrangian` needs a problem with constraints, got none")
        self.scheme.check(problem, theta, x)

    def init(self, problem: DesignProblem, theta: PyTree, x: Array) -> AugmentedState:
        sides = sides_of(problem, theta, x)
        scales = scales_of(problem, theta, x)
        own = self.scheme.init(problem, theta, x)
        mu = jnp.zeros(len(sides), x.dtype)
        penalty = self.penalty.astype(x.dtype) * scales.change
        return AugmentedState(theta, own, mu, scales.units, penalty)

    def _lagrangian(self, problem: DesignProblem, state: AugmentedState) -> DesignProblem:
        sides = sides_of(problem, state.theta, self.strategy(problem, state))
        objective = _Augmented(problem, sides, state.mu, state.unit, state.penalty)
        return DesignProblem(problem.game, objective, problem.incentive_set)

    def step(
        self,
        problem: DesignProblem,
        state: AbstractSchemeState,
        count: Array,
        key: PRNGKeyArray | None,
    ) -> tuple[AugmentedState, AbstractInfo]:
        assert isinstance(state, AugmentedState)
        lagrangian = self._lagrangian(problem, state)
        own, info = self.scheme.step(lagrangian, state.own, count, key)
        x = self.scheme.strategy(lagrangian, own)
        sides = sides_of(problem, own.theta, x)
        e = excess(problem.constraints, sides, own.theta, x, state.unit)
        mu = jnp.maximum(state.mu + self.dual.astype(x.dtype) * state.penalty * e, 0)
        return AugmentedState(own.theta, own, mu.astype(x.dtype), state.unit, state.penalty), info

    def keep(
        self, moved: Bool[Array, ""], reached: AbstractSchemeState, before: AbstractSchemeState
    ) -> AugmentedState:
        assert isinstance(reached, AugmentedState)
        assert isinstance(before, AugmentedState)
        own = self.scheme.keep(moved, reached.own, before.own)
        mu = tree_where(moved, reached.mu, before.mu)
        return AugmentedState(own.theta, own, mu, reached.unit, reached.penalty)

    def strategy(self, problem: DesignProblem, state: AbstractSchemeState) -> Array:
        assert isinstance(state, AugmentedState)
        return self.scheme.strategy(problem, state.own)

    def conclude(
        self, problem: DesignProblem, state: AbstractSchemeState, count: Array
    ) -> AugmentedState:
        assert isinstance(state, AugmentedState)
        own = self.scheme.conclude(self._lagrangian(problem, state), state.own, count)
        return AugmentedState(own.theta, own, state.mu, state.unit, state.penalty)

    def explain(
        self,
        problem: DesignProblem,
        state: AbstractSchemeState,
        count: Array,
        key: PRNGKeyArray | None,
    ) -> str:
        assert isinstance(state, AugmentedState)
        return self.scheme.explain(self._lagrangian(problem, state), state.own, count, key)

    def multipliers(self, problem: DesignProblem, state: AbstractSchemeState) -> dict[str, Array]:
        assert isinstance(state, AugmentedState)
        x = self.strategy(problem, state)
        sides, shapes = sides_of(problem, state.theta, x), problem.constraint_shapes(state.theta, x)
        upper, flat = len(sides.upper), jnp.zeros_like(state.unit)
        flat = flat.at[jnp.asarray(sides.upper, int)].add(state.mu[:upper])
        flat = flat.at[jnp.asarray(sides.lower, int)].add(-state.mu[upper:])
        return named(problem.constraints, shapes, flat / state.unit)


def keeping_constraints(problem: DesignProblem, scheme: AbstractScheme) -> AbstractScheme:
    """The scheme, or around it what keeps the problem's constraints."""
    if not isinstance(problem, DesignProblem) or not isinstance(scheme, AbstractScheme):
        return scheme  # refused where it is used
    plain = not problem.constraints or isinstance(scheme, AugmentedLagrangian)
    return scheme if plain else AugmentedLagrangian(scheme)
