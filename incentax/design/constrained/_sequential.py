"""Sequential quadratic steps in the incentive, for games too large for steps on pieces.

At every incentive the exact equilibrium, the objective, the constraints, and the gradient of each
by one adjoint solve. A step minimises a quadratic model of the Lagrangian within the linearised
constraints, at a price for what it cannot keep; it is shortened until the exact penalty

    f + sum of weight violation / unit

falls. S.-P. Han, *Journal of Optimization Theory and Applications* 22 (1977) 297-309, with a
second-order correction: Nocedal and Wright, *Numerical Optimization* (2006), chapter 18. On the
host: one compiled evaluation, the rest is numpy.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from ..._compile import compiled
from ..._results import RESULTS
from ...equilibrium import find_equilibrium
from ...sets import LinearConstraints
from .._looks import is_enough, stepped
from .._problem import DesignProblem
from ..accurate import is_bottomless, least_quadratic, updated_curvature
from ._penalty import Sides
from ._units import Gradients, gradients_of

# Of the equilibria, and of a change of the penalty relative to its parts.
_TOL, NONE = 1e-10, 1e-13
# Lengths of a step, and how often its weight grows, at most.
_LENGTHS, _DEARER = 12, 4


class At(NamedTuple):
    """The problem at an incentive, all but the equilibrium in numpy.

    As in [`Gradients`][]; `excess`: of every side of a constraint, negative where there is room;
    `slopes`: its gradients; `whole`: those of the problem's objective and all constraints;
    `solved`: whether the equilibrium `x` was reached.
    """

    theta: np.ndarray
    objective: float
    gradient: np.ndarray
    limits: Any
    rows: np.ndarray
    parts: np.ndarray
    noise: np.ndarray
    degenerate: int
    excess: np.ndarray
    slopes: np.ndarray
    whole: np.ndarray
    x: Array
    solved: bool


@partial(compiled, lasting=True)
def _evaluated(
    problem: DesignProblem, like: PyTree, theta: Array, x: Array, *, entropic: bool | None
) -> tuple[Gradients, Array, Array]:
    incentive = ravel_pytree(like)[1](theta)
    x, _, result = find_equilibrium(
        problem.game, incentive, x, None, _TOL, max_steps=20_000, entropic=entropic
    )
    found = gradients_of(problem, incentive, x)
    finite = jnp.isfinite(found.objective) & jnp.all(jnp.isfinite(found.gradient))
    finite = finite & jnp.all(jnp.isfinite(found.rows))
    return found, x, (result == RESULTS.successful) & finite


_bent = compiled(updated_curvature)
# Steps whose turns of the gradients are remembered.
_REMEMBERED = 60


@compiled
def _bent_along(hessian: Array, moved: Array, turned: Array) -> Array:
    return jax.lax.scan(
        lambda h, one: (updated_curvature(h, *one), None), hessian, (moved, turned)
    )[0]


@dataclass
class Descent:
    """Where sequential quadratic steps stand.

    - `at`: the point; `hessian`: of the Lagrangian, from its gradients; `mu`: a number a side.
    - `unit`, `weight`: what counts as one of a violation, and what that costs.
    - `none`: relative decrease that counts as none; `ended`: no more is to be had.
    - `turns`: steps, and by what the gradients of objective and constraints turned on each.
    - `rows`: objective, norm of the Lagrangian's gradient, length of the step.
    """

    at: At
    hessian: np.ndarray
    mu: np.ndarray
    unit: np.ndarray
    weight: float
    none: float = NONE
    ended: bool = False
    turns: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    rows: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def lagrangian(self) -> np.ndarray:
        """Its gradient."""
        return self.at.gradient + self.mu @ self.at.slopes

    def violation(self, at: At) -> float:
        """The sum over all sides, each in its unit."""
        return float(np.sum(np.maximum(at.excess, 0) / self.unit))

    def penalty(self, at: At) -> float:
        """The exact penalty; infinite where there is no equilibrium."""
        return float(at.objective) + self.weight * self.violation(at) if at.solved else np.inf


class Evaluate:
    """The problem at flat incentives, from the equilibrium of the last one.

    `aim`: what is to be small, the objective (0) or the last row of the constraints (-1).
    """

    def __init__(self, problem: DesignProblem, sides: Sides, like: PyTree, entropic: bool | None):
        self.problem, self.sides, self.like, self.entropic = problem, sides, like, entropic
        self.aim = 0

    def remembered(self, descent: Descent, mu: np.ndarray) -> np.ndarray:
        """Curvature of the Lagrangian of such multipliers, from the steps of a descent."""
        if not descent.turns:
            return descent.hessian
        upper, lower = len(self.sides.upper), len(self.sides.lower)
        weights = np.zeros(len(descent.at.whole))
        weights[self.aim] = 1
        np.add.at(weights[1:], list(self.sides.upper), mu[:upper])
        np.add.at(weights[1:], list(self.sides.lower), -mu[upper : upper + lower])
        moved = np.stack([step for step, _ in descent.turns])
        turned = np.stack([weights @ turn for _, turn in descent.turns])
        bend = np.sum(moved * turned, axis=1)
        if not np.any(bend > 0):
            return descent.hessian
        last = np.flatnonzero(bend > 0)[-1]
        first = np.eye(moved.shape[1]) * np.sum(turned[last] ** 2) / bend[last]
        none = ((0, _REMEMBERED - len(moved)), (0, 0))
        found = _bent_along(first, np.pad(moved, none), np.pad(turned, none))
        return np.asarray(found, float)

    def incentive(self, theta: np.ndarray) -> PyTree:
        """In the structure of the problem's own."""
        return ravel_pytree(self.like)[1](jnp.asarray(theta, ravel_pytree(self.like)[0].dtype))

    def __call__(self, theta: np.ndarray, x: Array) -> At:
        flat = jnp.asarray(theta, x.dtype)
        gradients, x, solved = _evaluated(self.problem, self.like, flat, x, entropic=self.entropic)
        found = jax.tree.map(lambda leaf: np.asarray(leaf, float), gradients)
        upper, lower = (np.asarray(rows, int) for rows in (self.sides.upper, self.sides.lower))
        at, aim = found.limits, self.aim
        whole = np.concatenate([found.gradient[None], found.rows])
        own = [aim, *range(1, len(whole))]
        return At(
            theta=np.asarray(flat, float),
            objective=float(at.value[-1] if aim else found.objective),
            gradient=whole[aim],
            limits=at,
            rows=found.rows,
            parts=found.parts[own],
            noise=found.noise[own],
            degenerate=int(found.degenerate),
            excess=np.concatenate([(at.value - at.upper)[upper], (at.lower - at.value)[lower]]),
            slopes=np.concatenate([found.rows[upper], -found.rows[lower]]),
            whole=whole,
            x=x,
            solved=bool(solved),
        )


