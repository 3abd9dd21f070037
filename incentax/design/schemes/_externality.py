"""Prices that follow what each action does to others: an adaptive law without a gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from ..._checks import is_traced
from ..._tree import as_pytree_function, tree_norm, tree_subtract, tree_where
from ...dynamics import as_schedule, MirrorDescent, Schedule
from ...geometry import AbstractMirrorMap
from .._problem import DesignProblem
from .._scheme import AbstractScheme, AbstractSchemeState, SchemeInfo


class ExternalityState(AbstractSchemeState):
    """Incentive, and the strategy as the mirror map carries it."""

    theta: PyTree
    point: PyTree


class ExternalityPricing(AbstractScheme):
    """Every price moves towards the externality of its action, while agents take one step of play.

        x_{k+1}     = one step of mirror descent at (theta_k, x_k)
        theta_{k+1} = project((1 - beta_k) theta_k + beta_k e(x_{k+1})) ,
        e           = marginal social cost - marginal private cost

    C. Maheshwari, K. Kulkarni, M. Wu, S. Sastry, *Adaptive incentive design with learning agents*
    (2024), arXiv 2405.16716: where every action has its price and prices move slower than agents,
    fixed points are social optima, whatever the objective's shape. On roads `e = v t'(v)`, the
    marginal external cost of a link (A. C. Pigou, 1920).

    **Knows:** marginal costs of agents and society at what is played; no derivative of an
    equilibrium, and no linear solve.

    **Arguments:**

    - `rate`: `beta_k` in [0, 1], a number or a schedule `k -> value`.
    - `play_step`, `mixing`, `mirror_map`: see [`MirrorDescent`][].
    - `externality`: a pure function `(theta, x) -> e`, like `theta`. When left out that of the game
      (`v t'(v)` of a [`RoutingGame`][]), or where `theta` is a price for each entry of `x`,
      `∇_x f - (F - theta)`.

    **Raises** `ValueError` for a rate out of range, and for a problem whose externality is not
    known.

    !!! example

        Two firms that do not count the damage of 1.5 for each unit of output:

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - 4 + theta, ix.NonNegative((2,)))
        >>> social = lambda theta, x: jnp.sum(x**2 / 2 - 4 * x + 1.5 * x)
        >>> problem = ix.DesignProblem(game, social, ix.Box(jnp.zeros(2), 4.0))
        >>> scheme = ix.ExternalityPricing(0.1, play_step=0.5)
        >>> ix.design(problem, jnp.zeros(2), scheme, steps=300).theta.round(4).tolist()
        [1.5, 1.5]
    """

    rate: Schedule
    play: MirrorDescent
    externality: Callable[[PyTree, Array], PyTree] | None

    def __init__(
        self,
        rate: ArrayLike | Schedule,
        *,
        play_step: ArrayLike | Schedule,
        mixing: ArrayLike | Schedule | None = None,
        externality: Callable[[PyTree, Array], PyTree] | None = None,
        mirror_map: AbstractMirrorMap | None = None,
    ):
        self.rate = as_schedule("ExternalityPricing", "rate", rate)
        self.play = MirrorDescent(play_step, mirror_map, mixing=mixing)
        self.externality = None if externality is None else as_pytree_function(externality)

    @property
    def needs_key(self) -> bool:
        return False

    def check(self, problem: DesignProblem, theta: PyTree, x: Array) -> None:
        rate = jnp.asarray(self.rate(0))
        known = not is_traced(problem, theta, x, rate)
        if known and not jnp.all((rate >= 0) & (rate <= 1)):
            raise ValueError(f"`ExternalityPricing(rate)` needs to be in [0, 1], got {rate}")
        found = jax.eval_shape(lambda: self._externality(problem, theta, x))
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (found, theta)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "`ExternalityPricing(externality=...)` needs to return what is like theta, "
                f"{shapes[1]}, got {shapes[0]}"
            )
        if known and self.externality is None and problem.game.externality(theta, x) is None:
            _, slope = jax.jvp(
                lambda t: problem.game.operator(t, x), (theta,), (jnp.ones_like(theta),)
            )
            if not jnp.all(jnp.abs(slope - 1) <= 1e-6):
                raise ValueError(
                    "`ExternalityPricing` needs incentives that enter each cost as its price, "
                    "∂F/∂theta = 1, or `externality=...`, got a slope of "
                    f"{float(slope.ravel()[jnp.argmax(jnp.abs(slope - 1))]):g}"
                )

    def _externality(self, problem: DesignProblem, theta: PyTree, x: Array) -> PyTree:
        if self.externality is not None:
            return self.externality(theta, x)
        known = problem.game.externality(theta, x)
        if known is not None:
            return known
        if not isinstance(theta, Array) or jnp.shape(theta) != jnp.shape(x):
            raise ValueError(
                "`ExternalityPricing` needs a price for each entry of x, shape "
                f"{jnp.shape(x)}, or `externality=...`, got theta of shape "
                f"{jax.tree.map(jnp.shape, theta)}"
            )
        weights = 1.0 if problem.game.weights is None else problem.game.weights.astype(x.dtype)
        social = jax.grad(problem.objective, 1)(theta, x) / weights
        return social - (problem.game.operator(theta, x) - theta)

    def init(self, problem: DesignProblem, theta: PyTree, x: Array) -> ExternalityState:
        return ExternalityState(theta, self.play.start(problem.game, theta, x))

    def step(
        self,
        problem: DesignProblem,
        state: AbstractSchemeState,
        count: Array,
        key: PRNGKeyArray | None,
    ) -> tuple[ExternalityState, SchemeInfo]:
        del key
        assert isinstance(state, ExternalityState)
        game, mirror_map = problem.game, self.play.geometry(problem.game, state.theta)
        value = mirror_map.operator(game, state.theta, state.point)
        point = self.play.move(game, state.theta, state.point, value, count)
        x, before = mirror_map.strategy(point), mirror_map.strategy(state.point)
        aim = self._externality(problem, state.theta, x)
        rate = jnp.asarray(self.rate(count))
        theta = jax.tree.map(
            lambda price, e: price + rate.astype(price.dtype) * (e - price), state.theta, aim
        )
        theta = problem.incentive_set.project(theta)
        unknown: Float[Array, ""] = jnp.full((), jnp.nan, x.dtype)
        info = SchemeInfo(
            design_step=tree_norm(tree_subtract(theta, state.theta)),
            play_step=tree_norm(x - before),
            largest_cost=jnp.max(jnp.abs(value)),
            objective=problem.objective(state.theta, x),
            # What the law goes down along.
            gradient=tree_norm(tree_subtract(state.theta, aim)),
            gradient_residual=unknown,
            degenerate=jnp.int32(0),
            inner_steps=jnp.int32(1),
        )
        return ExternalityState(theta, point), info

    def keep(
        self, moved: Bool[Array, ""], reached: AbstractSchemeState, before: AbstractSchemeState
    ) -> ExternalityState:
        return tree_where(moved, reached, before)

    def strategy(self, problem: DesignProblem, state: AbstractSchemeState) -> Array:
        assert isinstance(state, ExternalityState)
        return self.play.geometry(problem.game, state.theta).strategy(state.point)
