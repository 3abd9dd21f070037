"""The quadratic model of the designer's objective on a piece, and its best step.

Sequential quadratic steps: Nocedal and Wright, *Numerical Optimization* (2006), chapter 18.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..._compile import compiled
from ...sets import LinearConstraints
from ._lower_level import LowerLevel
from ._place import Place
from ._quadratic import least_quadratic
from ._tangent import Equations

# Of second derivatives, relative to the largest: none.
_NO_CURVATURE = 1e-10


@compiled
def _bent(
    level: LowerLevel, both: Float[Array, " u"], sign: Array, weights: list[Array]
) -> Float[Array, "u u"]:
    """Second derivatives of the objective plus the weighted conditions."""
    p = both.size - level.x.size - level.rows
    p = p - level.constraints(ravel_pytree(level.like)[0]).inequality_level.size

    def lagrangian(both: Array) -> Array:
        at = level.pairs(both[:p], both[p:], sign)
        slack, multiplier, missed = weights
        conditions = slack @ at.slack + multiplier @ at.multiplier + missed @ at.missed
        return level.value(both[:p], both[p:]) + conditions

    return jax.hessian(lagrangian)(both)


class Step(NamedTuple):
    """A step of `u`, the decrease that it promises, and multipliers of the sides held at zero."""

    direction: np.ndarray
    promised: float
    multipliers: np.ndarray


def quadratic_step_on(
    level: LowerLevel, place: Place, active: np.ndarray, incentives: LinearConstraints
) -> Step:
    """The best step of a quadratic model on the piece.

    What is not zero yet of the side that the piece holds at zero goes away with the step.
    """
    at, unit, p = place.at, place.at.unit, len(place.theta)
    own = np.where(active[:, None], at.slack_slopes, at.multiplier_slopes)
    missed = np.where(active, at.slack, at.multiplier)
    missed[(active & at.active) | (~active & at.idle) | at.fixed] = 0
    padded = np.zeros((len(incentives.equality_level), len(unit)))
    padded[:, :p] = incentives.equality.dense(np.dtype(float))
    rows = np.concatenate([own, at.missed_slopes, padded]) * unit
    equations = Equations(rows, float(at.eps))
    tangent, first = equations.basis(), np.zeros(len(unit))
    if np.any(missed):
        first = equations.onto(np.append(-missed, np.zeros(len(rows) - len(missed))))
    walls = _walls(place, active, incentives)
    rows, rooms = walls.rows @ tangent, walls.rooms + walls.rows @ first
    slope = at.slope * unit
    weights, direction, promised = np.zeros(len(rows)), np.zeros(len(unit)), 0.0
    for _ in range(2):  # the curvature of the Lagrangian needs its multipliers
        hessian = _hessian(level, place, active, equations, walls.borne(weights))
        bent, gradient = tangent.T @ hessian @ tangent, (slope + hessian @ first) @ tangent
        t, weights = _least_quadratic(gradient, bent, rows, rooms, weights)
        d = first + tangent @ t
        direction, promised = unit * d, -float(slope @ d)
        if np.any(missed):
            promised -= float(d @ hessian @ d) / 2
        if not np.any(weights > 0):
            break
    multipliers = equations.multipliers(slope - weights @ walls.rows)[: len(active)]
    return Step(direction, promised, multipliers)


@dataclass
class _Walls:
    """`rows d >= -rooms`, `d` in units of `u`: the pairs' other sides, then the incentive set."""

    rows: np.ndarray
    rooms: np.ndarray
    pairs: np.ndarray  # of every pair its row, or -1

    def borne(self, weights: np.ndarray) -> np.ndarray:
        """The weights of the rows, a number a pair."""
        return (
            np.where(self.pairs >= 0, weights[self.pairs], 0) if len(weights) else 0.0 * self.pairs
        )


