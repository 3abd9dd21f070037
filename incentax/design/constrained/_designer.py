"""A design within constraints: by an exact penalty, whose weight grows until all are kept."""

from collections.abc import Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..._checks import is_inside
from ..._compile import compiled
from ..._results import ENDINGS, RESULTS
from ...equilibrium import known_entropic, natural_residual, solve_equilibrium
from ...sensitivity import Implicit
from ...sets import LinearConstraints
from .._constraint import limits_of, named
from .._problem import DesignProblem
from .._solution import DesignSolution
from .._task import spread_starts, Task
from ..accurate import (
    design_accurately,
    design_near,
    history_of,
    incentives_of,
    is_judgeable,
    LowerLevel,
    unit_of,
)
from ._multipliers import prices_by_gradients, shadow_prices
from ._penalty import penalised, Sides, sides_of, with_violations
from ._sequential import descend, Descent, Evaluate
from ._units import kept_to, units_of, WEIGHT

# How what a violation costs grows, and how often.
_GROWTH, _TIMES = 30.0, 4
# Of a point between others: the relative decrease that counts as none.
_NEARLY = 1e-9


def design_constrained(task: Task) -> DesignSolution:
    """`design` of a problem with constraints, without a scheme."""
    problem, theta, x = task.problem, task.theta, task.x
    sides = sides_of(problem, theta, x)
    if not is_inside(problem, theta, x, task.key):
        task = task._replace(x=_with_values(problem, theta, x))
        x = task.x
    units, change = units_of(problem, theta, x, task.key)
    if is_inside(problem, theta, x, task.key):
        return _in_one_program(task, sides, units, change)
    if is_judgeable(problem, theta, x, known_entropic(problem.game)):
        return _by_walks(task, sides, np.asarray(units, float), float(change))
    return _by_steps(task, sides, np.asarray(units, float))


def _with_values(problem: DesignProblem, theta: PyTree, x: Array) -> Array:
    """A start at which all constraints have a value: `x`, or the equilibrium."""
    if not jnp.any(jnp.isnan(problem.limits(theta, x).value)):
        return x
    x = solve_equilibrium(problem.game, theta, x, throw=False).x
    bad = jnp.isnan(problem.limits(theta, x).value)
    if not jnp.any(bad):
        return x
    shapes = problem.constraint_shapes(theta, x)
    names = [k for k, part in named(problem.constraints, shapes, bad).items() if jnp.any(part)]
    raise ValueError(
        f"`design(problem)` needs constraints that are finite at `theta0` and its equilibrium, got "
        f"NaN of {names[0]!r}"
    )


def design_along(task: Task, problems: Iterable[DesignProblem]) -> Iterator[DesignSolution]:
    """Designs of problems that differ in their numbers alone, each from the end of the last one."""
    problem, theta, x = task.problem, task.theta, task.x
    if is_judgeable(problem, theta, x, known_entropic(problem.game)):
        for one in problems:
            sides = sides_of(one, task.theta, task.x)
            units, change = units_of(one, task.theta, task.x, task.key)
            found = _by_walks(
                task._replace(problem=one),
                sides,
                np.asarray(units, float),
                float(change),
                near=True,
            )
            yield found
            task = task._replace(theta=found.theta, x=found.x)
        return
    incentives, width = incentives_of(LowerLevel(problem, theta, x))
    descent = None
    for one in problems:
        task, sides = task._replace(problem=one), sides_of(one, theta, x)
        evaluate = Evaluate(one, sides, theta, known_entropic(one.game))
        if descent is None:
            units, _ = units_of(one, theta, x, task.key)
            per_side = np.asarray(units, float)[[*sides.upper, *sides.lower]]
            descent = started(evaluate, np.asarray(ravel_pytree(theta)[0]), x, per_side, width)
        else:
            at = evaluate(descent.at.theta, descent.at.x)
            kept = descent.hessian, descent.mu, descent.unit, descent.weight
            descent = Descent(at, *kept, _NEARLY)
        descent = _until_kept(evaluate, descent, incentives, task)
        yield _after_steps(task, descent, incentives, width)


