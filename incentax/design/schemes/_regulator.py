"""The regulator who sees only costs."""

import warnings
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree

from ..._checks import is_traced, require, require_count, require_one_of, require_positive
from ..._compile import compiled
from ..._tree import tree_norm, tree_subtract, tree_where
from ...dynamics import AbstractDynamics, as_schedule, Schedule
from ...equilibrium import find_equilibrium, natural_residual
from ...games import AtomicGame
from ...sets import AbstractSet
from ...smoothing import (
    ESTIMATORS,
    moreau_gradient,
    sphere,
    trial_points,
    two_point_gradient,
)
from .._problem import DesignProblem
from .._scheme import AbstractInfo, AbstractScheme, AbstractSchemeState


class RegulatorState(AbstractSchemeState):
    """Where a regulator stands.

    - `theta`: in the incentive set; `iterate`: before projection; `x`: what agents play at `theta`.
    - `play`: the agents' states, one for `theta` and one for each incentive that was tried last.
    """

    theta: PyTree
    iterate: PyTree
    x: Array
    play: PyTree
    oracle_calls: Int[Array, ""]
    messages: Int[Array, ""]


class RegulatorInfo(AbstractInfo):
    """What a step of the regulator shows.

    - `design_step`, `play_step`: distances that `theta` and `x` moved.
    - `largest_cost`: `max |F(theta, x)|`.
    - `objective`: the social cost (or the regulator's own objective) where agents stand at the
      `theta` before the step, and `player_costs`, each player's part of it, where the game knows
      them.
    - `gradient`: norm of the estimated gradient, the pull back to the incentive set included.
    - `distance`: of the iterate to the incentive set.
    - `inner_residual`: largest distance of the agents from equilibrium over the incentives tried.
    - `inner_steps`: of the agents' play in this step.
    - `oracle_calls`: so far: costs asked for by the estimates; those at `theta` are the history's.
    - `messages`: so far: between agents, at all incentives; inner loops run side by side, each
      until the slowest has ended.
    """

    design_step: Float[Array, ""]
    play_step: Float[Array, ""]
    largest_cost: Float[Array, ""]
    objective: Float[Array, ""]
    player_costs: Float[Array, " players"]
    gradient: Float[Array, ""]
    distance: Float[Array, ""]
    inner_residual: Float[Array, ""]
    inner_steps: Int[Array, ""]
    oracle_calls: Int[Array, ""]
    messages: Int[Array, ""]


