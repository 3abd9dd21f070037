"""The loop of every scheme, and the verb `design`."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._checks import require_count, unknown
from .._compile import compiled
from .._results import ENDINGS, RESULTS
from .._tree import as_pytree_function, tree_finite, tree_where
from ..equilibrium import natural_residual
from ._accurate import design_accurately
from ._problem import DesignProblem
from ._scheme import AbstractInfo, AbstractScheme, AbstractSchemeState
from ._solution import DesignSolution, History, raise_unless_designed


class Record(eqx.Module):
    """What the history keeps: every `every`-th step, and `observe(theta, x)` if given.

    !!! example

        >>> import incentax as ix
        >>> ix.Record(every=10, observe=lambda theta, x: theta).every
        10
    """

    every: int = eqx.field(static=True)
    observe: Callable[[PyTree, Array], PyTree]

    def __init__(self, every: int = 1, observe: Callable[[PyTree, Array], PyTree] | None = None):
        self.every = require_count("Record", "every", every)
        self.observe = as_pytree_function(_nothing if observe is None else observe)


class Progress(eqx.Module):
    """A run between two chunks: the scheme's state, steps done, and how it stands."""

    state: AbstractSchemeState
    steps: Int[Array, ""]
    result: RESULTS


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
    selects.

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
    - `throw`: raise when the run turns non-finite or ends at a point that is not stationary, or
      return what there is with the reason in `.result`.

    **Raises** `ValueError` for a wrong argument, [`DesignFailure`][] (a `RuntimeError` that
    carries the run so far) when the run turns non-finite and `throw`. Inside a user's own `jit`
    it is a plain `RuntimeError`, and only `throw=False` keeps the run.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
        >>> solution = ix.design(problem, jnp.zeros(1), scheme, steps=200, record=100)
        >>> solution.theta.round(4).tolist(), solution.history.step.tolist()
        ([3.0], [100, 200])
    """
    if scheme is None:
        return design_accurately(problem, theta0, x0, steps, starts, key, record, throw)
    if starts is not None:
        raise ValueError(
            f"`design(starts=...)` needs the accurate designer, without a scheme, got {starts}"
        )
    steps = require_count("design", "steps", 1000 if steps is None else steps)
    record = as_record(record)
    progress = start(problem, theta0, scheme, x0, key)
    rows = -(-steps // record.every)
    span = (jnp.int32(0), jnp.int32(steps))
    progress, history = advance(problem, scheme, progress, key, record, rows, span)
    return finish(problem, scheme, progress, history, throw, key)


def start(
    problem: DesignProblem,
    theta0: PyTree,
    scheme: AbstractScheme,
    x0: Array | None,
    key: PRNGKeyArray | None,
) -> Progress:
    """A run before its first step; all that can be refused is refused here."""
    if not isinstance(problem, DesignProblem):
        raise TypeError(f"`design(problem)` needs a `DesignProblem`, got {problem!r}")
    if not isinstance(scheme, AbstractScheme):
        raise TypeError(f"`design(scheme)` needs a scheme, got {scheme!r}")
    if problem.selection not in (None, "play"):
        raise ValueError(
            "`design(scheme)` needs a problem without a selection, or with 'play': a scheme's "
            f"agents go where play leads, got selection={problem.selection!r}"
        )
    if scheme.needs_key and key is None:
        raise ValueError("`design(key=...)` needs a key for a scheme with noise, got None")
    theta, x = problem.at_door("design", ("theta0", "x0"), theta0, x0)
    scheme.check(problem, theta, x)
    return _start(problem, theta, scheme, x)


@compiled
def _start(problem: DesignProblem, theta: PyTree, scheme: AbstractScheme, x: Array) -> Progress:
    finite = tree_finite((problem.game.operator(theta, x), problem.objective(theta, x)))
    result = RESULTS.where(finite, RESULTS.successful, RESULTS.nonfinite_start)
    return Progress(scheme.init(problem, theta, x), jnp.int32(0), result)


@partial(compiled, lasting=True)
def advance(
    problem: DesignProblem,
    scheme: AbstractScheme,
    progress: Progress,
    key: PRNGKeyArray | None,
    record: Record,
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
    key: PRNGKeyArray | None = None,
) -> DesignSolution:
    """The solution of a run, or [`DesignFailure`][] when it broke off and `throw`."""
    solution = _finish(problem, scheme, progress, history)
    solution = eqx.tree_at(lambda s: s.stationarity, solution, unknown(solution.objective))

    def explain() -> str:
        step_key = None if key is None else jax.random.fold_in(key, progress.steps)
        return scheme.explain(problem, progress.state, progress.steps, step_key)

    return raise_unless_designed(solution, throw, explain)


@compiled
def _finish(
    problem: DesignProblem, scheme: AbstractScheme, progress: Progress, history: History
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
    verdict = RESULTS.where(_never_moved(history), RESULTS.never_moved, verdict)
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
    )


def _never_moved(history: History) -> Array:
    """Whether no recorded step moved the incentive, for want of a two-sided derivative."""
    degenerate = getattr(history.info, "degenerate", None)
    if degenerate is None or not len(history.step):
        return jnp.asarray(False)
    return jnp.all(history.info.design_step == 0) & (degenerate[-1] > 0)


def as_record(record: int | Record | None) -> Record:
    """A `Record` from what `design(record=...)` accepts."""
    if isinstance(record, Record):
        return record
    return Record(1 if record is None else record)


def _nothing(theta: PyTree, x: Array) -> None:
    """Observes nothing."""
    del theta, x
