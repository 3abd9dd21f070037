"""Designs of games with several equilibria: which of them the regulator counts on."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..._checks import is_inside
from ..._results import ENDINGS, RESULTS
from ...equilibrium import draw_around, draw_strategies, natural_play, natural_residual
from .._looks import is_enough, stepped
from .._problem import DesignProblem
from .._scheme import SchemeInfo
from .._solution import DesignSolution, History
from .._task import spread_starts, Task
from ._leaning import Branch, equilibria_from, examined, followed, played, projected

# Starts of Newton's method at every incentive, and halvings of a step that does not improve.
_STARTS, _HALVINGS = 32, 30
MOST_UNKNOWNS = 600
# Steps along the coordinates where none towards the goal improves, in sizes of theta.
_ASIDE, _AXES = (0.1, 0.01, 0.001), 20
# Where play from `x0` leads, it leads from around it: pairs of starts, and how far away.
_NUDGES, _NUDGE = 2, 1e-5
# Less than this, relative to the objective, is no improvement.
_GAIN = 1e-11


def design_selected(task: Task) -> DesignSolution:
    """`design` of a problem with a selection: descent on the selected objective.

    At every incentive equilibria are sought from the same starts, and the selected one gives the
    objective. A step minimises the objective on the branches that count there (the selected one;
    pessimistically the largest over all), followed as the incentive moves, and is halved until the
    selected objective itself falls: at a jump, where the selected equilibrium is lost, it ends as
    close as halving gets.
    """
    problem, theta, x = task.problem, task.theta, task.x
    if is_inside(problem, theta, x):
        raise ValueError(
            "`design(problem)` with a selection needs known values: how many equilibria there are "
            "decides what it does; call it outside of `jit` and `vmap`"
        )
    if x.size > MOST_UNKNOWNS:
        raise ValueError(
            f"`design(problem)` with a selection needs a game of at most {MOST_UNKNOWNS} unknowns, "
            f"got {x.size}"
        )
    key_starts, key = jax.random.split(task.key)
    starts = spread_starts(problem, theta, task.starts, key_starts)
    search = _Search(problem, theta, x, key)
    flat = [np.asarray(ravel_pytree(start)[0]) for start in rows_of(starts)]
    ends = sorted((search.selected(point) for point in flat), key=lambda end: end.objective)
    ends = [end for end in ends if math.isfinite(end.objective)][:3]
    if not ends:
        return search.failed(theta, x)
    runs = [search.descend(ends[0], task.steps)]
    runs += [search.descend(end, task.steps) for end in ends[1:] if not is_enough()]
    best = min(runs, key=lambda run: run[-1].objective)
    return search.solution(best, task.steps, key)


def rows_of(tree: PyTree) -> list[PyTree]:
    """The rows of leaves with a leading axis."""
    number = len(jax.tree.leaves(tree)[0])
    return [jax.tree.map(lambda leaf, row=row: leaf[row], tree) for row in range(number)]


class _End(NamedTuple):
    """The selected equilibrium at an incentive, and all that were found."""

    theta: np.ndarray
    objective: float
    row: int
    branch: Branch


class _Search:
    """The selected objective of one problem, and descent on it."""

    def __init__(self, problem: DesignProblem, theta: PyTree, x: Array, key: PRNGKeyArray):
        self.problem, self.x = problem, x
        self.flat, self.unravel = ravel_pytree(theta)
        drawn = draw_strategies(problem.game, theta, x, jax.random.split(key, _STARTS), 10.0)
        self.starts = jnp.concatenate([x[None], drawn])
        keys = jax.random.split(jax.random.fold_in(key, 1), _NUDGES)
        self.around = jnp.concatenate([x[None], draw_around(problem.game, theta, x, keys, _NUDGE)])
        self.play = natural_play(problem.game, theta, self.starts)
        limits = problem.incentive_set.constraints(theta)
        lower, upper = np.asarray(limits.lower, float), np.asarray(limits.upper, float)
        self.bounds = _scipy().Bounds(lower, upper)
        equality = np.asarray(limits.equality.dense(limits.lower.dtype))
        self.rows: list[Any] = []
        if len(equality):
            level = np.asarray(limits.equality_level)
            self.rows.append(_scipy().LinearConstraint(equality, level, level))
        if len(limits.inequality):
            rows, level = np.asarray(limits.inequality), np.asarray(limits.inequality_level)
            self.rows.append(_scipy().LinearConstraint(rows, -np.inf, level))

    def incentive(self, flat: np.ndarray) -> PyTree:
        point = self.unravel(jnp.asarray(flat, self.flat.dtype))
        return projected(self.problem.incentive_set, point)

    def selected(self, flat: np.ndarray, hints: Array | None = None) -> _End:
        """What the regulator gets at an incentive; `hints` are further starts."""
        theta = self.incentive(flat)
        flat = np.asarray(ravel_pytree(theta)[0], float)
        if self.problem.selection == "play":
            branch = played(self.problem, theta, self.around, self.play)
        else:
            starts = self.starts
            if hints is not None:  # of a fixed number, so that one program serves all
                starts = jnp.concatenate([starts[: len(starts) - len(hints)], hints])
            branch = equilibria_from(self.problem, theta, starts, self._sign())
        objective, fine = np.asarray(branch.objective), np.asarray(branch.fine)
        if not fine.any():
            return _End(flat, math.inf, 0, branch)
        if self.problem.selection in ("pessimistic", "play"):  # of plays that part the worst
            row = int(np.where(fine, objective, -np.inf).argmax())
        else:
            row = int(np.where(fine, objective, np.inf).argmin())
        return _End(flat, float(objective[row]), row, branch)

    def _sign(self) -> float:
        return -1.0 if self.problem.selection == "pessimistic" else 1.0

    def counted(self, end: _End) -> list[int]:
        """Rows of the equilibria that a step has to mind, the selected one first."""
        if self.problem.selection != "pessimistic":
            return [end.row]
        objective, fine = np.asarray(end.branch.objective), np.asarray(end.branch.fine)
        kept: list[int] = []
        for row in np.argsort(-objective):
            near = [k for k in kept if np.abs(end.branch.x[k] - end.branch.x[row]).max() <= 1e-6]
            if fine[row] and not near and len(kept) < 8:
                kept.append(int(row))
        return kept

    def descend(self, end: _End, steps: int) -> list[_End]:
        """Ends of the steps, each better than the last."""
        path = [end]
        for _ in range(steps):
            goal = self._step(path[-1])
            better = self._halved(path[-1], goal)
            if better is None:
                break
            path.append(better)
            stepped(better.objective, lambda end=better: self.incentive(end.theta))
            if is_enough():
                break
        return path

    def _halved(self, end: _End, goal: np.ndarray) -> _End | None:
        hints = jnp.stack([end.branch.x[row] for row in self.counted(end)])
        level = end.objective - _GAIN * (1 + abs(end.objective))
        for halving in range(_HALVINGS):
            tried = self.selected(end.theta + 0.5**halving * (goal - end.theta), hints)
            if tried.objective < level:
                return tried
        # Along a jump or a kink, which a straight step runs into.
        size = max(1.0, float(np.abs(end.theta).max()))
        for length in _ASIDE:
            for axis in np.eye(len(end.theta))[:_AXES]:
                for sign in (1.0, -1.0):
                    tried = self.selected(end.theta + sign * length * size * axis, hints)
                    if tried.objective < level - 1e-6 * (1 + abs(end.objective)):
                        return tried
        return None

    def _step(self, end: _End) -> np.ndarray:
        """The best incentive on the branches that count, followed from where they are."""
        branches = [end.branch.row(row) for row in self.counted(end)]
        optimize = _scipy()

        @_remembering
        def follow(flat: np.ndarray) -> Any:
            theta = self.incentive(flat)
            found = [followed(self.problem, theta, *branch) for branch in branches]
            values = np.asarray([float(value) for value, _ in found])
            slopes = np.stack([np.asarray(slope, float) for _, slope in found])
            # Where a branch is lost it is no place to go.
            lost = ~np.isfinite(values) | ~np.isfinite(slopes).all(axis=1)
            values = np.where(lost, 1e3 * (1 + abs(end.objective)), values)
            return values, np.where(lost[:, None], 0.0, slopes)

        options = {"maxiter": 100, "ftol": 1e-14}
        if len(branches) == 1:
            found = optimize.minimize(
                lambda flat: (follow(flat)[0][0], follow(flat)[1][0]),
                end.theta,
                jac=True,
                method="SLSQP",
                bounds=self.bounds,
                constraints=self.rows,
                options=options,
            )
            return found.x
        # The least upper bound t of all branches.
        wide = optimize.Bounds(
            np.append(self.bounds.lb, -np.inf), np.append(self.bounds.ub, np.inf)
        )
        rows = [
            optimize.LinearConstraint(
                np.column_stack([row.A, np.zeros(len(row.A))]), row.lb, row.ub
            )
            for row in self.rows
        ]
        below = {
            "type": "ineq",
            "fun": lambda both: both[-1] - follow(both[:-1])[0],
            "jac": lambda both: np.column_stack([-follow(both[:-1])[1], np.ones(len(branches))]),
        }
        unit = np.append(np.zeros(len(end.theta)), 1.0)
        found = optimize.minimize(
            lambda both: (both[-1], unit),
            np.append(end.theta, end.objective),
            jac=True,
            method="SLSQP",
            bounds=wide,
            constraints=[*rows, below],
            options=options,
        )
        return found.x[:-1]

    def solution(self, path: list[_End], steps: int, key: PRNGKeyArray) -> DesignSolution:
        """The last of a path, examined."""
        end = path[-1]
        theta, branch = self.incentive(end.theta), end.branch.row(end.row)
        found = examined(self.problem, theta, *branch, key=key)
        ending, result = found.ending, found.result
        if len(path) <= steps and (self._at_a_kink(end) or self._at_a_jump(end)):
            ending, result = ENDINGS.jump, RESULTS.successful
        return self._answer(path, theta, branch[0], found.stationarity, ending, result=result)

    def _at_a_kink(self, end: _End) -> bool:
        """Whether several equilibria attain the largest objective."""
        values = np.asarray(end.branch.objective)[self.counted(end)]
        return int((values >= end.objective - 1e-6 * (1 + abs(end.objective))).sum()) > 1

    def _at_a_jump(self, end: _End) -> bool:
        """Whether close by the objective falls on this branch, or the branch is lost, and another
        one is selected."""
        goal = self._step(end)
        margin = 1e-6 * (1 + abs(end.objective))
        for halving in range(4, _HALVINGS, 4):
            flat = end.theta + 0.5**halving * (goal - end.theta)
            value, _ = followed(self.problem, self.incentive(flat), *end.branch.row(end.row))
            falls = not float(value) >= end.objective
            if falls and self.selected(flat).objective > end.objective + margin:
                return True
        return False

    def failed(self, theta: PyTree, x: Array) -> DesignSolution:
        """Nothing was found anywhere."""
        end = self.selected(np.asarray(self.flat))
        x = end.branch.x[0]
        residual = natural_residual(self.problem.game, theta, x)
        found = bool(residual <= 1e-6 * (1 + jnp.max(jnp.abs(x))))
        result = RESULTS.nonfinite_objective if found else RESULTS.max_steps_reached
        nan = jnp.asarray(jnp.nan, x.dtype)
        return self._answer(
            [end._replace(objective=math.nan)], theta, x, nan, ENDINGS.not_stationary, result=result
        )

    def _answer(
        self,
        path: list[_End],
        theta: PyTree,
        x: Array,
        stationarity: Array,
        ending: ENDINGS,
        *,
        result: RESULTS,
    ) -> DesignSolution:
        rows = [row.objective for row in path[1:]] or [path[0].objective]
        moves = [float(np.linalg.norm(b.theta - a.theta)) for a, b in itertools.pairwise(path)]
        objective, dtype = jnp.asarray(rows, x.dtype), x.dtype
        unknown, none = jnp.full(len(rows), jnp.nan, dtype), jnp.zeros(len(rows), jnp.int32)
        info = SchemeInfo(
            design_step=jnp.asarray(moves or [0.0], dtype),
            play_step=unknown,
            largest_cost=unknown,
            objective=objective,
            gradient=unknown,
            gradient_residual=unknown,
            degenerate=none,
            inner_steps=none,
        )
        step = jnp.arange(1, len(rows) + 1, dtype=jnp.int32)
        return DesignSolution(
            theta=theta,
            x=x,
            objective=jnp.asarray(path[-1].objective, dtype),
            residual=natural_residual(self.problem.game, theta, x),
            steps=jnp.int32(len(path) - 1),
            history=History(step, objective, unknown, info, None),
            stationarity=stationarity,
            ending=ending,
            result=result,
        )


def _scipy() -> Any:  # heavy, and its stubs know numbers alone
    from scipy import optimize  # noqa: PLC0415

    return optimize


def _remembering(function: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    """The function, which remembers its last value: values and slopes are asked for apart."""
    known: list[Any] = [None, None]

    def asked(flat: np.ndarray) -> Any:
        if known[0] is None or not np.array_equal(known[0], flat):
            known[:] = [flat.copy(), function(flat)]
        return known[1]

    return asked
