"""All of R, boxes and the non-negative orthant."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from .._checks import as_float, require
from ._base import AbstractFace, AbstractStrategySet
from ._constraints import bounds_alone, LinearConstraints


class BoxFace(AbstractFace):
    """Coordinates strictly between their bounds move, the others do not."""

    scale: Float[Array, "..."]
    relaxation: Float[Array, "..."]
    degenerate: Int[Array, ""]
    displacement: Float[Array, "..."]
    free: Bool[Array, "..."]
    at_lower: Bool[Array, "..."]

    def carry(
        self, constraints: LinearConstraints, x: Array, operator_value: Array
    ) -> tuple[Array, Array]:
        lower, upper = constraints.lower.reshape(x.shape), constraints.upper.reshape(x.shape)
        bound = jnp.where(self.at_lower, lower, upper)
        return jnp.where(self.free, x, bound), jnp.zeros_like(operator_value)

    def multipliers(self, operator_value: Array) -> tuple[Array, Array]:
        none = jnp.zeros(0, operator_value.dtype)
        return none, none

    def project(self, w: Array) -> Array:
        return jnp.where(self.free, w, 0)

    def response(self, diagonal: Array) -> Callable[[Array], Array]:
        weight = jnp.where(self.free, 1 / jnp.where(self.free, diagonal, 1), 0)
        return lambda g: weight * g


class Box(AbstractStrategySet):
    """`{x : lower <= x <= upper}`; bounds may be infinite.

    The bounds broadcast together to the shape of `x`; two numbers bound an `x` of any shape.

    **Raises** `ValueError` unless `lower <= upper` everywhere (NaN never is).

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> ix.Box(0.0, jnp.array([1.0, 2.0])).project(jnp.array([-1.0, 3.0])).tolist()
        [0.0, 2.0]
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]

    def __init__(self, lower: ArrayLike, upper: ArrayLike):
        self.lower, self.upper = _bounds(lower, upper)

    @property
    def shape(self) -> tuple[int, ...] | None:
        shape = jnp.broadcast_shapes(self.lower.shape, self.upper.shape)
        return shape if shape else None

    def check_shape(self, owner: str, name: str, x: PyTree) -> None:
        check_shape_of_array(owner, name, x, self.shape)

    def project(self, x: Array) -> Array:
        return jnp.clip(x, self.lower.astype(x.dtype), self.upper.astype(x.dtype))

    def centre(self) -> Array:
        has_low, has_high = jnp.isfinite(self.lower), jnp.isfinite(self.upper)
        low, high = jnp.where(has_low, self.lower, 0), jnp.where(has_high, self.upper, 0)
        # By a single bound 1 away from it: on it, agents may be at rest whatever is done.
        inside = jnp.where(has_low, low + 1, jnp.where(has_high, high - 1, 0))
        # A bound that is NaN leaves no point.
        return jnp.clip(
            jnp.where(has_low & has_high, low / 2 + high / 2, inside), self.lower, self.upper
        )

    def multipliers(self, x: Array, operator_value: Array) -> tuple[Array, Array]:
        del operator_value
        return jnp.zeros(0, x.dtype), jnp.zeros(0, x.dtype)

    def displacement(self, x: Array, force: Array) -> Array:
        # As it is written elsewhere, rounding would hide a force on a large x.
        return jnp.clip(force, x - self.upper.astype(x.dtype), x - self.lower.astype(x.dtype))

    def face(self, x: Array, operator_value: Array, step_size: Array | float) -> BoxFace:
        reached = x - step_size * operator_value
        lower, upper = self.lower.astype(x.dtype), self.upper.astype(x.dtype)
        free = (reached > lower) & (reached < upper)
        # Within rounding of an equilibrium: on a bound, or as good as, and hardly pushed there.
        close = jnp.sqrt(jnp.finfo(x.dtype).eps)
        degenerate = self.pairs(x, operator_value).degenerate(close)
        at_lower = ~free & (reached <= lower)
        return BoxFace(
            scale=free.astype(x.dtype),
            relaxation=jnp.zeros_like(x),
            degenerate=degenerate,
            displacement=self.displacement(x, step_size * operator_value),
            free=free,
            at_lower=at_lower,
        )

    def constraints(self, x: Array) -> LinearConstraints:
        lower, upper = self.lower.astype(x.dtype), self.upper.astype(x.dtype)
        return bounds_alone(
            jnp.broadcast_to(lower, x.shape).ravel(), jnp.broadcast_to(upper, x.shape).ravel()
        )


