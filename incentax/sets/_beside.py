"""A strategy set with non-negative numbers beside it, in one flat array."""

import math
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.linalg import block_diag
from jaxtyping import Array, Float, Int, PyTree

from ._base import AbstractFace, AbstractStrategySet
from ._box import BoxFace, check_shape_of_array, NonNegative
from ._constraints import LinearConstraints, Rows


class FaceBeside(AbstractFace):
    """The faces of both parts."""

    scale: Float[Array, " d"]
    relaxation: Float[Array, " d"]
    degenerate: Int[Array, ""]
    displacement: Float[Array, " d"]
    own: AbstractFace
    more: BoxFace
    shape: tuple[int, ...] = eqx.field(static=True)

    def _split(self, w: Array) -> tuple[Array, Array]:
        return _split(w, self.shape)

    def project(self, w: Array) -> Array:
        own, more = self._split(w)
        return _joined(self.own.project(own), self.more.project(more))

    def multipliers(self, operator_value: Array) -> tuple[Array, Array]:
        return self.own.multipliers(self._split(operator_value)[0])

    def carry(
        self, constraints: LinearConstraints, x: Array, operator_value: Array
    ) -> tuple[Array, Array]:
        own, more = self._split(x)
        values = self._split(operator_value)
        size, dtype = own.size, x.dtype
        held = eqx.tree_at(
            lambda c: (c.lower, c.upper, c.equality, c.inequality),
            constraints,
            (
                constraints.lower[:size],
                constraints.upper[:size],
                Rows(constraints.equality.dense(dtype)[:, :size]),
                constraints.inequality[:, :size],
            ),
        )
        point, force = self.own.carry(held, own, values[0])
        rest = NonNegative(more.size).constraints(more)
        kept, none = self.more.carry(rest, more, values[1])
        return _joined(point, kept), _joined(force, none)

    def response(self, diagonal: Array) -> Callable[[Array], Array]:
        own, more = (
            face.response(part)
            for face, part in zip((self.own, self.more), self._split(diagonal), strict=True)
        )

        def respond(g: Array) -> Array:
            parts = self._split(g)
            return _joined(own(parts[0]), more(parts[1]))

        return respond


class Beside(AbstractStrategySet):
    """`{(x, s) : x in own, s >= 0}`: `x` of the given shape, flattened, then `more` numbers."""

    own: AbstractStrategySet
    own_shape: tuple[int, ...] = eqx.field(static=True)
    more: int = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        return (math.prod(self.own_shape) + self.more,)

    def split(self, x: Array) -> tuple[Array, Array]:
        """`x` in its own shape, and the numbers beside it."""
        return _split(x, self.own_shape)

    def project(self, x: Array) -> Array:
        own, more = self.split(x)
        return _joined(self.own.project(own), jnp.maximum(more, 0))

    def centre(self) -> Array:
        own = jnp.broadcast_to(self.own.centre(), self.own_shape)
        return _joined(own, jnp.ones(self.more, own.dtype))

    def check_shape(self, owner: str, name: str, x: PyTree) -> None:
        check_shape_of_array(owner, name, x, self.shape)

    def constraints(self, x: Array) -> LinearConstraints:
        own, more = self.split(x)
        first, second = self.own.constraints(own), NonNegative(more.size).constraints(more)
        wide = jnp.zeros((0, more.size), x.dtype)
        return LinearConstraints(
            jnp.concatenate([first.lower, second.lower]),
            jnp.concatenate([first.upper, second.upper]),
            Rows(block_diag(first.equality.dense(x.dtype), wide)),
            first.equality_level,
            block_diag(first.inequality.astype(x.dtype), wide),
            first.inequality_level,
        )

    def displacement(self, x: Array, force: Array) -> Array:
        own, more = self.split(x)
        parts = self.split(force)
        rest = NonNegative(more.size).displacement(more, parts[1])
        return _joined(self.own.displacement(own, parts[0]), rest)

    def multipliers(self, x: Array, operator_value: Array) -> tuple[Array, Array]:
        return self.own.multipliers(self.split(x)[0], self.split(operator_value)[0])

    def face(self, x: Array, operator_value: Array, step_size: Array | float) -> FaceBeside:
        own, more = self.split(x)
        values = self.split(operator_value)
        first = self.own.face(own, values[0], step_size)
        second = NonNegative(more.size).face(more, values[1], step_size)
        return FaceBeside(
            scale=_joined(first.scale, second.scale),
            relaxation=_joined(first.relaxation, second.relaxation),
            degenerate=first.degenerate + second.degenerate,
            displacement=_joined(first.displacement, second.displacement),
            own=first,
            more=second,
            shape=self.own_shape,
        )


def _split(w: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = math.prod(shape)
    return w[:size].reshape(shape), w[size:]


def _joined(own: Array, more: Array) -> Array:
    return jnp.concatenate([own.ravel(), more])
