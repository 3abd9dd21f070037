"""The regulator's problem over scenarios."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..._checks import as_float, is_traced, require, require_rows
from ..._tree import as_pytree_function
from ...games import AbstractGame, ScenarioGame
from .._constraint import Constraint
from .._problem import DesignProblem

Risk = Literal["expected", "worst", "cvar"]
SCENARIOS = "scenarios"


class _GameOf(eqx.Module):
    problem_of: Callable[[PyTree], DesignProblem]

    def __call__(self, datum: PyTree) -> AbstractGame:
        return self.problem_of(datum).game


class _Costs(eqx.Module):
    """The objective of every scenario."""

    problem_of: Callable[[PyTree], DesignProblem]
    game: ScenarioGame

    def __call__(self, theta: PyTree, x: Array) -> Float[Array, " scenarios"]:
        game = self.game
        return jax.vmap(lambda datum, x: self.problem_of(datum).objective(theta, x))(
            game.data, game.lanes.split(x)
        )


class _Risk(eqx.Module):
    """Expected value of the costs beyond the level; the weights stand where costs are ordered."""

    costs: _Costs
    weights: Float[Array, " scenarios"]
    level: Float[Array, ""]
    risk: Risk = eqx.field(static=True)

    def __call__(self, theta: PyTree, x: Array) -> Float[Array, ""]:
        costs = self.costs(theta, x)
        if self.risk == "worst":
            # The derivative of `jnp.max` looks for the largest again, and a compiler that computes
            # costs a second time, in another order, may find none.
            known = jnp.where(self.weights > 0, jax.lax.stop_gradient(costs), -jnp.inf)
            return costs[jnp.argmax(known)]
        weights = self.weights.astype(costs.dtype)
        if self.risk == "expected":
            return weights @ costs
        return tail_weights(costs, weights, self.level.astype(costs.dtype)) @ costs


def tail_weights(costs: Array, weights: Array, level: Array) -> Float[Array, " scenarios"]:
    """What each scenario weighs in the mean of the worst `1 - level` of all; constant in `costs`
    but where their order changes."""
    order = jnp.argsort(-jax.lax.stop_gradient(costs))
    before = jnp.cumsum(weights[order]) - weights[order]
    taken = jnp.clip((1 - level) - before, 0, weights[order])
    return jnp.zeros_like(weights).at[order].set(taken / (1 - level))


class _InEvery(eqx.Module):
    """A constraint of the problem, scenario by scenario."""

    problem_of: Callable[[PyTree], DesignProblem]
    game: ScenarioGame
    number: int = eqx.field(static=True)

    def __call__(self, theta: PyTree, x: Array) -> Array:
        def value(datum: PyTree, x: Array) -> Array:
            return self.problem_of(datum).constraints[self.number].value(theta, x)

        return jax.vmap(value)(self.game.data, self.game.lanes.split(x))

    def bounds(self) -> tuple[Array, Array]:
        def both(datum: PyTree) -> tuple[Array, Array]:
            one = self.problem_of(datum).constraints[self.number]
            low, high = jnp.broadcast_arrays(one.lower, one.upper)
            return low, high

        return jax.vmap(both)(self.game.data)


class ScenarioProblem(DesignProblem):
    """One incentive for many scenarios: demands, weather, noise, tastes.

        min  risk over scenarios s of  f_s(theta, x*_s(theta))

    Every scenario has agents of its own, who settle at their own equilibrium. All are solved side
    by side; schemes, the accurate designer, constraints and certificates serve as for any problem.

    **Arguments:**

    - `problem_of`: a function from the data of a scenario to its [`DesignProblem`][]. Scenarios
      have the same shapes and the same incentive set; a constraint holds in each of them.
    - `data`: a pytree of arrays with a leading axis, an entry a scenario.
    - `weights`: probabilities, which sum to 1; equal ones when left out. A scenario of weight 0 is
      none, in the worst case too.
    - `risk`: "expected"; "worst"; or a level `a` in (0, 1): the conditional value at risk, the mean
      of the worst `1 - a` of all, `min over t of t + E[max(f - t, 0)] / (1 - a)` (R. T.
      Rockafellar, S. Uryasev, *Journal of Risk* 2 (2000) 21-41).

    `x` has a leading axis, an entry a scenario; on simplices it is flat, one scenario after the
    other, and `in_scenarios(x)` takes it apart. Where costs of scenarios meet, worst case and CVaR
    have kinks: the accurate designer minimises the level `t` above them, and
    `multipliers["scenarios"]` of its solution are the weights of the scenarios that count.

    **Raises** `TypeError` when `problem_of` returns no problem, `ValueError` for weights that are
    negative or do not sum to 1, a level out of range, data without a common leading axis, and
    strategy sets that depend on `theta`.

    !!! example

        A tax on a firm whose demand is 3 or 4; half way between the two best ones:

        >>> import incentax as ix, jax.numpy as jnp
        >>> def problem_of(demand):
        ...     game = ix.Game(lambda tax, x: x + tax - demand, ix.NonNegative((1,)))
        ...     return ix.DesignProblem(game, lambda tax, x: ((x - 1) ** 2).sum(), ix.Box(0.0, 9.0))
        >>> problem = ix.ScenarioProblem(problem_of, jnp.array([3.0, 4.0]), risk="worst")
        >>> solution = ix.design(problem, jnp.zeros(1))
        >>> print(solution.theta.round(4), solution.multipliers["scenarios"].round(4))
        [2.5] [0.5 0.5]
    """

    costs: _Costs
    weights: Float[Array, " scenarios"]
    level: Float[Array, ""]
    risk: Risk = eqx.field(static=True)

    def __init__(
        self,
        problem_of: Callable[[PyTree], DesignProblem],
        data: PyTree,
        *,
        weights: ArrayLike | None = None,
        risk: str | float = "expected",
    ):
        if not callable(problem_of):
            raise TypeError(f"`ScenarioProblem(problem_of)` needs a function, got {problem_of!r}")
        data, _ = require_rows("ScenarioProblem", "data", data, "scenario")
        kind: Any = risk if isinstance(risk, str) else "cvar"
        between = isinstance(risk, float) and 0 < risk < 1
        if kind not in ("expected", "worst") and not between:
            raise ValueError(
                "`ScenarioProblem(risk=...)` needs 'expected', 'worst' or a level between 0 and 1, "
                f"got {risk!r}"
            )
        first = problem_of(jax.tree.map(lambda leaf: leaf[0], data))
        if not isinstance(first, DesignProblem):
            raise TypeError(f"`ScenarioProblem(problem_of)` needs a `DesignProblem`, got {first!r}")
        if first.selection is not None:
            raise ValueError(
                "`ScenarioProblem(problem_of)` needs problems without a selection, got "
                f"{first.selection!r}"
            )
        held = as_pytree_function(problem_of)
        game = ScenarioGame(_GameOf(held), data)
        count = game.count
        given = jnp.full(count, 1 / count) if weights is None else as_float(weights)
        if given.shape != (count,):
            raise ValueError(
                f"`ScenarioProblem(weights=...)` needs one a scenario, shape ({count},), got "
                f"{given.shape}"
            )
        rule = "`ScenarioProblem(weights=...)` needs numbers >= 0 that sum to 1"
        right = (given >= 0) & (jnp.abs(jnp.sum(given) - 1) <= 1e-6)
        given = require(given, right, rule, {"weights": given, "sum": jnp.sum(given)})
        _check_sets(held, data, first)
        self.costs, self.weights, self.risk = _Costs(held, game), given, kind
        self.level = jnp.asarray(float(risk) if between else 0.0, given.dtype)
        constraints = []
        for number, one in enumerate(first.constraints):
            c = _InEvery(held, game, number)
            low, high = c.bounds()
            limits = {"lower": low} if one.has_lower else {}
            limits |= {"upper": high} if one.has_upper else {}
            constraints.append(Constraint(c, name=one.name, **limits))
        if any(one.name == SCENARIOS for one in constraints):
            raise ValueError(
                "`ScenarioProblem(problem_of)` needs constraints of other names than "
                f"{SCENARIOS!r}, under which stand the weights of the scenarios"
            )
        risk_of_costs = _Risk(self.costs, given, self.level, kind)
        super().__init__(game, risk_of_costs, first.incentive_set, constraints=constraints)

    @property
    def has_kinks(self) -> bool:
        """Whether the risk has a kink wherever costs of scenarios meet."""
        return self.risk != "expected"

    def in_scenarios(self, x: Array) -> Array:
        """Strategies, along a leading axis."""
        return self.costs.game.lanes.split(x)


def _check_sets(
    problem_of: Callable[[PyTree], DesignProblem], data: PyTree, first: DesignProblem
) -> None:
    """Refuses an incentive set that is not the same in every scenario, where values are known."""
    theta = first.incentive_set.centre()
    arrays = jax.tree.leaves(jax.vmap(lambda datum: _numbers(problem_of(datum), theta))(data))
    if is_traced(arrays):
        return
    if any(bool(jnp.any(leaf != leaf[:1])) for leaf in arrays):
        raise ValueError(
            "`ScenarioProblem(problem_of)` needs one incentive set for all scenarios, got sets "
            "with other numbers: keep `theta` where every scenario allows it"
        )


def _numbers(problem: DesignProblem, theta: PyTree) -> list[Array]:
    at = problem.incentive_set.constraints(theta)
    rows = at.equality.dense(at.lower.dtype)
    return [at.lower, at.upper, rows, at.equality_level, at.inequality, at.inequality_level]
