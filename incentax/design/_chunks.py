"""A run in chunks: between two of them it is shown, written and perhaps stopped.

A chunk is one compiled scan; nothing of this is inside of it, so a run takes the steps that it
would take at once, and all chunks share one compilation.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._checkpoint import (
    as_checkpoint,
    Checkpoint,
    opened,
    own_share,
    Store,
    terminable,
    TERMINATED,
)
from .._checks import is_inside, require_count
from .._compile import is_preparing
from .._description import described
from .._devices import of_all, on_host, spans_processes
from .._results import RESULTS
from ..callbacks import Callback, Info, ProgressLine
from ._looks import Clock, close_all, words_of
from ._run import advanced, history_shape, Run, solutions_of, stood_at
from ._solution import DesignFailure

# Steps of a chunk where nothing else is said.
_CHUNK = 100
# Parts of the history before they become one.
_PARTS = 256


class Watch(NamedTuple):
    """What `design` is asked to do between two chunks of so many steps."""

    callbacks: tuple[Callback, ...]
    checkpoint: Checkpoint | None
    resume: bool
    chunk: int | None
    again: str = "the same call with `resume=True`"


def watch_at_door(
    *,
    progress: bool,
    callbacks: Sequence[Callback],
    checkpoint: Any,
    resume: bool,
    chunk: int | None,
    owner: str = "design",
) -> Watch | None:
    """The watch that these arguments ask for, if any."""
    if not isinstance(callbacks, list | tuple):
        raise TypeError(f"`{owner}(callbacks=...)` needs a list of functions, got {callbacks!r}")
    for index, callback in enumerate(callbacks):
        if not callable(callback) or isinstance(callback, type):
            raise TypeError(
                f"`{owner}(callbacks=...)` needs functions of (step, info), got {callback!r} at "
                f"index {index}"
            )
    checkpoint = as_checkpoint(owner, checkpoint, resume)
    if chunk is not None:
        chunk = require_count(owner, "chunk", chunk)
    if not progress and not callbacks and checkpoint is None and chunk is None:
        return None
    if is_inside():
        raise ValueError(
            f"`{owner}(progress, callbacks, checkpoint, chunk)` work between compiled chunks, "
            "outside of `jit` and `vmap`"
        )
    shown = (ProgressLine(),) if progress else ()
    return Watch((*shown, *callbacks), checkpoint, resume, chunk)


def run_in_chunks(run: Run, steps: int, watch: Watch, *, owner: str, lanes: bool = False) -> Run:
    """The run after `steps` steps in all, or where a callback ended it.

    `lanes`: it is a batch of runs, made by [`side_by_side`][]. Whatever ends it (an interrupt, an
    error, a signal to terminate), what it has reached is written first.
    """
    every = run.record.every
    rows = -(-min(watch.chunk or _CHUNK, steps) // every)
    if is_preparing():
        return advanced(run, min(steps, rows * every), rows, lanes=lanes)
    # Processes that share the run have to stop and write it at the same steps.
    together = spans_processes((run.problem, run.progress))
    with ExitStack() as stack:
        store, terminated = None, bool
        if watch.checkpoint is not None:
            what = _what(run)
            folder = own_share(watch.checkpoint, owner) if together else watch.checkpoint
            store = stack.enter_context(opened(folder, owner, what, resume=watch.resume))
            run = _restored(store, run, rows, lanes=lanes, together=together)
            if run.count > steps:
                raise ValueError(
                    f"`{owner}(resume=True)` needs at least the steps that are done, "
                    f"{run.count} in {store.folder}, got steps={steps}"
                )
            terminated = stack.enter_context(terminable(at_once=not together))
        stack.callback(close_all, watch.callbacks)
        clock, stopped = Clock(run.count), False
        try:
            # One that breaks off at its start has a chunk too, as it has a history then.
            while run.count < steps and not stopped and not (run.parts and _all_broke_off(run)):
                length = min(rows * every, steps - run.count)
                if store is not None and length % every:
                    # It ends within a row of the history, from where nothing can go on.
                    run = _saved(store, run)
                ahead = advanced(run, length, rows, lanes=lanes)
                jax.block_until_ready(ahead.progress)
                run = ahead
                stopped = _told(run, steps, watch, clock, lanes)
                due = store is not None and store.due()
                over = terminated()
                if together:
                    stopped, due, over = map(bool, of_all(stopped, due, over).max(axis=0))
                if len(run.parts) >= _PARTS:
                    run = _joined(run)
                if store is not None and (due or over):
                    run = _saved(store, run)
                if over:
                    raise SystemExit(TERMINATED)
            if store is not None:
                run = _saved(store, run)
        except BaseException as error:
            if store is not None:
                again = f"{watch.again} goes on from there"
                _save_at_last(store, run, error, again, together=together)
            raise
    return _joined(run)


def _what(run: Run) -> dict[str, str]:
    """What a checkpoint is of: the problem, the scheme, the start, and how it is recorded."""
    return described(
        problem=run.problem,
        scheme=run.scheme,
        start=run.progress,
        key=run.key,
        record=run.record,
    )


def _restored(store: Store, run: Run, rows: int, *, lanes: bool, together: bool) -> Run:
    """The run as it was written; the one given where nothing was."""
    saved = store.load(together=together)
    if saved is None:
        return run
    kept = saved.about["rows"]
    shape = history_shape(run, rows, lanes=lanes)
    axis = 1 if lanes else 0

    def resized(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = (*leaf.shape[:axis], kept, *leaf.shape[axis + 1 :])
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    like = (run.progress, jax.tree.map(resized, shape))
    progress, history = saved.restored(like)
    return stood_at(run, progress, saved.about["count"], (history,) if kept else ())


def _joined(run: Run) -> Run:
    """The run, whose history is one part."""
    if len(run.parts) <= 1:
        return run
    axis = jnp.ndim(run.progress.steps)
    joined = jax.tree.map(lambda *parts: _concatenated(parts, axis), *run.parts)
    return stood_at(run, run.progress, run.count, (jax.device_put(joined),))


def _concatenated(parts: tuple[Array, ...], axis: int) -> Any:
    keys = jnp.issubdtype(parts[0].dtype, jax.dtypes.prng_key)
    if keys:
        return jnp.concatenate(parts, axis)
    return np.concatenate([on_host(part) for part in parts], axis)


def _saved(store: Store, run: Run) -> Run:
    """The run, which is in the store then; not where it stands within a row of the history, for it
    could not go on as if never stopped."""
    if run.count % run.record.every or run.count == store.asked:
        return run
    run = _joined(run)
    rows = run.parts[0].step.shape[-1]
    store.save((run.progress, run.parts[0]), run.count, {"rows": rows})
    return run


def _save_at_last(
    store: Store, run: Run, error: BaseException, again: str, *, together: bool
) -> None:
    """Before an error goes on: the run is written, and the error says where it is.

    Of processes that share a run one that fails cannot ask the others for their shares.
    """
    try:
        if not together:
            _saved(store, run)
    except Exception as another:  # the first one is what is told
        error.add_note(f"not written: {another}")
    store.tell(error, "step", again)


def _told(run: Run, steps: int, watch: Watch, clock: Clock, lanes: bool) -> bool:
    """Whether a callback ends the run; what one raises carries the run so far."""
    if not watch.callbacks:
        return False
    history = run.parts[-1]
    row = (slice(None), -1) if lanes else -1
    info = Info(
        steps=steps,
        objective=np.asarray(history.objective)[row],
        residual=np.asarray(history.residual)[row],
        at=lambda: (run.theta, run.x),
        run=run,
        **clock.at(run.count, steps),
    )
    stops = []
    for callback in watch.callbacks:
        try:
            stops.append(bool(callback(run.count, info)))
        except Exception as error:
            raise _failed(callback, run, error, lanes) from error
    return any(stops)


def _failed(callback: Callback, run: Run, error: Exception, lanes: bool) -> DesignFailure:
    """What a callback raised, with the answer so far."""
    message = words_of(callback, error, run.count)
    return DesignFailure(message, solutions_of(run) if lanes else run.solution(throw=False))


def _all_broke_off(run: Run) -> bool:
    return bool(np.all(np.asarray(run.progress.result != RESULTS.successful)))
