"""A design within constraints: by an exact penalty, whose weight grows until all are kept."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, PyTree

from ..._checks import is_inside
from ..._compile import compiled
from ..._results import ENDINGS, RESULTS
from ...equilibrium import known_entropic, natural_residual, solve_equilibrium
from ...sets import bounds_alone, DenseJacobian, LinearConstraints, solve_kkt
from .._constraint import named
from .._looks import is_enough
from .._problem import DesignProblem
from .._solution import DesignSolution
from .._task import spread_starts, Task
from ..accurate import (
    design_accurately,
    design_near,
    history_of,
    incentives_of,
    is_far,
    is_judgeable,
    LowerLevel,
    unit_of,
)
from ._multipliers import prices_by_gradients, shadow_prices
from ._penalty import penalised, sides_of, with_violations
from ._sequential import descend, Descent, Evaluate, NONE
from ._units import closeness, gradients_of, scales_at, units_from, WEIGHT

# How what a violation costs grows, and how often.
_GROWTH, _TIMES = 30.0, 5


def design_constrained(task: Task) -> DesignSolution:
    """`design` of a problem with constraints, without a scheme."""
    if is_inside(task.problem, task.theta, task.x, task.key):
        return _in_one_program(task)
    task = task._replace(x=_with_values(task.problem, task.theta, task.x))
    return by_walks(task) if is_walkable(task) else _by_steps(task)


def is_walkable(task: Task) -> bool:
    """Whether the accurate designer's steps on pieces, and its proofs, are affordable."""
    return is_judgeable(task.problem, task.theta, task.x, known_entropic(task.problem.game))


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


def by_walks(task: Task, *, near: bool = False) -> DesignSolution:
    """By the accurate designer of the penalised problem, kinks and proofs included; from a start
    `near` an optimum by steps on pieces alone."""
    problem, theta, x = task.problem, task.theta, task.x
    sides, size = sides_of(problem, theta, x), 1 + float(jnp.max(jnp.abs(x)))
    starts, cost, found, kept = task.starts, 0.0, None, False
    scales = scales_at(problem, theta, x)
    for time in range(_TIMES):
        # Where a start is flat, or at a steep place, the units there are not those of the end.
        cost = max(WEIGHT * _GROWTH**time * float(scales.change), cost)
        unit, weight = scales.units / size, jnp.asarray(cost / size, x.dtype)
        whole = penalised(problem, sides, x.shape, unit, weight)
        beside = with_violations(problem, sides, unit, theta, x)
        found = design_near(whole, theta, beside, task.steps) if near else None
        if found is None:
            again = Task(whole, theta, beside, task.steps, starts, task.key)
            found = design_accurately(again)
        theta, x = found.theta, found.x[: x.size].reshape(x.shape)
        scales = scales_at(problem, theta, x)
        kept = bool(scales.violated <= 1)
        if kept or is_enough():
            break
        starts = min(starts, 4)
    assert found is not None
    level = LowerLevel(problem, theta, x)
    incentives, _ = incentives_of(level)
    flat, at = np.asarray(ravel_pytree(theta)[0]), np.asarray(x).ravel()
    prices = shadow_prices(level, flat, at, incentives, scales, of_violation=not kept)
    if prices is None:
        result = eqx.tree_at(lambda s: s.result, found, RESULTS.not_stationary)
        return _concluded(task, (theta, x), result, kept, np.full(len(scales.units), np.nan))
    ending = prices.at_rest if found.ending == ENDINGS.kink else found.ending
    found = eqx.tree_at(
        lambda s: (s.ending, s.stationarity),
        found,
        (ending, jnp.asarray(prices.stationarity, x.dtype)),
    )
    return _concluded(task, (theta, x), found, kept, prices.mu)


def evaluation_of(task: Task) -> Evaluate:
    """What sequential quadratic steps ask for, of a task's problem."""
    sides = sides_of(task.problem, task.theta, task.x)
    return Evaluate(task.problem, sides, task.theta, known_entropic(task.problem.game))


def _by_steps(task: Task) -> DesignSolution:
    """By sequential quadratic steps in the incentive."""
    incentives, width = incentives_of(LowerLevel(task.problem, task.theta, task.x))
    best = best_of_starts(evaluation_of(task), incentives, width, task)
    return after_steps(task, best, incentives, width)


