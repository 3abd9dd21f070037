"""Several leaders over one equilibrium: each designs its own incentives, given the others'."""

from collections.abc import Callable, Mapping
from typing import get_args, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from .._checks import is_inside, require_count, require_one_of, require_positive
from .._compile import compiled
from .._results import as_table, in_words, RESULTS
from .._tree import as_pytree_function
from ..equilibrium import solve_equilibrium
from ..games import AbstractGame, ThroughGame
from ..sets import AbstractSet, Product
from ._problem import DesignProblem
from ._solution import DesignFailure, DesignSolution
from ._task import task_at_door
from .accurate import design_accurately

Order = Literal["one after another", "at once"]


class _WithOthers(eqx.Module):
    """The incentive of the game, from one leader's own and what the others hold."""

    others: dict[str, PyTree]
    join: Callable[[dict[str, PyTree]], PyTree]
    name: str = eqx.field(static=True)

    def all(self, own: PyTree) -> dict[str, PyTree]:
        return self.others | {self.name: own}

    def __call__(self, own: PyTree) -> PyTree:
        return self.join(self.all(own))


class _OwnObjective(eqx.Module):
    objective: Callable[[dict[str, PyTree], Array], Array]
    held: _WithOthers

    def __call__(self, own: PyTree, x: Array) -> Array:
        return self.objective(self.held.all(own), x)


class LeadersProblem(eqx.Module):
    """Leaders, each with an objective and a set of incentives of its own, over one game.

        leader k:  min over theta_k of f_k(theta, x*(theta)) ,   the others' theta held

    An equilibrium of the leaders is a `theta` from which none gains alone: an equilibrium problem
    with equilibrium constraints, D. Ralph, Y. Smeers, *EPECs as models for electricity markets*,
    IEEE PES Power Systems Conference (2006).

    **Arguments:**

    - `game`: the agents' game.
    - `objectives`: a function `(theta, x) -> scalar` for each leader, by its name; `theta` is the
      dictionary of all leaders' incentives.
    - `incentive_sets`: by the same names.
    - `join`: a function from that dictionary to the incentive of `game`; the dictionary itself when
      left out.

    **Raises** `TypeError` for arguments of another kind, `ValueError` unless names are the same and
    there are at least two.

    !!! example

        Two leaders who want one output to be 1 and 2, and pay for what they give:

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta["a"] - theta["b"], ix.Reals((1,)))
        >>> aims = {"a": 1.0, "b": 2.0}
        >>> def objective(name):
        ...     return lambda theta, x: ((x - aims[name]) ** 2 + theta[name] ** 2).sum()
        >>> objectives = {name: objective(name) for name in aims}
        >>> problem = ix.LeadersProblem(game, objectives, {name: ix.Reals((1,)) for name in aims})
        >>> solution = ix.design_leaders(problem, {name: jnp.zeros(1) for name in aims})
        >>> print({name: part.round(3).tolist() for name, part in solution.theta.items()})
        {'a': [0.0], 'b': [1.0]}
    """

    game: AbstractGame
    objectives: dict[str, Callable[[dict[str, PyTree], Array], Array]]
    incentive_sets: dict[str, AbstractSet]
    join: Callable[[dict[str, PyTree]], PyTree]

    def __init__(
        self,
        game: AbstractGame,
        objectives: Mapping[str, Callable],
        incentive_sets: Mapping[str, AbstractSet],
        *,
        join: Callable[[dict[str, PyTree]], PyTree] | None = None,
    ):
        if not isinstance(game, AbstractGame):
            raise TypeError(f"`LeadersProblem(game=...)` needs a game, got {game!r}")
        names, known = sorted(objectives), sorted(incentive_sets)
        if names != known or len(names) < 2:
            raise ValueError(
                "`LeadersProblem(objectives, incentive_sets)` needs the same names, of two leaders "
                f"at least, got {names} and {known}"
            )
        for name in names:
            if not isinstance(incentive_sets[name], AbstractSet):
                raise TypeError(
                    f"`LeadersProblem(incentive_sets=...)` needs a set for {name!r}, got "
                    f"{incentive_sets[name]!r}"
                )
        self.game = game
        self.objectives = {name: as_pytree_function(objectives[name]) for name in names}
        self.incentive_sets = {name: incentive_sets[name] for name in names}
        self.join = as_pytree_function(_the_same if join is None else join)

    def of(self, name: str, theta: dict[str, PyTree]) -> DesignProblem:
        """What one leader solves while the others hold their incentives."""
        others = {other: theta[other] for other in self.objectives if other != name}
        held = _WithOthers(others, self.join, name)
        objective = _OwnObjective(self.objectives[name], held)
        return DesignProblem(ThroughGame(self.game, held), objective, self.incentive_sets[name])


def _the_same(theta: dict[str, PyTree]) -> dict[str, PyTree]:
    return theta


