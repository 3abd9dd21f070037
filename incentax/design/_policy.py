"""Policies: an incentive for every context, from a module that is trained."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from .._checks import as_float, is_traced, require_count, require_rows
from .._compile import compiled
from .._results import answer_when_traced, as_table, in_words, RESULTS
from .._tree import as_pytree_function, tree_finite, tree_norm, tree_where
from ..dynamics import MirrorDescent, Schedule
from ..equilibrium import find_equilibrium, natural_residual, strategy_at_door
from ..sensitivity import Implicit
from ._problem import DesignProblem, evaluate_hypergradient
from ._scheme import require_optimizer
from ._solution import DesignFailure

# Of the equilibria while training, and of how far outside of its set an incentive may be.
_TOL, _OUTSIDE = 1e-6, 1e-6


class PolicyHistory(eqx.Module):
    """A row a step: the mean objective over the contexts of the step where it was taken, the norm
    of its gradient in the policy's parameters, and the largest residual of the agents."""

    objective: Float[Array, " steps"]
    gradient: Float[Array, " steps"]
    residual: Float[Array, " steps"]


class TrainedPolicy(eqx.Module):
    """Answer of [`train_policy`][].

    - `policy`: the module, trained.
    - `theta`, `x`: incentive and equilibrium of every context, along a leading axis.
    - `objectives`, `residuals`: of every context, at exact equilibria.
    - `outside`: how far outside of its incentive set the worst incentive lies.
    - `history`: see [`PolicyHistory`][].
    - `result`: an entry of `ix.RESULTS`.
    """

    policy: Any
    theta: PyTree
    x: Array
    objectives: Float[Array, " contexts"]
    residuals: Float[Array, " contexts"]
    outside: Float[Array, ""]
    history: PolicyHistory
    result: RESULTS

    def __str__(self) -> str:
        return as_table(
            [
                ("objective, mean", jnp.mean(self.objectives)),
                ("objective, worst", jnp.max(self.objectives)),
                ("contexts", len(self.objectives)),
                ("residual, largest", jnp.max(self.residuals)),
                ("outside of the set", self.outside),
                ("result", in_words(RESULTS, self.result)),
            ]
        )


class _Training(eqx.Module):
    """What is carried: parameters, the agents of every context, the optimizer's state."""

    arrays: PyTree
    x: Array
    optimizer: optax.OptState
    result: RESULTS


