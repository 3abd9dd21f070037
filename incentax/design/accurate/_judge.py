"""What is proved of a design: whether its gradient vanishes, or no direction descends."""

from typing import NamedTuple

import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from ..._compile import compiled, shape_of
from ..._results import ENDINGS, RESULTS
from ...sets import LinearConstraints
from .._problem import DesignProblem
from ._b_stationarity import decide, Descent, incentives_of
from ._lower_level import LowerLevel
from ._pieces import along, gradient_on, unresolved, worthless
from ._place import arrive, nearest, Place

# Up to this many incentives, strategies and constraints in all.
_MOST = 2500


class Judgement(NamedTuple):
    """`stationarity`, `least_slope`: see [`Certificate`][]; `gradient` is flat, on the piece."""

    ending: ENDINGS
    result: RESULTS
    stationarity: float
    least_slope: float
    gradient: np.ndarray
    degenerate: int


def is_judgeable(problem: DesignProblem, theta: PyTree, x: Array, entropic: bool | None) -> bool:
    """Whether the matrices of the linear programs are affordable, and a bound may be met."""
    return entropic is not True and unknowns(problem, theta, x) <= _MOST


def unknowns(problem: DesignProblem, theta: PyTree, x: Array) -> int:
    """Incentives, strategies and constraints in all."""
    agents, incentives = shape_of(_both_constraints, problem, theta, x)
    size = incentives.lower.size + agents.lower.size
    for constraints in (agents, incentives):
        size += constraints.equality_level.size + constraints.inequality_level.size
    return size


@compiled
def _both_constraints(
    problem: DesignProblem, theta: PyTree, x: Array
) -> tuple[LinearConstraints, LinearConstraints]:
    agents = problem.game.strategies(theta).constraints(x)
    return agents, problem.incentive_set.constraints(theta)


def judge(problem: DesignProblem, theta: PyTree, x: Array) -> Judgement | None:
    """What is proved of `theta`, whose equilibrium is near `x`; `None` where there is none."""
    flat, _ = ravel_pytree(theta)
    level = LowerLevel(problem, theta, x)
    incentives, _ = incentives_of(level)
    place = arrive(level, np.asarray(flat), np.asarray(x).ravel())
    if place is None:
        return None
    descent = decide(place.at, incentives, place.theta)
    if descent.verdict == "no":
        reached = along(level, place, descent, incentives)
        gained = 0.0 if reached is None else place.objective - reached.objective
        if gained <= worthless(place):
            active = place.at.active & ~place.at.degenerate
            told = unresolved(level, place, active, incentives, descent)
            descent = told if gained == 0 or told.verdict == "yes" else descent
    return judgement(level, place, descent)


def judgement(level: LowerLevel, place: Place, descent: Descent) -> Judgement:
    """In words and figures, from what the linear programs said."""
    gradient = gradient_on(place, place.at.active)
    left = float(np.linalg.norm(place.theta - nearest(level, place.theta - gradient)))
    at_rest = ENDINGS.stationary
    # Of a gradient that is zero but for rounding, bounds take nothing away.
    whole, parts = np.linalg.norm(gradient), np.abs(place.at.slope * place.at.unit).sum()
    if left < 0.5 * whole and whole * np.max(place.at.unit[: len(gradient)]) > 1e-5 * parts:
        at_rest = ENDINGS.at_bounds
    degenerate = int(np.sum(place.at.degenerate))
    if degenerate:
        at_rest = ENDINGS.kink
    ending, result = {
        "yes": (at_rest, RESULTS.successful),
        "no": (ENDINGS.not_stationary, RESULTS.not_stationary),
        "undecided": (ENDINGS.undecided, RESULTS.successful),
    }[descent.verdict]
    if descent.ambiguous:
        ending, result = ENDINGS.no_derivative, RESULTS.no_derivative
    return Judgement(ending, result, left, descent.bound, gradient, degenerate)
