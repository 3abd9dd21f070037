"""The double loops: agents play to equilibrium between any two steps of the designer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree

from ..._checks import require_count, require_positive
from ..._tree import tree_norm, tree_subtract, tree_where
from ...dynamics import MirrorDescent, Schedule
from ...equilibrium import find_equilibrium, natural_residual
from ...geometry import AbstractMirrorMap
from ...sensitivity import AbstractLaw, AbstractSensitivity, Implicit, Penalty, Unrolled
from .._problem import DesignProblem, evaluate_hypergradient, Hypergradient
from .._scheme import (
    AbstractScheme,
    AbstractSchemeState,
    designer_step,
    require_optimizer,
    SchemeInfo,
)


class DoubleLoopState(AbstractSchemeState):
    """Incentive, strategy, where inner loops start, states of optimizer and linear solve."""

    theta: PyTree
    x: Array
    start: Array
    optimizer: optax.OptState
    memory: PyTree


class _Played(eqx.Module):
    """An inner loop: the last point, its residual, and the points before each of its steps."""

    point: PyTree
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    before: PyTree


class DoubleLoop(AbstractScheme):
    """Solves `x*(theta_k)` to tolerance, then takes one step along the hypergradient there.

        x_k         = play at theta_k until max |x - project(x - F)| <= inner_tol
        theta_{k+1} = project(theta_k - alpha_k ∇f_*(theta_k))

    Li, Yu, Nie, Wang, *End-to-end learning and intervention in games*, NeurIPS 2020: the baselines
    that design-and-play is judged against, by implicit differentiation (ID) and by differentiation
    through the iterations (AD).

    **Arguments:**

    - `optimizer`: as for [`DesignAndPlay`][]; Adam with step size 0.1 when left out.
    - `play_step`: step size `beta_k` of the inner mirror descent; when left out the inner problem
      is solved as [`solve_equilibrium`][] does without a method.
    - `sensitivity`: [`Implicit`][] when left out. [`Unrolled`][] differentiates through the inner
      iterations themselves, the last `steps` of them (their points are kept in memory), and where
      inner loops start warm takes at least as many; it needs `play_step`.
    - `inner_tol`: positive.
    - `inner_steps`: bound on the steps of an inner loop. Where it is reached, `history.residual`
      shows what was missed.
    - `warm`: whether an inner loop starts where the last one ended, or at `x0` each time.
    - `mirror_map`: as for [`MirrorDescent`][].

    **Raises** `ValueError` for a tolerance that is not positive, a count below 1, or `Unrolled`
    without `play_step`.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Box(0, 2))
        >>> for sensitivity in (ix.Implicit(), ix.Unrolled(50)):
        ...     scheme = ix.DoubleLoop(optax.sgd(0.1), play_step=0.5, sensitivity=sensitivity)
        ...     print(ix.design(problem, jnp.zeros(1), scheme, steps=50).theta.round(3).tolist())
        [2.0]
        [2.0]
    """

    optimizer: optax.GradientTransformation = eqx.field(static=True)
    play: MirrorDescent | None
    sensitivity: AbstractSensitivity
    inner_tol: Float[Array, ""]
    inner_steps: int = eqx.field(static=True)
    warm: bool = eqx.field(static=True)

    def __init__(
        self,
        optimizer: optax.GradientTransformation | None = None,
        *,
        play_step: ArrayLike | Schedule | None = None,
        sensitivity: AbstractSensitivity | None = None,
        inner_tol: ArrayLike = 1e-6,
        inner_steps: int = 10_000,
        warm: bool = True,
        mirror_map: AbstractMirrorMap | None = None,
    ):
        optimizer = optax.adam(0.1) if optimizer is None else optimizer
        self.optimizer = require_optimizer("DoubleLoop", optimizer)
        self.play = None if play_step is None else MirrorDescent(play_step, mirror_map)
        self.sensitivity = Implicit() if sensitivity is None else sensitivity
        if not isinstance(self.sensitivity, AbstractSensitivity):
            raise TypeError(
                f"`DoubleLoop(sensitivity=...)` needs a sensitivity, got {sensitivity!r}"
            )
        if isinstance(self.sensitivity, Unrolled) and self.play is None:
            raise ValueError(
                "`DoubleLoop(sensitivity=ix.Unrolled(...))` needs `play_step`, the step size of "
                "the iterations that it differentiates, got None"
            )
        law = self.sensitivity
        if isinstance(law, Penalty):
            raise ValueError(
                "`DoubleLoop(sensitivity=...)` needs another law than `ix.Penalty`, whose second "
                "population takes one step while the first one settles: give it to "
                "`ix.DesignAndPlay`"
            )
        if isinstance(law, AbstractLaw) and law.needs_step_size and self.play is None:
            name = type(law).__name__
            raise ValueError(
                f"`DoubleLoop(sensitivity=ix.{name}(...))` needs `play_step`, or "
                f"`ix.{name}(step_size=...)`, got neither"
            )
        self.inner_tol = require_positive("DoubleLoop", "inner_tol", inner_tol)
        self.inner_steps = require_count("DoubleLoop", "inner_steps", inner_steps)
        self.warm = bool(warm)

    @property
    def needs_key(self) -> bool:
        return False

    def init(self, problem: DesignProblem, theta: PyTree, x: Array) -> DoubleLoopState:
        memory = self.sensitivity.memory(problem.game, theta, x)
        return DoubleLoopState(theta, x, x, self.optimizer.init(theta), memory)

    def step(
        self,
        problem: DesignProblem,
        state: AbstractSchemeState,
        count: Array,
        key: PRNGKeyArray | None,
    ) -> tuple[DoubleLoopState, SchemeInfo]:
        del count, key
        assert isinstance(state, DoubleLoopState)
        theta, game = state.theta, problem.game
        start = state.x if self.warm else state.start
        if isinstance(self.sensitivity, Unrolled):
            x, steps, gradient = self._through_iterations(problem, theta, start, state.memory)
        else:
            step_size = jnp.ones((), start.dtype)
            if self.play is None:
                x, steps, _ = find_equilibrium(
                    game, theta, start, None, self.inner_tol, max_steps=self.inner_steps
                )
            else:
                played = self._play(problem, theta, start, kept=0)
                x = self.play.geometry(game, theta).strategy(played.point)
                steps, step_size = played.steps, jnp.asarray(self.play.step_size(0), x.dtype)
            gradient = evaluate_hypergradient(
                problem, theta, x, self.sensitivity, step_size=step_size, memory=state.memory
            )
        moved, optimizer = designer_step(problem, self.optimizer, theta, state.optimizer, gradient)
        info = SchemeInfo(
            design_step=tree_norm(tree_subtract(moved, theta)),
            play_step=tree_norm(x - state.x),
            largest_cost=jnp.max(jnp.abs(game.operator(theta, x))),
            objective=gradient.objective,
            gradient=tree_norm(gradient.value),
            gradient_residual=gradient.residual,
            degenerate=gradient.degenerate,
            inner_steps=steps,
        )
        return DoubleLoopState(moved, x, state.start, optimizer, gradient.memory), info

    def keep(
        self, moved: Bool[Array, ""], reached: AbstractSchemeState, before: AbstractSchemeState
    ) -> DoubleLoopState:
        return tree_where(moved, reached, before)

    def strategy(self, problem: DesignProblem, state: AbstractSchemeState) -> Array:
        assert isinstance(state, DoubleLoopState)
        return state.x

    def _play(self, problem: DesignProblem, theta: PyTree, start: Array, kept: int) -> _Played:
        """Plays to tolerance; the last `kept` points before a step are stored, in turn."""
        assert self.play is not None
        play, game = self.play, problem.game
        mirror_map = play.geometry(game, theta)
        point = play.start(game, theta, start)

        def residual_of(point: PyTree) -> Array:
            value = mirror_map.operator(game, theta, point)
            return natural_residual(game, theta, mirror_map.strategy(point), value)

        def going_on(now: _Played) -> Array:
            # A warm start may be an equilibrium; without iterations there is nothing to go back by.
            unfinished = now.steps < kept if self.warm else jnp.asarray(False)
            unfinished = unfinished | (now.residual > self.inner_tol)
            return unfinished & (now.steps < self.inner_steps)

        def advance(now: _Played) -> _Played:
            before = now.before
            if kept:
                before = jax.tree.map(
                    lambda store, leaf: store.at[now.steps % kept].set(leaf), before, now.point
                )
            point = self._step(problem, theta, now.point, now.steps)
            return _Played(point, residual_of(point), now.steps + 1, before)

        store = jax.tree.map(lambda leaf: jnp.zeros((kept, *leaf.shape), leaf.dtype), point)
        first = _Played(point, residual_of(point), jnp.int32(0), store)
        return jax.lax.while_loop(going_on, advance, first)

    def _step(self, problem: DesignProblem, theta: PyTree, point: PyTree, count: Array) -> PyTree:
        assert self.play is not None
        value = self.play.geometry(problem.game, theta).operator(problem.game, theta, point)
        return self.play.move(problem.game, theta, point, value, count)

    def _through_iterations(
        self, problem: DesignProblem, theta: PyTree, start: Array, memory: PyTree
    ) -> tuple[Array, Array, Hypergradient]:
        """The inner loop and, backwards through its steps, the hypergradient."""
        assert self.play is not None
        assert isinstance(self.sensitivity, Unrolled)
        kept, game = self.sensitivity.steps, problem.game
        mirror_map = self.play.geometry(game, theta)
        played = self._play(problem, theta, start, kept)
        x, pull_strategy = jax.vjp(mirror_map.strategy, played.point)
        objective, (direct, through) = jax.value_and_grad(problem.objective, (0, 1))(theta, x)
        (cotangent,) = pull_strategy(through)

        def going_on(carry):
            done, *_ = carry
            return (done < played.steps) & (done < kept)

        def back(carry):
            done, cotangent, gathered = carry
            count = played.steps - 1 - done
            point = jax.tree.map(lambda store: store[count % kept], played.before)
            _, pull = jax.vjp(lambda t, p: self._step(problem, t, p, count), theta, point)
            to_theta, cotangent = pull(cotangent)
            return done + 1, cotangent, jax.tree.map(jnp.add, gathered, to_theta)

        size = tree_norm(cotangent)
        _, left, value = jax.lax.while_loop(going_on, back, (jnp.int32(0), cotangent, direct))
        residual = tree_norm(left) / jnp.where(size > 0, size, 1)
        value_at = game.operator(theta, x)
        degenerate = game.strategies(theta).face(x, value_at, 1.0).degenerate
        return x, played.steps, Hypergradient(value, residual, objective, degenerate, memory)
