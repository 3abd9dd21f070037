"""Designs along the levels of a second objective, each from the ends of those before it."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._results import RESULTS
from ...equilibrium import known_entropic
from .._constraint import Constraint
from .._problem import DesignProblem
from .._solution import DesignSolution
from .._task import Task
from ..accurate import design_accurately, incentives_of, LowerLevel, nearest, smoothing_of
from ._designer import (
    after_steps,
    best_of_starts,
    by_walks,
    design_constrained,
    evaluation_of,
    is_walkable,
    started,
    until_kept,
)
from ._penalty import sides_of
from ._sequential import Descent, NONE

SECOND = "second objective"
# The relative decrease that counts as none at an end, and between.
_AT_ENDS, _BETWEEN = 1e-10, 1e-9


def along_levels(task: Task, second: Callable[[PyTree, Array], Array]) -> "_ByWalks | _BySteps":
    """Designs of a problem with `second <= level`, by the designer that its size asks for."""
    return _ByWalks(task, second) if is_walkable(task) else _BySteps(task, second)


class _ByWalks:
    """By the accurate designer, kinks and proofs included."""

    def __init__(self, task: Task, second: Callable[[PyTree, Array], Array]):
        self.task, self.near, self.second = task, task, second

    def end(self) -> DesignSolution:
        """The least of the problem's own objective."""
        found = _solved(self.task)
        self.near = self.task._replace(theta=found.theta, x=found.x)
        return found

    def other_end(self) -> DesignSolution:
        """The least of the second one."""
        return _solved(self.near._replace(problem=_of_second(self.task.problem, self.second)))

    def at(self, level: float) -> DesignSolution:
        """The least of the problem's own objective on this level."""
        problem = _with_level(self.task, self.second, level)
        found = by_walks(self.near._replace(problem=problem), near=True)
        self.near = self.task._replace(theta=found.theta, x=found.x)
        return found


class _BySteps:
    """By sequential quadratic steps: one program, and one memory of the curvature, for them all."""

    def __init__(self, task: Task, second: Callable[[PyTree, Array], Array]):
        self.task, self.second = task, second
        self.free = task._replace(problem=_with_level(task, second, np.inf))
        self.level = LowerLevel(task.problem, task.theta, task.x)
        self.incentives, self.width = incentives_of(self.level)
        self.evaluate = evaluation_of(self.free)
        self.sides = sides_of(_with_level(task, second, 0.0), task.theta, task.x)
        self.descent: Descent | None = None
        self.reached: list[tuple[float, np.ndarray]] = []

    def end(self) -> DesignSolution:
        """The least of the problem's own objective."""
        descent = self._best(self.task.problem, self.task)
        found, self.descent = self._arrived(self.free, descent)
        at = self.descent.at
        self.reached = [(float(at.limits.value[-1]), at.theta)]
        return found

    def other_end(self) -> DesignSolution:
        """The least of the second one."""
        assert self.descent is not None
        self.evaluate.aim = -1
        at = self.descent.at
        near = self.task._replace(theta=self.evaluate.incentive(at.theta), x=at.x, starts=1)
        descent = self._best(_of_second(self.task.problem, self.second), near)
        found, _ = self._arrived(self.free, descent)
        self.evaluate.aim = 0
        return found

    def at(self, level: float) -> DesignSolution:
        """The least of the problem's own objective on this level."""
        assert self.descent is not None
        before = self.descent
        task = self.task._replace(problem=_with_level(self.task, self.second, level))
        self.evaluate.problem, self.evaluate.sides = task.problem, self.sides
        theta = nearest(self.level, _extrapolated(self.reached[-3:], level))
        descent = started(self.evaluate, theta, before.at.x, self.width)
        if not descent.at.solved:
            descent = started(self.evaluate, before.at.theta, before.at.x, self.width)
        descent.none, descent.turns = _BETWEEN, before.turns
        descent.weight = max(descent.weight, before.weight)
        known = len(before.mu) == len(descent.mu)
        descent.mu = before.mu if known else descent.mu
        descent.hessian = self.evaluate.remembered(descent, descent.mu)
        descent = until_kept(self.evaluate, descent, self.incentives, self.width, self.task.steps)
        found, self.descent = self._arrived(task, descent)
        self.reached.append((level, self.descent.at.theta))
        return found

    def _arrived(self, task: Task, descent: Descent) -> tuple[DesignSolution, Descent]:
        """With more steps where those so far do not show that the point is stationary."""
        found = after_steps(task, descent, self.incentives, self.width)
        if found.result == RESULTS.not_stationary:
            descent.none, descent.ended = NONE, False
            how = self.evaluate, descent, self.incentives, self.width, self.task.steps
            descent = until_kept(*how)
            found = after_steps(task, descent, self.incentives, self.width)
        return found, descent

    def _best(self, problem: DesignProblem, task: Task) -> Descent:
        """Of the evaluation's aim, which is the objective of this problem."""
        entropic = known_entropic(problem.game)
        if problem.constraints or not smoothing_of(problem, task.theta, task.x, entropic):
            best = self._stepped(task)
            if best.at.solved:  # at the start the other function may have no derivative
                return best
        found = _solved(task._replace(problem=problem))
        return self._stepped(task._replace(theta=found.theta, x=found.x, starts=1))

    def _stepped(self, task: Task) -> Descent:
        task = task._replace(problem=self.free.problem)
        return best_of_starts(self.evaluate, self.incentives, self.width, task, _AT_ENDS)


def _with_level(
    task: Task, second: Callable[[PyTree, Array], Array], level: float
) -> DesignProblem:
    problem = task.problem
    bound = Constraint(second, upper=jnp.asarray(level, task.x.dtype), name=SECOND)
    constraints = [*problem.constraints, bound]
    own = problem.game, problem.objective, problem.incentive_set
    return DesignProblem(*own, constraints=constraints)


def _of_second(problem: DesignProblem, second: Callable[[PyTree, Array], Array]) -> DesignProblem:
    return DesignProblem(
        problem.game, second, problem.incentive_set, constraints=problem.constraints
    )


def _solved(task: Task) -> DesignSolution:
    return (design_constrained if task.problem.constraints else design_accurately)(task)


def _extrapolated(reached: list[tuple[float, np.ndarray]], level: float) -> np.ndarray:
    """Where the design of this level is, if it is a polynomial of the level through the others."""
    levels = np.asarray([one for one, _ in reached])
    apart = np.abs(levels[:, None] - levels[None, :])
    np.fill_diagonal(apart, np.inf)
    if np.any(apart <= 1e-9 * np.ptp([*levels, level])):
        return reached[-1][1]
    weights = [
        np.prod([(level - other) / (own - other) for other in levels if other != own])
        for own in levels
    ]
    return np.asarray(weights) @ np.stack([theta for _, theta in reached])
