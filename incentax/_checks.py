"""Refusals: one way to say which argument breaks which rule, eagerly and in compiled code."""

import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state
from jaxtyping import Array, ArrayLike, Bool, PyTree

T = TypeVar("T")


class _Message(str):
    """A text for `eqx.error_if` whose received value is filled in when the program runs."""

    received: str

    def __new__(cls, rule: str):
        message = super().__new__(cls, rule)
        message.received = ""
        return message

    # Texts that compare equal would be taken for one another where programs are cached.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __format__(self, spec: str) -> str:
        return format(str(self) + self.received, spec)


def is_traced(*trees: PyTree) -> bool:
    """Whether any leaf is known only when the program runs."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


# Asked in a thread of its own, for the first import may stand in a traced function.
with ThreadPoolExecutor(1) as _pool:
    _NOTHING_TRACED = _pool.submit(get_opaque_trace_state, convention="nnx").result()


def is_inside(*trees: PyTree) -> bool:
    """Whether what these lead to is known only when the caller's own program runs.

    Also where no leaf is traced: functions may hold what is.
    """
    return is_traced(*trees) or get_opaque_trace_state(convention="nnx") != _NOTHING_TRACED


def require_key(owner: str, key: Any) -> None:
    """Refuses what is no single key of `jax.random`."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32 and key.ndim == 1
    if not raw and not (typed and key.ndim == 0):
        got = f"{key.size} keys" if typed else repr(key)
        raise TypeError(f"`{owner}(key=...)` needs one key, as `jax.random.key(0)`, got {got}")


Received = ArrayLike | dict[str, ArrayLike]

_POISONING = ContextVar("poisoning", default=False)


@contextmanager
def poisoning() -> Iterator[None]:
    """Within it values that break a rule become NaN: each lane has its own status.

    A jitted helper of the user's that makes a set keeps what it was first traced with.
    """
    token = _POISONING.set(True)
    try:
        yield
    finally:
        _POISONING.reset(token)


def is_poisoning() -> bool:
    """Whether values that break a rule become NaN."""
    return _POISONING.get()


_RAISING = ContextVar("raising", default=False)


@contextmanager
def compiled_errors() -> Iterator[None]:
    """Within it failures raise from inside of your own compiled programs.

    Values are not known while `jax.jit`, `jax.vmap` or `jax.grad` trace a function. A rule that
    they break and an answer that is not reached then show as NaN, with the reason in `.result`.
    Within this context they raise `RuntimeError` with the same text as outside, by a host callback:
    JAX stores no program that has one in its persistent cache.

    !!! example

        >>> import incentax as ix, jax, jax.numpy as jnp
        >>> @jax.jit
        ... def nearest(upper):
        ...     with ix.compiled_errors():
        ...         return ix.Box(0.0, upper).project(jnp.ones(()))
        >>> print(nearest(0.5))
        0.5
    """
    token = _RAISING.set(True)
    try:
        yield
    finally:
        _RAISING.reset(token)


def is_raising() -> bool:
    """Whether failures in compiled programs raise."""
    return _RAISING.get()


def require(tree: T, holds: ArrayLike, rule: str, received: Received) -> T:
    """Returns `tree`, or refuses with `rule` and the first value at which it does not hold.

    `received` is the value that breaks the rule, or several by name.

    Known values raise `ValueError` at once, traced ones become NaN where the rule is broken.
    Within [`poisoning`][] both do, within [`compiled_errors`][] both raise.
    """
    known = not is_traced(holds, received)
    if known and np.all(holds):
        return tree
    if known and not _POISONING.get():
        raise ValueError(rule + _describe(np.asarray(holds), received))
    if _POISONING.get() or not _RAISING.get():
        return nan_unless(jnp.all(jnp.asarray(holds)), tree)
    return _raise_unless(tree, holds, rule, received)


def nan_unless(fine: Bool[ArrayLike, ""], tree: T) -> T:
    """`tree`, its floating leaves and their derivatives NaN where not `fine`."""

    def checked(leaf: Any) -> Any:
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
        # A factor, and no choice between the two, whose derivative would be 0.
        return leaf * jnp.where(fine, 1, jnp.nan).astype(leaf.dtype) if floating else leaf

    return jax.tree.map(checked, tree)


