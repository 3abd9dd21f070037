"""Which equilibrium bounded rationality selects, as it vanishes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._checks import as_float, is_traced, require, require_positive
from .._compile import compiled
from .._results import RESULTS
from ..games import AbstractGame, QuantalResponse
from ._door import strategy_at_door
from ._residual import natural_residual
from ._solve import find_equilibrium, raise_unless_successful


class QuantalPath(eqx.Module):
    """Answer of [`quantal_path`][]: a row an `eta`.

    - `eta`, `x`: the weights of the entropy, and the quantal responses.
    - `residual`: of each, in its own quantal response game; `limit_residual`: in the game itself,
      without entropy, which tells how near the limit is.
    - `steps`: of the solver, over the path.
    - `result`: an entry of `ix.RESULTS`, successful where all rows are.
    """

    eta: Float[Array, " rows"]
    x: Float[Array, "rows d"]
    residual: Float[Array, " rows"]
    limit_residual: Float[Array, " rows"]
    steps: Array
    result: RESULTS


def quantal_path(
    game: AbstractGame,
    theta: PyTree,
    etas: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    x0: Array | None = None,
    throw: bool = True,
) -> QuantalPath:
    """Quantal responses along a sequence of `eta`, each from the last: Case II of Liu et al.

    A monotone game may have a continuum of equilibria; with `eta^i (log(x^i + epsilon) + 1)` added
    to its operator it has one, which as `eta -> 0` tends to the equilibrium of largest entropy:
    Liu et al. (2022), section 6. In a game that is not monotone the path follows one branch.

    **Arguments:**

    - `game`, `theta`: a game on [`Simplex`][], and the incentive.
    - `etas`: positive, in the order in which they are solved; usually falling.
    - `epsilon`: see [`QuantalResponse`][].
    - `x0`: where the first is sought from; the centre when left out.
    - `throw`: raise `RuntimeError` unless all were found.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> routes = ix.Game(lambda t, h: jnp.stack([h[0] + h[1], h[0] + h[1], 2 * h[2]]),
        ...                  ix.Simplex(3))
        >>> path = ix.quantal_path(routes, None, jnp.geomspace(1.0, 1e-4, 9))
        >>> print(path.x[-1].round(3))
        [0.333 0.333 0.333]
    """
    theta = jax.tree.map(as_float, theta)
    etas = require_positive("quantal_path", "etas", etas)
    rule = "`quantal_path(etas)` needs a sequence, one axis"
    etas = require(etas, etas.ndim == 1, rule, jnp.asarray(etas.ndim))
    epsilon = require_positive("quantal_path", "epsilon", epsilon, strictly=False)
    x = strategy_at_door("quantal_path", "x0", QuantalResponse(game, 1.0), theta, x0)
    entropic = None if is_traced(epsilon) else bool(jnp.all(epsilon == 0))
    return raise_unless_successful(_follow(game, theta, etas, epsilon, x, entropic=entropic), throw)


@compiled
def _follow(
    game: AbstractGame,
    theta: PyTree,
    etas: Array,
    epsilon: Array,
    start: Array,
    *,
    entropic: bool | None,
) -> QuantalPath:
    def one(x: Array, eta: Array):
        quantal = QuantalResponse(game, eta, epsilon=epsilon)
        found, steps, result = find_equilibrium(
            quantal, theta, x, None, None, max_steps=100_000, entropic=entropic
        )
        residuals = natural_residual(quantal, theta, found), natural_residual(game, theta, found)
        return found, (found, *residuals, steps, result == RESULTS.successful)

    _, (x, residual, limit, steps, good) = jax.lax.scan(one, start, etas.astype(start.dtype))
    result = RESULTS.where(jnp.all(good), RESULTS.successful, RESULTS.max_steps_reached)
    return QuantalPath(etas, x, residual, limit, steps, result)
