"""The accurate designer: a search from each start, and an examination of the best."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._checks import require_count
from ..equilibrium import known_entropic, natural_residual
from ._examine import examine
from ._pivot import is_pivotable, pivot
from ._problem import DesignProblem
from ._scheme import SchemeInfo
from ._search import Search, search
from ._selection import design_selected
from ._smoothed import is_smoothable
from ._solution import DesignSolution, History, raise_unless_designed


def design_accurately(
    problem: DesignProblem,
    theta0: PyTree,
    x0: Array | None,
    steps: int | None,
    starts: int | None,
    key: PRNGKeyArray | None,
    record: object,
    throw: bool,
) -> DesignSolution:
    """`design` without a scheme."""
    if not isinstance(problem, DesignProblem):
        raise TypeError(f"`design(problem)` needs a `DesignProblem`, got {problem!r}")
    if record is not None:
        raise ValueError(f"`design(record=...)` needs a scheme, got {record!r} without one")
    steps = require_count("design", "steps", 1000 if steps is None else steps)
    theta, x = problem.at_door("design", ("theta0", "x0"), theta0, x0)
    # One precision for all: that of the incentive, its set, or the operator, whichever is finest.
    bounds = problem.incentive_set.constraints(theta).lower
    dtype = jnp.result_type(x, bounds, *jax.tree.leaves(problem.incentive_set.centre()))
    dtype = jnp.result_type(dtype, *jax.tree.leaves(theta))
    theta, x = jax.tree.map(lambda leaf: leaf.astype(dtype), (theta, x))
    size = x.size + sum(leaf.size for leaf in jax.tree.leaves(theta))
    if starts is None:
        starts = 16 if size <= 64 else 4 if size <= 500 else 1
    starts = require_count("design", "starts", starts)
    key = jax.random.key(0) if key is None else key
    if problem.selection is not None:
        keys = jax.random.split(key)
        begun = _spread_starts(problem, theta, starts, keys[0])
        return design_selected(problem, theta, x, steps, begun, keys[1], throw)
    entropic = known_entropic(problem.game)
    smooth = is_smoothable(problem, theta, x, entropic)
    solution = _best_of_starts(problem, theta, x, steps, starts, key, smooth, entropic)
    return raise_unless_designed(solution, throw)


@eqx.filter_jit
def _best_of_starts(
    problem: DesignProblem,
    theta: PyTree,
    x: Array,
    steps: int,
    starts: int,
    key: PRNGKeyArray,
    smooth: bool,
    entropic: bool | None,
) -> DesignSolution:
    key_starts, key_probes = jax.random.split(key)

    pivotable = entropic is not True and is_pivotable(problem, theta, x)

    def from_start(start: tuple[PyTree, Array]):
        theta, level = start
        return search(
            problem, theta, x, steps, level, smooth=smooth, pivotable=pivotable, entropic=entropic
        )

    # One after another: a lane of a vmapped search would do the work of every branch of every
    # other lane.
    # The given start with much smoothing and with less, then others in the same turn.
    levels = 1 + 2 * (jnp.arange(starts, dtype=jnp.int32) % 2)
    ends = jax.lax.map(from_start, (_spread_starts(problem, theta, starts, key_starts), levels))
    best = jnp.argmin(ends.best_objective)
    end: Search = jax.tree.map(lambda leaf: leaf[best], ends)
    _, unravel = ravel_pytree(theta)
    best_theta, best_x, rows, taken = end.best_theta, end.best_x, end.rows, end.steps
    if pivotable:
        finish = pivot(problem, theta, best_theta, best_x, rows, taken)
        better = finish.objective < end.best_objective
        best_theta = jnp.where(better, finish.theta, best_theta)
        best_x = jnp.where(better, finish.point.x.reshape(x.shape), best_x)
        rows, taken = finish.rows, finish.steps
    ended = problem.incentive_set.project(unravel(best_theta))
    found = examine(problem, ended, best_x, key_probes, entropic)
    residual = natural_residual(problem.game, found.theta, found.x)
    unknown = jnp.full(len(rows), jnp.nan, rows.dtype)
    info = SchemeInfo(
        design_step=rows[:, 2],
        play_step=unknown,
        largest_cost=unknown,
        objective=rows[:, 0],
        gradient=rows[:, 1],
        gradient_residual=unknown,
        degenerate=jnp.zeros(steps, jnp.int32),
        inner_steps=jnp.zeros(steps, jnp.int32),
    )
    history = History(
        step=jnp.arange(1, steps + 1, dtype=jnp.int32),
        objective=rows[:, 0],
        residual=unknown,
        info=info,
        observed=None,
    )
    return DesignSolution(
        theta=found.theta,
        x=found.x,
        objective=found.objective,
        residual=residual,
        steps=taken,
        history=history,
        stationarity=found.stationarity,
        ending=found.ending,
        result=found.result,
    )


def _spread_starts(problem: DesignProblem, theta: PyTree, starts: int, key: PRNGKeyArray) -> PyTree:
    """`theta` twice and points around it, along a leading axis: in the box where there is one, else
    normal with a width from 1 to 10 times the size of `theta`; all in the incentive set."""
    flat, unravel = ravel_pytree(theta)
    incentives = problem.incentive_set.constraints(theta)
    width = incentives.upper - incentives.lower
    boxed = jnp.isfinite(width)
    low = jnp.where(boxed, incentives.lower, 0)

    def one(index: Array) -> PyTree:
        key_box, key_wide = jax.random.split(jax.random.fold_in(key, index))
        inside = low + jnp.where(boxed, width, 0) * jax.random.uniform(
            key_box, flat.shape, flat.dtype
        )
        share = index.astype(flat.dtype) / max(starts - 1, 1)
        spread = jnp.maximum(jnp.max(jnp.abs(flat)), 1) * 10.0**share
        wide = flat + spread * jax.random.normal(key_wide, flat.shape, flat.dtype)
        point = problem.incentive_set.project(unravel(jnp.where(boxed, inside, wide)))
        return jax.tree.map(lambda a, b: jnp.where(index <= 1, a, b), theta, point)

    return jax.vmap(one)(jnp.arange(starts))
