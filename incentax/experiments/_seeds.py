"""A scheme from several seeds side by side, written while it goes on."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import callbacks
from ..design import (
    AbstractScheme,
    DesignSolution,
    Run,
    run_in_chunks,
    side_by_side,
    solutions_of,
    watch_at_door,
)
from ..problems import Instance
from ._protocol import Report

# Rows of the history, parts that a run is cut into, and steps in a part at most: an interrupt is
# heard between parts.
_ROWS, _PARTS, _LONGEST = 200, 20, 250


class Kept(NamedTuple):
    """Where a run is written while it goes on, whether to go on with what is there, and every how
    many steps the history has a row (told by the number of steps when left out)."""

    folder: Path | None = None
    resume: bool = False
    every: int | None = None


def rows_every(steps: int) -> int:
    """Steps between two rows of the history."""
    return max(1, min(steps // _ROWS, _LONGEST))


def begun_from_seeds(instance: Instance, scheme: AbstractScheme, seeds: int, every: int) -> Run:
    """A batch of runs, one a seed."""

    def one(key: Array) -> Run:
        problem, start = instance.problem, instance.theta0
        return Run(problem, start, scheme, x0=instance.x0, key=key, record=every)

    return side_by_side(one, jax.vmap(jax.random.key)(jnp.arange(seeds)))


def run_seeds(
    runs: Run, steps: int, report: Report, kept: Kept
) -> tuple[list[DesignSolution], Any, float, float]:
    """The solutions, their histories (seeds by rows), seconds to the first steps, and in all."""
    every = runs.record.every
    chunk = every * max(1, min(steps // _PARTS, _LONGEST) // every)
    clock, first, latest = time.perf_counter(), 0.0, runs
    report("compiling and first steps", 0.0)

    def look(step: int, info: callbacks.Info) -> None:
        nonlocal first, latest
        latest, first = info.run, first or info.seconds
        report(f"{step} of {steps} steps", step / steps)

    watch = watch_at_door(
        progress=False,
        callbacks=[look],
        checkpoint=kept.folder,
        resume=kept.resume,
        chunk=chunk,
        owner="incentax run",
    )
    assert watch is not None
    watch = watch._replace(again="the same command with --resume")
    try:
        runs = run_in_chunks(runs, steps, watch, owner="incentax run", lanes=True)
    except KeyboardInterrupt:  # what there is by now is examined all the same
        runs = latest
        if not runs.parts:
            raise
    seconds = time.perf_counter() - clock
    solutions = solutions_of(runs)
    seeds = len(runs.progress.steps)
    each = [jax.tree.map(lambda leaf, row=row: leaf[row], solutions) for row in range(seeds)]
    return each, solutions.history, first, seconds