class LeadersSolution(eqx.Module):
    """Answer of [`design_leaders`][].

    - `theta`: incentives by the leaders' names; `x`, `residual`: the agents' equilibrium there.
    - `objectives`: of every leader.
    - `regrets`: what each could still gain by another incentive of its own, as far as the designer
      sees from its starts: the certificate of an equilibrium of leaders.
    - `history`: a row a round: objectives in the order of the names, and the largest change of an
      incentive, in parts of its size or of its set's width.
    - `rounds`: how many; `result`: an entry of `ix.RESULTS`.
    """

    theta: dict[str, PyTree]
    x: Array
    residual: Float[Array, ""]
    objectives: dict[str, Float[Array, ""]]
    regrets: dict[str, Float[Array, ""]]
    history: Float[Array, "rounds leaders+1"]
    rounds: Int[Array, ""]
    result: RESULTS

    def __str__(self) -> str:
        each = [
            row
            for name in self.objectives
            for row in (
                (f"objective, {name}", self.objectives[name]),
                (f"regret, {name}", self.regrets[name]),
            )
        ]
        return as_table(
            [
                *each,
                ("residual", self.residual),
                ("rounds", self.rounds),
                ("result", in_words(RESULTS, self.result)),
            ]
        )


class _Round(NamedTuple):
    theta: dict[str, PyTree]
    x: Array
    moved: float


def design_leaders(
    problem: LeadersProblem,
    theta0: dict[str, PyTree],
    *,
    order: Order = "one after another",
    share: float = 1.0,
    x0: Array | None = None,
    rounds: int = 50,
    steps: int | None = None,
    tol: float = 1e-6,
    throw: bool = True,
) -> LeadersSolution:
    """An equilibrium of leaders, by best responses of the accurate designer.

    In every round each leader designs its own incentives, from where they are, while the others
    hold theirs: one after another (Gauss-Seidel), or all at once (Jacobi). Where no incentive moves
    any more, every leader designs once more from all starts: if one gains, all go on from there;
    what it would gain at the end is its regret.

    **Arguments:**

    - `problem`, `theta0`: the leaders and where they start.
    - `order`: "one after another" or "at once".
    - `share`: in (0, 1]; the part of the way to its best response that a leader goes. Less than 1
      damps leaders who overshoot one another.
    - `x0`, `steps`: see [`design`][].
    - `rounds`: at most.
    - `tol`: change of the incentives that counts as none, in parts of their size or of their sets'
      widths; a regret is none below a thousandth of it, relative to the objective, or where the
      best response lies as near.
    - `throw`: raise when leaders do not settle, or return what there is.

    **Raises** `ValueError` for a wrong argument and under `jit`, [`DesignFailure`][] (a
    `RuntimeError` with what there is in `.solution`) when not reached and `throw`. Best responses
    may cycle, and an equilibrium of leaders need not exist; regrets say how near to one the end is.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta["a"] - theta["b"], ix.Reals((1,)))
        >>> def objective(name, aim):
        ...     return lambda theta, x: ((x - aim) ** 2 + theta[name] ** 2).sum()
        >>> problem = ix.LeadersProblem(
        ...     game,
        ...     {"a": objective("a", 1.0), "b": objective("b", 2.0)},
        ...     {"a": ix.Reals((1,)), "b": ix.Reals((1,))},
        ... )
        >>> solution = ix.design_leaders(problem, {"a": jnp.zeros(1), "b": jnp.zeros(1)})
        >>> print(max(solution.regrets.values()) < 1e-6, solution.x.round(3))
        True [1.]
    """
    if not isinstance(problem, LeadersProblem):
        raise TypeError(f"`design_leaders(problem)` needs a `LeadersProblem`, got {problem!r}")
    if is_inside(problem, theta0, x0):
        raise ValueError("`design_leaders` needs known values, outside of `jit` and `vmap`")
    require_one_of("design_leaders", "order", order, get_args(Order))
    rounds = require_count("design_leaders", "rounds", rounds)
    share = float(require_positive("design_leaders", "share", share))
    if share > 1:
        raise ValueError(f"`design_leaders(share=...)` needs at most 1, got {share:g}")
    tol = float(require_positive("design_leaders", "tol", tol))
    theta = _checked(problem, theta0)
    first = problem.of(min(theta), theta)
    how = {"x0": x0, "steps": steps, "starts": 1, "key": None, "owner": "design_leaders"}
    now = _Round(theta, task_at_door(first, theta[min(theta)], **how).x, np.inf)
    rows: list[list[float]] = []
    best: dict[str, DesignSolution] = {}
    while len(rows) < rounds and not best:
        now = _one_round(problem, now, order, share, steps)
        values = [
            float(_objective(problem.of(name, now.theta), now.theta[name], now.x))
            for name in problem.objectives
        ]
        rows.append([*values, now.moved])
        if now.moved <= tol:
            best = _responses(problem, now, steps)
            name = _who_gains(problem, now, best, tol)
            if name is not None and len(rows) < rounds:
                # From elsewhere a leader does better: all go on from there.
                now = _Round(now.theta | {name: best[name].theta}, best[name].x, np.inf)
                best = {}
    best = best or _responses(problem, now, steps)
    return _concluded(problem, now, np.asarray(rows), best, tol, throw=throw)


