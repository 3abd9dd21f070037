"""What a method is, and what it answers."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array

from ..design import DesignProblem


class Answer(NamedTuple):
    """An incentive, whether its method calls it a success, and what it says of it.

    `x`: the strategies that belong to it, where the method knows them.
    """

    theta: Array
    claims: bool
    words: str
    x: Array | None = None


class Refused(Exception):
    """What a method is not made for."""


class Method(NamedTuple):
    """A way to solve designs.

    - `about`: one sentence. `prepare(problem, theta0)`: a function without arguments that solves
      it; what it compiles is kept from one call to the next.
    - `needs`: packages that pip installs for it. `modules`: what they are imported as.
    """

    about: str
    prepare: Callable[[DesignProblem, Array], Callable[[], Answer]]
    needs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
