"""Looks at a design without a scheme on its way: every step is told, and may be the last."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from jaxtyping import PyTree

from .._checks import warn
from ..callbacks import Callback, Info

# Steps of a compiled search between two looks.
LOOK_EVERY = 10


class Clock:
    """Seconds and rate of a run that goes on in chunks, from step `first` on."""

    def __init__(self, first: int):
        self.begun, self._first = time.monotonic(), first
        self._since: tuple[int, float] | None = None

    def at(self, step: int, steps: int | None) -> dict[str, float]:
        """`seconds`, `rate` and `left` of [`Info`][]; of the first chunk with its compilation."""
        now = time.monotonic()
        count, since = self._since or (self._first, self.begun)
        self._since = self._since or (step, now)
        rate = (step - count) / max(now - since, 1e-9)
        left = math.inf if steps is None or rate <= 0 else max(steps - step, 0) / rate
        return {"seconds": now - self.begun, "rate": rate, "left": left}


def close_all(callbacks: Sequence[Callback]) -> None:
    """Calls `close()` of those that have it; what one raises ends nothing."""
    for callback in callbacks:
        try:
            getattr(callback, "close", str)()
        except Exception as error:
            warn(f"callback {callback!r}: its `close()` raised {type(error).__name__}: {error}")


def words_of(callback: Callback, error: Exception, step: int) -> str:
    """What a callback raised."""
    name = getattr(callback, "__qualname__", type(callback).__qualname__)
    return f"callback {name} raised {type(error).__name__}: {error} (after step {step})"


class Looks:
    """Who looks, steps so far from all starts together, and whether one of them has had enough."""

    def __init__(self, callbacks: Sequence[Callback]):
        self.callbacks, self.count, self.enough = callbacks, 0, False
        self.raised: tuple[Callback, Exception] | None = None
        self._clock = Clock(0)

    def told(self, steps: int, objective: float, theta: Callable[[], PyTree]) -> None:
        """So many steps further, at a point of that objective."""
        self.count += steps
        info = Info(
            steps=None,
            objective=np.asarray(objective),
            residual=np.asarray(np.nan),
            at=lambda: (theta(), None),
            **self._clock.at(self.count, None),
        )
        for callback in self.callbacks:
            try:
                self.enough |= bool(callback(self.count, info))
            except Exception as error:  # told when the design has ended with what there is
                self.enough, self.raised = True, (callback, error)


_LOOKS: ContextVar[Looks | None] = ContextVar("looks", default=None)


@contextmanager
def looking(callbacks: Sequence[Callback]) -> Iterator[Looks]:
    """Within it designs without a scheme tell their steps."""
    looks = Looks(callbacks)
    token = _LOOKS.set(looks if callbacks else None)
    try:
        yield looks
    finally:
        _LOOKS.reset(token)
        close_all(callbacks)


def is_looked_at() -> bool:
    """Whether anybody looks."""
    return _LOOKS.get() is not None


def is_enough() -> bool:
    """Whether a callback has ended the design."""
    looks = _LOOKS.get()
    return looks is not None and looks.enough


def stepped(objective: float, theta: Callable[[], PyTree], steps: int = 1) -> None:
    """Tells whoever looks."""
    looks = _LOOKS.get()
    if looks is not None and steps:
        looks.told(steps, objective, theta)