def train_policy(
    problem_of: Callable[[PyTree], DesignProblem],
    policy: Callable[[PyTree], PyTree],
    contexts: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    batch: int | None = None,
    play_step: ArrayLike | Schedule | None = None,
    key: PRNGKeyArray | None = None,
    throw: bool = True,
) -> TrainedPolicy:
    """Trains a policy, `theta = policy(context)`, for agents who settle in every context.

        min over the policy's parameters  mean over contexts of f(policy(c), x*(policy(c); c); c)

    One `lax.scan`; contexts side by side. In every step the agents of a context settle, from where
    they were, and the hypergradient of each context is pulled back through the policy; with
    `play_step` they take one step of play only, as in [`DesignAndPlay`][].

    **Arguments:**

    - `problem_of`: the problem of a context, a function of it.
    - `policy`: any module (`eqx.nn.MLP`, yours) or function of a context that returns an incentive;
      its floating arrays are trained. Incentives are not projected: squash the output into the
      incentive set, as with `lower + (upper - lower) * jax.nn.sigmoid(...)`.
    - `contexts`: a pytree of arrays with a leading axis.
    - `optimizer`: any `optax.GradientTransformation`; the same object again compiles nothing anew,
      another one does (`optax.inject_hyperparams` makes its numbers part of the state).
    - `steps`: how many.
    - `batch`: contexts of a step, drawn anew each time; all when left out.
    - `play_step`: step size of play; agents settle when left out.
    - `key`: typed key, needed for batches.

    **Raises** `ValueError` when the policy returns what is no point of the incentive set (its
    context is named), for contexts without a common leading axis, and for a wrong count;
    [`DesignFailure`][] (a `RuntimeError` with what was trained in `.solution`) when training turns
    non-finite, leaves the set, ends off equilibrium or has agents who play far from it, and
    `throw`.

    !!! example

        A tax for each level of demand; the best one is `demand - 1`:

        >>> import equinox as eqx, incentax as ix, jax, jax.numpy as jnp, optax
        >>> def problem_of(demand):
        ...     game = ix.Game(lambda tax, x: x + tax - demand, ix.NonNegative((1,)))
        ...     return ix.DesignProblem(game, lambda tax, x: ((x - 1) ** 2).sum(), ix.Box(0.0, 4.0))
        >>> class Linear(eqx.Module):
        ...     slope: jax.Array
        ...     level: jax.Array
        ...     def __call__(self, demand):
        ...         return self.slope * demand + self.level
        >>> start = Linear(jnp.zeros(1), jnp.ones(1))
        >>> demands = jnp.linspace(2.0, 4.0, 8)
        >>> trained = ix.train_policy(problem_of, start, demands, optax.sgd(0.05), steps=3000)
        >>> print(trained.policy.slope.round(3), trained.policy.level.round(3))
        [1.] [-1.]
    """
    if not callable(problem_of) or not callable(policy):
        raise TypeError("`train_policy(problem_of, policy)` needs two functions of a context")
    optimizer = require_optimizer("train_policy", optimizer)
    if not any(map(eqx.is_inexact_array, jax.tree.leaves(policy))):
        raise ValueError(
            "`train_policy(policy)` needs a module with floating arrays to train, got none: arrays "
            "that a plain function has captured are not its parameters"
        )
    steps = require_count("train_policy", "steps", steps)
    contexts, count = require_rows("train_policy", "contexts", contexts, "context")
    drawn = count if batch is None else require_count("train_policy", "batch", batch)
    if drawn > count:
        raise ValueError(
            f"`train_policy(batch=...)` needs at most the {count} contexts, got {drawn}"
        )
    if drawn < count and key is None:
        raise ValueError("`train_policy(key=...)` needs a key for batches, got None")
    play = None if play_step is None else MirrorDescent(play_step)
    held = as_pytree_function(problem_of)
    x = _checked_start(held, policy, contexts, count)
    how = _How(held, optimizer, play, drawn)
    trained = _train(how, policy, contexts, x, key, steps=steps)
    # A program returns arrays alone: functions inside of the module are as they were.
    _, static = eqx.partition(policy, eqx.is_inexact_array)
    trained = replace(trained, policy=eqx.combine(trained.policy, static))
    if not throw:
        return trained
    if is_traced(trained):
        return answer_when_traced(trained)
    if not bool(trained.result == RESULTS.successful):
        mean = float(trained.objectives.mean())
        message = f"{RESULTS[trained.result]} (mean objective: {mean:.6g})"
        raise DesignFailure(message, trained)
    return trained


class _How(eqx.Module):
    problem_of: Callable[[PyTree], DesignProblem]
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    play: MirrorDescent | None
    batch: int = eqx.field(static=True)


def _checked_start(
    problem_of: Callable[[PyTree], DesignProblem],
    policy: Callable[[PyTree], PyTree],
    contexts: PyTree,
    count: int,
) -> Array:
    """Strategies of all contexts to begin with; refuses what the policy returns there."""
    first = jax.tree.map(lambda leaf: leaf[0], contexts)
    problem, theta = problem_of(first), policy(first)
    if not isinstance(problem, DesignProblem):
        raise TypeError(f"`train_policy(problem_of)` needs a `DesignProblem`, got {problem!r}")
    if problem.constraints or problem.selection is not None:
        raise ValueError(
            "`train_policy(problem_of)` needs problems without constraints and without a "
            "selection: put a price on what is to be kept into the objective"
        )
    theta = jax.tree.map(as_float, theta)
    problem.incentive_set.check_shape("train_policy", "policy", theta)
    x = strategy_at_door("train_policy", None, problem.game, theta, None)
    outside = _outside_of(problem_of, policy, contexts)
    if not is_traced(outside) and not jnp.all(outside <= _OUTSIDE):
        worst = int(jnp.argmax(jnp.where(jnp.isnan(outside), jnp.inf, outside)))
        if bool(jnp.any(jnp.isnan(outside))):
            raise ValueError(
                f"`train_policy(policy)` needs finite incentives, got NaN in context {worst}"
            )
        raise ValueError(
            "`train_policy(policy)` needs incentives in the incentive set: squash the output into "
            f"it. Got one that is {float(outside[worst]):.3g} outside, in context {worst}: "
            f"{policy(jax.tree.map(lambda leaf: leaf[worst], contexts))}"
        )
    return jnp.broadcast_to(x, (count, *x.shape))


@compiled
def _outside_of(problem_of: Callable, policy: Callable, contexts: PyTree) -> Array:
    def one(context: PyTree) -> Array:
        return problem_of(context).incentive_set.violation(policy(context))

    return jax.vmap(one)(contexts)


