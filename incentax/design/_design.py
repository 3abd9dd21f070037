"""The verb `design`."""

import os
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._checkpoint import Checkpoint
from .._checks import require_count
from .._compile import is_preparing
from .._results import RESULTS
from ..callbacks import Callback
from ._chunks import run_in_chunks, watch_at_door
from ._looks import is_enough, looking, words_of
from ._problem import DesignProblem
from ._record import Record
from ._run import Run
from ._scheme import AbstractScheme
from ._solution import DesignFailure, DesignSolution, raise_unless_designed
from ._task import Task, task_at_door
from .accurate import design_accurately
from .constrained import contradicting, design_constrained
from .scenarios import design_at_risk, ScenarioProblem
from .selection import design_nearest, design_selected


def design(
    problem: DesignProblem,
    theta0: PyTree,
    scheme: AbstractScheme | None = None,
    *,
    x0: Array | None = None,
    steps: int | None = None,
    starts: int | None = None,
    key: PRNGKeyArray | None = None,
    record: int | Record | None = None,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | str | os.PathLike | None = None,
    resume: bool = False,
    chunk: int | None = None,
    throw: bool = True,
) -> DesignSolution:
    """Minimises `objective(theta, x*(theta))` over the incentive set.

    Without a scheme, accurately: a homotopy in which the complementarity of the lower level is
    smoothed and sharpened again, from several starts where that is cheap; from the best ends
    sequential quadratic steps on pieces, each to an exact equilibrium; and a proof. `.ending`
    tells what was found, `.b_stationary` whether it is proved that no direction descends. With
    a scheme, one `lax.scan` of `scheme.step`; step `k` draws from `jax.random.fold_in(key, k)`.
    Works under `jit`, and under `vmap` over `theta0`, `x0`, `key` and the arrays of the
    problem; there, and beyond 2,500 unknowns, kinks are probed and not proved, and lanes
    without a scheme run one after another on CPU. A problem with a `selection` is designed
    without a scheme, outside of `jit`, by descent on the objective at the equilibrium that it
    selects. A problem with `constraints` need not start within them: without a scheme an exact
    penalty makes of them kinks like any other (sequential quadratic steps in `theta` where the
    game is large), and `.multipliers` are their shadow prices; a scheme goes down along an
    augmented Lagrangian, see [`AugmentedLagrangian`][].

    **Arguments:**

    - `problem`, `theta0`: the problem and a start in its incentive set.
    - `scheme`: such as [`DesignAndPlay`][] or [`DoubleLoop`][]; accurate when left out.
    - `x0`: where agents start; the centre of the strategy set when left out.
    - `steps`: number of steps, at least 1; 1,000 when left out; of the accurate designer at most
      as many from each start.
    - `starts`: without a scheme, number of starts: `theta0` with much smoothing and with less, then
      points ever wider around it, or in its box. When left out 16 where `theta` and `x` have up to
      64 entries together, 4 up to 500, and 1 beyond.
    - `key`: typed key (`jax.random.key`), needed if the scheme draws random numbers. Without a
      scheme it draws the starts.
    - `record`: every how many steps the history gets a row (1 when left out), or a [`Record`][];
      the accurate designer has a row for each step from its best start.
    - `progress`: show a line that says how far it is.
    - `callbacks`: functions `(step, info) -> stop?` of [`Info`][], such as [`StopWhen`][]; a run
      that one of them ends is a shorter run. They are called after every `chunk` of steps (100 when
      left out, and whole rows of `record`), between compiled programs: outside of `jit`.
    - `checkpoint`: a folder, or a [`Checkpoint`][]: there the run is written at intervals, and
      before an interrupt, a signal to terminate or an error goes on. `resume`: go on from what is
      there, bit by bit as if never stopped, or begin where nothing is. With a scheme.
    - `throw`: raise when the run turns non-finite or ends at a point that is not stationary, or
      return what there is with the reason in `.result`.

    **Raises** `ValueError` for a wrong argument, [`DesignFailure`][] (a `RuntimeError` that
    carries the run so far) when the run turns non-finite and `throw`. In a program of the user's
    the answer is NaN instead, with the reason in `.result`.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
        >>> solution = ix.design(problem, jnp.zeros(1), scheme, steps=200, record=100)
        >>> solution.theta.round(4).tolist(), solution.history.step.tolist()
        ([3.0], [100, 200])
    """
    watch = watch_at_door(
        progress=progress, callbacks=callbacks, checkpoint=checkpoint, resume=resume, chunk=chunk
    )
    if scheme is None:
        if record is not None:
            raise ValueError(f"`design(record=...)` needs a scheme, got {record!r} without one")
        if chunk is not None:
            raise ValueError(f"`design(chunk=...)` needs a scheme, got {chunk} without one")
        if checkpoint is not None:
            raise ValueError(
                f"`design(checkpoint=...)` needs a scheme, got {checkpoint!r} without one: the "
                "accurate designer begins anew, from `theta0`"
            )
        task = task_at_door(problem, theta0, x0=x0, steps=steps, starts=starts, key=key)
        with looking([] if watch is None or is_preparing() else watch.callbacks) as looks:
            solution = _told(_accurately(task))
        if looks.raised is not None:
            callback, error = looks.raised
            raise DesignFailure(words_of(callback, error, looks.count), solution) from error
        return raise_unless_designed(solution, throw, lambda: contradicting(solution))
    if starts is not None:
        raise ValueError(
            f"`design(starts=...)` needs the accurate designer, without a scheme, got {starts}"
        )
    steps = require_count("design", "steps", 1000 if steps is None else steps)
    run = Run(problem, theta0, scheme, x0=x0, key=key, record=record, owner="design")
    if watch is None:
        return run.advance(steps).solution(throw=throw)
    return run_in_chunks(run, steps, watch, owner="design").solution(throw=throw)


def _accurately(task: Task) -> DesignSolution:
    """Without a scheme: by the designer for problems of this kind."""
    problem = task.problem
    solve = design_accurately if problem.selection is None else design_selected
    solve = design_nearest if problem.selection == "nearest" else solve
    solve = design_constrained if problem.constraints else solve
    if isinstance(problem, ScenarioProblem) and problem.has_kinks:
        solve = design_at_risk
    return solve(task)


def _told(solution: DesignSolution) -> DesignSolution:
    """The solution, whose objective may have no value anywhere: that is no point found."""
    nowhere = (solution.result == RESULTS.not_stationary) & ~jnp.isfinite(solution.objective)
    result = RESULTS.where(nowhere, RESULTS.nonfinite_start, solution.result)
    if is_enough():
        ended = (result == RESULTS.not_stationary) | (result == RESULTS.infeasible)
        result = RESULTS.where(ended, RESULTS.stopped, result)
    return eqx.tree_at(lambda s: s.result, solution, result)
