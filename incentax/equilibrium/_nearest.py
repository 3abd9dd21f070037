"""Of a continuum of equilibria the one nearest to a target."""

import jax
from jaxtyping import Array, ArrayLike, PyTree

from .._checks import as_float
from .._compile import compiled
from ..games import AbstractGame, Tikhonov, vanishing_weights
from ._door import strategy_at_door
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
    float32), each from the last; what is returned is the equilibrium of the last one, which JAX
    differentiates: it is as far from the limit as its weight, and its `residual` is in that game.

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
    x = strategy_at_door("nearest_equilibrium", "x0", Tikhonov(game, target, 1.0), theta, x0)
    x, weight = _followed(*jax.lax.stop_gradient((game, theta, as_float(target), x)))
    return solve_equilibrium(Tikhonov(game, target, weight), theta, x, throw=throw)


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