def best_of_starts(
    evaluate: Evaluate,
    incentives: LinearConstraints,
    width: np.ndarray,
    task: Task,
    none: float = NONE,
) -> Descent:
    """The best of steps from every start, each until its decrease counts as `none`."""
    found = []
    for start in _flat_starts(task):
        descent = started(evaluate, start, task.x, width)
        descent.none = none
        found.append(until_kept(evaluate, descent, incentives, width, task.steps))
    return min(found, key=lambda d: (not d.at.solved, max(_violated(d, width), 1), d.penalty(d.at)))


def _violated(descent: Descent, width: np.ndarray) -> float:
    """The largest violation, in parts of what is close."""
    at = descent.at
    close = np.maximum(np.asarray(closeness(at, width, at.x.dtype), float), 1e-300)
    return float(np.max(at.limits.violation / close, initial=0.0))


def until_kept(
    evaluate: Evaluate,
    descent: Descent,
    incentives: LinearConstraints,
    width: np.ndarray,
    most: int,
) -> Descent:
    """Steps to the end, with a weight that grows until the constraints are kept."""
    for _ in range(_TIMES):
        descent = descend(evaluate, descent, incentives, most)
        if _violated(descent, width) <= 1 or len(descent.rows) >= most:
            break
        descent.weight, descent.ended = descent.weight * _GROWTH, False
    return descent


def started(evaluate: Evaluate, theta: np.ndarray, x: Array, width: np.ndarray) -> Descent:
    """A descent before its first step, with a curvature by which a step is a tenth of a unit."""
    at = evaluate(theta, x)
    units = np.asarray(units_from(at, width), float)
    sides = evaluate.sides
    unit = units[1:][[*sides.upper, *sides.lower]]
    scale = max(float(units[0]), 1e-3 * float(at.parts[0]))
    size = max(float(np.linalg.norm(at.gradient)), scale / float(width.max()))
    hessian = np.eye(len(theta)) * size / (0.1 * float(width.min()))
    descent = Descent(at, hessian, np.zeros(len(unit)), unit, scale)
    descent.ended = not at.solved
    return descent


def _flat_starts(task: Task) -> list[np.ndarray]:
    if task.starts == 1:
        return [np.asarray(ravel_pytree(task.theta)[0])]
    spread = spread_starts(task.problem, task.theta, task.starts + 1, task.key)
    flat = np.asarray(jax.vmap(lambda start: ravel_pytree(start)[0])(spread))
    return [flat[0], *flat[2:]]


def after_steps(
    task: Task, descent: Descent, incentives: LinearConstraints, width: np.ndarray
) -> DesignSolution:
    """The solution at the end of sequential quadratic steps."""
    problem, at, dtype = task.problem, descent.at, task.x.dtype
    theta = ravel_pytree(task.theta)[1](jnp.asarray(at.theta, dtype))
    kept = _violated(descent, width) <= 1
    # Beside strategies that have grown with the incentive its own size is that of today.
    level = LowerLevel(problem, theta, task.x)
    _, size = incentives_of(level)
    prices = prices_by_gradients(level, at, incentives, size, of_violation=not kept)
    rows = np.reshape(np.asarray(descent.rows, float), (-1, 3)).astype(dtype)
    # At a kink of the agents a gradient proves nothing.
    at_rest = ENDINGS.undecided if prices.kinks else prices.at_rest
    result = RESULTS.successful if prices.zero else RESULTS.not_stationary
    ending = at_rest if prices.zero else ENDINGS.not_stationary
    slope = float(np.linalg.norm(descent.lagrangian))
    if is_far(problem, task.theta, jnp.asarray(at.theta, dtype), at.objective, slope):
        ending, result = ENDINGS.not_stationary, RESULTS.unbounded
    found = DesignSolution(
        theta=theta,
        x=at.x,
        objective=jnp.asarray(at.objective, dtype),
        residual=jnp.asarray(jnp.nan, dtype),
        steps=jnp.int32(len(rows)),
        history=history_of(rows),
        stationarity=jnp.asarray(prices.stationarity, dtype),
        ending=ending,
        result=result if at.solved else RESULTS.nonfinite_start,
    )
    return _concluded(task, (theta, at.x), found, kept, prices.mu)


