"""The problem that a command names: a ready one, or one in a user's own file."""

import ast
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

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
    if not isinstance(found, Instance | DesignProblem) and callable(found):
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


def kept(make: Callable[..., Any]) -> list[str]:
    """The arguments of a problem's own that a text can say, with defaults."""
    parameters = inspect.signature(make).parameters.values()
    plain = (int, float, str, bool)
    return [f"{one.name}={one.default}" for one in parameters if isinstance(one.default, plain)]


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"`--set` needs key=value, got {text}")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value  # a word


def _made(make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    known = list(inspect.signature(make).parameters)
    for key in arguments:
        if key not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"`--set` needs an argument of the problem ({has}), got {key}")
    return make(**arguments)


def _attribute(path: Path, attribute: str) -> Any:
    if not path.is_file():
        raise ValueError(f"`PROBLEM` needs a file, and there is none at {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # its neighbours, as `python FILE.py` finds them
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        # The user's own traceback, without the frames that led to it.
        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename != str(path):
            frames = frames.tb_next
        sys.stderr.write("".join(traceback.format_exception(type(error), error, frames)))
        raise ValueError(f"{path} raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not hasattr(module, attribute):
        problems = [
            name
            for name, value in vars(module).items()
            if isinstance(value, Instance | DesignProblem)
        ]
        has = ", ".join(problems) or "none"
        raise ValueError(f"`PROBLEM` needs a problem of {path} ({has}), got {attribute}")
    return getattr(module, attribute)


def _as_instance(problem: DesignProblem, name: str) -> Instance:
    theta, x = problem.at_door("run", ("theta0", "x0"), problem.incentive_set.centre(), None)
    return Instance(problem=problem, theta0=theta, x0=x, description=name)
