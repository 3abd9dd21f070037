"""The verb of global search."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from ..._checks import is_inside, require_count, require_positive
from ..._results import as_table, RESULTS
from ...equilibrium import solve_equilibrium
from .._design import design
from .._problem import DesignProblem
from .._solution import DesignSolution
from .._task import spread_starts, task_at_door
from ..scenarios import ScenarioProblem
from ._branch import Bound, bound_by_branching
from ._follow import bound_by_following
from ._structure import NoBound, quadratic_design

# Relative distance of objectives, and of incentives, within which two ends are one.
_SAME_VALUE, _SAME_PLACE = 1e-6, 1e-3
_APART = (
    "the bound is that of strategies to which play did not come: the game may have several "
    "equilibria, or the gap be rounding"
)


class Basin(NamedTuple):
    """A local optimum, and how many starts end there: none where the proof came upon it."""

    objective: float
    theta: PyTree
    starts: int


class GlobalSolution(NamedTuple):
    """Answer of [`design_globally`][].

    - `solution`: the best design found, a [`DesignSolution`][].
    - `basins`: the local optima met, the best first, that of `solution`; `failed`: starts that
      ended at none.
    - `bound`: proved: no incentive of the set is better; minus infinity where none is to be had.
    - `gap`: of the objective to the bound, relative. `proved`: whether it is within `tol`; where it
      is not, `reason` says why.
    - `nodes`: how often the proof branched, or pieces that it followed.
    """

    solution: DesignSolution
    basins: tuple[Basin, ...]
    failed: int
    bound: float
    gap: float
    proved: bool
    nodes: int
    reason: str

    @property
    def _because(self) -> str:
        return f": {self.reason}" if np.isfinite(self.bound) else ""  # else it stands at the bound

    def __str__(self) -> str:
        ends = ", ".join(f"{one.objective:.6g} ({one.starts})" for one in self.basins)
        lines: list[tuple[str, Any]] = [
            ("objective", self.solution.objective),
            ("incentive", self.solution.theta),
            ("bound", f" {self.bound:.6e}" if np.isfinite(self.bound) else f" none: {self.reason}"),
            ("gap", f" {self.gap:.1e}"),
            ("global optimum", " proved" if self.proved else f" not proved{self._because}"),
            ("local optima (starts)", f" {ends}" + f"; {self.failed} failed" * bool(self.failed)),
        ]
        return as_table(lines)


def design_globally(
    problem: DesignProblem,
    theta0: PyTree,
    *,
    x0: Array | None = None,
    starts: int = 16,
    tol: ArrayLike = 1e-6,
    max_nodes: int = 2000,
    seconds: ArrayLike | None = None,
    key: PRNGKeyArray | None = None,
) -> GlobalSolution:
    """The best design of all, where local optima mislead: for a few incentives.

    Local designs from many starts, of which the basins are told; and where the game is affine, on
    fixed sets, and the objective is quadratic in `(theta, x)`, a proof. For one incentive and a
    strongly monotone game, equilibria are followed from piece to piece, on each of which the
    objective is a parabola. Else, where the objective is convex, branch and bound over the pairs of
    slack and multiplier, of which one or the other is zero at an equilibrium: its programs are
    linear, under tangents of the objective, and solved by HiGHS. Whether a problem is of this kind
    is read off its program, not sampled. Of several equilibria the bound holds for the best one.

    Takes as long as `starts` designs, and a pivot for each piece or up to two programs for each of
    `max_nodes`.

    **Arguments:**

    - `problem`, `theta0`, `x0`, `key`: as for [`design`][].
    - `starts`: `theta0`, and points in the box of the incentives or ever wider around it.
    - `tol`: the gap at which the proof is done, relative to the objective (where that is near zero,
      to a thousandth of what the starts began with).
    - `max_nodes`: pieces, or branches, after which it ends without one; `.bound` is what branches
      have proved by then.
    - `seconds`: after these no other start, and no other node, is begun. The first start is.

    **Raises** `ValueError` for a wrong argument, and within `jit` or `vmap`; [`DesignFailure`][]
    when no start ends at an optimum.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.zeros(1), 1.0))
        >>> def objective(theta, x):
        ...     return 0.1 * jnp.sum((theta + 1) ** 2) - jnp.sum(x)
        >>> problem = ix.DesignProblem(game, objective, ix.Box(-3.0, 3.0))
        >>> found = ix.design_globally(problem, jnp.array([-2.0]), starts=8)
        >>> found.solution.theta.round(4).tolist(), found.proved
        ([1.0], True)
        >>> [round(one.objective, 4) for one in found.basins]
        [-0.6, 0.0]
    """
    if is_inside(problem, theta0, x0, key):
        raise ValueError("`design_globally` works outside of `jit` and `vmap`")
    starts = require_count("design_globally", "starts", starts)
    max_nodes = require_count("design_globally", "max_nodes", max_nodes)
    tol = float(require_positive("design_globally", "tol", tol))
    most = np.inf if seconds is None else require_positive("design_globally", "seconds", seconds)
    until = time.monotonic() + float(most)
    task = task_at_door(
        problem, theta0, x0=x0, steps=None, starts=1, key=key, owner="design_globally"
    )
    begun = spread_starts(problem, task.theta, starts + 1, task.key)
    # A given start of the agents may lie outside of a set that moves.
    x0, ends = None if problem.game.moves else x0, []
    for k in range(1, starts + 1):
        if ends and time.monotonic() > until:
            break
        theta = jax.tree.map(lambda leaf, k=k: leaf[k], begun)
        ends.append(design(problem, theta, x0=x0, starts=1, throw=False))
    fine = [end for end in ends if end.result == RESULTS.successful]
    if not fine:
        design(problem, task.theta, x0=x0, starts=1)  # says what is wrong
    best = min(fine or ends, key=lambda end: float(end.objective))
    basins = _basins(fine)
    # Where the best is near zero, digits count in parts of where the starts were.
    first = [float(end.history.objective[0]) for end in ends]
    size = max(abs(float(best.objective)), 1e-3 * float(np.nanmax(np.abs(first))), 1e-12)
    try:
        if isinstance(problem, ScenarioProblem):
            raise NoBound("a bound is proved for one scenario")
        best, found = _proved(problem, best, (size, tol), max_nodes, until)
        bound, nodes = found.value, found.nodes
        spent = f"`max_nodes`, {max_nodes}" if nodes >= max_nodes else f"`seconds`, {seconds}"
        reason = _APART if found.finished else f"{spent}, were not enough"
    except NoBound as why:
        bound, nodes, reason = -np.inf, 0, str(why)
    if not any(_is_one(basin, best) for basin in basins):
        basins = (Basin(float(best.objective), best.theta, 0), *basins)
    value = float(best.objective)
    gap = (value - bound) / size
    proved = gap <= 1.1 * tol
    return GlobalSolution(
        solution=best,
        basins=basins,
        failed=len(ends) - len(fine),
        bound=bound,
        gap=gap,
        proved=proved,
        nodes=nodes,
        reason="" if proved else reason,
    )


def _basins(ends: list[DesignSolution]) -> tuple[Basin, ...]:
    """The ends, those that are one put together, the best first."""
    basins: list[Basin] = []
    for end in sorted(ends, key=lambda end: float(end.objective)):
        for k, basin in enumerate(basins):
            if _is_one(basin, end):
                basins[k] = basin._replace(starts=basin.starts + 1)
                break
        else:
            basins.append(Basin(float(end.objective), end.theta, 1))
    return tuple(basins)


def _is_one(basin: Basin, end: DesignSolution) -> bool:
    here, there = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(theta)])
        for theta in (basin.theta, end.theta)
    )
    near = np.abs(here - there).max(initial=0.0) <= _SAME_PLACE * (
        1 + np.abs(here).max(initial=0.0)
    )
    value = float(end.objective)
    return near and abs(basin.objective - value) <= _SAME_VALUE * max(1e-3, abs(value))


def _proved(
    problem: DesignProblem,
    best: DesignSolution,
    scale: tuple[float, float],
    max_nodes: int,
    until: float,
) -> tuple[DesignSolution, Bound]:
    """The better of the design and what branching meets, and the bound; `scale`: what the objective
    is divided by, for the programs' tolerances are absolute, and within how much of it to end."""
    if not isinstance(best.theta, jax.Array):
        raise NoBound("a bound is proved for incentives that are one array")
    theta, x = best.theta.astype(float), best.x.astype(float)
    size, margin = scale
    program = quadratic_design(problem, theta, x).over(size)

    @jax.jit
    def value(flat: Array) -> Array:
        point = problem.incentive_set.project(flat.reshape(theta.shape))
        found = solve_equilibrium(problem.game, point, x, throw=False)
        fine = found.result == RESULTS.successful
        return jnp.where(fine, problem.objective(point, found.x), jnp.inf)

    start = np.concatenate([np.ravel(theta), np.ravel(x)])
    known = start, float(best.objective) / size
    try:
        bound = bound_by_following(
            program,
            known,
            margin=margin,
            rounding=100 * float(jnp.finfo(best.x.dtype).eps),
            max_pieces=max_nodes,
            until=until,
        )
    except NoBound:
        if theta.size == 1 and not program.is_convex:
            raise
        bound = bound_by_branching(
            program,
            lambda flat: float(value(jnp.asarray(flat, theta.dtype))) / size,
            known,
            margin=margin,
            max_nodes=max_nodes,
            until=until,
        )
    if bound.theta is not None:
        point = problem.incentive_set.project(jnp.asarray(bound.theta).reshape(theta.shape))
        again = design(problem, point.astype(theta.dtype), x0=best.x, starts=1, throw=False)
        if again.result == RESULTS.successful and again.objective < best.objective:
            best = again
    return best, bound._replace(value=bound.value * size)
