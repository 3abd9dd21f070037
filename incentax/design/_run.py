"""A run of a scheme: one compiled scan of its steps, at once or in parts."""

import copy
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._checks import is_traced, require_count, require_key, unknown
from .._compile import compiled, shape_of
from .._results import ENDINGS, RESULTS
from .._tree import tree_finite, tree_where
from ..equilibrium import natural_residual
from ._problem import DesignProblem
from ._record import as_record, Record
from ._scheme import AbstractInfo, AbstractScheme, AbstractSchemeState
from ._solution import DesignSolution, History, raise_unless_designed
from .constrained import keeping_constraints


class Progress(eqx.Module):
    """A run between two chunks: the scheme's state, steps done, and how it stands."""

    state: AbstractSchemeState
    steps: Int[Array, ""]
    result: RESULTS


class Run(eqx.Module):
    """A run of a scheme that is stepped by hand: looked at, gone on with, finished.

    `run.advance(steps)` returns the run so many steps later; its steps are those of
    [`design`][], which is `Run(...).advance(steps).solution()`. However a run is cut into parts, it
    takes the same steps, for step `k` draws from `jax.random.fold_in(key, k)`. Parts of the same
    length share one compilation.

    Many runs side by side are one under `eqx.filter_vmap`.

    **Arguments:** those of [`design`][]: `problem`, `theta0`, `scheme`, `x0`, `key`, `record`;
    `owner` is whom errors name.

    - `.theta`, `.x`: where it stands. `.steps`: how many were taken, fewer than asked for where it
      broke off. `.result`: `RESULTS.successful` while all is finite.
    - `.history`: a row every `record` steps, and at the end of every part.

    **Raises** what [`design`][] raises for a wrong argument.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
        >>> run = ix.Run(problem, jnp.zeros(1), scheme, record=50)
        >>> while jnp.abs(run.x - 3) > 1e-9:
        ...     run = run.advance(50)
        >>> int(run.steps), run.history.step.tolist(), run.solution().theta.round(4).tolist()
        (100, [50, 100], [3.0])
    """

    problem: DesignProblem
    scheme: AbstractScheme
    key: PRNGKeyArray | None
    record: Record
    progress: Progress
    # A number and no array: the same in all lanes of a `vmap`, a scheme skips work in all at once.
    count: int
    parts: tuple[History, ...]

    def __init__(
        self,
        problem: DesignProblem,
        theta0: PyTree,
        scheme: AbstractScheme,
        *,
        x0: Array | None = None,
        key: PRNGKeyArray | None = None,
        record: int | Record | None = None,
        owner: str = "Run",
    ):
        scheme = keeping_constraints(problem, scheme)
        self.progress = start(owner, problem, theta0, scheme, x0=x0, key=key)
        self.problem, self.scheme, self.key = problem, scheme, key
        self.record, self.count, self.parts = as_record(record), 0, ()

    def advance(self, steps: int) -> "Run":
        """The run `steps` steps later; one that broke off stays where it was."""
        steps = require_count("Run.advance", "steps", steps)
        return advanced(self, steps, -(-steps // self.record.every))

    def solution(self, *, throw: bool = True) -> DesignSolution:
        """What the run has found so far; [`DesignFailure`][] when it broke off and `throw`."""
        return finish(self.problem, self.scheme, self.progress, self.history, throw, key=self.key)

    @property
    def theta(self) -> PyTree:
        """The incentive where it stands."""
        return self.progress.state.theta

    @property
    def x(self) -> Array:
        """The strategies where they stand."""
        return self.scheme.strategy(self.problem, self.progress.state)

    @property
    def steps(self) -> Int[Array, ""]:
        """Number of steps taken."""
        return self.progress.steps

    @property
    def result(self) -> RESULTS:
        """Whether all was finite so far."""
        return self.progress.result

    @property
    def history(self) -> History:
        """A row every `record` steps so far. Raises `ValueError` before the first step."""
        if not self.parts:
            raise ValueError(
                "`Run.history` needs a step, got 0 of them: `run.advance(steps)` first"
            )
        if len(self.parts) == 1:
            return self.parts[0]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *self.parts)


def advanced(run: Run, steps: int, rows: int, *, lanes: bool = False) -> Run:
    """The run `steps` steps later, by a program for so many `rows` of history.

    Fewer steps than rows ask for need no other program. `lanes`: it is a batch of runs.
    """
    how = _advance_lanes if lanes else advance
    progress, history = how(*_state_of(run), rows=rows, span=_span(run, steps))
    used = -(-steps // run.record.every)
    if used < rows:
        kept = (slice(None), slice(used)) if lanes else slice(used)
        history = jax.tree.map(lambda leaf: leaf[kept], history)
    return stood_at(run, progress, run.count + steps, (*run.parts, history))


def stood_at(run: Run, progress: Progress, count: int, parts: tuple[History, ...]) -> Run:
    """The run where it stood after `count` steps."""
    # In time that does not grow with the parts, as `eqx.tree_at` and methods of modules do.
    stood = copy.copy(run)
    vars(stood).update(progress=progress, count=count, parts=parts)
    return stood


def side_by_side(begin: Callable[[PRNGKeyArray], Run], keys: PRNGKeyArray) -> Run:
    """A batch of runs of one problem, of which only state and key have lanes."""
    runs = copy.copy(begin(keys[0]))
    vars(runs).update(progress=eqx.filter_vmap(lambda key: begin(key).progress)(keys), key=keys)
    return runs


def solutions_of(runs: Run) -> DesignSolution:
    """What each of a batch of runs has found so far, along a leading axis."""

    def one(progress: Progress, parts: tuple[History, ...]) -> DesignSolution:
        return stood_at(runs, progress, runs.count, parts).solution(throw=False)

    return eqx.filter_vmap(one)(runs.progress, runs.parts)


def history_shape(run: Run, rows: int, *, lanes: bool = False) -> History:
    """Shapes and dtypes of what [`advanced`][] adds to the history."""
    how = _advance_lanes if lanes else advance
    return shape_of(how, *_state_of(run), rows=rows, span=_span(run, 1))[1]


def _state_of(run: Run) -> tuple:
    return run.problem, run.scheme, run.progress, run.key, run.record


def _span(run: Run, steps: int) -> tuple[Array, Array]:
    return jnp.int32(run.count), jnp.int32(run.count + steps)


def start(
    owner: str,
    problem: DesignProblem,
    theta0: PyTree,
    scheme: AbstractScheme,
    *,
    x0: Array | None,
    key: PRNGKeyArray | None,
) -> Progress:
    """A run before its first step; all that can be refused is refused here."""
    if not isinstance(problem, DesignProblem):
        raise TypeError(f"`{owner}(problem)` needs a `DesignProblem`, got {problem!r}")
    if not isinstance(scheme, AbstractScheme):
        raise TypeError(f"`{owner}(scheme)` needs a scheme, got {scheme!r}")
    if problem.selection not in (None, "play"):
        raise ValueError(
            f"`{owner}(scheme)` needs a problem without a selection, or with 'play': a scheme's "
            f"agents go where play leads, got selection={problem.selection!r}"
        )
    if key is not None:
        require_key(owner, key)
    elif scheme.needs_key:
        raise ValueError(f"`{owner}(key=...)` needs a key for a scheme with noise, got None")
    theta, x = problem.at_door(owner, ("theta0", "x0"), theta0, x0)
    scheme.check(problem, theta, x)
    return _start(problem, theta, scheme, x)


@compiled
def _start(problem: DesignProblem, theta: PyTree, scheme: AbstractScheme, x: Array) -> Progress:
    finite = tree_finite((problem.game.operator(theta, x), problem.objective(theta, x)))
    result = RESULTS.where(finite, RESULTS.successful, RESULTS.nonfinite_start)
    progress = Progress(scheme.init(problem, theta, x), jnp.int32(0), result)
    # As steps leave it, and a checkpoint: programs are told apart by weak types too.
    return jax.tree.map(_strong, progress)


def _strong(leaf: Array) -> Array:
    weak = getattr(leaf, "weak_type", False)
    return jax.lax.convert_element_type(leaf, leaf.dtype) if weak else leaf


@partial(compiled, lasting=True)
def advance(
    problem: DesignProblem,
    scheme: AbstractScheme,
    progress: Progress,
    key: PRNGKeyArray | None,
    record: Record,
    *,
    rows: int,
    span: tuple[Int[Array, ""], Int[Array, ""]],
) -> tuple[Progress, History]:
    """Steps `span[0]` to `span[1]` (excluded), as many of them as `rows` rows hold.

    Steps are counted outside the carried state: a count that is the same in all lanes of a `vmap`
    lets a scheme skip work in all of them at once.
    """
    first, last = span
    # A step's figures have the shape of the scheme's info, whatever scheme it is.
    blank = jax.tree.map(
        lambda shape: jnp.zeros(shape.shape, shape.dtype),
        jax.eval_shape(lambda p: _step(problem, scheme, p, first, key)[1], progress),
    )

    def one_step(carry, count):
        progress, info = carry
        state, reached_info = _step(problem, scheme, progress, count, key)
        running = (progress.result == RESULTS.successful) & (count < last)
        theta, x = state.theta, scheme.strategy(problem, state)
        # The figures of the step tell what a projection on bounds would hide. What overflows
        # first is named: play, then the objective there, then the incentive that follows it.
        finite_x = tree_finite((x, reached_info.largest_cost))
        finite_objective = tree_finite((reached_info.objective, reached_info.gradient))
        finite_theta = tree_finite(theta)
        verdict = RESULTS.where(
            finite_x,
            RESULTS.where(
                finite_objective,
                RESULTS.where(finite_theta, RESULTS.successful, RESULTS.nonfinite_design),
                RESULTS.nonfinite_objective,
            ),
            RESULTS.nonfinite_play,
        )
        moved = running & finite_x & finite_objective & finite_theta
        progress = Progress(
            state=scheme.keep(moved, state, progress.state),
            steps=jnp.where(moved, count + 1, progress.steps),
            result=RESULTS.where(running, verdict, progress.result),
        )
        return (progress, tree_where(moved, reached_info, info)), None

    def one_row(before, counts):
        (progress, info), _ = jax.lax.scan(one_step, (before, blank), counts)
        theta, x = progress.state.theta, scheme.strategy(problem, progress.state)
        row = History(
            step=progress.steps,
            objective=problem.objective(theta, x),
            residual=natural_residual(problem.game, theta, x),
            info=info,
            observed=record.observe(theta, x),
        )
        # The row in which a run breaks off shows its last finite step, if it has one.
        alive = progress.steps > before.steps
        blanked = jax.tree.map(
            lambda leaf: jnp.where(alive, leaf, jnp.nan) if eqx.is_inexact_array(leaf) else leaf,
            row,
        )
        return progress, blanked

    counts = first + jnp.arange(rows * record.every, dtype=first.dtype)
    return jax.lax.scan(one_row, progress, counts.reshape(rows, record.every))


@partial(compiled, lasting=True)
def _advance_lanes(problem, scheme, progress, key, record, **how) -> tuple[Progress, History]:
    """The same for a batch of runs of one problem, each with its state and its key."""

    def one(progress: Progress, key: PRNGKeyArray | None) -> tuple[Progress, History]:
        return advance(problem, scheme, progress, key, record, **how)

    return jax.vmap(one)(progress, key)


def _step(
    problem: DesignProblem,
    scheme: AbstractScheme,
    progress: Progress,
    count: Int[Array, ""],
    key: PRNGKeyArray | None,
) -> tuple[AbstractSchemeState, AbstractInfo]:
    step_key = None if key is None else jax.random.fold_in(key, count)
    return scheme.step(problem, progress.state, count, step_key)


def finish(
    problem: DesignProblem,
    scheme: AbstractScheme,
    progress: Progress,
    history: History,
    throw: bool,
    *,
    key: PRNGKeyArray | None = None,
) -> DesignSolution:
    """The solution of a run, or [`DesignFailure`][] when it broke off and `throw`."""
    # Of no length: a program for every one would be too much.
    blank = jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape[1:]), leaf.dtype), history)
    solution = _finish(problem, scheme, progress, blank, _never_moved(history))
    ended = (unknown(solution.objective), history)
    solution = eqx.tree_at(lambda s: (s.stationarity, s.history), solution, ended)

    def explain() -> str:
        step_key = None if key is None else jax.random.fold_in(key, progress.steps)
        return scheme.explain(problem, progress.state, progress.steps, step_key)

    return raise_unless_designed(solution, throw, explain)


