"""The linear system on the face of an equilibrium."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ..games import AbstractGame


def is_isolated(game: AbstractGame, theta: PyTree, x: Array) -> Bool[Array, ""]:
    """Whether the linear system by which `x*` moves on its face is regular, and the face all that
    it can move on: no active constraint is without a multiplier."""
    value, push = jax.linearize(lambda x: game.operator(theta, x), x)
    face = game.strategies(theta).face(x, value, 1.0)

    def system(w: Array) -> Array:
        on_face = face.project(w)
        return face.project(face.scale * push(face.scale * on_face)) + w - on_face

    unit = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    matrix = jax.vmap(system)(unit).reshape(x.size, x.size)
    values = jnp.linalg.svd(matrix, compute_uv=False)
    return (values[-1] > 1e-7 * jnp.maximum(values[0], 1)) & (face.degenerate == 0)