def _walls(place: Place, active: np.ndarray, incentives: LinearConstraints) -> _Walls:
    at, unit, p = place.at, place.at.unit, len(place.theta)
    other = np.where(active[:, None], at.multiplier_slopes, at.slack_slopes) * unit
    room = np.where(active, at.multiplier, at.slack)
    kept = at.two_sided & ~at.fixed
    eye = np.eye(p, len(unit)) * unit
    more = np.zeros((len(incentives.inequality_level), len(unit)))
    more[:, :p] = -incentives.inequality * unit[:p]
    to_more = incentives.inequality_level - incentives.inequality @ place.theta
    above, below = place.theta - incentives.lower, incentives.upper - place.theta
    rooms = np.concatenate([room[kept], above, below, to_more])
    finite = np.isfinite(rooms)
    rows = np.concatenate([other[kept], eye, -eye, more])[finite]
    pairs = np.where(kept, np.cumsum(kept) - 1, -1)
    return _Walls(rows, np.maximum(rooms[finite], 0), pairs)


def _hessian(
    level: LowerLevel, place: Place, active: np.ndarray, equations: Equations, borne: np.ndarray
) -> np.ndarray:
    """Of the Lagrangian, in units of every unknown; `borne` by the other sides of the pairs."""
    at, unit, pairs = place.at, place.at.unit, len(active)
    other = np.where(active[:, None], at.multiplier_slopes, at.slack_slopes) * unit
    along = equations.multipliers(at.slope * unit - borne @ other)
    slack = np.where(active, along[:pairs], -borne)
    multiplier = np.where(active, -borne, along[:pairs])
    missed = along[pairs : pairs + len(at.missed_slopes)]
    return unit[:, None] * _curvature(level, place, (slack, multiplier, missed)) * unit[None, :]


def _curvature(level: LowerLevel, place: Place, weights: tuple[np.ndarray, ...]) -> np.ndarray:
    """Of the objective and the weighted conditions.

    Where one is infinite, as of a power at zero, the model does without.
    """
    both, dtype = np.concatenate([place.theta, place.packed]), level.x.dtype
    given = [part.astype(dtype) for part in weights]
    hessian = np.asarray(_bent(level, both, place.at.sign.astype(dtype), given), float)
    return np.where(np.isfinite(hessian), hessian, 0)


def _least_quadratic(
    gradient: np.ndarray,
    hessian: np.ndarray,
    rows: np.ndarray,
    rooms: np.ndarray,
    near: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """`argmin g't + t'Ht/2` with `rows t >= -rooms`, and the multipliers; `H` is made convex.

    `near`: what is known of the multipliers.
    """
    if not len(gradient):
        return gradient, np.zeros(len(rows))
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    # No step is longer than ten times the unit of what moves, pushed by what no wall bears.
    push = np.linalg.norm(gradient - near @ rows)
    least = max(1e-8 * np.abs(values).max(initial=0.0), 0.1 * push, 1e-100)
    back = vectors / np.sqrt(np.maximum(np.abs(values), least))[None, :]
    return least_quadratic(gradient, back, rows, rooms)


def is_convex(level: LowerLevel, place: Place) -> bool:
    """Whether, to second order, the pairs are affine and the objective is convex.

    Then `slope + sum y_i a_i = sum w_j b_j` with `w >= 0` on the walls, at the optimum on a piece,
    is the optimality condition of the quadratic model on all `d` within the walls with `a_i d >= 0`
    for a pair with `y_i <= 0`: no piece on which such a pair alone has changed sides promises more
    than nothing.
    """
    pairs, unit = len(place.at.slack), place.at.unit
    none = np.zeros(pairs), np.zeros(pairs), np.zeros(len(place.at.missed_slopes))
    some = tuple(1 + np.arange(len(part)) % 7 / 10 for part in none)
    own, together = (unit[:, None] * _curvature(level, place, w) * unit for w in (none, some))
    size = np.abs(own).max(initial=0.0)
    if np.abs(together - own).max(initial=0.0) > _NO_CURVATURE * size:
        return False
    bent = np.any(own, axis=1)  # most of a large problem's unknowns have none
    least = np.linalg.eigvalsh(own[np.ix_(bent, bent)]).min(initial=0.0)
    return bool(least >= -_NO_CURVATURE * size)
