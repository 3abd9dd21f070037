"""Fronts: the best of one objective for every level of another."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, PyTree

from .._checks import is_inside, require_count
from .._compile import compiled
from .._results import as_table, RESULTS
from .._tree import as_pytree_function
from ._problem import DesignProblem
from ._solution import DesignSolution
from ._task import task_at_door
from .constrained import along_levels, SECOND
from .scenarios import ScenarioProblem


class Front(eqx.Module):
    """Answer of [`pareto`][]: a row a point, from the least of the second objective on.

    - `theta`, `x`: incentives (like `theta0`, along a leading axis) and strategies.
    - `objectives`: the problem's and the second one, two columns.
    - `levels`: bounds of the second one.
    - `slope`: by how much the problem's objective changes for one more of the level (`<= 0`): the
      price of the second objective. NaN where the level is the least that there is.
    - `reached`: whether the level was met, at a point proved or found to be stationary.
    - `dominated`: whether another point of the front is better in one and no worse in the other.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda tax, x: x + tax - 4, ix.NonNegative((1,)))
        >>> taxes = ix.Box(0.0, jnp.full(1, 4.0))
        >>> problem = ix.DesignProblem(game, lambda tax, x: (tax**2).sum(), taxes)
        >>> revenue = lambda tax, x: -(tax * x).sum()
        >>> front = ix.pareto(problem, jnp.zeros(1), revenue, bounds=[-3.0])
        >>> front.slope.round(3).tolist()
        [-1.0]
    """

    theta: PyTree
    x: Array
    objectives: Float[Array, "points 2"]
    levels: Float[Array, " points"]
    slope: Float[Array, " points"]
    reached: Bool[Array, " points"]
    dominated: Bool[Array, " points"]

    def __str__(self) -> str:
        return as_table(
            [
                ("objective", self.objectives[:, 0]),
                ("second objective", self.objectives[:, 1]),
                ("slope", self.slope),
                ("points reached", f"{int(self.reached.sum())} of {len(self.levels)}"),
                ("dominated", f"{int(self.dominated.sum())}"),
            ]
        )


def pareto(
    problem: DesignProblem,
    theta0: PyTree,
    objective: Callable | None = None,
    *,
    bounds: ArrayLike | None = None,
    points: int = 16,
    x0: Array | None = None,
    steps: int | None = None,
    starts: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Front:
    """The front of the problem's objective and a second one, both to be small.

        min f(theta, x*(theta))  subject to  second(theta, x*(theta)) <= level

    for levels between the two ends, where one of them is least (epsilon constraints: Y. Y. Haimes,
    L. S. Lasdon, D. A. Wismer, *IEEE Transactions on Systems, Man, and Cybernetics* 1 (1971)
    296-297). Each point starts from its neighbour's end, in the same compiled programs; multipliers
    are the front's slopes. Points in between are local optima, as good as a neighbour leads to.

    **Arguments:**

    - `problem`, `theta0`: a problem, with constraints or without, and a start.
    - `objective`: the second objective, a pure function `(theta, x) -> scalar`; a revenue enters
      with a minus sign.
    - `bounds`: levels of the second objective. When left out `points` of them, evenly from its
      least value to its value where the problem's own objective is least.
    - `points`: at least 2.
    - `x0`, `steps`, `starts`, `key`: of the designs at the ends, see [`design`][].

    **Raises** `ValueError` without a second objective, for bounds that are not finite, for a
    selection or a risk with kinks, under `jit`, and what [`design`][] raises for a wrong argument.

    !!! example

        Revenue against what a tax costs a firm that sells `4 - tax`:

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda tax, x: x + tax - 4, ix.NonNegative((1,)))
        >>> taxes = ix.Box(0.0, jnp.full(1, 4.0))
        >>> problem = ix.DesignProblem(game, lambda tax, x: (tax**2).sum(), taxes)
        >>> front = ix.pareto(problem, jnp.zeros(1), lambda tax, x: -(tax * x).sum(), points=3)
        >>> print(front.objectives.round(2) + 0)
        [[ 4.   -4.  ]
         [ 0.34 -2.  ]
         [ 0.    0.  ]]
    """
    if objective is None:
        raise ValueError("`pareto(objective)` needs a second objective, got None")
    points = require_count("pareto", "points", points)
    task = task_at_door(problem, theta0, x0=x0, steps=steps, starts=starts, key=key, owner="pareto")
    kinked = isinstance(problem, ScenarioProblem) and problem.has_kinks
    if problem.selection is not None or kinked:
        raise ValueError(
            "`pareto(problem)` needs a problem without a selection, over scenarios of expected "
            "value: put a bound on the other objective with `ix.Constraint` instead"
        )
    if is_inside(problem, task.theta, task.x):
        raise ValueError("`pareto(problem)` needs known values, outside of `jit` and `vmap`")

    second = as_pytree_function(objective)
    along = along_levels(task, second)
    first_end = along.end()
    if bounds is None:
        if points < 2:
            raise ValueError(f"`pareto(points=...)` needs at least 2, got {points}")
        second_end = along.other_end()
        least, most = (
            float(_values(problem, second, end.theta, end.x)[1]) for end in (second_end, first_end)
        )
        levels = np.linspace(least, most, points)
        within = [along.at(level) for level in levels[1:-1][::-1]]
        found = [second_end, *within[::-1], first_end]
    else:
        levels = np.unique(np.asarray(bounds, float))
        if not np.isfinite(levels).all() or not levels.size:
            raise ValueError(f"`pareto(bounds=...)` needs finite levels, got {bounds}")
        found = [along.at(level) for level in levels[::-1]][::-1]
    front = _as_front(found, levels, second, problem)
    if bounds is not None:
        return front
    # At the ends nothing is bought: at the least of the second objective more cannot be had.
    slope = front.slope.at[0].set(jnp.nan).at[-1].set(0)
    return eqx.tree_at(lambda f: f.slope, front, slope)


@compiled
def _values(
    problem: DesignProblem, second: Callable[[PyTree, Array], Array], theta: PyTree, x: Array
) -> Float[Array, " 2"]:
    return jnp.stack([problem.objective(theta, x), second(theta, x)])


def _as_front(
    solutions: Sequence[DesignSolution],
    levels: np.ndarray,
    second: Callable[[PyTree, Array], Array],
    problem: DesignProblem,
) -> Front:
    dtype = solutions[0].x.dtype
    objectives = np.asarray([_values(problem, second, one.theta, one.x) for one in solutions])
    slope = [-float(one.multipliers.get(SECOND, 0.0)) for one in solutions]
    size = 1e-9 * (1 + np.abs(objectives))
    no_worse = (objectives[None] <= objectives[:, None] + size[:, None]).all(axis=-1)
    better = (objectives[None] < objectives[:, None] - size[:, None]).any(axis=-1)
    return Front(
        theta=jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one.theta for one in solutions)),
        x=jnp.stack([one.x for one in solutions]),
        objectives=jnp.asarray(objectives, dtype),
        levels=jnp.asarray(levels, dtype),
        slope=jnp.asarray(slope, dtype),
        reached=jnp.asarray([bool(one.result == RESULTS.successful) for one in solutions]),
        dominated=jnp.asarray((no_worse & better).any(axis=-1)),
    )