def _by_walks(
    task: Task, sides: Sides, units: np.ndarray, change: float, *, near: bool = False
) -> DesignSolution:
    """By the accurate designer of the penalised problem, kinks and proofs included; from a start
    `near` an optimum by steps on pieces alone."""
    problem, theta, x = task.problem, task.theta, task.x
    size = 1 + float(jnp.max(jnp.abs(x)))
    unit, starts = jnp.asarray(units / size, x.dtype), task.starts
    found, kept = None, False
    for time in range(_TIMES):
        weight = jnp.asarray(WEIGHT * _GROWTH**time * change / size, x.dtype)
        whole = penalised(problem, sides, x.shape, unit, weight)
        beside = with_violations(problem, sides, unit, theta, x)
        found = design_near(whole, theta, beside, task.steps) if near else None
        if found is None:
            again = Task(whole, theta, beside, task.steps, starts, task.key)
            found = design_accurately(again)
        theta, x = found.theta, found.x[: x.size].reshape(x.shape)
        kept = bool(jnp.max(problem.limits(theta, x).violation / units) <= kept_to(x.dtype))
        if kept:
            break
        starts = min(starts, 4)
    assert found is not None
    level = LowerLevel(problem, theta, x)
    incentives, _ = incentives_of(level)
    flat, at = np.asarray(ravel_pytree(theta)[0]), np.asarray(x).ravel()
    prices = shadow_prices(level, flat, at, incentives, units, of_violation=not kept)
    if prices is None:
        return _concluded(task, (theta, x), found, kept, np.full(len(units), np.nan))
    ending = prices.at_rest if found.ending == ENDINGS.kink else found.ending
    found = eqx.tree_at(
        lambda s: (s.ending, s.stationarity),
        found,
        (ending, jnp.asarray(prices.stationarity, x.dtype)),
    )
    return _concluded(task, (theta, x), found, kept, prices.mu)


def _by_steps(task: Task, sides: Sides, units: np.ndarray) -> DesignSolution:
    """By sequential quadratic steps in the incentive."""
    problem, theta, x = task.problem, task.theta, task.x
    incentives, width = incentives_of(LowerLevel(problem, theta, x))
    evaluate = Evaluate(problem, sides, theta, known_entropic(problem.game))
    per_side, least = units[[*sides.upper, *sides.lower]], kept_to(x.dtype)
    found = []
    for start in _flat_starts(task):
        descent = started(evaluate, start, x, per_side, width)
        found.append(_until_kept(evaluate, descent, incentives, task))
    best = min(found, key=lambda d: (max(d.violation(d.at), least), float(d.at.objective)))
    return _after_steps(task, best, incentives, width)


def _until_kept(
    evaluate: Evaluate, descent: Descent, incentives: LinearConstraints, task: Task
) -> Descent:
    """Steps to the end, with a weight that grows until the constraints are kept."""
    for _ in range(_TIMES):
        descent = descend(evaluate, descent, incentives, task.steps)
        kept = descent.violation(descent.at) <= kept_to(task.x.dtype)
        if kept or len(descent.rows) >= task.steps:
            break
        descent.weight, descent.ended = descent.weight * _GROWTH, False
    return descent


def started(
    evaluate: Evaluate, theta: np.ndarray, x: Array, per_side: np.ndarray, width: np.ndarray
) -> Descent:
    """A descent before its first step, with a curvature by which a step is a tenth of a unit.

    A constraint counts by what it changes at an equilibrium over the width of the incentives,
    where it does.
    """
    at = evaluate(theta, x)
    unit = np.abs(at.slopes) @ width
    unit = np.where(unit > 1e-6 * per_side, unit, per_side)
    size = np.linalg.norm(at.gradient) + 1e-300
    hessian = np.eye(len(theta)) * size / (0.1 * float(width.min(initial=np.inf)))
    weight = max(float(np.abs(at.gradient) @ width), 1e-6 * abs(float(at.objective)), 1e-300)
    return Descent(at, hessian, np.zeros(len(unit)), unit, weight)


def _flat_starts(task: Task) -> list[np.ndarray]:
    spread = spread_starts(task.problem, task.theta, max(task.starts + 1, 2), task.key)
    flat = np.asarray(jax.vmap(lambda start: ravel_pytree(start)[0])(spread))
    return [flat[0], *flat[2:]]


def _after_steps(
    task: Task, descent: Descent, incentives: LinearConstraints, width: np.ndarray
) -> DesignSolution:
    """The solution at the end of sequential quadratic steps."""
    problem, at, dtype = task.problem, descent.at, task.x.dtype
    level = LowerLevel(problem, task.theta, task.x)
    kept = descent.violation(at) <= kept_to(dtype)
    prices = prices_by_gradients(level, at, incentives, width, of_violation=not kept)
    theta = level.unravel(jnp.asarray(at.theta, dtype))
    rows = np.reshape(np.asarray(descent.rows, float), (-1, 3)).astype(dtype)
    found = DesignSolution(
        theta=theta,
        x=at.x,
        objective=jnp.asarray(at.objective, dtype),
        residual=_residual(problem, theta, at.x),
        steps=jnp.int32(len(rows)),
        history=history_of(rows),
        stationarity=jnp.asarray(prices.stationarity, dtype),
        ending=prices.at_rest if prices.zero else ENDINGS.not_stationary,
        result=RESULTS.successful if prices.zero else RESULTS.not_stationary,
    )
    return _concluded(task, (theta, at.x), found, kept, prices.mu)


