"""What a method is, and what it answers."""

import ast
import inspect
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
    - `by_hand`: what its user writes beside the problem's two functions, a call apart.
    """

    about: str
    prepare: Callable[[DesignProblem, Array], Callable[[], Answer]]
    needs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    by_hand: tuple[Callable | type, ...] = ()

    @property
    def lines(self) -> int:
        """Lines of code, without blanks, comments and docstrings, and one for the call."""
        return 1 + sum(map(_lines_of, self.by_hand))


def _lines_of(written: Callable | type) -> int:
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(written)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return len(ast.unparse(tree).splitlines())
