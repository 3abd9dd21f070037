"""What the history of a run keeps."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, PyTree

from .._checks import require_count
from .._tree import as_pytree_function


class Record(eqx.Module):
    """What the history keeps: every `every`-th step, and `observe(theta, x)` if given.

    !!! example

        >>> import incentax as ix
        >>> ix.Record(every=10, observe=lambda theta, x: theta).every
        10
    """

    every: int = eqx.field(static=True)
    observe: Callable[[PyTree, Array], PyTree]

    def __init__(self, every: int = 1, observe: Callable[[PyTree, Array], PyTree] | None = None):
        self.every = require_count("Record", "every", every)
        self.observe = as_pytree_function(_nothing if observe is None else observe)


def as_record(record: int | Record | None) -> Record:
    """A `Record` from what `design(record=...)` accepts."""
    if isinstance(record, Record):
        return record
    return Record(1 if record is None else record)


def _nothing(theta: PyTree, x: Array) -> None:
    """Observes nothing."""
    del theta, x
