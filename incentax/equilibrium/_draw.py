"""Random strategies and incentives, all over their sets."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._compile import compiled
from ..games import AbstractGame
from ..sets import AbstractSet, Simplex


@compiled
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


@compiled
def draw_corners(game: AbstractGame, theta: PyTree, drawn: Array) -> Array:
    """Each draw moved to a corner of its set, and then to an edge; on simplices all but there.

    The first two corners of a box are its lowest and its highest, the next those with one entry at
    its other bound, then those on whose side of the middle the draws are.
    """
    strategies = game.strategies(theta)
    number, like = len(drawn), drawn[0]
    if isinstance(strategies, Simplex):
        sharp = jax.vmap(lambda x: strategies.normalise_log(30 * jnp.log(x))[0])(drawn)
        return jnp.concatenate([sharp, (sharp + jnp.roll(sharp, 1, axis=0)) / 2])
    limits = strategies.constraints(like)
    lower, upper = limits.lower.reshape(like.shape), limits.upper.reshape(like.shape)
    row, entry = jnp.arange(number)[:, None], jnp.arange(like.size)[None]
    alone = (row // 2 - 1) % like.size == entry
    first = jnp.where(row < 2, False, alone) ^ (row % 2 == 1)
    high = first.reshape(drawn.shape)
    lower, upper = lower[None], upper[None]
    random = drawn > (lower + upper) / 2
    some = jnp.arange(number).reshape((-1,) + (1,) * like.ndim) < max(2, number // 2)
    high = jnp.where(some, high, random)
    low = jnp.where(jnp.isfinite(lower), lower, drawn)
    corner = jnp.where(high & jnp.isfinite(upper), upper, low)
    corner = jnp.where(~high & ~jnp.isfinite(lower) & jnp.isfinite(upper), upper, corner)
    kept = ((row % like.size) == entry).reshape(drawn.shape)
    edge = jnp.where(kept, drawn, jnp.roll(corner, 1, axis=0))
    return jax.vmap(strategies.project)(jnp.concatenate([corner, edge]))


@compiled
def draw_around(
    game: AbstractGame, theta: PyTree, x: Array, keys: PRNGKeyArray, size: float
) -> Array:
    """Two a key: from `x` towards a random strategy and away from it, by `size` of `1 + |x|`."""
    strategies = game.strategies(theta)
    away = draw_strategies(game, theta, x, keys, 1.0) - x[None]
    length = jnp.max(jnp.abs(away), axis=tuple(range(1, away.ndim)), keepdims=True)
    share = size * (1 + jnp.max(jnp.abs(x))) / jnp.maximum(length, 1e-12)
    moves = jnp.minimum(share, 0.5) * away
    return jax.vmap(strategies.project)(jnp.concatenate([x[None] + moves, x[None] - moves]))


@compiled
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
