"""What an entry of the bank is, and the two tables."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Array, PyTree

from ...design import DesignProblem
from ...games import AbstractGame

OWN = "incentax"


@dataclass(frozen=True)
class BankDesign:
    """A design problem with the best value that is known of it.

    - `.problem`, `.theta0`: the problem and its start, made when first asked for; `.x0` is `None`:
      agents start at the centre of their set.
    - `.best`: the least known objective. `.source`: where the problem is from. `.kind`: what it
      is about, in words.
    """

    make: Callable[[], tuple[DesignProblem, PyTree]]
    best: float
    source: str
    x0: None = None

    @cached_property
    def _made(self) -> tuple[DesignProblem, PyTree]:
        return self.make()

    @property
    def kind(self) -> str:
        made_by: Any = getattr(self.make, "func", self.make)
        return made_by.__module__.rsplit(".", 1)[1].strip("_").replace("_", " ")

    @property
    def problem(self) -> DesignProblem:
        """The problem."""
        return self._made[0]

    @property
    def theta0(self) -> PyTree:
        """Where to start."""
        return self._made[1]


@dataclass(frozen=True)
class BankEquilibrium:
    """An equilibrium problem with its answers.

    - `.game`, `.x0`: the game, whose operator takes `None` for `theta`, and a start.
    - `.solutions`: its equilibria, of which one is to be found. `.digits`: how many digits after
      the point they are published with. `.source`: where the problem is from.
    """

    make: Callable[[], tuple[AbstractGame, Array]]
    answers: tuple[Any, ...]
    source: str
    digits: int

    @cached_property
    def _made(self) -> tuple[AbstractGame, Array]:
        return self.make()

    @property
    def game(self) -> AbstractGame:
        """The game."""
        return self._made[0]

    @property
    def x0(self) -> Array:
        """Where to start."""
        return self._made[1]

    @cached_property
    def solutions(self) -> list[np.ndarray]:
        """Its equilibria."""
        return [np.asarray(one() if callable(one) else one) for one in self.answers]


designs: dict[str, BankDesign] = {}
equilibria: dict[str, BankEquilibrium] = {}


def design(name: str, best: float, source: str = OWN) -> Callable:
    """Adds the problem and start that a function makes."""

    def add(make: Callable) -> Callable:
        designs[name] = BankDesign(make, best, source)
        return make

    return add


def equilibrium(name: str, *answers: Any, source: str = OWN, digits: int = 12) -> Callable:
    """Adds the game and start that a function makes."""

    def add(make: Callable) -> Callable:
        equilibria[name] = BankEquilibrium(make, answers, source, digits)
        return make

    return add
