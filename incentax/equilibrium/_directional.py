"""One-sided derivatives of the equilibrium where its active set changes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._checks import as_float
from .._compile import compiled
from .._results import RESULTS
from ..games import AbstractGame, hold_captured
from ..sensitivity import Implicit
from ..sets import finite_max, LinearConstraints, Pairs, positive, Rows, solve_kkt
from ._door import strategy_at_door
from ._newton import jacobian_of
from ._solve import find_equilibrium, known_entropic, raise_unless_successful


class DirectionalDerivative(eqx.Module):
    """Answer of [`directional_derivative`][].

    - `value`: `x'(theta; direction)`, of the shape of `x`.
    - `x`: the equilibrium at `theta`.
    - `residual`: of the variational inequality that `value` solves.
    - `degenerate`: number of constraints that are active without a multiplier at `x`. Where it is
      0 the derivative is two-sided: that of `jax.jvp`.
    - `steps`: linear systems that it took.
    - `result`: an entry of `ix.RESULTS`.
    """

    value: Array
    x: Array
    residual: Float[Array, ""]
    degenerate: Int[Array, ""]
    steps: Int[Array, ""]
    result: RESULTS


def directional_derivative(
    game: AbstractGame,
    theta: PyTree,
    direction: PyTree,
    x: Array | None = None,
    *,
    throw: bool = True,
) -> DirectionalDerivative:
    """How the equilibrium moves when `theta` sets out in a direction.

        x'(theta; d) = lim (x*(theta + t d) - x*(theta)) / t  as t falls to 0

    It exists where `x*` has kinks too, and solves a variational inequality of its own: find `v` in
    the critical cone `K` with

        <∂F/∂x v + ∂F/∂theta d, u - v> >= 0  for all u in K.

    In `K` a constraint with a multiplier stays active, one without may be left; both follow
    `theta` where they depend on it. J.-S. Pang, *Mathematics of Operations Research* 15 (1990);
    Facchinei and Pang (2003), theorem 5.4.6; Dontchev and Rockafellar, *Implicit Functions and
    Solution Mappings* (2009), theorem 2E.6. Multipliers are taken to be unique where rows move.

    **Arguments:**

    - `game`, `theta`: the game and the incentive.
    - `direction`: of the structure and shapes of `theta`.
    - `x`: the equilibrium where it is known, accurate to about 1e-9; else it is solved for.
    - `throw`: raise `RuntimeError` unless the answer is successful.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.NonNegative())
        >>> at = jnp.array([1.0, 0.0])
        >>> forth = ix.directional_derivative(game, at, jnp.array([1.0, 1.0]))
        >>> back = ix.directional_derivative(game, at, jnp.array([-1.0, -1.0]))
        >>> print(forth.value, back.value, back.degenerate)
        [1. 1.] [-1.  0.] 1
    """
    theta, direction = jax.tree.map(as_float, (theta, direction))
    shapes = [jax.tree.map(jnp.shape, part) for part in (theta, direction)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`directional_derivative(direction)` needs the structure and shapes of theta, "
            f"{shapes[0]}, got {shapes[1]}"
        )
    direction = jax.tree.map(lambda d, t: d.astype(t.dtype), direction, theta)
    given = x is not None
    x = strategy_at_door("directional_derivative", "x", game, theta, x)
    game = hold_captured(game, theta, x)
    found = _derive(game, theta, direction, x, given, entropic=known_entropic(game))
    return raise_unless_successful(found, throw)


@compiled
def _derive(
    game: AbstractGame,
    theta: PyTree,
    direction: PyTree,
    x: Array,
    given: bool,
    *,
    entropic: bool | None,
) -> DirectionalDerivative:
    solved = RESULTS.successful
    if not given:
        x, _, solved = find_equilibrium(
            game, theta, x, None, 1e-12, max_steps=100_000, entropic=entropic
        )
    if entropic:  # every strategy is used: there is no bound to be left
        _, value = jax.jvp(lambda t: Implicit().attach(game, t, x), (theta,), (direction,))
        zero = jnp.int32(0)
        return DirectionalDerivative(value, x, jnp.zeros((), x.dtype), zero, zero, solved)
    cone, force, degenerate = _critical_cone(game, theta, direction, x)
    jacobian = jacobian_of(game, theta, x)
    # Both sides in their own unit: the answer is positively homogeneous.
    unit = positive(jnp.max(jnp.abs(jacobian.diagonal()), initial=0.0))
    sizes = [finite_max(part) for part in (force / unit, cone.lower, cone.upper)]
    used = jnp.any(cone.inequality != 0, axis=1)
    rooms = jnp.where(used, cone.inequality_level, 0)
    levels = [finite_max(part) for part in (cone.equality_level, rooms)]
    size = positive(jnp.max(jnp.stack([*sizes, *levels])))
    cone = eqx.tree_at(
        lambda c: (c.lower, c.upper, c.equality_level, c.inequality_level),
        cone,
        replace_fn=lambda level: level / size,
    )
    cone = eqx.tree_at(
        lambda c: c.inequality_level, cone, jnp.where(used, cone.inequality_level, 1)
    )
    jacobian, force = jacobian.scaled(1 / unit), force / (unit * size)
    _, apply = jax.linearize(lambda x: game.operator(theta, x), x)

    def operator(v: Array) -> Array:
        return apply(v.reshape(x.shape)).ravel() / unit + force

    point, residual, steps = solve_kkt(
        lambda v: (operator(v), jacobian), operator, cone, jnp.zeros_like(force), tol=1e-10
    )
    aim = max(1e-8, 100 * float(jnp.finfo(x.dtype).eps))
    solved = RESULTS.where(residual <= aim, solved, RESULTS.max_steps_reached)
    value = (size * point.x).reshape(x.shape)
    return DirectionalDerivative(value, x, residual, degenerate, steps, solved)


def _critical_cone(
    game: AbstractGame, theta: PyTree, direction: PyTree, x: Array
) -> tuple[LinearConstraints, Array, Array]:
    """Where the derivative may lie, the force at rest, and the number of degenerate constraints."""
    strategies = game.strategies(theta)
    at, flat = strategies.constraints(x), x.ravel()
    value = game.operator(theta, x)
    y, z = strategies.multipliers(x, value)
    pairs = Pairs(at, flat, value.ravel(), (y, z))

    def conditions(theta: PyTree):
        now = game.strategies(theta).constraints(x)
        force = game.operator(theta, x).ravel() + now.equality.transpose(y) + z @ now.inequality
        level = now.equality_level - now.equality(flat)
        room = now.inequality_level - now.inequality @ flat
        return force, now.lower, now.upper, level, room

    _, (force, lower, upper, level, room) = jax.jvp(conditions, (theta,), (direction,))
    close = jnp.sqrt(jnp.finfo(x.dtype).eps)
    on_lower, on_upper = pairs.above <= close, pairs.below <= close
    # Which bound bears the pull is told by its sign, where they meet too.
    held_low, held_high = on_lower & (pairs.pull > close), on_upper & (pairs.pull < -close)
    least = jnp.where(held_high, upper, jnp.where(on_lower, lower, -jnp.inf))
    most = jnp.where(held_low, lower, jnp.where(on_upper, upper, jnp.inf))
    bounds = least, most
    rows = at.inequality
    if not len(rows):  # then equalities keep their structure
        return (
            LinearConstraints(*bounds, at.equality, level, rows, room),
            force,
            pairs.degenerate(close),
        )
    active = pairs.room <= close
    taut, loose = active & (pairs.push > close), active & (pairs.push <= close)
    equality = jnp.concatenate([at.equality.dense(x.dtype), jnp.where(taut[:, None], rows, 0)])
    cone = LinearConstraints(
        *bounds,
        Rows(equality),
        jnp.concatenate([level, jnp.where(taut, room, 0)]),
        jnp.where(loose[:, None], rows, 0),
        jnp.where(loose, room, 1),
    )
    return cone, force, pairs.degenerate(close)
