"""Strong stability as a linear program over strategies."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._compile import compiled
from ..equilibrium import draw_strategies
from ..games import AbstractGame
from ..geometry import AbstractMirrorMap
from ..sets import Simplex
from ._sampled import Agents
from ._weights import Cuts, negligible, search_weights, Weights

# Shares of the way from the equilibrium to a random strategy, steps towards a worse one, and from
# how many the worst is sought.
_SHARES = (1.0, 0.3, 0.1, 0.03, 0.01)
_STEPS, _WORST = 60, 16


def weigh_points(
    game: AbstractGame,
    theta: PyTree,
    x: Array,
    agents: Agents,
    mirror_map: AbstractMirrorMap,
    *,
    mixing: float,
    samples: int,
    key: PRNGKeyArray,
) -> Weights:
    """The least weights with `sum_i lambda^i <F^i(y), y^i - x^i> >= D(x, y)` for all `y` seen.

    Over strategies drawn from all of the set and from around `x`, and the worst that descent finds
    from them.
    """
    simplex = isinstance(game.strategies(theta), Simplex)
    share = jnp.asarray(mixing if simplex else 0.0, x.dtype)
    drawn = draw_strategies(game, theta, x, jax.random.split(key, samples), 1.0)
    points = jnp.concatenate([(1 - part) * x[None] + part * drawn for part in _SHARES])

    def rows_of(points: Array, weights: np.ndarray, steps: int) -> np.ndarray:
        weighed = jnp.asarray(weights[agents.owner], x.dtype)
        terms, divergence = _terms(
            game, theta, x, mirror_map, share, points=points, weights=weighed, steps=steps
        )
        with np.errstate(all="ignore"):
            return agents.sums(np.asarray(terms)) / np.asarray(divergence)[:, None]

    def cuts(rows: np.ndarray) -> Cuts:
        return Cuts(rows, np.ones(len(rows)), negligible(x.dtype) * np.abs(rows))

    rows = rows_of(points, np.ones(agents.number), 0)
    fine = np.isfinite(rows).all(axis=1)
    rows, points = rows[fine], points[fine]
    if not len(rows):
        return Weights(np.ones(agents.number), False, 0.0)

    def evaluate(weights: np.ndarray) -> tuple[float, Cuts]:
        worst = points[np.argsort(rows @ weights)[:_WORST]]
        found = rows_of(worst, weights, _STEPS)
        found = found[np.isfinite(found).all(axis=1)]
        every = np.concatenate([rows, found])
        sure = every @ weights - negligible(x.dtype) * (np.abs(every) @ weights)
        return max(0.0, float(sure.min())), cuts(found)

    return search_weights(evaluate, cuts(rows), straight=False, rounds=20)


@compiled
def _terms(
    game: AbstractGame,
    theta: PyTree,
    x: Array,
    mirror_map: AbstractMirrorMap,
    mixing: Array,
    *,
    points: Array,
    weights: Array,
    steps: int,
) -> tuple[Array, Array]:
    """`F (y - x)` entry by entry and `D(x, y)`, after `steps` towards a lower ratio."""
    strategies = game.strategies(theta)
    uniform = strategies.centre().astype(x.dtype)

    def parts(point: Array) -> tuple[Array, Array]:
        point = jnp.where(mixing > 0, (1 - mixing) * point + mixing * uniform, point)
        terms = (game.operator(theta, point) * (point - x)).ravel()
        return terms, mirror_map.divergence(x, point)

    def ratio(point: Array) -> Array:
        terms, divergence = parts(point)
        return jnp.sum(weights.astype(x.dtype) * terms) / divergence

    def one(point: Array) -> tuple[Array, Array]:
        def lower(count, carry):
            point, best, value = carry
            slope = jax.grad(ratio)(point)
            length = jnp.linalg.norm(slope)
            away = jnp.linalg.norm(point - x)
            step = 0.3 * away / (1 + count.astype(x.dtype)) / jnp.where(length > 0, length, 1)
            moved = strategies.project(point - step * slope)
            there = ratio(moved)
            good = jnp.isfinite(there)
            point = jnp.where(good, moved, best)
            better = good & (there < value)
            return point, jnp.where(better, moved, best), jnp.where(better, there, value)

        if steps:
            begin = (point, point, ratio(point))
            point = jax.lax.fori_loop(0, steps, lower, begin)[1]
        return parts(point)

    return jax.lax.map(one, points)
