"""What tells one computation from another, in words that a file can hold."""

import functools
import hashlib
import re
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._devices import on_host

# Where code is that versions tell apart, and no user's own.
_INSTALLED = (
    str(Path(__file__).parent),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)
# Modules whose objects are what they look like.
_PLAIN = ("builtins", "fractions", "decimal", "pathlib", "datetime")
# Arrays of up to so many entries are shown, others by their fingerprint.
_SHOWN = 4


def described(**things: Any) -> dict[str, str]:
    """A line for every part of `things`: arrays by dtype, shape and content, functions by their
    code and what they have captured; a user's own by the global values that they use too, and by
    the methods of their classes. What they read from elsewhere is not seen."""
    lines: dict[str, str] = {}
    met: dict[int, tuple[str, Any]] = {}
    for name, thing in things.items():
        _describe(name, thing, lines, met)
    return lines


def differences(there: dict[str, str], here: dict[str, str]) -> list[str]:
    """In words, what differs between two descriptions."""
    told = []
    for name in [*here, *(name for name in there if name not in here)]:
        was, now = there.get(name, "nothing"), here.get(name, "nothing")
        if was != now:
            told.append(f"{name} was {was} and is {now}")
    return told


def _describe(
    name: str, thing: Any, lines: dict[str, str], met: dict[int, tuple[str, Any]]
) -> None:
    """Adds the lines of one thing; what consists of parts is described where it is first `met`."""
    parts = _parts(thing)
    if parts and id(thing) in met:
        lines[name] = f"as {met[id(thing)][0]}"
        return
    if parts:
        met[id(thing)] = name, thing  # kept, so that its number stays its own
    text = _own(thing)
    if text:
        lines[name] = text
    for part, inner in parts:  # what only wraps another thing is that one
        _describe(f"{name}{part}", inner, lines, met)


def _parts(thing: Any) -> list[tuple[str, Any]]:
    """What a thing consists of, by name."""
    if isinstance(thing, functools.partial):  # of JAX too
        inner = [("", thing.func), *((f"[{k}]", arg) for k, arg in enumerate(thing.args))]
        return inner + [(f"[{key}]", arg) for key, arg in thing.keywords.items()]
    if isinstance(thing, types.MethodType):
        return [("", thing.__func__), (".self", thing.__self__)]
    if isinstance(thing, dict):
        return [(f"[{key!r}]", inner) for key, inner in thing.items()]
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):  # a named one
        fields: Any = thing
        return [(f".{field}", getattr(thing, field)) for field in fields._fields]
    if isinstance(thing, set | frozenset):
        thing = sorted(thing, key=repr)
    if isinstance(thing, np.ndarray) and thing.dtype.hasobject:
        thing = thing.ravel().tolist()
    if isinstance(thing, list | tuple):
        return [(f"[{k}]", inner) for k, inner in enumerate(thing)]
    if isinstance(thing, types.FunctionType):
        return _used_by(thing)
    if hasattr(thing, "__wrapped__"):  # jitted
        return [("", getattr(thing, "__wrapped__"))]  # noqa: B009
    if isinstance(thing, type | types.ModuleType | jax.Array | np.ndarray):
        return []
    classes = [kind for kind in reversed(type(thing).__mro__) if not _is_installed_class(kind)]
    methods = [
        (f".{name}", value)
        for kind in classes
        for name, value in vars(kind).items()
        if (isinstance(value, types.FunctionType) and not _is_installed(value.__code__))
        or (
            isinstance(value, bool | int | float | str | tuple | np.ndarray | jax.Array)
            and not name.startswith("_")
        )
    ]
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    own = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    own |= getattr(thing, "__dict__", {})
    return methods + [(f".{name}", inner) for name, inner in own.items()]


def _is_installed(code: types.CodeType) -> bool:
    """Code that versions tell apart, and no user's own; what modules make for themselves too."""
    return code.co_filename.startswith((*_INSTALLED, "<equinox", "<frozen"))


def _is_installed_class(kind: type) -> bool:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return kind.__module__ == "builtins" or (file is not None and file.startswith(_INSTALLED))


def _used_by(function: types.FunctionType) -> list[tuple[str, Any]]:
    """What a function has captured, its defaults, and the global values that a user's own uses."""
    code, cells = function.__code__, function.__closure__ or ()
    used = [(f".{name}", _content(cell)) for name, cell in zip(code.co_freevars, cells)]
    used += [(f".{k}", value) for k, value in enumerate(function.__defaults__ or ())]
    used += [(f".{name}", value) for name, value in (function.__kwdefaults__ or {}).items()]
    if not _is_installed(code):
        names = [name for name in _names_in(code) if name in function.__globals__]
        used += [(f".{name}", function.__globals__[name]) for name in names]
    return used


def _names_in(code: types.CodeType) -> list[str]:
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    names = [*code.co_names, *(name for one in inner for name in _names_in(one))]
    return list(dict.fromkeys(names))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _own(thing: Any) -> str:
    """What is to be said of a thing itself, not of its parts."""
    if isinstance(thing, jax.Array) and jnp.issubdtype(thing.dtype, jax.dtypes.prng_key):
        return f"{jax.random.key_impl(thing)} key {_shown(on_host(jax.random.key_data(thing)))}"
    if isinstance(thing, jax.Array | np.ndarray | np.generic):
        return _shown(on_host(thing))
    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes | np.dtype):
        return repr(thing)
    if isinstance(thing, types.FunctionType):
        return f"{thing.__module__}.{thing.__qualname__} {_fingerprint(_code(thing.__code__))}"
    if isinstance(thing, type) or (callable(thing) and hasattr(thing, "__qualname__")):
        return f"{getattr(thing, '__module__', '')}.{thing.__qualname__}"
    if isinstance(thing, types.ModuleType):
        return thing.__name__
    if hasattr(thing, "__wrapped__"):
        return ""
    if type(thing).__module__ in _PLAIN and not isinstance(thing, dict | list | tuple | set):
        return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))  # where it lies is of no matter
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _shown(array: np.ndarray) -> str:
    if array.dtype.hasobject:  # whose entries are parts
        return f"{array.dtype}{list(array.shape)}"
    if array.size <= _SHOWN:
        return f"{array.dtype}{list(array.shape)} {array.tolist()}"
    return f"{array.dtype}{list(array.shape)} {_fingerprint(array.tobytes())}"


def _code(code: types.CodeType) -> bytes:
    """Instructions and constants, without the lines that they stand on."""
    parts = [code.co_code, repr(code.co_names).encode()]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            parts.append(_code(constant))
        else:  # a set in an order that is the same in every process
            known = isinstance(constant, frozenset)
            parts.append(repr(sorted(constant, key=repr) if known else constant).encode())
    return b"\0".join(parts)


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
