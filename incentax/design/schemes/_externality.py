"""Prices that follow what each action does to others: an adaptive law without a gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from ..._checks import is_traced, warn
from ..._tree import as_pytree_function, tree_norm, tree_subtract, tree_where
from ...dynamics import as_schedule, MirrorDescent, Schedule
from ...geometry import AbstractMirrorMap
from ...sensitivity import unweighted
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
    fixed points are social optima. On roads `e = v t'(v)`, the marginal external cost of a link (A.
    C. Pigou, 1920): of total time, whatever the problem's objective is, which is warned of where
    the two part (another objective, links without a toll, drivers with dispersion).

    **Knows:** marginal costs of agents and society at what is played; no derivative of an
    equilibrium, and no linear solve.

    **Arguments:**

    - `rate`: `beta_k` in [0, 1], a number or a schedule `k -> value`.
    - `play_step`, `mixing`, `mirror_map`: see [`MirrorDescent`][].
    - `externality`: a pure function `(theta, x) -> e`, like `theta`. When left out that of the game
      (`v t'(v)` of a [`RoutingGame`][]), or where `theta` is a price for each entry of `x`,
      `∇_x f - (F - theta)`.

    **Raises** `ValueError` for a rate out of range, for a problem with constraints, which the law
    does not see, and for one whose externality is not known.

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
        first = jnp.asarray(self.rate(0))
        if not is_traced(first) and not jnp.all((first >= 0) & (first <= 1)):
            raise ValueError(f"`ExternalityPricing(rate)` needs to be in [0, 1], got {first}")
        self.play = MirrorDescent(play_step, mirror_map, mixing=mixing)
        self.externality = None if externality is None else as_pytree_function(externality)

    @property
    def needs_key(self) -> bool:
        return False

    def check(self, problem: DesignProblem, theta: PyTree, x: Array) -> None:
        known = not is_traced(problem, theta, x)
        if problem.constraints:
            raise ValueError(
                "`ExternalityPricing` needs a problem without constraints: prices follow the "
                f"externality alone, got {[one.name for one in problem.constraints]}"
            )
        found = jax.eval_shape(lambda: self._externality(problem, theta, x))
        shapes = [jax.tree.map(jnp.shape, tree) for tree in (found, theta)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "`ExternalityPricing(externality=...)` needs to return what is like theta, "
                f"{shapes[1]}, got {shapes[0]}"
            )
        if known and self.externality is None:
            self._check_default(problem, theta, x)

    def _check_default(self, problem: DesignProblem, theta: PyTree, x: Array) -> None:
        game, own = problem.game, problem.game.externality(theta, x)
        if own is None:
            probe = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
            _, slope = jax.jvp(lambda t: game.operator(t, x), (theta,), (probe,))
            off = jnp.abs(slope - probe)
            if not jnp.all(off <= 1e-6):
                raise ValueError(
                    "`ExternalityPricing` needs incentives that enter each cost as its price, "
                    "∂F/∂theta = 1, or `externality=...`, got a derivative along theta that is "
                    f"{float(jnp.max(off)):g} off"
                )
            return
        # With these prices agents' costs are the marginal social ones, but for what all share.
        social = unweighted(game, x, jax.grad(problem.objective, 1)(theta, x))
        face = game.strategies(theta).face(x, social, 1.0)
        apart = face.project(face.scale * social), face.project(face.scale * game.operator(own, x))
        sizes = [jnp.linalg.norm(part.ravel()) for part in apart]
        along = jnp.sum(apart[0] * apart[1])
        if not (along >= (1 - 1e-6) * sizes[0] * sizes[1] and (sizes[0] > 0 or sizes[1] == 0)):
            warn(
                "`ExternalityPricing`: the game's externality is that of another objective than "
                "the problem's, or not every action has a price: prices will not minimise the "
                "objective. Going on."
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
        social = unweighted(problem.game, x, jax.grad(problem.objective, 1)(theta, x))
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
