"""Gap of a strategy, and what each player could gain alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._checks import unknown
from .._compile import compiled
from .._results import RESULTS
from ..games import AbstractGame, AtomicGame, Game
from ..sets import (
    AbstractStrategySet,
    DenseJacobian,
    LinearConstraints,
    Polyhedron,
    Rows,
    Simplex,
    solve_kkt,
)
from ._door import strategy_at_door
from ._newton import Newton
from ._solve import find_equilibrium

# Points that are scattered over a player's strategies, and how many of them are descended from.
_GRID, _DESCENTS = 129, 3
# Up to this many unknowns a regret is looked for without being asked.
_MOST = 300
# Relative regret that counts as none.
NASH = 1e-6


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


@compiled
def _linear_program(polyhedron: Polyhedron, cost: Array) -> Array:
    """The optimum of a linear program, as the equilibrium of a constant operator."""
    game = Game(lambda cost, y: cost, polyhedron)
    size = jnp.max(jnp.abs(cost))
    unit = cost / jnp.where(size > 0, size, 1)
    start = polyhedron.centre().astype(cost.dtype)
    found = find_equilibrium(game, unit, start, Newton(), None, max_steps=150)
    y, _, result = found
    return jnp.where(result == RESULTS.successful, jnp.vdot(cost, y), -jnp.inf)


class BestResponse(eqx.Module):
    """Answer of [`best_response`][].

    - `x`: player by player, the strategy that is best for it while the others keep theirs.
    - `cost`: what each player would pay then.
    - `regret`: what each player pays more now: 0 for all at a Nash equilibrium, never negative.
    """

    x: Float[Array, "players ..."]
    cost: Float[Array, " players"]
    regret: Float[Array, " players"]


def best_response(game: AtomicGame, theta: PyTree, x: Array) -> BestResponse:
    """The best cost that each player could reach alone, and its regret.

        min over y_i of J_i(theta, y_i, x_-i)

    Constraints that couple players leave each what the others' strategies leave it. Each player's
    problem is solved by Newton's method on its own strategy, from where it is and from the best
    points of a grid over its bounds (from three dimensions on, of points drawn there): exact for
    costs that are convex in it, for others a search. NaN where no minimum was found.

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
    moved, best, _ = _respond(game, theta, x)
    return BestResponse(moved, best, game.cost(theta, x) - best)


def largest_regret(game: AbstractGame, theta: PyTree, x: Array) -> Float[Array, ""]:
    """What a player of an atomic game could gain at most, relative to its cost; 0 for others.

    NaN where no best reply was found, or none looked for, among more than 300 unknowns.
    """
    if not isinstance(game, AtomicGame):
        return jnp.zeros((), x.dtype)
    if x.size > _MOST:
        return unknown(x.ravel()[0])
    costs, (_, best, spread) = game.cost(theta, x), _respond(game, theta, x)
    # A cost may be zero: then what it is for other replies is the measure.
    size = jnp.maximum(jnp.maximum(jnp.abs(costs), jnp.abs(best)), 1e-3 * spread)
    rounding = 30 * float(jnp.finfo(x.dtype).eps) * spread
    gained = jnp.maximum(costs - best - rounding, 0)
    return jnp.max(gained / jnp.where(size > 0, size, 1))


@compiled
def _respond(game: AtomicGame, theta: PyTree, x: Array) -> tuple[Array, Array, Array]:
    """Every player's best reply, its cost, and how far costs differ over the replies tried."""
    players, size = x.shape[0], x[0].size
    whole = game.strategies(theta).constraints(x)
    bounds = [side.reshape(players, size) for side in (whole.lower, whole.upper)]
    rows = [whole.equality.dense(x.dtype), whole.inequality.astype(x.dtype)]
    rows = [part.reshape(len(part), players, size) for part in rows]
    levels = [whole.equality_level, whole.inequality_level]

    def one(player: Array) -> tuple[Array, Array, Array]:
        def cost(own: Array) -> Array:
            return game.cost(theta, x.at[player].set(own.reshape(x.shape[1:])))[player]

        def linearise(own: Array):
            return jax.grad(cost)(own), DenseJacobian(jax.hessian(cost)(own))

        # What the others leave the player; a row that it does not enter is theirs to keep.
        own = [part[:, player] for part in rows]
        rest = [
            level - part.reshape(len(part), players * size) @ x.ravel() + mine @ x[player].ravel()
            for level, part, mine in zip(levels, rows, own)
        ]
        enters = [jnp.any(mine != 0, axis=1) for mine in own]
        alone = LinearConstraints(
            bounds[0][player],
            bounds[1][player],
            Rows(own[0]),
            jnp.where(enters[0], rest[0], 0),
            own[1],
            jnp.where(enters[1], rest[1], 1),
        )

        def nearest(own: Array) -> Array:
            identity = DenseJacobian(jnp.eye(size, dtype=own.dtype))
            found, _, _ = solve_kkt(
                lambda y: (y - own, identity), lambda y: y - own, alone, own, tol=1e-9
            )
            return found.x

        def descended(start: Array) -> tuple[Array, Array]:
            found, left, _ = solve_kkt(linearise, jax.grad(cost), alone, start, tol=1e-9)
            value = cost(found.x)
            fine = (left <= 1e-6 * (1 + jnp.max(jnp.abs(found.x)))) & jnp.isfinite(value)
            return found.x, jnp.where(fine, value, jnp.inf)

        here = x[player].ravel()
        tried = _scattered(here, bounds[0], bounds[1], player)
        if sum(level.size for level in levels):
            tried = jax.lax.map(nearest, tried)
        costs = jax.vmap(cost)(tried)
        # Newton from where the player is, and from the best of what was scattered.
        first = jnp.argsort(jnp.where(jnp.isfinite(costs), costs, jnp.inf))[:_DESCENTS]
        ends, values = jax.lax.map(descended, jnp.concatenate([here[None], tried[first]]))
        points = jnp.concatenate([ends, tried[first], here[None]])
        bounded = jnp.all(jnp.isfinite(alone.lower) & jnp.isfinite(alone.upper))
        # Without a minimum there is no best response to speak of.
        known = bounded | jnp.any(jnp.isfinite(values))
        values = jnp.concatenate([values, costs[first], cost(here)[None]])
        best = jnp.nanargmin(values)
        reply = jnp.where(known, points[best], jnp.nan).reshape(x.shape[1:])
        finite = jnp.where(jnp.isfinite(costs), costs, cost(here))
        spread = jnp.max(finite) - jnp.min(finite)
        return reply, jnp.where(known, values[best], jnp.nan), spread

    return jax.lax.map(one, jnp.arange(players))


def _scattered(here: Array, lower: Array, upper: Array, player: Array) -> Array:
    """Strategies all over a player's bounds: a grid in one or two dimensions, else drawn."""
    size, low, high = here.size, lower[player], upper[player]
    wide = 10 * (1 + jnp.max(jnp.abs(here)))
    low = jnp.where(jnp.isfinite(low), low, jnp.minimum(here, high) - wide)
    high = jnp.where(jnp.isfinite(high), high, jnp.maximum(here, low) + wide)
    if size <= 2:
        ticks = jnp.linspace(0, 1, _GRID if size == 1 else 17, dtype=here.dtype)
        shares = jnp.stack(jnp.meshgrid(*[ticks] * size), axis=-1).reshape(-1, size)
    else:
        shares = jax.random.uniform(jax.random.key(0), (_GRID, size), here.dtype)
    return low[None, :] + shares * (high - low)[None, :]