def _in_one_program(task: Task, sides: Sides, units: Array, change: Array) -> DesignSolution:
    """In a program of the user's: searches alone, with one large weight."""
    problem, x = task.problem, task.x
    size = 1 + jnp.max(jnp.abs(x))
    weight = WEIGHT * _GROWTH * change / size
    whole = penalised(problem, sides, x.shape, units / size, weight)
    beside = with_violations(problem, sides, units / size, task.theta, x)
    found = design_accurately(Task(whole, task.theta, beside, task.steps, task.starts, task.key))
    theta, x = found.theta, found.x[: x.size].reshape(x.shape)
    kept = jnp.max(problem.limits(theta, x).violation / units) <= 1e-5
    mu = _prices_in_program(problem, theta, x, units)
    return _concluded(task, (theta, x), found, kept, mu)


@compiled
def _prices_in_program(problem: DesignProblem, theta: PyTree, x: Array, units: Array) -> Array:
    """Least squares over the constraints that bind and the incentives off their bounds."""

    def values(theta: PyTree, x: Array) -> Array:
        at = limits_of(problem.constraints, theta, x)
        return jnp.concatenate([problem.objective(theta, x)[None], at.value])

    value, pull = jax.vjp(values, theta, x)

    def gradient(row: Array) -> Array:
        direct, through = pull(row)
        pulled = Implicit().pullback(problem.game, theta, x, through)
        return ravel_pytree(jax.tree.map(jnp.add, direct, pulled.theta))[0]

    slopes = jax.lax.map(gradient, jnp.eye(value.size, dtype=value.dtype))
    at, flat = limits_of(problem.constraints, theta, x), ravel_pytree(theta)[0]
    near = 1e-4 * units
    binds = (at.value >= at.upper - near) | (at.value <= at.lower + near)
    incentives = problem.incentive_set.constraints(theta)
    close = 1e-6 * unit_of(incentives, flat)
    free = (flat - incentives.lower > close) & (incentives.upper - flat > close)
    columns = jnp.where(binds[:, None] & free[None, :], slopes[1:], 0).T
    found = jnp.linalg.lstsq(columns, -jnp.where(free, slopes[0], 0))[0]
    return jnp.where(binds, found, 0)


@compiled
def _residual(problem: DesignProblem, theta: PyTree, x: Array) -> Float[Array, ""]:
    return natural_residual(problem.game, theta, x)


@compiled
def _objective(problem: DesignProblem, theta: PyTree, x: Array) -> Float[Array, ""]:
    return problem.objective(theta, x)


def _concluded(
    task: Task,
    at: tuple[PyTree, Array],
    found: DesignSolution,
    kept: Bool[Array, ""] | bool,
    mu: Any,
) -> DesignSolution:
    """The solution in the problem's own terms."""
    problem, (theta, x) = task.problem, at
    shapes = problem.constraint_shapes(theta, x)
    kept = jnp.asarray(kept)
    met = RESULTS.where(found.result == RESULTS.not_stationary, found.result, RESULTS.infeasible)
    return eqx.tree_at(
        lambda s: (s.theta, s.x, s.objective, s.residual, s.ending, s.result),
        eqx.tree_at(
            lambda s: (s.multipliers, s.violation),
            found,
            (
                named(problem.constraints, shapes, jnp.asarray(mu, x.dtype)),
                problem.violation(theta, x),
            ),
            is_leaf=lambda leaf: leaf is None or isinstance(leaf, dict),
        ),
        (
            theta,
            x,
            _objective(problem, theta, x),
            _residual(problem, theta, x),
            ENDINGS.where(kept, found.ending, ENDINGS.infeasible),
            RESULTS.where(kept, found.result, met),
        ),
    )


def contradicting(solution: DesignSolution) -> str:
    """In words: the constraints of an infeasible design that pull against one another."""
    if not bool(jnp.all(solution.ending == ENDINGS.infeasible)):
        return ""
    names = [name for name, mu in solution.multipliers.items() if bool(jnp.any(mu != 0))]
    if len(names) == 1:
        return f"Within the incentive set {names[0]!r} alone cannot be met."
    return "Against one another stand " + " and ".join(map(repr, names)) + "."
