"""The accurate solver: Newton's method, and what stands behind it where it fails."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import require_count
from .._tree import tree_finite, tree_where
from ..dynamics import DynamicsState, Extragradient
from ..games import AbstractGame
from ..geometry import LogStrategy
from ..sets import (
    AbstractJacobian,
    DenseJacobian,
    KKTPoint,
    KKTRows,
    LowRankJacobian,
    Polyhedron,
    Rows,
    Simplex,
    solve_kkt,
)
from ._residual import natural_residual

# Up to this many unknowns a dense factorisation is affordable.
_DENSE = 1500
# And up to this many entries what an aggregate feels and sends.
_WIDE = 20_000_000
_LENGTHS = (1.0, 0.5, 0.2, 0.05)


class Newton(eqx.Module):
    """Newton's method on the active set, with an interior point method behind it.

    On the KKT system of the strategy set (see `incentax/sets/_kkt.py`): Newton steps on the
    active set of the start first, so that a good start is kept; where they stall, Mehrotra's
    predictor and corrector until complementarity is small, and Newton steps again; where both
    stall, proximal point steps, each solved in the same way. In a quantal
    response, whose strategies are all used, Newton steps in `log x` with extragradient play
    between where they do not help. One linear system a step: of the size of `x` and its
    constraints, or of the aggregate where the game has one.

    **Arguments:**

    - `max_steps`: bound on the number of linear systems.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Simplex(2))
        >>> theta = jnp.array([0.8, 0.4])
        >>> print(ix.solve_equilibrium(game, theta, method=ix.Newton()).x.round(4))
        [0.7 0.3]
    """

    max_steps: int = eqx.field(static=True, default=250)

    def __check_init__(self):
        require_count("Newton", "max_steps", self.max_steps)

    def fits(self, game: AbstractGame, theta: PyTree, x: Array) -> bool:
        """Whether a linear system of this game is small enough, or has the structure."""
        form = game.aggregative_form
        if form is not None and _low_rank(game, theta, x):
            return jax.eval_shape(form.aggregate, theta, x).size * x.size <= _WIDE
        return x.size <= _DENSE

    def stands_alone(self, game: AbstractGame, theta: PyTree) -> bool:
        """Whether play has nothing to add: it is part of the method, or costs as much a step."""
        return game.entropic is not None or isinstance(game.strategies(theta), Polyhedron)

    def solve(
        self,
        game: AbstractGame,
        theta: PyTree,
        x: Array,
        tol: Array | float,
        entropic: bool | None = None,
    ) -> tuple[Array, Float[Array, ""], Int[Array, ""]]:
        """The best point, its residual, and the number of steps.

        `entropic` may be given where it is known ahead, see `AbstractGame.entropic`.
        """
        if game.entropic is None or entropic is False:
            return self._on_constraints(game, theta, x, tol, jnp.asarray(False))
        if entropic:
            return _solve_in_logarithms(
                game, theta, x, tol, self.max_steps, skip=jnp.asarray(False)
            )
        known = game.entropic
        inner = _solve_in_logarithms(game, theta, x, tol, self.max_steps, skip=~known)
        return tree_where(known, inner, self._on_constraints(game, theta, x, tol, known))

    def _on_constraints(
        self, game: AbstractGame, theta: PyTree, x: Array, tol: Array | float, skip: Array
    ) -> tuple[Array, Float[Array, ""], Int[Array, ""]]:
        point, residual, steps = self.solve_kkt(game, theta, x, tol, skip)
        return point.x.reshape(x.shape), residual, steps

    def solve_kkt(
        self,
        game: AbstractGame,
        theta: PyTree,
        x: Array,
        tol: Array | float,
        skip: Bool[Array, ""] | bool = False,
    ) -> tuple[KKTPoint, Float[Array, ""], Int[Array, ""]]:
        """The best point with its multipliers, its residual, and the number of steps."""
        # Costs in a small unit are counted in a larger one: else any point would seem close to
        # equilibrium. The residual in the game's own unit is not larger.
        slopes = jacobian_of(game, theta, x).diagonal()
        largest = jnp.maximum(jnp.max(jnp.abs(game.operator(theta, x))), jnp.max(jnp.abs(slopes)))
        unit = jnp.where((largest > 0) & (largest < 1), 1 / jnp.where(largest > 0, largest, 1), 1)

        def operator(flat: Array) -> Array:
            return unit * game.operator(theta, flat.reshape(x.shape)).ravel()

        def linearise(flat: Array) -> tuple[Array, AbstractJacobian]:
            jacobian = jacobian_of(game, theta, flat.reshape(x.shape))
            return operator(flat), jacobian.scaled(unit)

        strategies = game.strategies(theta)
        # Those of a polyhedron are a problem of their own.
        known = not isinstance(strategies, Polyhedron)
        point, residual, steps = solve_kkt(
            linearise,
            operator,
            strategies.constraints(x),
            x.ravel(),
            tol=tol,
            max_steps=self.max_steps,
            skip=skip,
            multipliers=strategies.multipliers(x, operator(x.ravel())) if known else None,
        )
        multipliers = point.equality / unit, point.inequality / unit
        return KKTPoint(point.x, *multipliers), residual, steps


def _low_rank(game: AbstractGame, theta: PyTree, x: Array) -> bool:
    """Whether the game has an aggregate, smaller than x, on a set of bounds or blocks alone."""
    form, strategies = game.aggregative_form, game.strategies(theta)
    if form is None or isinstance(strategies, Polyhedron):
        return False
    return 2 * jax.eval_shape(form.aggregate, theta, x).size <= x.size


def jacobian_of(game: AbstractGame, theta: PyTree, x: Array) -> AbstractJacobian:
    """`∂F/∂x` of a flat `x`, with the structure of an aggregate where there is one."""
    form = game.aggregative_form
    if form is None or not _low_rank(game, theta, x):
        matrix = jax.jacfwd(lambda x: game.operator(theta, x))(x)
        return DenseJacobian(matrix.reshape(x.size, x.size))
    s, pull = jax.vjp(lambda x: form.aggregate(theta, x), x)
    unit = jnp.eye(s.size, dtype=s.dtype).reshape(s.size, *s.shape)
    felt = jax.vmap(lambda u: pull(u)[0].ravel())(unit)
    _, send = jax.linearize(lambda s: form.operator(theta, x, s), s)
    sent = jax.vmap(lambda u: send(u).ravel(), out_axes=1)(unit)
    _, own = jax.jvp(lambda x: form.operator(theta, x, s), (x,), (jnp.ones_like(x),))
    return LowRankJacobian(own.ravel(), sent, felt)


class _Logarithmic(eqx.Module):
    state: DynamicsState
    residual: Float[Array, ""]
    count: Int[Array, ""]
    finite: Bool[Array, ""]


def _solve_in_logarithms(
    game: AbstractGame,
    theta: PyTree,
    x: Array,
    tol: Array | float,
    max_steps: int,
    *,
    skip: Bool[Array, ""],
) -> tuple[Array, Float[Array, ""], Int[Array, ""]]:
    simplex = game.strategies(theta)
    assert isinstance(simplex, Simplex)
    # In the unit of costs: neither the steps nor what is left may depend on it.
    costs = game.operator(theta, x)
    spread = jnp.max(simplex.blocks.max(costs) + simplex.blocks.max(-costs))
    slope = jnp.max(jnp.abs(jax.jvp(lambda x: game.operator(theta, x), (x,), (x,))[1]))
    unit = jnp.maximum(spread, slope)
    unit = jnp.where(jnp.isfinite(unit) & (unit > 0), unit, 1)
    play = Extragradient(1 / unit)
    mirror_map = play.geometry(game, theta)

    def residual_of(state: DynamicsState) -> Array:
        found = natural_residual(game, theta, state.point.x, state.operator_value / unit)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    def newton(state: DynamicsState) -> tuple[DynamicsState, Array]:
        change = _logarithmic_direction(game, theta, simplex, state)

        def along(length):
            # Far away a linear model in log x promises too much.
            log_x = state.point.log_x + length * jnp.clip(change, -20.0, 5.0)
            point = LogStrategy(*simplex.normalise_log(log_x))
            value = mirror_map.operator(game, theta, point)
            reached = DynamicsState(point, value, state.step_size)
            return reached, residual_of(reached)

        reached, residuals = jax.vmap(along)(jnp.asarray(_LENGTHS, change.dtype))
        chosen = jnp.argmin(residuals)
        return jax.tree.map(lambda leaf: leaf[chosen], reached), residuals[chosen]

    def step(run: _Logarithmic) -> _Logarithmic:
        reached, residual = newton(run.state)

        def some_play():
            state = jax.lax.fori_loop(
                0, 10, lambda count, s: play.step(game, theta, s, count), run.state
            )
            return state, residual_of(state)

        worked = residual < 0.5 * run.residual
        state, residual = jax.lax.cond(worked, lambda: (reached, residual), some_play)
        finite = tree_finite((state.point.x, state.operator_value))
        return _Logarithmic(
            tree_where(finite, state, run.state),
            jnp.where(finite, residual, run.residual),
            run.count + 1,
            finite,
        )

    def going_on(run: _Logarithmic) -> Array:
        largest = jnp.max(jnp.abs(run.state.operator_value)) / unit
        rounding = 10 * jnp.finfo(x.dtype).eps * jnp.maximum(1, largest)
        # In the game's own unit too.
        aim = jnp.maximum(jnp.minimum(1e-4 * tol, 0.1 * tol / jnp.maximum(unit, 1)), rounding)
        return (run.residual > aim) & (run.count < max_steps) & run.finite & ~skip

    state = play.init(game, theta, x)
    run = _Logarithmic(state, residual_of(state), jnp.int32(0), tree_finite(state.operator_value))
    run = jax.lax.while_loop(going_on, step, run)
    # In the game's own unit where that is the larger one.
    value = run.state.operator_value / jnp.minimum(unit, 1)
    residual = natural_residual(game, theta, run.state.point.x, value)
    return run.state.point.x, residual, run.count


def _logarithmic_direction(
    game: AbstractGame, theta: PyTree, simplex: Simplex, state: DynamicsState
) -> Array:
    """The Newton step in `log x` towards equal costs in every block."""
    # A strategy that underflows still has a cost and a logarithm that moves.
    x = jnp.maximum(state.point.x, 1e20 * jnp.finfo(state.point.x.dtype).tiny)
    constraints, jacobian = simplex.constraints(x), jacobian_of(game, theta, x)
    one, none = jnp.ones_like(x), constraints.inequality_level
    level = jnp.zeros_like(constraints.equality_level)
    if isinstance(jacobian, LowRankJacobian):
        rows = KKTRows(one, jnp.zeros_like(x), none, none)
        dx, _, _ = jacobian.factor(rows, constraints)(-state.operator_value, level, none)
        return dx / x
    # Costs rise without bound towards the boundary: the square root of x balances the matrix.
    root = jnp.sqrt(x)
    assert isinstance(jacobian, DenseJacobian)
    balanced = DenseJacobian(root[:, None] * jacobian.matrix * root[None, :])
    scaled = eqx.tree_at(
        lambda c: c.equality, constraints, Rows(constraints.equality.dense(x.dtype) * root[None, :])
    )
    rows = KKTRows(one, jnp.zeros_like(x), none, none)
    w, _, _ = balanced.factor(rows, scaled)(-root * state.operator_value, level, none)
    return w / root
