"""What is done between two chunks of a run: shown, written, stopped.

A callback is called as `callback(step, info)` outside of the compiled program, with [`Info`][];
a run whose callback returns something true ends there. Any function will do; where it has a method
`close()`, that is called when the run ends.
"""

import csv
import importlib
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Array, PyTree

from . import _files

Callback = Callable[[int, "Info"], Any]


class Info:
    """How a run stands after a chunk, or the accurate designer after some steps.

    The accurate designer counts the steps from all starts together, so its objective jumps from
    start to start, and is smoothed on the way.

    - `steps`: how many were asked for, `None` where nobody knows.
    - `objective`, `residual`: at the last recorded pair; of runs side by side an entry each. The
      accurate designer has no residual on the way (NaN).
    - `theta`, `x`: where it stands; the accurate designer has no `x` on the way (`None`).
    - `run`: the [`Run`][] so far, whose `.solution()` is the answer by now; `None` without a
      scheme.
    - `seconds`: since this call began. `rate`: steps a second, without the first chunk, which
      compiles. `left`: seconds to the last step at this rate.
    """

    def __init__(
        self,
        *,
        steps: int | None,
        objective: np.ndarray,
        residual: np.ndarray,
        at: Callable[[], tuple[PyTree, Array | None]],
        seconds: float,
        rate: float,
        left: float,
        run: Any = None,
    ):
        self.steps, self.objective, self.residual, self.run = steps, objective, residual, run
        self.seconds, self.rate, self.left, self._at = seconds, rate, left, at

    @property
    def theta(self) -> PyTree:
        """The incentive where the run stands."""
        return self._at()[0]

    @property
    def x(self) -> Array | None:
        """The strategies where the run stands."""
        return self._at()[1]


class ProgressLine:
    """One line that says how far a run is: `progress=True`.

    **Arguments:**

    - `file`: where; standard error when left out.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax, io
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
        >>> shown = io.StringIO()
        >>> line = ix.callbacks.ProgressLine(shown)
        >>> _ = ix.design(problem, jnp.zeros(1), scheme, steps=200, callbacks=[line])
        >>> "200 of 200 steps" in shown.getvalue()
        True
    """

    def __init__(self, file: TextIO | None = None):
        self.file, self._width = file, 0

    def __call__(self, step: int, info: Info) -> None:
        """Writes over the line of the last chunk."""
        shown = [
            f"{step:,} steps" if info.steps is None else f"{step:,} of {info.steps:,} steps",
            f"{info.rate:,.4g} a second",
            *([f"{_as_time(info.left)} left"] if math.isfinite(info.left) else []),
            f"objective {_as_number(info.objective)}",
        ]
        if np.any(np.isfinite(info.residual)):
            shown.append(f"residual {_as_number(info.residual)}")
        line = ", ".join(shown)
        file = self.file or sys.stderr
        file.write("\r" + line.ljust(self._width))
        file.flush()
        self._width = len(line)

    def close(self) -> None:
        """Ends the line; called when a run ends."""
        if self._width:
            (self.file or sys.stderr).write("\n")
        self._width = 0


class CsvLog:
    """A row a chunk: step, seconds, steps a second, objective, residual.

    A run that is resumed goes on in the same file: rows from its step on are written anew.

    **Arguments:** `path` of the file.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax, tempfile, pathlib
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
        >>> log = ix.callbacks.CsvLog(path)
        >>> _ = ix.design(problem, jnp.zeros(1), scheme, steps=200, callbacks=[log])
        >>> [row.split(",")[0] for row in path.read_text().splitlines()]
        ['step', '100', '200']
    """

    columns = ("step", "seconds", "rate", "objective", "residual")

    def __init__(self, path: str | os.PathLike):
        self.path, self._begun = Path(path), False

    def __call__(self, step: int, info: Info) -> None:
        """Adds a row."""
        if not self._begun:
            self._keep_rows_before(step)
            self._begun = True
        row = (step, info.seconds, info.rate, _mean(info.objective), _mean(info.residual))
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerow(row)

    def _keep_rows_before(self, step: int) -> None:
        kept: list[Sequence[Any]] = []
        if self.path.exists():
            with open(self.path, newline="") as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit()]
            kept = [row for row in rows if int(row[0]) < step and len(row) == len(self.columns)]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.columns, *kept])
        _files.write_text(self.path, text.getvalue())

    def close(self) -> None:
        """The next run begins a log of its own."""
        self._begun = False