def _in_one_program(task: Task) -> DesignSolution:
    """In a program of the user's: searches alone, with one large weight."""
    problem, x = task.problem, task.x
    sides, size = sides_of(problem, task.theta, x), 1 + jnp.max(jnp.abs(x))
    scales = scales_at(problem, task.theta, x)
    unit, weight = scales.units / size, WEIGHT * _GROWTH * scales.change / size
    whole = penalised(problem, sides, x.shape, unit, weight)
    beside = with_violations(problem, sides, unit, task.theta, x)
    found = design_accurately(Task(whole, task.theta, beside, task.steps, task.starts, task.key))
    theta, x = found.theta, found.x[: x.size].reshape(x.shape)
    kept = scales_at(problem, theta, x).violated <= 100
    mu = _prices_in_program(problem, theta, x)
    return _concluded(task, (theta, x), found, kept, jnp.where(kept, mu, jnp.nan))


@compiled
def _prices_in_program(problem: DesignProblem, theta: PyTree, x: Array) -> Array:
    """Least squares of the right signs over what binds, the incentive set's own rows among them."""
    flat, set_ = ravel_pytree(theta)[0], problem.incentive_set.constraints(theta)
    width = unit_of(set_, flat)
    found = gradients_of(problem, theta, x)
    at, close = found.limits, 100 * closeness(found, width, x.dtype)
    upper, lower = at.value >= at.upper - close, at.value <= at.lower + close
    slopes, near, own = found.rows * width[None], 1e-6 * width, jnp.eye(flat.size, dtype=x.dtype)
    room, equal = set_.inequality_level - set_.inequality @ flat, set_.equality.dense(x.dtype)
    rows = jnp.concatenate(
        [slopes, -slopes, own, -own, set_.inequality * width[None], equal * width[None]]
    )
    size = jnp.maximum(jnp.linalg.norm(rows, axis=1), jnp.finfo(x.dtype).tiny)
    rows = rows / size[:, None]
    binds = [upper, lower, set_.upper - flat <= near, flat - set_.lower <= near]
    always = jnp.ones(len(equal), bool)
    binds = jnp.concatenate([*binds, room <= 1e-6 * jnp.abs(set_.inequality) @ width, always])
    free = jnp.concatenate([jnp.zeros(len(rows) - len(equal), bool), always])
    gradient = found.gradient * width
    scale = jnp.maximum(jnp.linalg.norm(gradient), jnp.finfo(x.dtype).tiny)
    matrix, slope = rows @ rows.T, rows @ gradient / scale
    high = jnp.where(binds, jnp.inf, 0)
    signs = bounds_alone(jnp.where(free, -jnp.inf, 0), high)
    w, _, _ = solve_kkt(
        lambda w: (slope + matrix @ w, DenseJacobian(matrix)),
        lambda w: slope + matrix @ w,
        signs,
        jnp.zeros_like(slope),
        tol=1e-9,
        max_steps=60,
    )
    weights, count = w.x * scale / size, len(slopes)
    return weights[:count] - weights[count : 2 * count]


@compiled
def _in_own_terms(
    problem: DesignProblem, theta: PyTree, x: Array, mu: Array
) -> tuple[Array, Array, Array, dict[str, Array]]:
    """Objective, error of the equilibrium, largest violation, and multipliers by name."""
    prices = named(problem.constraints, problem.constraint_shapes(theta, x), mu)
    residual = natural_residual(problem.game, theta, x)
    return problem.objective(theta, x), residual, problem.violation(theta, x), prices


def _concluded(
    task: Task,
    at: tuple[PyTree, Array],
    found: DesignSolution,
    kept: Bool[Array, ""] | bool,
    mu: Any,
) -> DesignSolution:
    """The solution in the problem's own terms."""
    problem, (theta, x) = task.problem, at
    objective, residual, violation, prices = _in_own_terms(
        problem, theta, x, jnp.asarray(mu, x.dtype)
    )
    kept = jnp.asarray(kept)
    met = RESULTS.where(found.result == RESULTS.not_stationary, found.result, RESULTS.infeasible)
    return eqx.tree_at(
        lambda s: (s.theta, s.x, s.objective, s.residual, s.ending, s.result),
        eqx.tree_at(
            lambda s: (s.multipliers, s.violation),
            found,
            (prices, violation),
            is_leaf=lambda leaf: leaf is None or isinstance(leaf, dict),
        ),
        (
            theta,
            x,
            objective,
            residual,
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
