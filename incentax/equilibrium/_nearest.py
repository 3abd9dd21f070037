"""Of a continuum of equilibria the one nearest to a target."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from .._checks import as_float, require
from .._compile import compiled
from ..games import AbstractGame, hold_captured, Tikhonov, vanishing_weights
from ._door import strategy_at_door
from ._residual import natural_residual
from ._solve import Equilibrium, find_equilibrium, solve_equilibrium


def nearest_equilibrium(
    game: AbstractGame,
    theta: PyTree,
    target: ArrayLike,
    *,
    x0: Array | None = None,
    throw: bool = True,
) -> Equilibrium:
    """The equilibrium of a monotone game that is nearest to a target.

    Along [`Tikhonov`][] games whose weights fall to 1e-7 of the steepness of the costs (1e-3 in
    float32), each from the last, and from the last one and half its weight to the limit by
    extrapolation (L. F. Richardson 1911). JAX differentiates the answer.

    **Arguments:** see [`solve_equilibrium`][]; `target`: of the shape of `x`, or a number.

    **Raises** as [`solve_equilibrium`][].

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> routes = ix.Game(lambda t, h: jnp.stack([h[0] + h[1], h[0] + h[1], 2 * h[2]]),
        ...                  ix.Simplex(3))
        >>> print(ix.nearest_equilibrium(routes, None, jnp.array([1.0, 0.0, 0.0])).x.round(2) + 0)
        [0.67 0.   0.33]
    """
    theta = jax.tree.map(as_float, theta)
    x = strategy_at_door("nearest_equilibrium", "x0", game, theta, x0)
    target = target_at_door("nearest_equilibrium", target, x)
    game = hold_captured(game, theta, x)
    x, weight = _followed(*jax.lax.stop_gradient((game, theta, target, x)))
    last, half = (
        solve_equilibrium(Tikhonov(game, target, part * weight), theta, x, tol=1e-12, throw=throw)
        for part in (1.0, 0.5)
    )
    limit = game.strategies(theta).project(2 * half.x - last.x)
    return replace(half, x=limit, residual=natural_residual(game, theta, limit))


def target_at_door(owner: str, target: ArrayLike, x: Array) -> Array:
    """The target, refused unless it is finite and broadcasts to the strategy."""
    found = as_float(target)
    try:
        fits = jnp.broadcast_shapes(found.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"`{owner}(target)` needs a number or the shape of x, {x.shape}, got {found.shape}"
        )
    return require(found, jnp.isfinite(found), f"`{owner}(target)` needs finite numbers", found)


@compiled
def _followed(
    game: AbstractGame, theta: PyTree, target: Array, start: Array
) -> tuple[Array, Array]:
    weights = vanishing_weights(game, theta, start)

    def one(x: Array, weight: Array) -> tuple[Array, None]:
        drawn = Tikhonov(game, target, weight)
        return find_equilibrium(drawn, theta, x, None, None, max_steps=20_000)[0], None

    x, _ = jax.lax.scan(one, start, weights[:-1])
    return x, weights[-1]