def _settle(
    how: _How, context: PyTree, theta: PyTree, x: Array, count: Array
) -> tuple[PyTree, Array, Array, Array]:
    """Hypergradient and objective in a context, and where its agents are then."""
    problem = how.problem_of(context)
    game = problem.game
    step_size = jnp.ones((), x.dtype)
    if how.play is None:
        x, _, _ = find_equilibrium(game, theta, x, None, _TOL, max_steps=10_000)
    else:
        geometry = how.play.geometry(game, theta)
        point = geometry.state(x)
        value = geometry.operator(game, theta, point)
        x = geometry.strategy(how.play.move(game, theta, point, value, count))
        step_size = jnp.asarray(how.play.step_size(count)).astype(x.dtype)
    found = evaluate_hypergradient(problem, theta, x, Implicit(), step_size=step_size)
    return found.value, found.objective, x, natural_residual(game, theta, x)


@partial(compiled, lasting=True)
def _train(
    how: _How, policy: Any, contexts: PyTree, x: Array, key: PRNGKeyArray | None, *, steps: int
) -> TrainedPolicy:
    arrays, static = eqx.partition(policy, eqx.is_inexact_array)
    count = len(x)

    def incentives(arrays: PyTree, contexts: PyTree) -> PyTree:
        return jax.vmap(eqx.combine(arrays, static))(contexts)

    def step(now: _Training, number: Array) -> tuple[_Training, PolicyHistory]:
        rows = jnp.arange(count)
        if how.batch < count:
            assert key is not None
            drawn = jax.random.fold_in(key, number)
            rows = jax.random.choice(drawn, count, (how.batch,), replace=False)
        chosen = jax.tree.map(lambda leaf: leaf[rows], contexts)
        theta, pull = jax.vjp(lambda arrays: incentives(arrays, chosen), now.arrays)
        slopes, values, reached, residuals = jax.vmap(
            lambda context, theta, x: _settle(how, context, theta, x, number)
        )(chosen, theta, now.x[rows])
        (gradient,) = pull(jax.tree.map(lambda leaf: leaf / how.batch, slopes))
        update, optimizer = optax.with_extra_args_support(how.optimizer).update(
            gradient, now.optimizer, now.arrays, value=jnp.mean(values)
        )
        moved: Any = optax.apply_updates(now.arrays, update)
        running = now.result == RESULTS.successful
        fine = running & tree_finite((moved, values, reached))
        broke = RESULTS.where(
            tree_finite(reached), RESULTS.nonfinite_objective, RESULTS.nonfinite_play
        )
        broke = RESULTS.where(tree_finite((values, slopes)), RESULTS.nonfinite_design, broke)
        result = RESULTS.where(running & ~fine, broke, now.result)
        kept = tree_where(
            fine,
            (moved, now.x.at[rows].set(reached), optimizer),
            (now.arrays, now.x, now.optimizer),
        )
        row = PolicyHistory(jnp.mean(values), tree_norm(gradient), jnp.max(residuals))
        return _Training(kept[0], kept[1], kept[2], result), row

    start = _Training(arrays, x, how.optimizer.init(arrays), RESULTS.successful)
    end, history = jax.lax.scan(step, start, jnp.arange(steps, dtype=jnp.int32))
    theta = incentives(end.arrays, contexts)

    def settled(context: PyTree, theta: PyTree, x: Array):
        problem = how.problem_of(context)
        x, _, result = find_equilibrium(problem.game, theta, x, None, None, max_steps=10_000)
        outside = problem.incentive_set.violation(theta)
        return (
            x,
            problem.objective(theta, x),
            natural_residual(problem.game, theta, x),
            outside,
            result,
        )

    reached, objectives, residuals, outside, results = jax.vmap(settled)(contexts, theta, end.x)
    first = jnp.argmax(results != RESULTS.successful)
    result = jax.tree.map(lambda leaf: leaf[first], results)
    result = RESULTS.where(jnp.max(outside) <= _OUTSIDE, result, RESULTS.outside)
    result = RESULTS.where(end.result == RESULTS.successful, result, end.result)
    # Agents who move only a step at a time have followed, or what was trained on was no answer.
    lost = history.residual[-1] > 1e-2 * (1 + jnp.max(jnp.abs(reached)))
    told = (result != RESULTS.successful) | ~lost
    result = RESULTS.where(told, result, RESULTS.cycling)
    return TrainedPolicy(
        policy=end.arrays,
        theta=theta,
        x=reached,
        objectives=objectives,
        residuals=residuals,
        outside=jnp.max(outside),
        history=history,
        result=result,
    )
