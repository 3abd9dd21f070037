"""Constraints as one more thing that settles: an exact penalty with complementarity.

    s = max(0, c - u) / unit,  that is  0 <= s ⊥ s - (c(theta, x) - u) / unit >= 0

are strategies beside the agents', and `f + sum of weight s` is the objective. Where weights exceed
the multipliers its optimum is that of the constrained problem (S.-P. Han and O. L. Mangasarian,
*Mathematical Programming* 17 (1979) 251-269). Then `s = 0`, and a constraint that binds is a kink
like any other: the designer walks along it, and proves that no direction descends.
"""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._checks import is_traced
from ...games import AbstractGame, StrategySet
from ...sets import AbstractStrategySet, Beside
from .._constraint import Constraint, limits_of
from .._problem import DesignProblem


class Sides(eqx.Module):
    """Which rows of the constraints have an upper bound, and which a lower one."""

    upper: tuple[int, ...] = eqx.field(static=True)
    lower: tuple[int, ...] = eqx.field(static=True)

    def __len__(self) -> int:
        return len(self.upper) + len(self.lower)


def sides_of(problem: DesignProblem, theta: PyTree, x: Array) -> Sides:
    """Of a problem's constraints, told by their shapes."""
    upper, lower, row = [], [], 0
    for constraint, value in zip(
        problem.constraints, problem.constraint_shapes(theta, x), strict=True
    ):
        rows = range(row, row + math.prod(value.shape))
        low, high = constraint.bounds(jnp.zeros(value.shape, value.dtype))
        upper += [r for r, no in zip(rows, _without(high)) if constraint.has_upper and not no]
        lower += [r for r, no in zip(rows, _without(low)) if constraint.has_lower and not no]
        row = rows.stop
    return Sides(tuple(upper), tuple(lower))


def _without(bound: Array) -> list[bool]:
    """Where a bound is infinite, if that is known."""
    if is_traced(bound):
        return [False] * bound.size
    return np.isinf(np.asarray(bound)).ravel().tolist()


class _Watched(AbstractGame):
    """The agents, and beside them how far each side of a constraint is violated."""

    game: AbstractGame
    constraints: tuple[Constraint, ...]
    sides: Sides
    unit: Float[Array, " rows"]
    own_shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def strategy_set(self) -> StrategySet:  # pyright: ignore[reportIncompatibleVariableOverride]
        if not self.game.moves:
            return self._beside(self.game.strategies(None))
        return lambda theta: self._beside(self.game.strategies(theta))

    def _beside(self, own: AbstractStrategySet) -> Beside:
        return Beside(own, self.own_shape, len(self.sides))

    def unchecked_operator(self, theta: PyTree, x: Array) -> Array:
        size = math.prod(self.own_shape)
        own, beyond = x[:size].reshape(self.own_shape), x[size:]
        value = self.game.operator(theta, own)
        over = excess(self.constraints, self.sides, theta, own, self.unit)
        return jnp.concatenate([value.ravel(), beyond - over.astype(x.dtype)])


def excess(
    constraints: tuple[Constraint, ...], sides: Sides, theta: PyTree, x: Array, unit: Array
) -> Float[Array, " sides"]:
    """`c - upper`, then `lower - c`, of the sides that there are, in units of their rows; negative
    where there is room, -1 where a bound of a traced array is infinite."""
    at = limits_of(constraints, theta, x)
    upper, lower = (jnp.asarray(rows, int) for rows in (sides.upper, sides.lower))
    above, below = (at.value - at.upper) / unit, (at.lower - at.value) / unit
    both = jnp.concatenate([above[upper], below[lower]])
    return jnp.where(jnp.isneginf(both), -1, both)


class _Penalised(eqx.Module):
    problem: DesignProblem
    weight: Float[Array, ""]
    own_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, theta: PyTree, x: Array) -> Array:
        size = math.prod(self.own_shape)
        own, beyond = x[:size].reshape(self.own_shape), x[size:]
        return self.problem.objective(theta, own) + self.weight.astype(x.dtype) * jnp.sum(beyond)


def penalised(
    problem: DesignProblem,
    sides: Sides,
    shape: tuple[int, ...],
    unit: Float[Array, " rows"],
    weight: Array,
) -> DesignProblem:
    """The problem without constraints whose optimum is the constrained one's; `unit`: what counts
    as one of a violation, `weight`: what that costs."""
    game = _Watched(  # pyright: ignore[reportCallIssue] (its set is a property)
        problem.game, problem.constraints, sides, unit, shape
    )
    return DesignProblem(game, _Penalised(problem, weight, shape), problem.incentive_set)


def with_violations(problem: DesignProblem, sides: Sides, unit: Array, theta: PyTree, x: Array):
    """The strategy of the penalised problem that belongs to `x`."""
    over = excess(problem.constraints, sides, theta, x, unit)
    return jnp.concatenate([x.ravel(), jnp.maximum(over, 0).astype(x.dtype)])
