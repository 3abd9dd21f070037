"""How the best that a regulator can reach follows the data of its problem."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._checks import as_float, is_traced
from .._results import ENDINGS
from ..equilibrium import solve_equilibrium
from ._problem import DesignProblem
from ._solution import DesignSolution
from .scenarios import above, lifted, ScenarioProblem


def value_sensitivity(
    problem_of: Callable[[PyTree], DesignProblem], data: PyTree, solution: DesignSolution
) -> PyTree:
    """The derivative of the optimal objective in the data of a problem, by the envelope theorem.

        d f_* / d data = ∂f + mu (∂c - ∂bound), along x*(theta; data), theta and mu held

    No design is repeated: one equilibrium is solved, and one adjoint system. J. M. Danskin (1967);
    for constraints A. V. Fiacco, *Introduction to Sensitivity and Stability Analysis* (1983).

    **Arguments:**

    - `problem_of`: a function from the data, any pytree of arrays, to the problem: costs, demands,
      bounds of constraints or of the incentive set.
    - `data`: where `solution` is the design of `problem_of(data)`.
    - `solution`: of [`design`][], with its multipliers.

    **Raises** `TypeError` when `problem_of` returns no problem, `ValueError` when the solution has
    other constraints than it, is infeasible, or lies on a kink.

    Where the optimum or its multipliers are not unique the optimal value has only one-sided
    derivatives; what is returned belongs to this solution. Where the solution lies on a kink of the
    agents' equilibrium, what holds it there is no constraint of the problem: refused.

    !!! example

        A floor of revenue: what one more of it costs, and of the firm's demand.

        >>> import incentax as ix, jax.numpy as jnp
        >>> def problem_of(data):
        ...     game = ix.Game(lambda tax, x: x + tax - data["demand"], ix.NonNegative((1,)))
        ...     floor = ix.Constraint(lambda t, x: (t * x).sum(), lower=data["floor"], name="floor")
        ...     taxes = ix.Box(0.0, jnp.full(1, 4.0))
        ...     return ix.DesignProblem(game, lambda t, x: (t**2).sum(), taxes, constraints=[floor])
        >>> data = {"demand": jnp.array(4.0), "floor": jnp.array(3.0)}
        >>> solution = ix.design(problem_of(data), jnp.zeros(1))
        >>> slope = ix.value_sensitivity(problem_of, data, solution)
        >>> round(float(slope["demand"]), 3), round(float(slope["floor"]), 3)
        (-1.0, 1.0)
    """
    data = jax.tree.map(as_float, data)
    theta, x, multipliers = jax.lax.stop_gradient(
        (solution.theta, solution.x, solution.multipliers)
    )
    found: Any = problem_of(data)
    if not isinstance(found, DesignProblem):
        raise TypeError(f"`value_sensitivity(problem_of)` needs a `DesignProblem`, got {found!r}")
    if isinstance(found, ScenarioProblem) and found.has_kinks:
        theta, found = lifted(found, theta, x), above(found)
    names = {constraint.name for constraint in found.constraints}
    if names != set(multipliers):
        raise ValueError(
            "`value_sensitivity(solution)` needs the constraints of the problem, "
            f"{sorted(map(str, names))}, got multipliers of {sorted(multipliers)}"
        )

    if not is_traced(theta, x, data):
        if bool(jnp.any(solution.ending == ENDINGS.infeasible)):
            raise ValueError(
                "`value_sensitivity(solution)` needs a design that keeps its constraints"
            )
        kinks = int(solve_equilibrium(found.game, theta, x, throw=False).degenerate)
        if kinks:
            raise ValueError(
                "`value_sensitivity(solution)` needs a design off the kinks of the agents' "
                f"equilibrium, got one with {kinks} constraints of theirs about to change"
            )

    def lagrangian(problem: DesignProblem, theta: PyTree) -> Any:
        settled = solve_equilibrium(problem.game, theta, x, throw=False).x
        value = problem.objective(theta, settled)
        for constraint in problem.constraints:
            mu, at = multipliers[str(constraint.name)], constraint.value(theta, settled)
            lower, upper = constraint.bounds(at)
            bound = jnp.where(mu > 0, upper, jnp.where(mu < 0, lower, 0))
            value = value + jnp.sum(mu * (at - bound))
        return value

    # On a bound of the incentive set theta follows it: pushed outwards a little, and projected.
    slope = jax.grad(lambda theta: lagrangian(found, theta))(theta)

    def push(leaf: Array, along: Array) -> Array:
        length = float(jnp.finfo(leaf.dtype).eps) ** 0.5 * (1 + jnp.abs(leaf))
        return leaf - length * jnp.sign(along)

    pushed = jax.tree.map(push, theta, slope)

    def value(data: PyTree) -> Any:
        problem: Any = problem_of(data)
        if isinstance(problem, ScenarioProblem) and problem.has_kinks:
            problem = above(problem)
        return lagrangian(problem, problem.incentive_set.project(pushed))

    return jax.grad(value)(data)