def _responses(
    problem: LeadersProblem, now: _Round, steps: int | None
) -> dict[str, DesignSolution]:
    """The best that each leader finds from all starts."""
    return {name: _response(problem, name, now, steps, starts=None) for name in problem.objectives}


def _who_gains(
    problem: LeadersProblem, now: _Round, best: dict[str, DesignSolution], tol: float
) -> str | None:
    """A leader who would gain by another incentive, if there is one."""
    for name in problem.objectives:
        own = problem.of(name, now.theta)
        value = float(_objective(own, now.theta[name], now.x))
        moved = _change(problem, now.theta, now.theta | {name: best[name].theta})
        gained = value - float(best[name].objective)
        # An objective may be zero: then it is how far the response lies that tells.
        if not (gained <= 1e-3 * tol * abs(value) or moved <= 10 * tol):
            return name
    return None


def _checked(problem: LeadersProblem, theta0: dict[str, PyTree]) -> dict[str, PyTree]:
    if not isinstance(theta0, dict) or sorted(theta0) != sorted(problem.objectives):
        raise ValueError(
            f"`design_leaders(theta0)` needs an incentive for each of {list(problem.objectives)}, "
            f"got {sorted(theta0) if isinstance(theta0, dict) else theta0!r}"
        )
    theta = {name: jax.tree.map(jnp.asarray, theta0[name]) for name in problem.objectives}
    Product(problem.incentive_sets).check_shape("design_leaders", "theta0", theta)
    return theta


def _response(
    problem: LeadersProblem, name: str, at: _Round, steps: int | None, starts: int | None
) -> DesignSolution:
    """The best incentive of one leader, from the one that it holds."""
    own = problem.of(name, at.theta)
    task = task_at_door(
        own, at.theta[name], x0=at.x, steps=steps, starts=starts, key=None, owner="design_leaders"
    )
    return design_accurately(task)


def _one_round(
    problem: LeadersProblem, now: _Round, order: Order, share: float, steps: int | None
) -> _Round:
    before, theta, x = now.theta, dict(now.theta), now.x
    for name in problem.objectives:
        seen = now if order == "at once" else _Round(theta, x, 0.0)
        found = _response(problem, name, seen, steps, starts=1)
        went = jax.tree.map(lambda a, b: a + share * (b - a), before[name], found.theta)
        theta = theta | {name: problem.incentive_sets[name].project(went)}
        x = found.x
    joined = problem.join(theta)
    x = solve_equilibrium(problem.game, joined, x, throw=False).x
    return _Round(theta, x, _change(problem, before, theta))


def _change(problem: LeadersProblem, before: dict[str, PyTree], theta: dict[str, PyTree]) -> float:
    """The largest change, in parts of its size, or of the width of its set where that is less."""
    limits = Product(problem.incentive_sets).constraints(theta)
    flat = [np.asarray(ravel_pytree(at)[0], float) for at in (before, theta)]
    width = np.asarray(limits.upper - limits.lower, float)
    size = 1 + np.abs(flat[1])
    width = np.where(width > 0, np.minimum(width, size), size)
    return float(np.max(np.abs(flat[1] - flat[0]) / width, initial=0.0))


@compiled
def _objective(problem: DesignProblem, theta: PyTree, x: Array) -> Float[Array, ""]:
    return problem.objective(theta, x)


def _concluded(
    problem: LeadersProblem,
    now: _Round,
    rows: np.ndarray,
    best: dict[str, DesignSolution],
    tol: float,
    *,
    throw: bool,
) -> LeadersSolution:
    objectives = {
        name: _objective(problem.of(name, now.theta), now.theta[name], now.x) for name in best
    }
    regrets = {name: jnp.maximum(objectives[name] - best[name].objective, 0) for name in best}
    agents = solve_equilibrium(problem.game, problem.join(now.theta), now.x, throw=False)
    settled = now.moved <= tol and _who_gains(problem, now, best, tol) is None
    answers = [agents.result, *(found.result for found in best.values())]
    settled = settled and all(bool(one == RESULTS.successful) for one in answers)
    result = RESULTS.successful if settled else RESULTS.leaders_apart
    solution = LeadersSolution(
        theta=now.theta,
        x=now.x,
        residual=agents.residual,
        objectives=objectives,
        regrets=regrets,
        history=jnp.asarray(rows, now.x.dtype),
        rounds=jnp.int32(len(rows)),
        result=result,
    )
    if throw and result != RESULTS.successful:
        worst = max(regrets, key=lambda name: float(regrets[name]))
        raise DesignFailure(
            f"{RESULTS[result]} (rounds: {len(rows)}, last change: {now.moved:.1e}, regret of "
            f"{worst!r}: {float(regrets[worst]):.3g})",
            solution,
        )
    return solution
