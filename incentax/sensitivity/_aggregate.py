"""The adjoint system of an aggregative game, solved in the space of its aggregate."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..games import AggregativeForm
from ..sets import AbstractFace


class AggregateSystem(eqx.Module):
    """`u + K u = r` for `u = (∂F/∂s)^T dx`, where `dx = S w` solves the adjoint system on the face.

    With `∂F/∂x = D + ∂F/∂s ∂s/∂x` and `D` diagonal, that system reads

        P (S D S + R) P w = - P S (g + (∂s/∂x)^T u) ,

    so `dx` follows from `u` by a solve with a diagonal on the face, and `u` has the size of `s`.
    """

    respond: Callable[[Array], Array]
    pull_operator: Callable
    pull_aggregate: Callable
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        form: AggregativeForm,
        theta: PyTree,
        x: Array,
        face: AbstractFace,
        cost_scale: Float[Array, ""],
    ):
        s, self.pull_aggregate = jax.vjp(lambda x: form.aggregate(theta, x), x)
        _, self.pull_operator = jax.vjp(lambda s: form.operator(theta, x, s), s)
        # Coordinatewise for fixed s, so one forward pass gives every own derivative.
        _, own = jax.jvp(lambda x: form.operator(theta, x, s), (x,), (jnp.ones_like(x),))
        # Where agents feel nothing but the aggregate (Wardrop path flows) the diagonal is zero and
        # x* is not unique. A diagonal this small leaves what the aggregate determines as it is;
        # a cotangent that asks for more shows in the residual.
        least = jnp.sqrt(jnp.finfo(x.dtype).eps) * cost_scale
        diagonal = jnp.maximum(face.scale * own * face.scale + face.relaxation, least)
        self.respond, self.shape = face.response(diagonal), s.shape

    def __call__(self, u: Float[Array, " m"]) -> Float[Array, " m"]:
        return u + self._felt(self.respond(self._sent(u)))

    def motion(self, u: Float[Array, " m"], cotangent: Array) -> Array:
        """The `dx` that belongs to `u`, for the cotangent `g` of `x*`."""
        return -self.respond(cotangent + self._sent(u))

    def mismatch(self, u: Float[Array, " m"], cotangent: Array) -> Float[Array, " m"]:
        """`r - (u + K u)`: what is left of the right side."""
        return self._felt(self.motion(u, cotangent)) - u

    def inverse(self, size: int, dtype: jnp.dtype) -> Float[Array, "m m"]:
        """The inverse of the system's matrix."""
        return jnp.linalg.inv(jax.vmap(self)(jnp.eye(size, dtype=dtype)).T)

    def _felt(self, dx: Array) -> Float[Array, " m"]:
        return self.pull_operator(dx)[0].ravel()

    def _sent(self, u: Float[Array, " m"]) -> Array:
        return self.pull_aggregate(u.reshape(self.shape))[0]
