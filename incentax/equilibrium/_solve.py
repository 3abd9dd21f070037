"""The equilibrium of a game at a given incentive."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import as_float, is_traced, require, require_count, require_positive
from .._compile import compiled
from .._results import answer_when_traced, as_table, in_words, RESULTS
from .._tree import tree_finite, tree_where
from ..dynamics import AbstractDynamics, Extragradient
from ..games import AbstractGame, hold_captured
from ..sensitivity import AbstractSensitivity, Implicit
from ._door import strategy_at_door
from ._multipliers import agents_multipliers
from ._newton import Newton
from ._residual import magnification, natural_residual


class Equilibrium(eqx.Module):
    """Answer of [`solve_equilibrium`][].

    - `x`: the last finite strategy; JAX differentiates it as a function of the incentive and of
      the arrays of the game.
    - `residual`: `max |x - project(x - F(theta, x))|`, recomputed at `x`.
    - `steps`: number of steps taken.
    - `degenerate`: number of active constraints or unused strategies without a multiplier. Where
      it is not 0, `x` has only one-sided derivatives, those of [`directional_derivative`][]; what
      JAX returns holds these constraints at rest.
    - `multipliers`: of the agents' constraints, by name: `"lower"` and `"upper"` of the bounds, of
      the shape of `x` (unused strategies of a simplex among them), `"equality"` a block of a
      simplex or a row of a polyhedron, `"inequality"` a row. They make
      `F + C^T equality + A^T inequality = lower - upper`, and all but those of equalities are
      `>= 0`. JAX differentiates them too.
    - `result`: an entry of `ix.RESULTS`.
    """

    x: Array
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    degenerate: Int[Array, ""]
    multipliers: dict[str, Array]
    result: RESULTS

    def __str__(self) -> str:
        return as_table(
            [
                ("strategy", self.x),
                ("residual", self.residual),
                ("steps", self.steps),
                ("degenerate constraints", self.degenerate),
                ("result", in_words(RESULTS, self.result)),
            ]
        )


def solve_equilibrium(
    game: AbstractGame,
    theta: PyTree,
    x0: Array | None = None,
    *,
    method: Newton | AbstractDynamics | None = None,
    tol: float | None = None,
    max_steps: int = 100_000,
    sensitivity: AbstractSensitivity | None = None,
    throw: bool = True,
) -> Equilibrium:
    """Strategy `x*` with `<F(theta, x*), y - x*> >= 0` for all `y` in the strategy set.

    Until `max |x - project(x - F(theta, x))| <= tol`. `jax.grad`, `jax.jvp`, `jax.hessian` and
    their likes differentiate the answer's `x` in `theta` and in the arrays of the game.

    **Arguments:**

    - `game`, `theta`: the game and the incentive.
    - `x0`: start in the strategy set; its centre when left out.
    - `method`: [`Newton`][], or dynamics by which agents play. When left out: a method of the
      game's own, where it has one (large routing games); else Newton, where its linear systems are
      small or have the structure of an aggregate, and extragradient play with its own step sizes
      where that fails.
    - `tol`: positive, in units of `x`; 1e-8 when left out. Less than rounding leaves,
      `30 eps max(1, |x|, |F|)`, is not asked for, nor less than `1e-4 tol |∂F/∂x x|` of costs
      that are steep.
    - `max_steps`: at least 1.
    - `sensitivity`: how derivatives are computed: [`Implicit`][] when left out, [`Neumann`][] or
      [`Unrolled`][].
    - `throw`: raise when the equilibrium is not reached, or return with the reason in `.result`.
      In a program of your own, where values are not known, `.x` is NaN in place of an error; see
      [`compiled_errors`][].

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
    if not isinstance(method, Newton | AbstractDynamics | None):
        raise TypeError(
            f"`solve_equilibrium(method=...)` needs `ix.Newton()` or dynamics, got {method!r}"
        )
    sensitivity = Implicit() if sensitivity is None else sensitivity
    if not isinstance(sensitivity, AbstractSensitivity):
        raise TypeError(
            f"`solve_equilibrium(sensitivity=...)` needs a sensitivity, got {sensitivity!r}"
        )
    level = require_positive("solve_equilibrium", "tol", 1e-8 if tol is None else tol)
    max_steps = require_count("solve_equilibrium", "max_steps", max_steps)
    rule = "`solve_equilibrium(theta)` needs a finite incentive"
    theta = jax.tree.map(as_float, theta)
    theta = jax.tree.map(lambda leaf: require(leaf, jnp.isfinite(leaf), rule, leaf), theta)
    x = strategy_at_door("solve_equilibrium", "x0", game, theta, x0)
    if isinstance(method, AbstractDynamics):
        method.check(game, theta, x)
    game = hold_captured(game, theta, x)
    return raise_unless_successful(
        _solve(
            game,
            theta,
            x,
            method,
            level,
            max_steps=max_steps,
            sensitivity=sensitivity,
            entropic=known_entropic(game),
        ),
        throw,
    )


