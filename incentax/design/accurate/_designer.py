"""The accurate designer: a search from each start, steps on pieces from the best, and a proof."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..._checks import is_inside, is_traced, unknown, warn
from ..._compile import compiled
from ..._linear import one_after_another
from ..._results import ENDINGS, RESULTS
from ...equilibrium import known_entropic, largest_regret, NASH, natural_residual
from ...games import AtomicGame
from ...sets import Reals
from .._looks import is_enough, is_looked_at, LOOK_EVERY, stepped
from .._problem import DesignProblem
from .._scheme import SchemeInfo
from .._solution import DesignSolution, History
from .._task import spread_starts, Task
from ._b_stationarity import incentives_of
from ._examine import Ending, examine
from ._first_best import first_best
from ._judge import is_judgeable, judgement, unknowns
from ._lower_level import LowerLevel
from ._pieces import Walk, walk
from ._place import arrive
from ._responses import has_responses
from ._search import Search, search
from ._smoothed import Smoothing, smoothing_of
from ._unbounded import is_far


def design_accurately(task: Task) -> DesignSolution:
    """`design` without a scheme and without a selection."""
    problem, theta, x, key = task.problem, task.theta, task.x, task.key
    entropic = known_entropic(problem.game)
    smoothing = smoothing_of(problem, theta, x, entropic)
    size = unknowns(problem, theta, x)
    curved = entropic is not True and size <= _CURVED
    solution = None
    known = not is_inside(problem, theta, x, key)
    # Where nothing can bind there are no pieces, and no kinks at which a proof is needed.
    plain = _is_plain(problem, theta) and size > _SMALL
    walkable = known and not plain and is_judgeable(problem, theta, x, entropic)
    # Smoothing says that there are kinks: there the curvature of one side leads astray.
    responsive = smoothing is None and x.size > _LARGE and has_responses(problem, theta, x)
    how = _How(task.steps, task.starts, smoothing, curved, responsive, not walkable, entropic)
    if walkable:
        searched = _search_from_starts(problem, theta, x, key, how)
        solution = _gone_far(problem, theta, searched[0]) or _walk_from_ends(
            problem, theta, x, searched, how
        )
    if solution is None:
        solution = _best_of_starts(problem, theta, x, key, how)
        if known:  # a history as long as the steps that were taken
            taken = int(solution.steps)
            kept = jax.tree.map(lambda leaf: np.asarray(leaf)[:taken], solution.history)
            history = jax.device_put(kept)
            solution = eqx.tree_at(lambda s: s.history, solution, history)
    flat = ravel_pytree(solution.theta)[0]
    away = is_far(problem, theta, flat, solution.objective, jnp.inf)
    away = away & (solution.ending == ENDINGS.not_stationary)
    result = RESULTS.where(away, RESULTS.unbounded, solution.result)
    solution = eqx.tree_at(lambda s: s.result, solution, result)
    if known and isinstance(problem.game, AtomicGame):
        _warn_of_better_replies(problem, solution)
    return solution


def _is_plain(problem: DesignProblem, theta: PyTree) -> bool:
    """Whether nothing can bind."""
    return isinstance(problem.game.strategies(theta), Reals)


def _gone_far(problem: DesignProblem, start: PyTree, ends: Search) -> DesignSolution | None:
    """The best end of the searches as it stands, if it is so far away."""
    best = int(np.argmin(np.asarray(ends.best_objective)))
    columns = (ends.best_theta, ends.best_objective, ends.gradient)
    theta, objective, gradient = (np.asarray(column)[best] for column in columns)
    slope = np.linalg.norm(gradient)
    if not is_far(problem, start, theta, objective, slope):
        return None
    end = jax.tree.map(lambda leaf: leaf[best], ends)
    return DesignSolution(
        theta=_unflat(end.best_theta, start),
        x=end.best_x,
        objective=end.best_objective,
        residual=jnp.full_like(end.best_objective, jnp.nan),
        steps=end.steps,
        history=history_of(np.asarray(end.rows[: int(end.steps)])),
        stationarity=jnp.asarray(slope, end.best_objective.dtype),
        ending=ENDINGS.not_stationary,
        result=RESULTS.unbounded,
    )


def _warn_of_better_replies(problem: DesignProblem, solution: DesignSolution) -> None:
    """Players whose costs are not convex may be at an equilibrium to first order only."""
    regret = float(_regret(problem, solution.theta, solution.x))
    if regret > NASH:
        warn(
            "`design(problem)`: the strategies are an equilibrium to first order only: costs are "
            f"not convex, and another reply would gain a player {regret:.1e} of its cost. "
            'A problem with `selection="optimistic"` counts Nash equilibria alone.',
        )


_regret = compiled(lambda problem, theta, x: largest_regret(problem.game, theta, x))


# Up to this many incentives, strategies and constraints second derivatives are affordable, and so
# many cost nothing.
_CURVED, _SMALL = 1200, 64
# Beyond this many strategies a program for the curvature is soon worth compiling.
_LARGE = 2000


class _How(eqx.Module):
    """Steps from each start, starts, and what the problem allows: see [`search`][].

    `smoothing`: how, if at all; `curved`: second derivatives are affordable, `responsive`: by a
    linear system for each incentive; `alone`: no steps on pieces follow.
    """

    steps: int = eqx.field(static=True)
    starts: int = eqx.field(static=True)
    smoothing: Smoothing | None = eqx.field(static=True)
    curved: bool = eqx.field(static=True)
    responsive: bool = eqx.field(static=True)
    alone: bool = eqx.field(static=True)
    entropic: bool | None = eqx.field(static=True)


def _search(
    problem: DesignProblem, start: tuple[PyTree, Array], x: Array, how: _How, part: Any = None
) -> Search:
    theta, level = start
    return search(
        problem,
        theta,
        x,
        how.steps,
        level,
        smoothing=how.smoothing,
        curved=how.curved,
        responsive=how.responsive,
        alone=how.alone,
        entropic=how.entropic,
        part=part,
    )


def _begun(
    problem: DesignProblem, theta: PyTree, key: PRNGKeyArray, how: _How
) -> tuple[tuple[PyTree, Array], Array]:
    """Starts with their first levels, along a leading axis, and the flat starts.

    The given start with much smoothing and with less, then others in the same turn.
    """
    levels = 1 + 2 * (jnp.arange(how.starts, dtype=jnp.int32) % 2)
    begun = spread_starts(problem, theta, how.starts, key)
    flat = jax.vmap(lambda start: ravel_pytree(start)[0])(begun)
    return (begun, levels), flat


def _ends(
    problem: DesignProblem, theta: PyTree, x: Array, key: PRNGKeyArray, how: _How
) -> tuple[Search, Array]:
    """Where the search from each start ends, along a leading axis, and the flat starts."""
    begun, flat = _begun(problem, theta, key, how)
    # One after another: a lane of a vmapped search would do the work of every branch of every
    # other lane.
    return jax.lax.map(lambda start: _search(problem, start, x, how), begun), flat


def _as_it_stands(now: Search) -> Search:
    """A search that was stopped on its way ends where it is, though that be smoothed yet."""
    stands = (now.theta, now.objective, now.x)
    return eqx.tree_at(lambda s: (s.best_theta, s.best_objective, s.best_x), now, stands)


_ends_at_once, _begun_at_once = compiled(_ends), compiled(_begun)
_search_on = compiled(_search)


def _search_from_starts(
    problem: DesignProblem, theta: PyTree, x: Array, key: PRNGKeyArray, how: _How
) -> tuple[Search, Array]:
    """The same in one program, or in many with a look between two of them."""
    if not is_looked_at():
        return _ends_at_once(problem, theta, x, key, how)
    begun, flat = _begun_at_once(problem, theta, key, how)
    ends = []
    for index in range(how.starts):
        start = jax.tree.map(lambda leaf, index=index: leaf[index], begun)
        now, done, until = None, 0, 0
        while until == done and not (is_enough() and (now or ends)):
            until = done + LOOK_EVERY
            now = _search_on(problem, start, x, how, (now, jnp.int32(min(until, how.steps))))
            taken, done = int(now.steps) - done, int(now.steps)
            stepped(float(now.objective), lambda now=now: _unflat(now.theta, theta), taken)
        if now is not None:
            ahead = is_enough() and bool(now.objective < now.best_objective)
            ends.append(_as_it_stands(now) if ahead else now)
    # Of as many as there are; a search that was not begun counts as the last one that was.
    ends += ends[-1:] * (how.starts - len(ends))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *ends), flat


def _walk_from_ends(
    problem: DesignProblem, theta: PyTree, x: Array, searched: tuple[Search, Array], how: _How
) -> DesignSolution | None:
    """The best of what steps on pieces reach, if any is an equilibrium.

    From the best ends of the searches, and from where some of these began: smoothing leads past
    local optima, and now and then past the global one. In large problems, which have few starts,
    from what would be best if agents obeyed.
    """
    ends, begun = searched
    level = LowerLevel(problem, theta, x)
    incentives, unit = incentives_of(level)
    order = np.argsort(np.asarray(ends.best_objective), kind="stable")
    size = x.size + unit.size
    most, more = (4, 4) if size <= 64 else (2, 1) if size <= 500 else (1, 0)
    more = 0 if _is_plain(problem, theta) else more  # nothing was smoothed
    thetas, xs, raw = np.asarray(ends.best_theta), np.asarray(ends.best_x), np.asarray(begun)
    starts = [(thetas[k], xs[k], k) for k in order]
    obeyed = first_best(level, raw[0], incentives) if size > 64 else None
    # The second start is the first one again.
    fresh = [(raw[k], np.asarray(x), None) for k in range(len(raw)) if k != 1]
    groups = [
        (starts[:1], 1),
        ([] if obeyed is None else [(*obeyed, None)], 1),
        (starts[1:], most - 1),
        (fresh, more),
    ]
    found, known = [], []
    for candidates, quota in groups:
        values = [walked.place.objective for walked, _ in found]
        if obeyed is not None and len(values) == 2 and np.ptp(values) <= 1e-9 * abs(values[0]):
            break  # two ways lead to one value: a large problem is looked at no further
        for start, near, index in candidates:
            if len(found) == len(values) + quota or (found and is_enough()):
                break
            # Ends that are one point but for what a search leaves are walked from once.
            if any(np.max(np.abs(start - other) / unit) < 1e-4 for other in known):
                continue
            place = arrive(level, start, np.asarray(near).ravel())
            if place is not None:
                taken = 0 if index is None else int(ends.steps[index])
                known.append(start)
                before = [walked for walked, _ in found]
                found.append((walk(level, place, incentives, how.steps - taken, before), index))
    if not found:
        return None
    best, index = min(found, key=lambda pair: pair[0].place.objective)
    rows = np.reshape(best.rows, (-1, 3))
    if index is not None:
        rows = np.concatenate([np.asarray(ends.rows[index])[: int(ends.steps[index])], rows])
    return _concluded(level, best, rows)


def design_near(
    problem: DesignProblem, theta: PyTree, x: Array, steps: int
) -> DesignSolution | None:
    """By steps on pieces alone, from an incentive whose equilibrium is near `x`, if it has one."""
    level = LowerLevel(problem, theta, x)
    incentives, _ = incentives_of(level)
    place = arrive(level, np.asarray(ravel_pytree(theta)[0]), np.asarray(x).ravel())
    if place is None:
        return None
    walked = walk(level, place, incentives, steps)
    return _concluded(level, walked, np.reshape(walked.rows, (-1, 3)))


def _concluded(level: LowerLevel, best: Walk, rows: np.ndarray) -> DesignSolution:
    """What the steps on pieces have found, and what is proved of it."""
    place, problem, x = best.place, level.problem, level.x
    theta = _unravelled(level, place.theta)
    found = judgement(level, place, best.descent)
    strategy, objective, stationarity = jax.device_put(
        (
            place.packed[: x.size].reshape(x.shape).astype(x.dtype),
            place.at.objective.astype(x.dtype),
            np.asarray(found.stationarity, x.dtype),
        )
    )
    return DesignSolution(
        theta=theta,
        x=strategy,
        objective=objective,
        residual=_residual(problem, theta, strategy),
        steps=jax.device_put(np.int32(len(rows))),
        history=history_of(rows.astype(x.dtype)),
        stationarity=stationarity,
        ending=found.ending,
        result=found.result,
    )


_unravelled = compiled(lambda level, flat: level.unravel(flat))
_residual = compiled(lambda problem, theta, x: natural_residual(problem.game, theta, x))


def history_of(rows: Any) -> History:
    """Objective, norm of its gradient and length of every step."""
    nobody = unknown(rows[:, 0])
    none: Any = np.zeros(len(rows), np.int32)
    info = SchemeInfo(
        design_step=rows[:, 2],
        play_step=nobody,
        largest_cost=nobody,
        objective=rows[:, 0],
        gradient=rows[:, 1],
        gradient_residual=nobody,
        degenerate=none,
        inner_steps=none,
    )
    steps: Any = np.arange(1, len(rows) + 1, dtype=np.int32)
    history = History(steps, rows[:, 0], nobody, info, None)
    return history if is_traced(rows) else jax.device_put(history)


def _best_of_starts(
    problem: DesignProblem, theta: PyTree, x: Array, key: PRNGKeyArray, how: _How
) -> DesignSolution:
    """The same in one compiled program: searches to the end in place of steps on pieces, and probes
    in place of a proof."""
    if is_looked_at():
        key_starts, key_probes = jax.random.split(key)
        ends, _ = _search_from_starts(problem, theta, x, key_starts, how)
        found, residual, taken, rows = _examined(problem, theta, ends, key_probes, how)
    else:
        found, residual, taken, rows = _best_ending(problem, theta, x, key, how)
    return DesignSolution(
        theta=found.theta,
        x=found.x,
        objective=found.objective,
        residual=residual,
        steps=taken,
        history=history_of(rows),
        stationarity=found.stationarity,
        ending=found.ending,
        result=found.result,
    )


@compiled
def _best_ending(
    problem: DesignProblem, theta: PyTree, x: Array, key: PRNGKeyArray, how: _How
) -> tuple[Ending, Array, Array, Array]:
    """What was found, the residual there, steps taken, and a row for each.

    Lanes of a `vmap` run one after another on CPU: side by side each would do the work of all.
    """
    leaves, structure = jax.tree.flatten((problem, theta, x, key))

    def one(*leaves: Array) -> tuple[Ending, Array, Array, Array]:
        problem, theta, x, key = jax.tree.unflatten(structure, leaves)
        return _ended(problem, theta, x, key, how)

    # Values that the user's functions have captured are arguments too.
    program, shapes = jax.make_jaxpr(one, return_shape=True)(*leaves)

    def with_captured(*arrays: Array) -> list[Array]:
        given, captured = arrays[: len(leaves)], arrays[len(leaves) :]
        return jaxpr_as_fun(ClosedJaxpr(program.jaxpr, captured))(*given)

    found = one_after_another(with_captured)(*leaves, *program.consts)
    return jax.tree.unflatten(jax.tree.structure(shapes), found)


def _ended(
    problem: DesignProblem, theta: PyTree, x: Array, key: PRNGKeyArray, how: _How
) -> tuple[Ending, Array, Array, Array]:
    key_starts, key_probes = jax.random.split(key)
    ends, _ = _ends(problem, theta, x, key_starts, how)
    return _examined(problem, theta, ends, key_probes, how)


@compiled
def _examined(
    problem: DesignProblem, theta: PyTree, ends: Search, key: PRNGKeyArray, how: _How
) -> tuple[Ending, Array, Array, Array]:
    best = jnp.argmin(ends.best_objective)
    end: Search = jax.tree.map(lambda leaf: leaf[best], ends)
    ended = problem.incentive_set.project(_unflat(end.best_theta, theta))
    found = examine(problem, ended, end.best_x, key, how.entropic)
    return found, natural_residual(problem.game, found.theta, found.x), end.steps, end.rows


def _unflat(flat: Array, like: PyTree) -> PyTree:
    return ravel_pytree(like)[1](flat)