class StopWhen:
    """Ends a run that is near enough, or has taken long enough.

    **Arguments:** all that are given must hold, but `seconds`, which ends a run by itself.

    - `residual`: of the agents' play, at most this; never of the accurate designer, which has none
      on the way.
    - `change`: of the objective between two chunks, relative to its size, at most this.
    - `seconds`: since the call began.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
        >>> near = ix.callbacks.StopWhen(residual=1e-6, seconds=3600)
        >>> found = ix.design(problem, jnp.zeros(1), scheme, steps=100_000, callbacks=[near])
        >>> int(found.steps), found.theta.round(4).tolist()
        (100, [3.0])
    """

    def __init__(
        self,
        *,
        residual: float | None = None,
        change: float | None = None,
        seconds: float | None = None,
    ):
        given = {"residual": residual, "change": change, "seconds": seconds}
        if all(value is None for value in given.values()):
            raise ValueError("`StopWhen` needs one of residual, change and seconds, got none")
        for name, value in given.items():
            if value is not None and not value >= 0:
                raise ValueError(f"`StopWhen({name}=...)` needs {name} >= 0, got {value}")
        self.residual, self.change, self.seconds = residual, change, seconds
        self._last: np.ndarray | None = None

    def __call__(self, step: int, info: Info) -> bool:
        """Whether the run is to end."""
        last, self._last = self._last, info.objective
        if self.seconds is not None and info.seconds >= self.seconds:
            return True
        near = []
        if self.residual is not None:
            near.append(bool(np.all(info.residual <= self.residual)))
        if self.change is not None:
            moved = np.inf if last is None else np.abs(info.objective - last)
            near.append(bool(np.all(moved <= self.change * np.abs(info.objective))))
        return bool(near) and all(near)

    def close(self) -> None:
        """The next run is another one."""
        self._last = None


class TensorBoard:
    """Objective, residual and steps a second as scalars of TensorBoard.

    **Arguments:** `folder` of the event files.

    **Raises** `ImportError` without the extra "tensorboard".

    !!! example

        >>> import incentax as ix
        >>> try:  # shown by `tensorboard --logdir runs`
        ...     board = ix.callbacks.TensorBoard("/tmp/runs/first")
        ... except ImportError as error:
        ...     assert "incentax[tensorboard]" in str(error)
    """

    def __init__(self, folder: str | os.PathLike):
        board = _extra("tensorboardX", "TensorBoard", "tensorboard")
        self._writer = board.SummaryWriter(str(folder))

    def __call__(self, step: int, info: Info) -> None:
        """Adds a point to every curve."""
        for name, value in _scalars(info).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file of events."""
        self._writer.close()


class WeightsAndBiases:
    """Objective, residual and steps a second as a run of Weights & Biases.

    **Arguments:** those of `wandb.init`, such as `project`, `name`, `mode`.

    **Raises** `ImportError` without the extra "wandb".

    !!! example

        >>> import incentax as ix
        >>> try:
        ...     log = ix.callbacks.WeightsAndBiases(project="tolls", mode="disabled")
        ... except ImportError as error:
        ...     assert "incentax[wandb]" in str(error)
    """

    def __init__(self, **init: Any):
        self._run = _extra("wandb", "WeightsAndBiases", "wandb").init(**init)

    def __call__(self, step: int, info: Info) -> None:
        """Logs a row."""
        self._run.log(_scalars(info), step=step)

    def close(self) -> None:
        """Ends the run there too."""
        self._run.finish()


def _extra(module: str, owner: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'`callbacks.{owner}` needs an extra: pip install "incentax[{extra}]"'
        ) from error


def _scalars(info: Info) -> dict[str, float]:
    shown = {"objective": _mean(info.objective), "residual": _mean(info.residual)}
    return {**shown, "steps a second": info.rate}


def _mean(value: np.ndarray) -> float:
    """Of runs side by side, those that broke off left out."""
    fine = np.asarray(value)[np.isfinite(value)]
    return float(fine.mean()) if fine.size else math.nan


def _as_number(value: np.ndarray) -> str:
    """One number, or the mean of runs side by side."""
    return f"{_mean(value):.6g}" + (" (mean)" if np.size(value) > 1 else "")


def _as_time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