def _raise_unless(tree: T, holds: ArrayLike, rule: str, received: Received) -> T:
    """From inside of a compiled program."""
    message = _Message(rule)

    def remember(holds, received):
        holds = np.asarray(holds)
        if not holds.all():
            message.received = _describe(holds, received)
        return np.zeros(np.shape(holds)[: holds.ndim - ndim], np.int32)

    ndim = jnp.ndim(holds)
    failed = ~jnp.all(jnp.asarray(holds))
    # The index is computed by the callback, so the value is stored before the error is raised.
    index = jax.lax.cond(
        failed,
        lambda: jax.pure_callback(
            remember,
            jax.ShapeDtypeStruct((), np.int32),
            jnp.asarray(holds),
            jax.lax.stop_gradient(jax.tree.map(jnp.asarray, received)),
            vmap_method="broadcast_all",
        ),
        lambda: jnp.int32(0),
    )
    return eqx.branched_error_if(tree, failed, index, [message])


def _describe(holds: np.ndarray, received: Received) -> str:
    if isinstance(received, dict):
        values = {f"{name}=": np.asarray(value) for name, value in received.items()}
    else:
        values = {"": np.asarray(received)}
    index, place = (), ""
    if holds.ndim and all(value.shape == holds.shape for value in values.values()):
        index = tuple(int(i) for i in np.unravel_index(int(np.argmin(holds)), holds.shape))
        place = f" at index {index[0] if len(index) == 1 else index}"
    return ", got " + ", ".join(f"{name}{value[index]}" for name, value in values.items()) + place


def warn(text: str) -> None:
    """A warning that points at the line which called the package."""
    package, own, level, frame = os.path.dirname(__file__), 1, 1, sys._getframe(0)
    while frame is not None:  # wrappers of other packages may stand between our frames
        if frame.f_code.co_filename.startswith(package):
            own = level
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=own + 1)


def unknown(like: Array) -> Array:
    """NaN of the shape and dtype of an array, for what nobody computed.

    Put there and not computed: `JAX_DEBUG_NANS` takes it for no failure.
    """
    return jax.device_put(np.full(np.shape(like), np.nan, like.dtype))


def require_positive(owner: str, name: str, value: Any, *, strictly: bool = True) -> Array:
    """`value` as an array of floats, refused unless (strictly) positive."""
    # A known value is checked as such: inside a traced function its array would not be known.
    try:
        array = as_float(value) if is_traced(value) else np.asarray(value, _float_dtype(value))
    except TypeError:
        raise TypeError(f"`{owner}({name}=...)` needs a number, got {value!r}") from None
    holds = abs(array) < jnp.inf
    holds = holds & (array > 0 if strictly else array >= 0)
    rule = f"`{owner}({name}=...)` needs finite {name} {'>' if strictly else '>='} 0"
    return jnp.asarray(require(array, holds, rule, array))


def require_count(owner: str, name: str, value: Any, least: int = 1) -> int:
    """`value` as an `int`, refused unless whole and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"`{owner}({name}=...)` needs a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"`{owner}({name}=...)` needs {name} >= {least}, got {value}")
    return int(value)


def require_rows(owner: str, name: str, tree: PyTree, entry: str) -> tuple[PyTree, int]:
    """Arrays with a common leading axis, an `entry` a row, and how many there are."""
    arrays = jax.tree.map(jnp.asarray, tree)
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves(arrays)}
    if len(sizes) != 1 or not all(sizes) or (0,) in sizes:
        raise ValueError(
            f"`{owner}({name})` needs arrays with a common leading axis, an entry a {entry} (of a "
            f"list make one with `jnp.array`), got leading axes {sorted(sizes)}"
        )
    (count,) = sizes.pop()
    return arrays, count


def require_numbers(owner: str, name: str, values: Any) -> np.ndarray:
    """`values` as floats on the host, refused unless numbers."""
    try:
        return np.ascontiguousarray(values, float)
    except (TypeError, ValueError):
        raise TypeError(f"`{owner}({name}=...)` needs numbers, got {values!r}") from None


def require_kind(owner: str, name: str, thing: Any, kind: type) -> None:
    """`TypeError` for anything that is none of this kind."""
    if not isinstance(thing, kind):
        one = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(
            f"`{owner}({name}=...)` needs {one} `{kind.__name__}`, got {type(thing).__name__}"
        )


def require_one_of(owner: str, name: str, value: Any, options: tuple[str, ...]) -> None:
    """`ValueError` for anything that is none of the options."""
    if value not in options:
        known = " or ".join(map(repr, options))
        raise ValueError(f"`{owner}({name}=...)` needs {known}, got {value!r}")


def _float_dtype(value: Any) -> Any:
    # Of a list jax knows no dtype, and a string it takes for the name of one.
    named = isinstance(value, list | tuple | str)
    dtype = jnp.result_type(np.asarray(value) if named else value)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def as_float(value: Any) -> Array:
    """`value` as a float array; floats keep their dtype, everything else takes the default one."""
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)
