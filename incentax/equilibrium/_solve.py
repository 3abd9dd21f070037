"""The equilibrium of a game at a given incentive."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._checks import as_float, is_traced, require, require_count, require_positive
from .._results import RESULTS
from .._tree import tree_finite, tree_where
from ..dynamics import AbstractDynamics, Extragradient
from ..games import AbstractGame
from ._door import strategy_at_door
from ._residual import natural_residual


class Equilibrium(eqx.Module):
    """Answer of [`solve_equilibrium`][].

    - `x`: the last finite strategy.
    - `residual`: `max |x - project(x - F(theta, x))|`, recomputed at `x`.
    - `steps`: number of steps taken.
    - `result`: an entry of `ix.RESULTS`.
    """

    x: Array
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    result: RESULTS


def solve_equilibrium(
    game: AbstractGame,
    theta: PyTree,
    x0: Array | None = None,
    *,
    method: AbstractDynamics | None = None,
    tol: float | None = None,
    max_steps: int = 100_000,
    throw: bool = True,
) -> Equilibrium:
    """Strategy `x*` with `<F(theta, x*), y - x*> >= 0` for all `y` in the strategy set.

    Plays `method` until `max |x - project(x - F(theta, x))| <= tol`.

    **Arguments:**

    - `game`, `theta`: the game and the incentive.
    - `x0`: start in the strategy set; its centre when left out.
    - `method`: the dynamics; [`Extragradient`][] with its own step sizes when left out.
    - `tol`: positive, in units of `x`; when left out 1e-8, and in float32, which cannot tell that
      little, at least `10 eps max(1, |x|, |F|)`.
    - `max_steps`: at least 1.
    - `throw`: raise when the equilibrium is not reached, or return with the reason in `.result`.

    **Raises** `ValueError` for a wrong argument, `RuntimeError` when not reached and `throw`.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Simplex(2))
        >>> equilibrium = ix.solve_equilibrium(game, jnp.array([0.8, 0.4]))
        >>> print(equilibrium.x.round(4))
        [0.7 0.3]
    """
    if not isinstance(game, AbstractGame):
        raise TypeError(f"`solve_equilibrium(game)` needs a game, got {game!r}")
    method = Extragradient() if method is None else method
    if not isinstance(method, AbstractDynamics):
        raise TypeError(f"`solve_equilibrium(method=...)` needs dynamics, got {method!r}")
    level = None if tol is None else require_positive("solve_equilibrium", "tol", tol)
    max_steps = require_count("solve_equilibrium", "max_steps", max_steps)
    rule = "`solve_equilibrium(theta)` needs a finite incentive"
    theta = jax.tree.map(as_float, theta)
    theta = jax.tree.map(lambda leaf: require(leaf, jnp.isfinite(leaf), rule, leaf), theta)
    x = strategy_at_door("solve_equilibrium", "x0", game, theta, x0)
    return raise_unless_successful(
        _play_to_tolerance(game, theta, x, method, level, max_steps), throw
    )


def raise_unless_successful(solution, throw: bool):
    """`solution`, or `RuntimeError` with the advice of its `.result` when `throw`."""
    if not throw:
        return solution
    if is_traced(solution):
        return solution.result.error_if(solution, solution.result != RESULTS.successful)
    if jnp.all(solution.result == RESULTS.successful):
        return solution
    raise RuntimeError(
        f"{RESULTS[solution.result]} (steps: {solution.steps}, residual: {solution.residual:.3g})"
    )


@eqx.filter_jit
def _play_to_tolerance(
    game: AbstractGame,
    theta: PyTree,
    x: Array,
    method: AbstractDynamics,
    tol: Array | None,
    max_steps: int,
) -> Equilibrium:
    mirror_map = method.geometry(game)

    def residual_of(state):
        return natural_residual(game, theta, mirror_map.strategy(state.point), state.operator_value)

    def allowed(x: Array, operator_value: Array) -> Array:
        if tol is not None:
            return tol.astype(x.dtype)
        # What rounding alone leaves of the residual bounds what can be asked for.
        size = jnp.maximum(jnp.max(jnp.abs(x)), jnp.max(jnp.abs(operator_value)))
        rounding = 10 * jnp.finfo(x.dtype).eps * jnp.maximum(size, 1)
        return jnp.maximum(rounding, 1e-8) if x.dtype == jnp.float32 else jnp.asarray(1e-8, x.dtype)

    def going_on(carry):
        count, state, residual, finite = carry
        level = allowed(mirror_map.strategy(state.point), state.operator_value)
        return (residual > level) & (count < max_steps) & finite

    def advance(carry):
        count, state, residual, _ = carry
        reached = method.step(game, theta, state, count)
        # The last finite state is kept, so that a failure returns a strategy and not NaN.
        finite = tree_finite(mirror_map.strategy(reached.point)) & tree_finite(
            reached.operator_value
        )
        kept = tree_where(finite, reached, state)
        return (
            count + finite.astype(count.dtype),
            kept,
            jnp.where(finite, residual_of(kept), residual),
            finite,
        )

    state = method.init(game, theta, x)
    started = tree_finite(state.operator_value)
    carry = (jnp.int32(0), state, residual_of(state), started)
    steps, state, residual, finite = jax.lax.while_loop(going_on, advance, carry)
    strategy = mirror_map.strategy(state.point)
    value = game.operator(theta, strategy)
    residual = natural_residual(game, theta, strategy, value)
    result = RESULTS.where(
        started,
        RESULTS.where(
            finite,
            RESULTS.where(
                residual <= allowed(strategy, value), RESULTS.successful, RESULTS.max_steps_reached
            ),
            RESULTS.nonfinite_play,
        ),
        RESULTS.nonfinite_start,
    )
    return Equilibrium(strategy, residual, steps, result)
