"""Derivatives on a surface: of unknowns that follow `theta` by equations.

`u = (theta, xi)` with `G(u) = 0`. To first order `xi` moves by `-(∂G/∂xi)^-1 ∂G/∂theta`; the
curvature along that tangent is the one of the Lagrangian. Nocedal and Wright, *Numerical
Optimization* (2006), section 18.3 (reduced Hessians).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._linear import eigh, Factors


class Surface(eqx.Module):
    """The tangent of the surface at `u`, a column an entry of `theta`."""

    zero: Callable[[Array], Array]
    at: Float[Array, " u"]
    factors: Factors
    tangent: Float[Array, "u p"]

    def __init__(self, zero: Callable[[Array], Array], at: Array, p: int):
        slopes = jax.jacfwd(zero)(at)
        driven, system = slopes[:, :p], slopes[:, p:]
        size = len(system)
        # Where x is not unique any of its motions will do.
        shift = max(1e-12, float(jnp.finfo(at.dtype).eps)) * (
            1 + jnp.max(jnp.abs(system), initial=0.0)
        )
        self.zero, self.at = zero, at
        self.factors = Factors(system + shift * jnp.eye(size, dtype=at.dtype))
        unit = jnp.eye(p, dtype=at.dtype)
        self.tangent = jnp.concatenate([unit, -self.factors.solve(driven)])

    def multipliers(self, slope: Float[Array, " u"]) -> Float[Array, " equations"]:
        """Of the equations, for a function with this slope: what makes its Lagrangian level."""
        return -self.factors.solve_transposed(slope[self.tangent.shape[1] :])

    def curvature(self, value: Callable[[Array], Array]) -> Float[Array, "p p"]:
        """Second derivative of `value` along the surface, in `theta`."""
        multipliers = self.multipliers(jax.grad(value)(self.at))

        def lagrangian(u: Array) -> Array:
            return value(u) + multipliers @ self.zero(u)

        def bend(direction: Array) -> Array:
            return jax.jvp(jax.grad(lagrangian), (self.at,), (direction,))[1]

        return jax.vmap(bend, 1)(self.tangent) @ self.tangent


def made_convex(
    curvature: Float[Array, "p p"],
    gradient: Float[Array, " p"],
    theta: Float[Array, " p"],
    least: float = 1e-8,
) -> Float[Array, "p p"]:
    """Curvatures by their size, in the unit of each entry of `theta`.

    None is so small that a step is longer than 1000 times `theta`, or is below `least` where the
    diagonal is 1.
    """
    diagonal = jnp.abs(jnp.diagonal(curvature))
    longest = 1e3 * jnp.maximum(1, jnp.abs(theta))
    own = jnp.maximum(diagonal, jnp.abs(gradient) / longest)
    own = jnp.maximum(own, 1e-16 * jnp.max(own))
    root = jnp.sqrt(jnp.where(own > 0, own, 1))
    values, vectors = eigh((curvature + curvature.T) / (2 * root[:, None] * root[None, :]))
    values = jnp.maximum(jnp.abs(values), least)
    convex = (vectors * values[None, :]) @ vectors.T
    return root[:, None] * convex * root[None, :]
