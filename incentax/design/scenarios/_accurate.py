"""Worst cases and conditional values at risk without kinks of their own: a level above the costs.

    min  t + sum of weights z / (1 - a)   subject to   f_s - t - z_s <= 0 ,  z >= 0

over the incentive, the level `t` and what each scenario is beyond it; for the worst case `z = 0`.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from ..._results import ENDINGS
from ...games import ThroughGame
from ...sets import AbstractSet, Box, Product, Reals
from .._constraint import Constraint
from .._problem import DesignProblem
from .._solution import DesignSolution
from .._task import Task
from ..constrained import design_constrained, judge_constrained
from ._problem import ScenarioProblem, SCENARIOS


class _Own(eqx.Module):
    def __call__(self, theta: dict[str, Any]) -> PyTree:
        return theta["incentive"]


class _Level(eqx.Module):
    problem: ScenarioProblem

    def __call__(self, theta: dict[str, Any], x: Array) -> Array:
        del x
        if "beyond" not in theta:
            return theta["level"]
        weights = self.problem.weights.astype(theta["level"].dtype)
        least = 1 - self.problem.level.astype(weights.dtype)
        return theta["level"] + weights @ theta["beyond"] / least


class _Beyond(eqx.Module):
    """How far the costs are above the level and what is let off."""

    problem: ScenarioProblem

    def __call__(self, theta: dict[str, Any], x: Array) -> Array:
        costs = self.problem.costs(theta["incentive"], x)
        above = costs - theta["level"] - theta.get("beyond", 0.0)
        return jnp.where(self.problem.weights > 0, above, -1)  # what cannot be is never above


class _AtOwn(eqx.Module):
    """A constraint of the problem, as a function of the larger incentive."""

    constraint: Constraint

    def __call__(self, theta: dict[str, Any], x: Array) -> Array:
        return self.constraint.value(theta["incentive"], x)


def above(problem: ScenarioProblem) -> DesignProblem:
    """The problem in the incentive, the level and what is beyond it."""
    count, dtype = problem.costs.game.count, problem.weights.dtype
    sets: dict[str, AbstractSet] = {"incentive": problem.incentive_set, "level": Reals()}
    if problem.risk != "worst":
        sets["beyond"] = Box(jnp.zeros(count, dtype), jnp.inf)
    kept = [
        Constraint(
            _AtOwn(one),
            name=one.name,
            **({"lower": one.lower} if one.has_lower else {}),
            **({"upper": one.upper} if one.has_upper else {}),
        )
        for one in problem.constraints
    ]
    kept.append(Constraint(_Beyond(problem), upper=0.0, name=SCENARIOS))
    game = ThroughGame(problem.game, _Own())
    return DesignProblem(game, _Level(problem), Product(sets), constraints=kept)


def lifted(problem: ScenarioProblem, theta: PyTree, x: Array) -> dict[str, Any]:
    """The incentive with the least level for it: the quantile of the costs."""
    costs = problem.costs(theta, x)
    if problem.risk == "worst":
        costs = jnp.where(problem.weights > 0, costs, -jnp.inf)
        return {"incentive": theta, "level": jnp.max(costs)}
    order = jnp.argsort(costs)
    reached = jnp.cumsum(problem.weights[order]) >= problem.level * (1 - 1e-9)
    level = costs[order][jnp.argmax(reached)]
    return {"incentive": theta, "level": level, "beyond": jnp.maximum(costs - level, 0)}


def design_at_risk(task: Task) -> DesignSolution:
    """`design` of a problem over scenarios whose risk has kinks, without a scheme."""
    problem = task.problem
    assert isinstance(problem, ScenarioProblem)
    larger = above(problem)
    theta = lifted(problem, task.theta, task.x)
    found = design_constrained(task._replace(problem=larger, theta=theta))
    own = found.theta["incentive"]
    limits, flat = problem.incentive_set.constraints(own), ravel_pytree(own)[0]
    room = jnp.minimum(flat - limits.lower, limits.upper - flat)
    rows = limits.inequality_level - limits.inequality @ flat
    inside = jnp.all(room > 1e-6 * (1 + jnp.abs(flat))) & jnp.all(rows > 1e-6)
    # What points out of the larger set may do so at the excess of a scenario alone.
    at_rest = (found.ending == ENDINGS.at_bounds) & inside
    ending = ENDINGS.where(at_rest, ENDINGS.stationary, found.ending)
    return eqx.tree_at(lambda s: (s.theta, s.ending), found, (own, ending))


def at_kinks(problem: DesignProblem, theta: PyTree, x: Array) -> Any:
    """What is proved of an incentive whose equilibria are near `x`: see [`judge_constrained`][]."""
    assert isinstance(problem, ScenarioProblem)
    return judge_constrained(above(problem), lifted(problem, theta, x), x)