class ZerothOrderRegulator(AbstractScheme):
    """Descends along two-point estimates of the social cost's gradient.

        g      = (p / 2 delta) [F~(theta + delta u) - F~(theta - delta u)] u ,  u on the unit sphere
        theta+ = theta - gamma_k [g + (theta - project(theta)) / delta]

    Du, Meng, Hu (2025), Algorithm 1, (22) and (23): `F~` is the objective where the agents stand
    after their inner loop, which starts where the last one ended. The second term is the gradient
    of the incentive set's Moreau envelope; what is returned is projected. No derivative is taken of
    objective or game, but by the agents of their own costs.

    **Arguments:**

    - `smoothing`: `delta > 0`, in units of `theta`; costs need to be defined that far outside of
      the incentive set.
    - `step_size`: `gamma_k`, a number or a schedule; at `2 delta` and beyond the envelope is
      overshot, which is warned of.
    - `seeking`: how agents move: [`ConsensusSeeking`][], [`ProjectedGradient`][], other dynamics.
      When left out they settle exactly, as in [`solve_equilibrium`][].
    - `inner_steps`: `T_k`, the steps of an inner loop, a number or a schedule.
    - `inner_tol`: end an inner loop when the residual is below this (a number or a schedule), and
      after `inner_steps` at the latest.
    - `estimator`: "central", or "forward", which compares with the iterate itself.
    - `directions`: how many directions are drawn a step and averaged.

    **Raises** `ValueError` for a smoothing or tolerance that is not positive, and counts below 1.

    Deviations from the source: several directions, the central estimator, and a further inner loop
    side by side with the others at the projected `theta`, for the history; after the last step it
    runs once more, so that `x` and its residual belong to what is returned.

    !!! example

        >>> import incentax as ix, jax, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum(abs(x - 3)), ix.Box(0, 2))
        >>> scheme = ix.ZerothOrderRegulator(smoothing=0.1, step_size=0.05)
        >>> solution = ix.design(
        ...     problem, jnp.zeros(1), scheme, steps=60, key=jax.random.key(0)
        ... )
        >>> solution.theta.round(3).tolist()
        [2.0]
    """

    smoothing: Float[Array, ""]
    step_size: Schedule
    seeking: AbstractDynamics | None
    inner_steps: Schedule
    inner_tol: Schedule | None
    estimator: Literal["central", "forward"] = eqx.field(static=True)
    directions: int = eqx.field(static=True)

    def __init__(
        self,
        *,
        smoothing: ArrayLike,
        step_size: ArrayLike | Schedule,
        seeking: AbstractDynamics | None = None,
        inner_steps: int | Schedule = 50,
        inner_tol: ArrayLike | Schedule | None = None,
        estimator: Literal["central", "forward"] = "central",
        directions: int = 1,
    ):
        owner = "ZerothOrderRegulator"
        self.smoothing = require_positive(owner, "smoothing", smoothing)
        self.step_size = as_schedule(owner, "step_size", step_size)
        if seeking is not None and not isinstance(seeking, AbstractDynamics):
            raise TypeError(f"`{owner}(seeking=...)` needs dynamics, got {seeking!r}")
        self.seeking = seeking
        if not callable(inner_steps):
            inner_steps = require_count(owner, "inner_steps", inner_steps)
        self.inner_steps = as_schedule(owner, "inner_steps", inner_steps)
        begins = self.inner_steps(0)
        rule = f"`{owner}(inner_steps=...)` needs at least one step"
        self.smoothing = require(self.smoothing, jnp.asarray(begins) >= 1, rule, begins)
        if inner_tol is not None and not callable(inner_tol):
            inner_tol = require_positive(owner, "inner_tol", inner_tol)
        self.inner_tol = None if inner_tol is None else as_schedule(owner, "inner_tol", inner_tol)
        require_one_of(owner, "estimator", estimator, ESTIMATORS)
        self.estimator = estimator
        self.directions = require_count(owner, "directions", directions)
        first = self.step_size(0)
        if not is_traced(first, self.smoothing) and float(first) >= 2 * float(self.smoothing):
            warnings.warn(
                f"`{owner}(step_size={float(first):g})` is not below 2 smoothing = "
                f"{2 * float(self.smoothing):g}: outside of the incentive set the iterate "
                "overshoots it. Going on.",
                stacklevel=2,
            )

    @property
    def needs_key(self) -> bool:
        return True

    def draw(self, theta: PyTree, iterate: PyTree, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """Directions, and `theta` before the incentives whose costs are compared."""
        keys = jax.random.split(key, self.directions)
        directions = jax.vmap(lambda k: sphere(k, iterate))(keys)
        tried = trial_points(iterate, directions, self.smoothing, self.estimator)
        trials = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), theta, tried)
        return directions, trials

    def move(
        self,
        incentive_set: AbstractSet,
        iterate: PyTree,
        directions: PyTree,
        values: Float[Array, " trials"],
        count: Array,
    ) -> tuple[PyTree, PyTree, Float[Array, ""], Float[Array, ""]]:
        """The iterate after a step, its projection, the gradient's norm, how far they are apart."""
        estimate = two_point_gradient(values, directions, self.smoothing, self.estimator)
        pull = moreau_gradient(incentive_set, iterate, self.smoothing)
        gradient = jax.tree.map(jnp.add, estimate, pull)
        gamma = jnp.asarray(self.step_size(count))
        iterate = jax.tree.map(
            lambda leaf, slope: leaf - gamma.astype(leaf.dtype) * slope, iterate, gradient
        )
        theta = incentive_set.project(iterate)
        return iterate, theta, tree_norm(gradient), tree_norm(tree_subtract(iterate, theta))

    def check(self, problem: DesignProblem, theta: PyTree, x: Array) -> None:
        if self.seeking is not None:
            self.seeking.check(problem.game, theta, x)

    def conclude(
        self, problem: DesignProblem, state: AbstractSchemeState, count: Array
    ) -> RegulatorState:
        assert isinstance(state, RegulatorState)

        def first(tree: PyTree) -> PyTree:
            return jax.tree.map(lambda leaf: leaf[:1], tree)

        here = jax.tree.map(lambda leaf: leaf[None], state.theta)
        play, x, _, _ = self._settle(problem, here, first(state.play), count)
        play = jax.tree.map(lambda all_, one: all_.at[:1].set(one), state.play, play)
        return eqx.tree_at(lambda s: (s.play, s.x), state, (play, x[0]))

    def init(self, problem: DesignProblem, theta: PyTree, x: Array) -> RegulatorState:
        lanes = 1 + (2 * self.directions if self.estimator == "central" else self.directions + 1)
        if self.seeking is None:
            one = x
        else:
            one = self.seeking.init(problem.game, theta, x)
        play = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (lanes, *leaf.shape)), one)
        return RegulatorState(theta, theta, x, play, jnp.int32(0), jnp.int32(0))

    def step(
        self,
        problem: DesignProblem,
        state: AbstractSchemeState,
        count: Array,
        key: PRNGKeyArray | None,
    ) -> tuple[RegulatorState, RegulatorInfo]:
        assert isinstance(state, RegulatorState)
        assert key is not None
        directions, trials = self.draw(state.theta, state.iterate, key)
        play, x, residual, steps = self._settle(problem, trials, state.play, count)
        values = jax.vmap(problem.objective)(trials, x)
        iterate, theta, slope, distance = self.move(
            problem.incentive_set, state.iterate, directions, values[1:], count
        )
        game = problem.game
        known = isinstance(game, AtomicGame)
        costs = game.cost(state.theta, x[0]) if known else jnp.full(1, jnp.nan, values.dtype)
        lanes = values.size
        sent = 0 if self.seeking is None else lanes * self.seeking.messages
        oracle_calls, messages = state.oracle_calls + lanes - 1, state.messages + sent * steps
        info = RegulatorInfo(
            design_step=tree_norm(tree_subtract(theta, state.theta)),
            play_step=jnp.linalg.norm(x[0] - state.x),
            largest_cost=jnp.max(jnp.abs(game.operator(state.theta, x[0]))),
            objective=values[0],
            player_costs=costs,
            gradient=slope,
            distance=distance,
            inner_residual=jnp.max(residual),
            inner_steps=steps,
            oracle_calls=oracle_calls,
            messages=messages,
        )
        return RegulatorState(theta, iterate, x[0], play, oracle_calls, messages), info

    def explain(
        self,
        problem: DesignProblem,
        state: AbstractSchemeState,
        count: Array,
        key: PRNGKeyArray | None,
    ) -> str:
        """At which incentive costs are not finite, and in which direction it was tried."""
        assert isinstance(state, RegulatorState)
        if key is None:
            return ""
        directions, values, trials = _tried(self, problem, state, count, key)
        bad = jnp.flatnonzero(~jnp.isfinite(values))
        if not bad.size:
            return ""
        lane = int(bad[0])
        point = jax.tree.map(lambda leaf: leaf[lane], trials)
        where = ""
        # The last value of a forward step is the iterate's own.
        if 0 < lane <= len(values) - 1 - (self.estimator == "forward"):
            number = (lane - 1) % self.directions
            sign = 1 if lane <= self.directions else -1
            direction = jax.tree.map(lambda leaf: sign * leaf[number], directions)
            where = f", `smoothing` away in direction {direction}"
        return (
            f"Costs are not finite at theta = {point}{where}: they need to be defined up to "
            "`smoothing` outside of the incentive set."
        )

    def keep(
        self, moved: Bool[Array, ""], reached: AbstractSchemeState, before: AbstractSchemeState
    ) -> RegulatorState:
        return tree_where(moved, reached, before)

    def strategy(self, problem: DesignProblem, state: AbstractSchemeState) -> Array:
        assert isinstance(state, RegulatorState)
        return state.x

    def _settle(
        self, problem: DesignProblem, trials: PyTree, play: PyTree, count: Array
    ) -> tuple[PyTree, Array, Array, Array]:
        """Where agents stand under each incentive: states, strategies, residuals, steps."""
        game, seeking = problem.game, self.seeking
        most = jnp.maximum(jnp.asarray(self.inner_steps(count)).astype(jnp.int32), 1)
        tol = None if self.inner_tol is None else self.inner_tol(count)
        if seeking is None:

            def exact(lane):
                theta, x = lane
                reached, steps, _ = find_equilibrium(game, theta, x, None, tol, max_steps=10_000)
                return reached, steps

            x, steps = jax.lax.map(exact, (trials, play))
            residual = jax.vmap(lambda theta, x: natural_residual(game, theta, x))(trials, x)
            return x, x, residual, jnp.max(steps)

        def evidence(theta: PyTree, state: PyTree) -> Array:
            value = seeking.operator_value(game, theta, state)
            return natural_residual(game, theta, seeking.strategy(game, theta, state), value)

        residuals = jax.vmap(evidence)
        state = jax.vmap(lambda theta, state: seeking.resume(game, theta, state))(trials, play)

        def going_on(carry):
            done, _, residual = carry
            more = done < most
            return more if tol is None else more & ~jnp.all(residual <= tol)

        def advance(carry):
            done, state, residual = carry
            state = jax.vmap(lambda theta, state: seeking.step(game, theta, state, done))(
                trials, state
            )
            # A residual costs as much as a step: only where it decides.
            return done + 1, state, residual if tol is None else residuals(trials, state)

        unknown = jnp.full(len(jax.tree.leaves(trials)[0]), jnp.inf)
        first = unknown if tol is None else residuals(trials, state)
        steps, state, _ = jax.lax.while_loop(going_on, advance, (jnp.int32(0), state, first))
        x = jax.vmap(lambda theta, state: seeking.strategy(game, theta, state))(trials, state)
        return state, x, residuals(trials, state), steps


@compiled
def _tried(
    scheme: ZerothOrderRegulator,
    problem: DesignProblem,
    state: RegulatorState,
    count: Array,
    key: PRNGKeyArray,
) -> tuple[PyTree, Array, PyTree]:
    """Directions, values and incentives of a step."""
    directions, trials = scheme.draw(state.theta, state.iterate, key)
    _, x, _, _ = scheme._settle(problem, trials, state.play, count)
    return directions, jax.vmap(problem.objective)(trials, x), trials