def descend(
    evaluate: Evaluate, descent: Descent, incentives: LinearConstraints, most: int
) -> Descent:
    """At most so many steps."""
    free = not np.isfinite([incentives.lower, incentives.upper]).all()
    while not descent.ended and len(descent.rows) < most and not is_enough():
        before = len(descent.rows)
        _step(evaluate, descent, incentives)
        at, taken = descent.at, len(descent.rows) - before
        slope = float(np.linalg.norm(descent.lagrangian))
        descent.ended |= bool(free and is_bottomless(at.objective, slope, at.theta))
        stepped(at.objective, lambda at=at: evaluate.incentive(at.theta), taken)
    return descent


def _step(evaluate: Evaluate, descent: Descent, incentives: LinearConstraints) -> None:
    at = descent.at
    walls = _walls(at.theta, incentives)
    step, mu, missed = _model_step(descent, walls, at.excess)
    violated = descent.violation(at)
    for _ in range(_DEARER):
        largest = float(np.max(mu * descent.unit, initial=0.0))
        if missed > 1e-9 + 0.1 * violated:
            descent.weight *= 10
        elif largest > 0.9 * descent.weight:
            descent.weight = 2 * largest
        else:
            break
        step, mu, missed = _model_step(descent, walls, at.excess)
    slope = float(at.gradient @ step) + descent.weight * (missed - violated)
    parts = abs(float(at.objective)) + descent.weight * violated
    if not slope < -descent.none * parts:
        descent.mu, descent.ended = mu, True
        return
    before = descent.penalty(at)
    for length in 0.5 ** np.arange(_LENGTHS):
        found = evaluate(_inside(at.theta + length * step, incentives), at.x)
        least = before + 1e-4 * length * slope
        if length == 1 and descent.penalty(found) > least and found.solved:
            # What the constraints have bent by on the way.
            bent = found.excess - at.slopes @ (found.theta - at.theta)
            corrected, _, _ = _model_step(descent, walls, bent)
            found = evaluate(_inside(at.theta + corrected, incentives), at.x)
        if descent.penalty(found) <= least:
            break
    else:
        descent.mu, descent.ended = mu, True
        return
    moved = found.theta - at.theta
    turn = (found.gradient + mu @ found.slopes) - (at.gradient + mu @ at.slopes)
    if not descent.turns:  # the size of the first curvature that is met
        bend = float(moved @ turn)
        if bend > 0:
            descent.hessian = np.eye(len(moved)) * float(turn @ turn) / bend
    descent.hessian = np.asarray(_bent(descent.hessian, moved, turn), float)
    descent.at, descent.mu = found, mu
    descent.turns = [*descent.turns, (moved, found.whole - at.whole)][-_REMEMBERED:]
    length = float(np.linalg.norm(moved))
    descent.rows.append((float(found.objective), float(np.linalg.norm(descent.lagrangian)), length))


