"""The sensitivity system of an aggregative game, solved in the space of its aggregate."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._linear import inverse
from ..games import AggregativeForm
from ..sets import AbstractFace
from ._face_system import unscaled


class AggregateSystem(eqx.Module):
    """`u + K u = r` for `u = feel(dx)`, where `dx = S w` solves the system on the face.

    With `∂F/∂x = D + ∂F/∂s ∂s/∂x` and `D` diagonal, the system with right side `- g` reads

        P (S D S + R) P w = - P S (g + send(u)) ,

    so `dx` follows from `u` by a solve with a diagonal on the face, and `u` has the size of `s`.
    Forward, agents feel `∂s/∂x` and are sent `∂F/∂s`; in the adjoint system the transposes the
    other way round.
    """

    face: AbstractFace
    respond: Callable[[Array], Array]
    feel: Callable[[Array], Array]
    send: Callable[[Array], Array]

    def __init__(
        self,
        form: AggregativeForm,
        theta: PyTree,
        x: Array,
        face: AbstractFace,
        *,
        adjoint: bool,
    ):
        self.face = face

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
        # x* is not unique. A small one, in the unit of the whole system, makes the motion one of
        # several; `refined` takes out again what it adds. Were it smaller still, the inverse in
        # the space of the aggregate would lose more to rounding than is gained.
        diagonal = face.scale * own * face.scale + face.relaxation
        probe = face.project(jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape))
        met = face.project(face.scale * self.send(self.feel(face.scale * probe)))
        size, length = jnp.linalg.norm(met.ravel()), jnp.linalg.norm(probe.ravel())
        scale = jnp.maximum(jnp.max(jnp.abs(diagonal)), size / jnp.where(length > 0, length, 1))
        least = float(jnp.finfo(x.dtype).eps) ** 0.375 * jnp.where(scale > 0, scale, 1)
        self.respond = face.response(jnp.where(jnp.abs(diagonal) < least, least, diagonal))

    def __call__(self, u: Float[Array, " m"]) -> Float[Array, " m"]:
        return u + self.feel(self.respond(self.send(u)))

    def motion(self, u: Float[Array, " m"], force: Array) -> Array:
        """The `dx` that belongs to `u`, for the force `g`."""
        return -self.respond(force + self.send(u))

    def mismatch(self, u: Float[Array, " m"], force: Array) -> Float[Array, " m"]:
        """`r - (u + K u)`: what is left of the right side."""
        return self.feel(self.motion(u, force)) - u

    def left_on_face(self, mismatch: Float[Array, " m"]) -> Array:
        """What a mismatch leaves of the system on the face, but for its sign (and for what a small
        diagonal adds where agents feel nothing but the aggregate)."""
        return self.face.project(self.face.scale * self.send(mismatch))

    def correct(self, inverse: Float[Array, "m m"], left: Array) -> Array:
        """The `w` on the face that takes away what is left of the system's right side."""
        force = -unscaled(self.face, left)
        u = inverse @ self.mismatch(jnp.zeros(len(inverse), left.dtype), force)
        return unscaled(self.face, self.motion(u, force))

    def inverse(self, size: int, dtype: jnp.dtype) -> Float[Array, "m m"]:
        """The inverse of the system's matrix."""
        return inverse(jax.vmap(self)(jnp.eye(size, dtype=dtype)).T)