def known_entropic(game: AbstractGame) -> bool | None:
    """`AbstractGame.entropic` where it is known before compilation."""
    entropic = game.entropic
    if entropic is None:
        return False
    return None if is_traced(entropic) else bool(jnp.all(entropic))


def raise_unless_successful(solution, throw: bool):
    """`solution`, or `RuntimeError` with the advice of its `.result` when `throw`.

    In a program of the caller's NaN in place of the error, see [`answer_when_traced`][].
    """
    if not throw:
        return solution
    if is_traced(solution):
        return answer_when_traced(solution)
    if jnp.all(solution.result == RESULTS.successful):
        return solution
    steps, residual = jnp.max(solution.steps), float(jnp.max(solution.residual))
    raise RuntimeError(f"{RESULTS[solution.result]} (steps: {steps}, residual: {residual:.3g})")


@compiled
def _solve(
    game: AbstractGame,
    theta: PyTree,
    x: Array,
    method: Newton | AbstractDynamics | None,
    tol: Array,
    *,
    max_steps: int,
    sensitivity: AbstractSensitivity,
    entropic: bool | None,
) -> Equilibrium:
    still, tol = jax.lax.stop_gradient((game, theta, x)), tol.astype(x.dtype)
    x, steps, result = find_equilibrium(*still, method, tol, max_steps=max_steps, entropic=entropic)
    residual, degenerate = _evidence(*still[:2], x)
    x = sensitivity.attach(game, theta, x)
    multipliers = agents_multipliers(game, theta, x)
    return Equilibrium(x, residual, steps, degenerate, multipliers, result)


def find_equilibrium(
    game: AbstractGame,
    theta: PyTree,
    x: Array,
    method: Newton | AbstractDynamics | None,
    tol: Array | float | None,
    *,
    max_steps: int,
    entropic: bool | None = None,
) -> tuple[Array, Int[Array, ""], RESULTS]:
    """Strategy, number of steps and how they ended, without checks or derivatives.

    `entropic` may be given where it is known ahead, see `AbstractGame.entropic`.
    """
    lanes = game.lanes
    if lanes is not None:

        def alone(datum: PyTree, x: Array) -> tuple[Array, Array, RESULTS]:
            # What the game of a lane has captured is not followed by derivatives here either.
            own = jax.lax.stop_gradient(hold_captured(lanes.game_of(datum), theta, x))
            return find_equilibrium(
                own, theta, x, method, tol, max_steps=max_steps, entropic=entropic
            )

        reached, steps, result = jax.vmap(alone)(lanes.data, lanes.split(x))
        # What failed first, if anything.
        first = jnp.argmax(result != RESULTS.successful)
        result = jax.tree.map(lambda leaf: leaf[first], result)
        return reached.reshape(x.shape), jnp.sum(steps, dtype=jnp.int32), result
    newton = Newton() if method is None else method
    if not isinstance(newton, Newton):
        return _by_play(game, theta, x, newton, tol, max_steps=max_steps, found=jnp.asarray(False))
    newton = Newton(min(newton.max_steps, max_steps))
    asked = 1e-8 if tol is None else tol
    own = None
    if method is None:
        own = game.own_equilibrium(
            theta, x, 1e-4 * asked, max_steps=newton.max_steps, entropic=entropic
        )
    if own is not None:
        reached, steps, rounding = own
        residual = natural_residual(game, theta, reached)
        rounding = jnp.minimum(rounding, float(jnp.finfo(x.dtype).eps) ** 0.5)
        found = residual <= jnp.maximum(_allowed_at(game, theta, reached, tol), rounding)
        finite = tree_finite((reached, game.operator(theta, reached)))
        return reached, steps, _verdict(game, theta, x, found, finite)
    if method is None and not newton.fits(game, theta, x):
        return _by_play(
            game, theta, x, Extragradient(), tol, max_steps=max_steps, found=jnp.asarray(False)
        )
    reached, residual, steps = newton.solve(game, theta, x, asked, entropic)
    found = residual <= _allowed_at(game, theta, reached, tol)
    if method is not None or newton.stands_alone(game, theta):
        return reached, steps, _verdict(game, theta, x, found, jnp.asarray(True))
    start = jnp.where(found, reached, x)
    x, more, result = _by_play(
        game, theta, start, Extragradient(), tol, max_steps=max_steps, found=found
    )
    return x, steps + more, result