def _inside(theta: np.ndarray, incentives: LinearConstraints) -> np.ndarray:
    return np.clip(theta, incentives.lower, incentives.upper)


def _walls(theta: np.ndarray, incentives: LinearConstraints) -> tuple[np.ndarray, np.ndarray]:
    """The incentive set around theta, `rows d >= -rooms`."""
    eye = np.eye(len(theta))
    equal = incentives.equality.dense(np.dtype(float))
    off = incentives.equality_level - equal @ theta
    rows = np.concatenate([eye, -eye, -incentives.inequality, equal, -equal])
    rooms = np.concatenate(
        [
            theta - incentives.lower,
            incentives.upper - theta,
            incentives.inequality_level - incentives.inequality @ theta,
            -off,
            off,
        ]
    )
    finite = np.isfinite(rooms)
    return rows[finite], rooms[finite]


def _model_step(
    descent: Descent, walls: tuple[np.ndarray, np.ndarray], excess: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The step of the quadratic model, multipliers of the sides, and what violation it leaves.

    Unknowns: the step, then what each side is let off, in its unit.
    """
    rows, rooms = walls
    at, p, k = descent.at, len(descent.at.theta), len(excess)
    values, vectors = np.linalg.eigh(descent.hessian)
    values = np.maximum(values, 1e-10 * values.max())
    # What is let off costs its weight, and a little more the more it is: a model is convex.
    let = descent.weight / max(1.0, float(np.max(excess / descent.unit, initial=0.0)))
    back: Any = np.zeros((p + k, p + k))
    back[:p, :p], back[p:, p:] = vectors / np.sqrt(values)[None, :], np.eye(k) / np.sqrt(let)
    gradient = np.concatenate([at.gradient, np.full(k, descent.weight)])
    own = np.concatenate([-at.slopes / descent.unit[:, None], np.eye(k)], axis=1)
    none = np.concatenate([np.zeros((k, p)), np.eye(k)], axis=1)
    outer = np.concatenate([rows, np.zeros((len(rows), k))], axis=1)
    found, weights = least_quadratic(
        gradient,
        back,
        np.concatenate([own, none, outer]),
        np.concatenate([-excess / descent.unit, np.zeros(k), rooms]),
    )
    return found[:p], weights[:k] / descent.unit, float(np.sum(np.maximum(found[p:], 0)))
