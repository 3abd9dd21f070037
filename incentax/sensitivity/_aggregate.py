"""The sensitivity system of an aggregative game, solved in the space of its aggregate."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..games import AggregativeForm
from ..sets import AbstractFace


class AggregateSystem(eqx.Module):
    """`u + K u = r` for `u = feel(dx)`, where `dx = S w` solves the system on the face.

    With `∂F/∂x = D + ∂F/∂s ∂s/∂x` and `D` diagonal, the system with right side `- g` reads

        P (S D S + R) P w = - P S (g + send(u)) ,

    so `dx` follows from `u` by a solve with a diagonal on the face, and `u` has the size of `s`.
    Forward, agents feel `∂s/∂x` and are sent `∂F/∂s`; in the adjoint system the transposes the
    other way round.
    """

    respond: Callable[[Array], Array]
    feel: Callable[[Array], Array]
    send: Callable[[Array], Array]

    def __init__(
        self,
        form: AggregativeForm,
        theta: PyTree,
        x: Array,
        face: AbstractFace,
        cost_scale: Float[Array, ""],
        *,
        adjoint: bool,
    ):
        def aggregate(x):
            return form.aggregate(theta, x)

        def operator(s):
            return form.operator(theta, x, s)

        if adjoint:
            s, pull_aggregate = jax.vjp(aggregate, x)
            _, pull_operator = jax.vjp(operator, s)
            self.feel = lambda dx: pull_operator(dx)[0].ravel()
            self.send = lambda u: pull_aggregate(u.reshape(s.shape))[0]
        else:
            s, push_aggregate = jax.linearize(aggregate, x)
            _, push_operator = jax.linearize(operator, s)
            self.feel = lambda dx: push_aggregate(dx).ravel()
            self.send = lambda u: push_operator(u.reshape(s.shape))
        # Coordinatewise for fixed s, so one forward pass gives every own derivative.
        _, own = jax.jvp(lambda x: form.operator(theta, x, s), (x,), (jnp.ones_like(x),))
        # Where agents feel nothing but the aggregate (Wardrop path flows) the diagonal is zero and
        # x* is not unique. A diagonal this small leaves what the aggregate determines as it is;
        # a cotangent that asks for more shows in the residual.
        diagonal = face.scale * own * face.scale + face.relaxation
        largest = jnp.max(jnp.abs(diagonal))
        scale = jnp.where(largest > 0, largest, jnp.where(cost_scale > 0, cost_scale, 1))
        least = jnp.sqrt(jnp.finfo(x.dtype).eps) * scale
        self.respond = face.response(jnp.where(jnp.abs(diagonal) < least, least, diagonal))

    def __call__(self, u: Float[Array, " m"]) -> Float[Array, " m"]:
        return u + self.feel(self.respond(self.send(u)))

    def motion(self, u: Float[Array, " m"], force: Array) -> Array:
        """The `dx` that belongs to `u`, for the force `g`."""
        return -self.respond(force + self.send(u))

    def mismatch(self, u: Float[Array, " m"], force: Array) -> Float[Array, " m"]:
        """`r - (u + K u)`: what is left of the right side."""
        return self.feel(self.motion(u, force)) - u

    def inverse(self, size: int, dtype: jnp.dtype) -> Float[Array, "m m"]:
        """The inverse of the system's matrix."""
        return jnp.linalg.inv(jax.vmap(self)(jnp.eye(size, dtype=dtype)).T)
