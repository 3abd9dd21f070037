"""Programs that answer soon, and are given back when their problems are gone."""

import functools
import gc
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr

from ._checks import is_inside, is_poisoning, is_raising, is_traced

T = TypeVar("T")

# Programs that are kept: a process may hold some 65,000 memory maps, a program takes 25 to 250, and
# some 8 MB of memory.
_KEPT = 128
# XLA's CPU compiler takes two thirds of its time for kernels that small arrays do not need.
_QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
_QUICKEST = _QUICK | {"xla_backend_optimization_level": 0}
# Up to this many numbers in all arguments the quickest compilation pays.
_SMALL = 4096
_ARRAY = object()
_COMPILING = ContextVar("compiling", default=False)
_PREPARING = ContextVar("preparing", default=False)
_TRACING: ContextVar[Callable | None] = ContextVar("tracing", default=None)


def compiled(function: Callable[..., T], *, lasting: bool = False) -> Callable[..., T]:
    """`function` as one program for each structure of its arguments; arrays are traced.

    As `eqx.filter_jit`, with two differences: a program is compiled quickly, unless it is `lasting`
    and worth the whole optimisation; and it is dropped when many others were used since, with all
    that it holds. Within a program of the caller's it is a part of that one.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        key, arrays = _taken_apart((args, kwargs))
        tracing = _TRACING.get()
        if tracing is not None:
            return tracing(_function(function, key, ()), arrays)
        if is_inside(arrays):
            return _part(function, key, ())(arrays)
        size = sum(np.size(array) for array in arrays if array is not None)
        program = _program(function, key, () if lasting else _options(size <= _SMALL))
        if lasting and _PREPARING.get():
            program.lower(arrays).compile()
            shapes = program.eval_shape(arrays)
            return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
        with _uncollected():
            return program(arrays)

    return call


def is_preparing() -> bool:
    """Whether answers are not asked for: nothing is to be told or written of them."""
    return _PREPARING.get()


def shape_of(verb: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What a compiled function would return, as shapes and dtypes: traced once, not compiled."""
    return _only_traced(lambda program, arrays: program.eval_shape(arrays), verb, *args, **kwargs)


def jaxpr_of(verb: Callable, *args: Any, **kwargs: Any) -> Jaxpr:
    """The program of a compiled function, traced once; its inputs are the arguments' arrays."""
    traced = _only_traced(lambda program, arrays: program.trace(arrays), verb, *args, **kwargs)
    return traced.jaxpr.jaxpr


def _only_traced(how: Callable, verb: Callable, *args: Any, **kwargs: Any) -> Any:
    token = _TRACING.set(how)
    try:
        return verb(*args, **kwargs)
    finally:
        _TRACING.reset(token)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's search for garbage: in the many objects of a trace it takes a sixth of the
    time to a first answer, and finds none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _taken_apart(arguments: Any) -> tuple["_Key", list]:
    """What programs are told apart by, and the arrays that they take."""
    leaves, structure = jax.tree.flatten(arguments)
    arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
    others = tuple(_ARRAY if eqx.is_array(leaf) else leaf for leaf in leaves)
    # As dictionary keys 1, 1.0 and True are one.
    return _Key(structure, others, tuple(map(type, others)), is_raising(), is_poisoning()), arrays


class _Key(NamedTuple):
    structure: Any
    others: tuple
    types: tuple
    raising: bool
    poisoning: bool


def _new_program(function: Callable, key: _Key, options: tuple) -> Any:
    def run(arrays: list) -> Any:
        pairs = zip(arrays, key.others, strict=True)
        leaves = [array if other is _ARRAY else other for array, other in pairs]
        args, kwargs = jax.tree.unflatten(key.structure, leaves)
        compiling, tracing = _COMPILING.set(True), _TRACING.set(None)
        try:
            return function(*args, **kwargs)
        finally:
            _COMPILING.reset(compiling)
            _TRACING.reset(tracing)

    run.__name__ = run.__qualname__ = getattr(function, "__name__", "run")
    return jax.jit(run, compiler_options=dict(options))


_program = functools.lru_cache(maxsize=_KEPT)(_new_program)
# Parts of the callers' programs, which `jax.grad` outside of `jit` compiles for themselves, without
# the quick compilation; and the users' functions and what is asked at the door, traced and no more.
_part = functools.lru_cache(maxsize=_KEPT // 8)(_new_program)
_function = functools.lru_cache(maxsize=_KEPT)(_new_program)


@functools.cache
def _options(small: bool) -> tuple[tuple[str, bool | int], ...]:
    """For the CPU compiler, where it knows them."""
    if jax.default_backend() != "cpu":
        return ()
    options = _QUICKEST if small else _QUICK
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except RuntimeError:  # of another version of jaxlib
        return ()
    return tuple(options.items())


def prepare(verb: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Compiles what `verb(*args, **kwargs)` will need, so that the call itself does not wait.

    The steps of a scheme are compiled and not run; everything else runs once. Other numbers in
    arguments of the same shapes, and in arrays of the same game, need nothing more.

    **Arguments:**

    - `verb`: `ix.design`, `ix.solve_equilibrium`, `ix.certify`, or any other.
    - the verb's own arguments, as the call will have them.

    **Raises** what the verb raises for a wrong argument; how a computation ends is not told.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Simplex(2))
        >>> ix.prepare(ix.solve_equilibrium, game, jnp.zeros(2))
        >>> print(ix.solve_equilibrium(game, jnp.array([0.8, 0.4])).x.round(4))
        [0.7 0.3]
    """
    if "throw" in inspect.signature(verb).parameters:
        kwargs = kwargs | {"throw": False}
    token = _PREPARING.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jax.block_until_ready(verb(*args, **kwargs))
    finally:
        _PREPARING.reset(token)


def traced_once(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)`; within a program of ours a user's function runs once a shape."""
    if not (_COMPILING.get() and is_traced(arguments)):
        return function(*arguments)
    key, arrays = _taken_apart(((function, *arguments), {}))
    return _function(_call, key, ())(arrays)


def _call(function: Callable, *arguments: Any) -> Any:
    return function(*arguments)