def _by_play(
    game: AbstractGame,
    theta: PyTree,
    start: Array,
    method: AbstractDynamics,
    tol: Array | float | None,
    *,
    max_steps: int,
    found: Bool[Array, ""],
) -> tuple[Array, Int[Array, ""], RESULTS]:
    unit = magnification(game, theta, start)
    x, steps, finite, stuck = _play_to_tolerance(
        game, theta, start, method, (tol, unit), max_steps=max_steps, skip=found
    )
    value = unit * game.operator(theta, x)
    reached = found | (natural_residual(game, theta, x, value) <= _allowed(tol, x, value))
    verdict = _verdict(game, theta, start, reached, finite)
    if isinstance(method, Extragradient):
        return x, steps, verdict
    cycles = stuck & (verdict == RESULTS.max_steps_reached)
    return x, steps, RESULTS.where(cycles, RESULTS.cycling, verdict)


def _verdict(game: AbstractGame, theta: PyTree, start: Array, reached, finite) -> RESULTS:
    # A solver that moves into the interior may do without an operator at the start.
    started = reached | tree_finite(game.operator(theta, start))
    # A set without points has neither a centre nor projections.
    exists = tree_finite(game.strategies(theta).centre())
    failed = RESULTS.where(exists, RESULTS.nonfinite_start, RESULTS.empty_set)
    return RESULTS.where(
        started,
        RESULTS.where(
            finite,
            RESULTS.where(reached, RESULTS.successful, RESULTS.max_steps_reached),
            RESULTS.nonfinite_play,
        ),
        failed,
    )


def _evidence(game: AbstractGame, theta: PyTree, x: Array) -> tuple[Array, Array]:
    value = game.operator(theta, x)
    face = game.strategies(theta).face(x, value, 1.0)
    residual = jnp.max(jnp.abs(face.displacement))
    return jnp.where(jnp.all(jnp.isfinite(value)), residual, jnp.nan), face.degenerate


def _allowed_at(game: AbstractGame, theta: PyTree, x: Array, tol: Array | float | None) -> Array:
    """A strategy is known to rounding: what that makes of steep costs cannot be asked for."""
    value, moved = jax.jvp(lambda x: game.operator(theta, x), (x,), (x,))
    moved = jnp.where(jnp.isfinite(moved), jnp.abs(moved), 0)
    return _allowed(tol, x, jnp.maximum(jnp.abs(value), moved), jnp.max(moved))


def _allowed(
    tol: Array | float | None, x: Array, operator_value: Array, steepness: Array | float = 0.0
) -> Array:
    # What rounding alone leaves of the residual bounds what can be asked for.
    costs = jnp.max(jnp.abs(operator_value))
    eps = float(jnp.finfo(x.dtype).eps)
    asked = jnp.asarray(1e-8 if tol is None else tol).astype(x.dtype)
    rounding = 30 * eps * jnp.maximum(jnp.maximum(jnp.max(jnp.abs(x)), costs), 1)
    # Steep costs: `tol` is in units of x, of which this is a small part.
    rounding = jnp.maximum(rounding, 1e-4 * asked * steepness)
    # ... up to a point: where x runs away, no residual is small for that.
    return jnp.maximum(jnp.minimum(rounding, eps**0.25), asked)


def _play_to_tolerance(
    game: AbstractGame,
    theta: PyTree,
    x: Array,
    method: AbstractDynamics,
    level: tuple[Array | float | None, Array],
    *,
    max_steps: int,
    skip: Bool[Array, ""],
) -> tuple[Array, Int[Array, ""], Bool[Array, ""], Bool[Array, ""]]:
    """Strategy, steps, whether all were finite, and whether the second half came no nearer.

    `level`: the tolerance, and what costs are multiplied with before they are held against it.
    """
    tol, unit = level

    def strategy_of(state):
        return method.strategy(game, theta, state)

    def evidence(state):
        x, value = strategy_of(state), unit * method.operator_value(game, theta, state)
        finite = tree_finite((x, value))
        return natural_residual(game, theta, x, value), _allowed(tol, x, value), finite

    def going_on(carry):
        count, _, residual, level, finite, _ = carry
        return (residual > level) & (count < max_steps) & finite & ~skip

    def advance(carry):
        count, state, residual, level, _, halves = carry
        reached = method.step(game, theta, state, count)
        # The last finite state is kept, so that a failure returns a strategy and not NaN.
        found, allowed, finite = evidence(reached)
        first = 2 * count < max_steps
        early = jnp.where(first, jnp.minimum(halves[0], found), halves[0])
        late = jnp.where(first, halves[1], jnp.minimum(halves[1], found))
        return (
            count + finite.astype(count.dtype),
            tree_where(finite, reached, state),
            jnp.where(finite, found, residual),
            jnp.where(finite, allowed, level),
            finite,
            (early, late),
        )

    state = method.init(game, theta, x)
    began = evidence(state)
    far = jnp.full_like(began[0], jnp.inf)
    carry = (jnp.int32(0), state, *began, (far, far))
    steps, state, _, _, finite, (early, late) = jax.lax.while_loop(going_on, advance, carry)
    stuck = (steps >= max_steps) & (late > 0.9 * early)
    return strategy_of(state), steps, finite | skip, stuck
