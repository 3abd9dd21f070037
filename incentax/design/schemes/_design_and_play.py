"""Designer and agents move one step each: Algorithms 1 and 2 of Liu et al. (2022)."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, PRNGKeyArray, PyTree

from ..._tree import tree_norm, tree_subtract, tree_where
from ...dynamics import MirrorDescent, Schedule
from ...geometry import AbstractMirrorMap
from ...sensitivity import AbstractSensitivity, Implicit, Penalty
from .._problem import DesignProblem, evaluate_hypergradient
from .._scheme import (
    AbstractScheme,
    AbstractSchemeState,
    designer_step,
    require_optimizer,
    SchemeInfo,
)

# The matrix behind the adjoint drifts with the step sizes: fast at first, slowly later. It is made
# explicit at steps 0, 1, 2, 4, 8, ... and at every multiple of this number.
_REFRESH = 64


class DesignAndPlayState(AbstractSchemeState):
    """Incentive, strategy as the mirror map carries it, states of optimizer and linear solve."""

    theta: PyTree
    point: PyTree
    optimizer: optax.OptState
    memory: PyTree


class DesignAndPlay(AbstractScheme):
    """The single loop: at step `k` the agents take one step of play, then the designer one.

        x_{k+1}     = one step of mirror descent on the feedback at (theta_k, x_k), then mixed
        theta_{k+1} = project(theta_k - alpha_k ∇~f(theta_k, x_{k+1}))

    Liu et al. (2022), Algorithm 1 on R^d and Algorithm 2, with mixing, on simplices. `∇~f` is the
    [`hypergradient`][] at the current pair, not at the equilibrium.

    **Arguments:**

    - `optimizer`: any `optax.GradientTransformation` (but for those that call the objective
      themselves, as line searches do); `optax.sgd(alpha)` with a schedule is the
      source's. Its update is followed by projection on the incentive set.
    - `play_step`, `mixing`, `feedback`, `mirror_map`: see [`MirrorDescent`][].
    - `sensitivity`: how the hypergradient is computed; [`Implicit`][] when left out. Its linear
      solver starts from the last step's solution.

    **Raises** `ValueError` for a negative step size or mixing outside [0, 1].

    Deviations from the source: it prints the designer's step as an argmax with `1/alpha ||.||^2`;
    for a cost this is the projected gradient step with `alpha` (or `alpha / 2`: we take `alpha`).

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Box(0, 2))
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
        >>> ix.design(problem, jnp.zeros(1), scheme, steps=100).theta.round(4).tolist()
        [2.0]
    """

    optimizer: optax.GradientTransformation = eqx.field(static=True)
    play: MirrorDescent
    sensitivity: AbstractSensitivity

    def __init__(
        self,
        optimizer: optax.GradientTransformation,
        *,
        play_step: ArrayLike | Schedule,
        mixing: ArrayLike | Schedule | None = None,
        sensitivity: AbstractSensitivity | None = None,
        feedback: Callable[[PRNGKeyArray, Array], Array] | None = None,
        mirror_map: AbstractMirrorMap | None = None,
    ):
        self.optimizer = require_optimizer("DesignAndPlay", optimizer)
        self.play = MirrorDescent(play_step, mirror_map, mixing=mixing, feedback=feedback)
        self.sensitivity = Implicit() if sensitivity is None else sensitivity
        if not isinstance(self.sensitivity, AbstractSensitivity):
            raise TypeError(
                f"`DesignAndPlay(sensitivity=...)` needs a sensitivity, got {sensitivity!r}"
            )
        if isinstance(self.sensitivity, Penalty) and (self.play.mixing or mirror_map is not None):
            raise ValueError(
                "`DesignAndPlay(sensitivity=ix.Penalty(...))` needs play without mixing and in its "
                "natural geometry, as its second population plays: what mixing adds to one of them "
                "would be taken for the other's answer"
            )

    @property
    def needs_key(self) -> bool:
        return self.play.feedback is not None

    def init(self, problem: DesignProblem, theta: PyTree, x: Array) -> DesignAndPlayState:
        return DesignAndPlayState(
            theta=theta,
            point=self.play.start(problem.game, theta, x),
            optimizer=self.optimizer.init(theta),
            memory=self.sensitivity.memory(problem.game, theta, x),
        )

    def step(
        self,
        problem: DesignProblem,
        state: AbstractSchemeState,
        count: Array,
        key: PRNGKeyArray | None,
    ) -> tuple[DesignAndPlayState, SchemeInfo]:
        assert isinstance(state, DesignAndPlayState)
        game, mirror_map = problem.game, self.play.geometry(problem.game, state.theta)
        value = mirror_map.operator(game, state.theta, state.point)
        point = self.play.move(game, state.theta, state.point, value, count, key=key)
        x = mirror_map.strategy(point)
        gradient = evaluate_hypergradient(
            problem,
            state.theta,
            x,
            self.sensitivity,
            step_size=jnp.asarray(self.play.step_size(count)).astype(x.dtype),
            memory=state.memory,
            refresh=_refreshes(count),
            operator_value=mirror_map.operator(game, state.theta, point),
        )
        theta, optimizer = designer_step(
            problem, self.optimizer, state.theta, state.optimizer, gradient
        )
        info = SchemeInfo(
            design_step=tree_norm(tree_subtract(theta, state.theta)),
            play_step=tree_norm(x - mirror_map.strategy(state.point)),
            largest_cost=jnp.max(jnp.abs(value)),
            objective=gradient.objective,
            gradient=tree_norm(gradient.value),
            gradient_residual=gradient.residual,
            degenerate=gradient.degenerate,
            inner_steps=jnp.int32(1),
        )
        return DesignAndPlayState(theta, point, optimizer, gradient.memory), info

    def keep(
        self, moved: Bool[Array, ""], reached: AbstractSchemeState, before: AbstractSchemeState
    ) -> DesignAndPlayState:
        assert isinstance(reached, DesignAndPlayState)
        assert isinstance(before, DesignAndPlayState)
        # The remembered inverse is large, and of no use to a run that has ended.
        answers = [(state.theta, state.point, state.optimizer) for state in (reached, before)]
        return DesignAndPlayState(*tree_where(moved, *answers), memory=reached.memory)

    def strategy(self, problem: DesignProblem, state: AbstractSchemeState) -> Array:
        assert isinstance(state, DesignAndPlayState)
        return self.play.geometry(problem.game, state.theta).strategy(state.point)


def _refreshes(count: Array) -> Array:
    return (count & (count - 1) == 0) | (count % _REFRESH == 0)