@compiled
def _finish(
    problem: DesignProblem,
    scheme: AbstractScheme,
    progress: Progress,
    history: History,
    never_moved: Array,
) -> DesignSolution:
    state = scheme.conclude(problem, progress.state, progress.steps)
    theta, x = state.theta, scheme.strategy(problem, state)
    objective, residual = problem.objective(theta, x), natural_residual(problem.game, theta, x)
    # The user's functions may fail at the very last pair.
    verdict = RESULTS.where(
        jnp.isfinite(residual),
        RESULTS.where(jnp.isfinite(objective), RESULTS.successful, RESULTS.nonfinite_objective),
        RESULTS.nonfinite_play,
    )
    verdict = RESULTS.where(never_moved, RESULTS.never_moved, verdict)
    ended = progress.result == RESULTS.successful
    return DesignSolution(
        theta=theta,
        x=x,
        objective=objective,
        residual=residual,
        steps=progress.steps,
        history=history,
        stationarity=objective,
        ending=ENDINGS.not_examined,
        result=RESULTS.where(ended, verdict, progress.result),
        multipliers=scheme.multipliers(problem, state),
        violation=problem.violation(theta, x),
    )


def _never_moved(history: History) -> Array:
    """Whether no recorded step moved the incentive, for want of a two-sided derivative."""
    degenerate = getattr(history.info, "degenerate", None)
    if degenerate is None or not len(history.step):
        return jnp.asarray(False)
    moves = history.info.design_step
    if not is_traced(moves, degenerate):
        return jnp.asarray(not np.asarray(moves).any() and bool(np.asarray(degenerate)[-1] > 0))
    return jnp.all(moves == 0) & (degenerate[-1] > 0)
