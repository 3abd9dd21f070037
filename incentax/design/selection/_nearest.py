"""Designs that count on the equilibrium nearest to a target: a vanishing incentive selects it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._checks import is_inside
from ..._compile import compiled
from ...equilibrium import nearest_equilibrium
from ...games import Tikhonov, vanishing_weights
from .._problem import DesignProblem
from .._solution import DesignSolution
from .._task import Task
from ..accurate import design_accurately, design_near


def drawn(problem: DesignProblem, weight: Array) -> DesignProblem:
    """The problem over agents whom a weight draws towards the target."""
    assert problem.target is not None
    game = Tikhonov(problem.game, problem.target, weight)
    return DesignProblem(game, problem.objective, problem.incentive_set)


weights_of = compiled(lambda problem, theta, x: vanishing_weights(problem.game, theta, x))


def drawn_at(problem: DesignProblem, theta: PyTree, x: Array) -> DesignProblem:
    """With the last of the vanishing weights."""
    return drawn(problem, weights_of(problem, theta, x)[-1])


def design_nearest(task: Task) -> DesignSolution:
    """`design` of a problem whose selection is [`Nearest`][]: accurate designs as the weight falls,
    each from the end of the last one."""
    problem = task.problem
    if is_inside(problem, task.theta, task.x):
        raise ValueError(
            "`design(problem)` with a selection needs known values, outside of `jit` and `vmap`"
        )
    first, *others = weights_of(problem, task.theta, task.x)
    found = design_accurately(task._replace(problem=drawn(problem, first)))
    for weight in others:
        one = drawn(problem, jnp.asarray(weight))
        again = design_near(one, found.theta, found.x, task.steps)
        if again is None:
            near = task._replace(problem=one, theta=found.theta, x=found.x, starts=1)
            again = design_accurately(near)
        found = again
    assert problem.target is not None
    limit = nearest_equilibrium(problem.game, found.theta, problem.target, x0=found.x, throw=False)
    objective = _objective(problem, found.theta, limit.x)
    reached = limit.x, limit.residual, objective
    return eqx.tree_at(lambda s: (s.x, s.residual, s.objective), found, reached)


_objective = compiled(lambda problem, theta, x: problem.objective(theta, x))
