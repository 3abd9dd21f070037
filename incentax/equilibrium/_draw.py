"""Random strategies and incentives, all over their sets."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..games import AbstractGame
from ..sets import AbstractSet, Simplex


@eqx.filter_jit
def draw_strategies(
    game: AbstractGame, theta: PyTree, centre: Array, keys: PRNGKeyArray, width: float
) -> Array:
    """One a key: uniform in blocks of a simplex and between finite bounds, normal elsewhere."""
    strategies = game.strategies(theta)

    def one(key: PRNGKeyArray) -> Array:
        if isinstance(strategies, Simplex):
            log_x = jnp.log(jax.random.exponential(key, centre.shape, centre.dtype))
            return strategies.normalise_log(log_x)[0]
        limits = strategies.constraints(centre)
        lower, upper = limits.lower.reshape(centre.shape), limits.upper.reshape(centre.shape)
        return strategies.project(_between(lower, upper, centre, key, width))

    return jax.vmap(one)(keys)


@eqx.filter_jit
def draw_incentives(
    incentive_set: AbstractSet, theta: PyTree, keys: PRNGKeyArray, width: float
) -> PyTree:
    """One a key, along a leading axis; `theta` is the middle where a set has no bounds."""
    flat, unravel = ravel_pytree(theta)
    limits = incentive_set.constraints(theta)

    def one(key: PRNGKeyArray) -> PyTree:
        point = _between(limits.lower, limits.upper, flat, key, width)
        return incentive_set.project(unravel(point))

    return jax.vmap(one)(keys)


def _between(lower: Array, upper: Array, centre: Array, key: PRNGKeyArray, width: float) -> Array:
    key_uniform, key_normal = jax.random.split(key)
    both = jnp.isfinite(lower) & jnp.isfinite(upper)
    span = jnp.where(both, upper - lower, 0)
    inside = jnp.where(both, lower, 0) + span * jax.random.uniform(
        key_uniform, centre.shape, centre.dtype
    )
    offset = width * jax.random.normal(key_normal, centre.shape, centre.dtype)
    # From a single bound inwards: a projection would put half of the draws on it.
    wide = jnp.where(jnp.isfinite(upper), upper - jnp.abs(offset), centre + offset)
    wide = jnp.where(jnp.isfinite(lower), lower + jnp.abs(offset), wide)
    return jnp.where(both, inside, wide)