def NonNegative(shape: int | tuple[int, ...] = ()) -> Box:
    """`{x : x >= 0}`: `Box(0, inf)`, of this shape or, without one, of any.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> ix.NonNegative().project(jnp.array([-1.0, 3.0])).tolist()
        [0.0, 3.0]
        >>> ix.NonNegative((2, 3)).shape
        (2, 3)
    """
    return Box(jnp.zeros(shape), jnp.inf)


class Reals(AbstractStrategySet):
    """All of `R^shape`; without a shape, all of any `R^n`, or of any pytree of arrays as `theta`.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> ix.Reals().project(jnp.array([-1.0, 3.0])).tolist()
        [-1.0, 3.0]
    """

    size: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape: int | tuple[int, ...] = ()):
        self.size = (shape,) if isinstance(shape, int) else tuple(shape)

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.size if self.size else None

    def check_shape(self, owner: str, name: str, x: PyTree) -> None:
        if self.size or name.startswith("x"):
            check_shape_of_array(owner, name, x, self.shape)

    def project(self, x: PyTree) -> PyTree:
        return x

    def centre(self) -> Array:
        return jnp.zeros(self.size)

    def displacement(self, x: Array, force: Array) -> Array:
        del x
        return force

    def multipliers(self, x: Array, operator_value: Array) -> tuple[Array, Array]:
        del operator_value
        return jnp.zeros(0, x.dtype), jnp.zeros(0, x.dtype)

    def face(self, x: Array, operator_value: Array, step_size: Array | float) -> BoxFace:
        none = jnp.zeros(x.shape, bool)
        return BoxFace(
            scale=jnp.ones_like(x),
            relaxation=jnp.zeros_like(x),
            degenerate=jnp.int32(0),
            displacement=step_size * operator_value,
            free=~none,
            at_lower=none,
        )

    def constraints(self, x: PyTree) -> LinearConstraints:
        flat, _ = ravel_pytree(x)
        wide = jnp.full(flat.size, jnp.inf, flat.dtype)
        return bounds_alone(-wide, wide)


def check_shape_of_array(owner: str, name: str, x: PyTree, needed: tuple[int, ...] | None) -> None:
    """Refuses what is not one array, of the shape that is needed, if one is."""
    if not isinstance(x, jax.Array):
        raise TypeError(
            f"`{owner}({name}=...)` needs one array for this set (a pytree needs "
            f"`ix.Product`), got {type(x).__name__}"
        )
    if needed is not None and x.shape != needed:
        raise ValueError(f"`{owner}({name}=...)` needs shape {needed}, got {x.shape}")


def _bounds(lower: ArrayLike, upper: ArrayLike) -> tuple[Array, Array]:
    low, up = as_float(lower), as_float(upper)
    try:
        shape = jnp.broadcast_shapes(low.shape, up.shape)
    except ValueError:
        raise ValueError(
            "`Box(lower=..., upper=...)` needs bounds that broadcast together, got shapes "
            f"{low.shape} and {up.shape}"
        ) from None
    dtype = jnp.promote_types(low.dtype, up.dtype)
    low, up = low.astype(dtype), up.astype(dtype)
    wide_low, wide_up = jnp.broadcast_to(low, shape), jnp.broadcast_to(up, shape)
    rule = "`Box(lower=..., upper=...)` needs lower <= upper"
    return require((low, up), wide_low <= wide_up, rule, {"lower": wide_low, "upper": wide_up})
