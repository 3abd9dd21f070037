"""Gap of a strategy, and what each player could gain alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._results import RESULTS
from ..games import AbstractGame, AtomicGame, Game
from ..sets import AbstractStrategySet, Box, Polyhedron, Simplex
from ._door import strategy_at_door
from ._newton import Newton
from ._solve import find_equilibrium


def gap(game: AbstractGame, theta: PyTree, x: Array) -> Float[Array, ""]:
    """`max over y in X of <F(theta, x), x - y>`: 0 exactly at an equilibrium.

    Facchinei and Pang (2003), (2.3.14). Infinite when the strategy set is unbounded in a direction
    in which costs fall.

    **Raises** `ValueError` when `x` is no point of the strategy set.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda cost, x: cost, ix.Simplex(2))
        >>> float(ix.gap(game, jnp.array([1.0, 3.0]), jnp.array([0.5, 0.5])))
        1.0
    """
    x = strategy_at_door("gap", "x", game, theta, x)
    value = game.operator(theta, x)
    return jnp.vdot(value, x) - _least_value(game.strategies(theta), value, x)


def _least_value(strategies: AbstractStrategySet, cost: Array, x: Array) -> Array:
    """`min over y of <cost, y>`."""
    if isinstance(strategies, Simplex):
        blocks = strategies.blocks
        return jnp.sum(strategies.total.astype(x.dtype) * -blocks.max(-cost))
    if isinstance(strategies, Polyhedron):
        return _linear_program(strategies, cost)
    constraints = strategies.constraints(x)
    lower, upper = constraints.lower, constraints.upper
    flat = cost.ravel()
    reached = jnp.where(flat > 0, lower, upper)
    return jnp.sum(jnp.where(flat == 0, 0, flat * jnp.where(flat == 0, 0, reached)))


def _linear_program(polyhedron: Polyhedron, cost: Array) -> Array:
    """The optimum of a linear program, as the equilibrium of a constant operator."""
    game = Game(lambda cost, y: cost, polyhedron)
    size = jnp.max(jnp.abs(cost))
    unit = cost / jnp.where(size > 0, size, 1)
    start = polyhedron.centre().astype(cost.dtype)
    found = find_equilibrium(game, unit, start, Newton(), None, 150)
    y, _, result = found
    return jnp.where(result == RESULTS.successful, cost @ y, -jnp.inf)


class BestResponse(eqx.Module):
    """Answer of [`best_response`][].

    - `x`: player by player, the strategy that is best for it while the others keep theirs.
    - `cost`: what each player would pay then.
    - `regret`: what each player pays more now: 0 for all at a Nash equilibrium, and never negative
      where a player's cost is convex in its own strategy.
    """

    x: Float[Array, "players ..."]
    cost: Float[Array, " players"]
    regret: Float[Array, " players"]


def best_response(game: AtomicGame, theta: PyTree, x: Array) -> BestResponse:
    """The best cost that each player could reach alone, and its regret.

        min over y_i of J_i(theta, y_i, x_-i)

    Constraints that couple players leave each what the others' strategies leave it. Each player's
    problem is solved by Newton's method on its own strategy, which is exact for costs that are
    convex in it; for others what is found, or one of the two ends of its box, is a lower bound of
    the regret. NaN where no minimum was found.

    **Raises** `TypeError` for a game without costs.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.AtomicGame(lambda theta, x: x * (x.sum() - 16), ix.Box(-10.0, 10.0))
        >>> print(ix.best_response(game, None, jnp.array([4.0, 4.0])).regret)
        [4. 4.]
    """
    if not isinstance(game, AtomicGame):
        raise TypeError(
            "`best_response(game)` needs an `ix.AtomicGame`, which knows each player's cost, got "
            f"{type(game).__name__}"
        )
    x = strategy_at_door("best_response", "x", game, theta, x)
    constraints = game.strategies(theta).constraints(x)
    lower, upper = constraints.lower.reshape(x.shape), constraints.upper.reshape(x.shape)
    equality = constraints.equality.dense(x.dtype), constraints.equality_level
    inequality = constraints.inequality, constraints.inequality_level
    costs = game.cost(theta, x)

    def own_bounds(player: Array) -> tuple[Array, Array]:
        """What the others leave the player; rows belong to a flat x, of one entry a player."""
        low, high = lower[player], upper[player]
        for (rows, level), both in ((equality, True), (inequality, False)):
            if level.size:
                own = rows[:, player]
                end = (level - rows @ x + own * x[player]) / jnp.where(own == 0, 1, own)
                above, below = (own > 0) | (both & (own != 0)), (own < 0) | (both & (own != 0))
                high = jnp.minimum(high, jnp.min(jnp.where(above, end, jnp.inf)))
                low = jnp.maximum(low, jnp.max(jnp.where(below, end, -jnp.inf)))
        return low, jnp.maximum(low, high)

    def respond(player: Array) -> tuple[Array, Array]:
        def own_cost(own: Array) -> Array:
            return game.cost(theta, x.at[player].set(own))[player]

        low, high = own_bounds(player)
        alone = Game(lambda _, own: jax.grad(own_cost)(own), Box(low, high))
        own, _, result = find_equilibrium(alone, None, x[player], Newton(), None, 150)
        # Where a cost is not convex its least value may lie at a bound.
        ends = [jnp.where(jnp.isfinite(end), end, own) for end in (low, high)]
        tried = jnp.stack([own, *ends, x[player]])
        values = jax.vmap(own_cost)(tried)
        best = jnp.argmin(values)
        # Without a minimum there is no best response to speak of.
        bounded = jnp.all(jnp.isfinite(low) & jnp.isfinite(high))
        known = (result == RESULTS.successful) | bounded
        return jnp.where(known, tried[best], jnp.nan), jnp.where(known, values[best], jnp.nan)

    moved, best = jax.lax.map(respond, jnp.arange(x.shape[0]))
    return BestResponse(moved, best, costs - best)
