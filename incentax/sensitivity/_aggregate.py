"""The adjoint system of an aggregative game, solved in the space of its aggregate."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..games import AggregativeForm
from ..sets import AbstractFace


class AggregateSystem(eqx.Module):
    """`u + K u = r` for `u = (∂F/∂s)^T S w`, where `w` solves the adjoint system on the face.

    With `∂F/∂x = D + ∂F/∂s ∂s/∂x` and `D` diagonal, that system reads

        P (S D S + R) P w = b - P S (∂s/∂x)^T u ,

    so `w` follows from `u` by a solve with a diagonal on the face, and `u` has the size of `s`.
    """

    face: AbstractFace
    diagonal: Array
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
        self.diagonal = jnp.maximum(face.scale * own * face.scale + face.relaxation, least)
        self.face, self.shape = face, s.shape

    def __call__(self, u: Float[Array, " m"]) -> Float[Array, " m"]:
        return u + self._felt(self.face.solve(self.diagonal, self._sent(u)))

    def mismatch(self, u: Float[Array, " m"], b: Array) -> Float[Array, " m"]:
        """`r - (u + K u)`: what is left of the right side."""
        return self._felt(self.strategy_space(u, b)) - u

    def strategy_space(self, u: Float[Array, " m"], b: Array) -> Array:
        """The `w` that belongs to `u`."""
        return self.face.solve(self.diagonal, b - self._sent(u))

    def inverse(self, size: int) -> Float[Array, "m m"]:
        """The inverse of the system's matrix."""
        return jnp.linalg.inv(jax.vmap(self)(jnp.eye(size, dtype=self.diagonal.dtype)).T)

    def _felt(self, w: Array) -> Float[Array, " m"]:
        return self.pull_operator(self.face.scale * w)[0].ravel()

    def _sent(self, u: Float[Array, " m"]) -> Array:
        return self.face.scale * self.pull_aggregate(u.reshape(self.shape))[0]
