"""One method on one problem, and what its answer is worth."""

import importlib.metadata
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._files import write_json
from .._results import b_stationarity
from ..design import DesignProblem
from ..diagnostics import certify
from ..equilibrium import solve_equilibrium
from ..problems import bank
from ..problems.bank import BankDesign
from ._answer import Answer, Refused
from ._methods import METHODS

# Published values are rounded to six decimals, some to five; what is 0 is known to so much.
_ROUNDED, _ZERO = 6e-6, 1e-9
# Residual of the agents, relative, beyond which nothing is solved.
_SETTLED = 1e-6


def tolerance(entry: BankDesign) -> float:
    """How far an objective may be from the best known value."""
    rounded = entry.source != "incentax" and abs(entry.best) > 1e-3
    return max(1e-6 * abs(entry.best), _ZERO) + (_ROUNDED if rounded else 0.0)


def solve_one(
    method: str,
    problem: str,
    path: Path,
    *,
    began: float | None = None,
    repeat: int = 1,
    certified: bool = False,
) -> None:
    """Writes a row of figures to `path`, and again as more is known.

    `began`: when the process was started, in seconds since 1970. `repeat`: how often it solves the
    problem again, with all compiled.
    """
    began = time.time() if began is None else began
    entry = bank.designs[problem]
    packages = {name: importlib.metadata.version(name) for name in METHODS[method].needs}
    row: dict[str, Any] = {"method": method, "problem": problem, "kind": entry.kind}
    row |= {"packages": packages} if packages else {}
    try:
        theta0 = jnp.asarray(entry.theta0)
        solve = METHODS[method].prepare(entry.problem, theta0)
        answer = jax.block_until_ready(solve())
    except (Refused, ValueError) as refusal:
        if isinstance(refusal, ValueError) and "do not support JVP" not in str(refusal):
            raise
        write_json(path, {**row, "status": "refused", "words": str(refusal)})
        return
    row["seconds from start"] = time.time() - began
    row |= judged(entry, answer)
    row |= {"incentives": theta0.size, "megabytes": _peak()}
    write_json(path, row)
    clocks = []
    for _ in range(repeat):
        clocks.append(_timed(solve))
        row["seconds after compilation"] = float(np.median(clocks))
        write_json(path, {**row, "megabytes": _peak()})
    if certified and "objective" in row:
        found = certify(entry.problem, _inside(entry.problem, answer))
        row |= {"certificate": found.verdict, "B-stationary": b_stationarity(found.ending)}
        write_json(path, row)


def judged(entry: BankDesign, answer: Answer) -> dict[str, Any]:
    """The objective at the equilibrium of an answer, solved anew from the answer's strategies, and
    what that makes of it."""
    said = {"claims": answer.claims, "words": answer.words}
    if not np.isfinite(answer.theta).all():
        return {"status": "not finite", **said}
    problem, theta = entry.problem, _inside(entry.problem, answer)
    start = answer.x if answer.x is not None and np.isfinite(answer.x).all() else None
    found = solve_equilibrium(problem.game, theta, start, throw=False)
    objective, best = float(problem.objective(theta, found.x)), float(entry.best)
    left = float(found.residual)
    off = objective - best
    settled = left <= _SETTLED * max(1.0, float(jnp.max(jnp.abs(found.x))))
    if not (settled and np.isfinite(objective)):
        status = "no equilibrium"
    elif abs(off) <= tolerance(entry):
        status = "solved"
    elif off < 0:
        status = "better than the best known"
    else:
        status = "elsewhere, called a success" if answer.claims else "elsewhere"
    return {
        "status": status,
        **said,
        "objective": objective,
        "best": best,
        "gap": off / max(abs(best), 1e-6),
        "residual": left,
        "moved into the set": float(jnp.max(jnp.abs(theta - jnp.asarray(answer.theta)))),
        "theta": np.asarray(theta),
    }


def _inside(problem: DesignProblem, answer: Answer) -> Array:
    return problem.incentive_set.project(jnp.asarray(answer.theta, float))


def _timed(solve: Callable[[], Answer]) -> float:
    """Seconds, without those in which XLA compiles: some libraries compile at every call."""
    compiling = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiling.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    start = time.perf_counter()
    jax.block_until_ready(solve())
    seconds = time.perf_counter() - start
    jax.monitoring.unregister_event_duration_listener(listen)
    return seconds - sum(compiling)


def _peak() -> float | None:
    """Megabytes of this process at most so far, where Linux tells them."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return float(kilobytes[0]) / 1e3 if kilobytes else None


def main(arguments: list[str]) -> None:
    """What a process of its own does: its only argument is the JSON of [`solve_one`][]'s, and the
    number of the process that asks."""
    asked = json.loads(arguments[0])
    asking = asked.pop("asking")
    if os.name == "posix":  # elsewhere a launcher may stand between
        threading.Thread(target=_end_with, args=(asking,), daemon=True).start()
    solve_one(**{**asked, "path": Path(asked["path"])})


def _end_with(asking: int) -> None:
    """Ends this process, and its own, when the one that asked is gone, as after a kill."""
    while os.getppid() == asking:
        time.sleep(1)
    os.killpg(os.getpgrp(), signal.SIGKILL)
