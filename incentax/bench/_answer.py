"""What a method is, and what it answers."""

import ast
import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

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

    @property
    def lines(self) -> int:
        """Of its adapter, helpers included: without blanks, comments and docstrings."""
        return sum(map(_lines_of, _with_helpers(self.prepare, [])))


def _with_helpers(written: Any, found: list) -> list:
    """A function or class with all of its own module that it calls, and that those call."""
    found.append(written)
    module = sys.modules[written.__module__]
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(written)))
    for node in ast.walk(tree):
        named = getattr(module, node.id, None) if isinstance(node, ast.Name) else None
        own = inspect.isfunction(named) or inspect.isclass(named)
        if own and named.__module__ == written.__module__ and named not in found:
            _with_helpers(named, found)
    return found


def _lines_of(written: Any) -> int:
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(written)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return sum(bool(line.strip()) for line in ast.unparse(tree).splitlines())
