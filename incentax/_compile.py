"""Programs that answer soon, and are given back when their problems are gone."""

import functools
import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from ._checks import is_traced, warn

T = TypeVar("T")

# Programs that are kept: a process may hold some 65,000 memory maps, a program takes 25 to 250.
_KEPT = 256
# XLA's CPU compiler takes two thirds of its time for kernels that small arrays do not need.
_QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
_QUICKEST = _QUICK | {"xla_backend_optimization_level": 0}
# Up to this many numbers in all arguments the quickest compilation pays.
_SMALL = 4096
_ARRAY = object()
_PREPARING = ContextVar("preparing", default=False)


def compiled(function: Callable[..., T], *, lasting: bool = False) -> Callable[..., T]:
    """`function` as one program for each structure of its arguments; arrays are traced.

    As `eqx.filter_jit`, with two differences: a program is compiled quickly, unless it is `lasting`
    and worth the whole optimisation; and it is dropped when many others were used since, with all
    that it holds. Within a program of the caller's it is a part of that one.
    """
    nested = eqx.filter_jit(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        if is_traced(args, kwargs):
            return nested(*args, **kwargs)
        leaves, structure = jax.tree.flatten((args, kwargs))
        arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
        others = tuple(_ARRAY if eqx.is_array(leaf) else leaf for leaf in leaves)
        size = sum(np.size(array) for array in arrays if array is not None)
        options = () if lasting else _options(size <= _SMALL)
        program = _program(function, structure, others, options)
        if lasting and _PREPARING.get():
            program.lower(arrays).compile()
            shapes = program.eval_shape(arrays)
            return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
        return program(arrays)

    return call


@functools.lru_cache(maxsize=_KEPT)
def _program(function: Callable, structure: Hashable, others: tuple, options: tuple) -> Any:
    def run(arrays: list) -> Any:
        pairs = zip(arrays, others, strict=True)
        leaves = [array if other is _ARRAY else other for array, other in pairs]
        args, kwargs = jax.tree.unflatten(structure, leaves)
        return function(*args, **kwargs)

    run.__name__ = run.__qualname__ = function.__name__
    return jax.jit(run, compiler_options=dict(options))


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


def keep_programs(folder: str | os.PathLike | None = None) -> Path | None:
    """Keeps compiled programs on disk, so that another process need not compile them again.

    Switches JAX's persistent compilation cache on for this process, for programs of every size.
    The command line does so by itself. Entries of other versions and damaged ones are ignored.

    **Arguments:**

    - `folder`: where; `incentax` in the user's cache folder when left out.

    **Returns** the folder, or `None`, with a warning, when files cannot be written there or when
    this processor does not load its own programs (then all is compiled, as without the call).

    !!! example

        >>> import incentax as ix, tempfile
        >>> folder = ix.keep_programs(tempfile.mkdtemp())
    """
    if folder is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "incentax"
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        warn(f"`keep_programs(folder)`: programs are not kept, got {folder}: {error}")
        return None
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    with tempfile.TemporaryDirectory(dir=folder) as trial:
        _keep_in(trial)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(2):  # written, then read
                jax.jit(lambda x: x + 1).lower(jnp.zeros(())).compile()
    refused = [str(entry.message) for entry in told if "compilation cache" in str(entry.message)]
    if refused:
        _keep_in(None)
        warn(f"`keep_programs(folder)`: this processor rejects stored programs: {refused[0]}")
        return None
    _keep_in(str(folder))
    return folder


def _keep_in(folder: str | None) -> None:
    jax.config.update("jax_compilation_cache_dir", folder)
    reset_cache()  # of a process that has compiled something before


def traced_once(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)`; within a program a function of the user's runs once a shape."""
    if not is_traced(arguments):
        return function(*arguments)
    return _traced(function, *arguments)


_traced = eqx.filter_jit(lambda function, *arguments: function(*arguments))
