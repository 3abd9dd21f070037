"""What the agents' own constraints bear at an equilibrium."""

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..games import AbstractGame


def agents_multipliers(game: AbstractGame, theta: PyTree, x: Array) -> dict[str, Array]:
    """Those of bounds and rows, by name: `F + C^T equality + A^T inequality = lower - upper`.

    Differentiable where no active set changes; `lower` and `upper` have the shape of `x`.
    """
    value, strategies = game.operator(theta, x), game.strategies(theta)
    face, constraints = strategies.face(x, value, 1.0), strategies.constraints(x)
    y, z = face.multipliers(value)
    pull = value.ravel() + constraints.equality.transpose(y) + z @ constraints.inequality
    held, flat = jnp.ravel(face.scale) == 0, x.ravel()
    if game.entropic is not None:  # a share may be too small to be told, and is used all the same
        held = held & ~game.entropic
    at_lower = flat - constraints.lower <= constraints.upper - flat
    # Where bounds meet, the one that is pushed against bears it.
    meet = constraints.lower == constraints.upper
    at_lower = jnp.where(meet, pull >= 0, at_lower)
    return {
        "lower": jnp.where(held & at_lower, pull, 0).reshape(x.shape),
        "upper": jnp.where(held & ~at_lower, -pull, 0).reshape(x.shape),
        "equality": y,
        "inequality": z,
    }
