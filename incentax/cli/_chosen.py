"""The problem that a command names: a ready one, or one in a user's own file."""

import ast
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, NamedTuple

import jax.numpy as jnp
import numpy as np
from cyclopts import convert, Token
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

from .._environment import environment
from ..design import DesignProblem
from ..experiments.ready_problem import ACCURATE
from ..problems import Instance, READY


class Chosen(NamedTuple):
    """An instance, how it was named, and what runs it best.

    - `name`: as on the command line; `arguments`: what `--set` said.
    """

    instance: Instance
    name: str
    arguments: dict[str, Any]
    scheme: str
    steps: int

    @property
    def folder(self) -> str:
        """A folder's name for its results."""
        return self.name.rpartition(":")[2].replace("/", "-")

    def as_dict(self) -> dict[str, Any]:
        """What names it, for a file."""
        return {"name": self.name, "set": self.arguments}

    def environment(self) -> dict[str, Any]:
        """Versions, device, and the git state of the problem's own file, where it has one."""
        path = Path(self.name.rpartition(":")[0])
        return environment(path.parent if path.suffix == ".py" else None)

    def unravel(self, flat: np.ndarray) -> PyTree:
        """An incentive of the problem from a flat array."""
        return ravel_pytree(self.instance.theta0)[1](jnp.asarray(flat))


def chosen(name: str, settings: tuple[str, ...]) -> Chosen:
    """The problem of that name, made with `key=value` settings; `ValueError` if there is none."""
    arguments = dict(map(_setting, settings))
    if name in READY:
        ready = READY[name]
        return Chosen(_made(ready.make, arguments), name, arguments, ready.scheme, ready.steps)
    path, colon, attribute = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        known = ", ".join(READY)
        raise ValueError(f"`PROBLEM` needs one of {known}, or FILE.py:NAME, got {name}")
    found = _attribute(Path(path), attribute)
    name = f"{Path(path).resolve()}:{attribute}"
    if not isinstance(found, Instance | DesignProblem) and callable(found):
        with _telling(Path(path)):
            found = _made(found, arguments)
    elif arguments:
        raise ValueError(f"`--set` needs a function, got {name}, a {type(found).__name__}")
    if isinstance(found, DesignProblem):
        found = _as_instance(found, attribute)
    if not isinstance(found, Instance):
        raise ValueError(
            f"`PROBLEM` needs an `Instance` or a `DesignProblem`, got {name}, "
            f"a {type(found).__name__}"
        )
    scheme = next(iter(found.schemes), ACCURATE)
    return Chosen(found, name, arguments, scheme, 1000)


def chosen_again(content: dict[str, Any]) -> Chosen:
    """The problem that a file of results names."""
    settings = tuple(f"{key}={value!r}" for key, value in content["set"].items())
    return chosen(content["name"], settings)


def kept(make: Callable[..., Any]) -> list[str]:
    """The arguments of a problem's own that a text can say, with defaults."""
    parameters = inspect.signature(make).parameters.values()
    plain = (int, float, str, bool)
    return [f"{one.name}={one.default}" for one in parameters if isinstance(one.default, plain)]


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"`--set` needs key=value, got {text}")
    for read in (ast.literal_eval, float):
        try:
            return key, read(value)
        except (ValueError, SyntaxError):
            pass
    return key, value  # a word


def _made(make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    known = inspect.signature(make).parameters
    for key, value in arguments.items():
        if key not in known:
            has = ", ".join(known) or "none"
            raise _Wrong(f"`--set` needs an argument of the problem ({has}), got {key}")
        default = known[key].default
        if isinstance(default, int | float) and not isinstance(value, int | float):
            raise _Wrong(f"`--set {key}=...` needs a number, got {value}")
    without = inspect.Parameter.empty
    plain = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for key, one in known.items():
        if one.default is without and one.kind not in plain and key not in arguments:
            raise _Wrong(f"the problem needs a value of {key}: give `--set {key}=...`")
    return make(**arguments)


class _Wrong(ValueError):
    """An argument of the command, and no fault of the user's file."""


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """What a user's file raises is shown with its own traceback, then in a sentence."""
    try:
        yield
    except _Wrong:
        raise
    except (Exception, SystemExit) as error:
        # Without the frames that led to the file.
        frames, own = error.__traceback__, path.resolve()
        while frames and Path(frames.tb_frame.f_code.co_filename).resolve() != own:
            frames = frames.tb_next
        sys.stderr.write("".join(traceback.format_exception(type(error), error, frames)))
        raise ValueError(f"{path} raised {type(error).__name__}: {error}") from error


def _attribute(path: Path, attribute: str) -> Any:
    if not path.is_file():
        raise ValueError(f"`PROBLEM` needs a file, and there is none at {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # its neighbours, as `python FILE.py` finds them
    try:
        with _telling(path):
            spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    if not hasattr(module, attribute):
        problems = [
            name
            for name, value in vars(module).items()
            if isinstance(value, Instance | DesignProblem)
            or (inspect.isfunction(value) and value.__module__ == module.__name__)
        ]
        has = ", ".join(problems) or "none"
        raise ValueError(
            f"`PROBLEM` needs a problem of {path}, or a function that returns one ({has}), got "
            f"{attribute}"
        )
    return getattr(module, attribute)


def _as_instance(problem: DesignProblem, name: str) -> Instance:
    theta, x = problem.at_door("run", ("theta0", "x0"), problem.incentive_set.centre(), None)
    return Instance(problem=problem, theta0=theta, x0=x, description=name)


def exactly(hint: Any, tokens: Sequence[Token]) -> Any:
    """A value as cyclopts converts it, which rounds what is to be a whole number."""
    given = [token.value for token in tokens]
    for text in given if int in (hint, *get_args(hint)) else ():
        if "." in text and not _is_whole(text):
            raise ValueError(f"needs a whole number, got {text}")
    return convert(hint, given)


def _is_whole(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False
