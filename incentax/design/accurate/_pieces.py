"""Sequential quadratic steps in `(theta, x, y, z)` on a piece, where `x` need not be unique.

On a piece it is chosen which side of every pair is zero; the others stay positive. Every step ends
at an exact equilibrium. Where no step on a piece is of use the linear program over the pairs with
both sides zero decides whether the point is B-stationary, and names the next piece if it is not.
Luo, Pang, Ralph (1996), chapter 6; S. Leyffer and T. Munson, *Optimization Methods and Software* 22
(2007). On the host: a few compiled functions of the problem, the rest is numpy and scipy.
"""

from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..._compile import compiled
from ...sets import LinearConstraints
from .._looks import is_enough, stepped
from ._b_stationarity import decide, Descent
from ._lower_level import LowerLevel
from ._place import arrive, nearest, Place
from ._quadratic import least_quadratic
from ._tangent import Equations

# Pieces that are walked to, and lengths of a step on one, at most.
_PIECES, _LENGTHS = 60, 8
# Steps over which the pace of a walk is measured.
_PACE = 40
# Pairs that are forced, times the square of the number of unknowns.
_TRIALS, _LEAST_TRIALS = 8_000_000, 8


@dataclass
class Walk:
    """Where the steps ended, what the last linear program says of it, and a row for every step.

    `rows`: objective, norm of its gradient, length of the step.
    """

    place: Place
    descent: Descent
    rows: list[tuple[float, float, float]]


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


def walk(
    level: LowerLevel, place: Place, incentives: LinearConstraints, most: int, known: float
) -> Walk:
    """Downhill from piece to piece in at most so many steps, until no neighbour descends.

    Then pieces that are no neighbours are tried: every pair in turn is forced to its other side.
    `known`: what another walk has reached; one that will not come so far at its pace gives up.
    """
    active, rows = place.at.active & ~place.at.degenerate, []
    descent = Descent("undecided", np.nan)
    budget = max(_TRIALS // len(place.at.unit) ** 2, _LEAST_TRIALS)
    trials = _Trials(min(budget, 4 * len(active)))

    def move(reached: Place, piece: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(reached.theta - place.theta)
        piece = np.where(reached.at.degenerate, piece, reached.at.active)
        gradient = gradient_on(reached, piece)
        rows.append((reached.objective, float(np.linalg.norm(gradient)), float(length)))
        stepped(reached.objective, lambda: level.unravel(jax.device_put(reached.theta)))
        return piece

    def may() -> bool:
        return len(rows) < most and not is_enough()

    for _ in range(_PIECES):
        last = False
        while may() and not last:
            if _is_behind(rows, most, known):
                return Walk(place, descent, rows)
            reached, last = _step(level, place, active, incentives)
            if reached is None:
                break
            active, place = move(reached, active), reached
        descent = decide(place.at, incentives, place.theta)
        reached, piece = None, active
        if may() and descent.verdict == "no":
            assert descent.active is not None
            reached, piece = along(level, place, descent, incentives), descent.active
        if reached is None and descent.verdict == "no" and may():
            descent = unresolved(level, place, active, incentives, descent)
        if reached is None and may():
            reached, piece = _onto_kinks(level, place, active), active
        if reached is None and may():
            reached, piece = _forced(level, place, active, incentives, trials)
        if reached is None:
            break
        active, place = move(reached, piece), reached
    else:
        descent = decide(place.at, incentives, place.theta)
    return Walk(place, descent, rows)


def _is_behind(rows: list[tuple[float, float, float]], most: int, known: float) -> bool:
    """Whether all steps that are left, at the pace of the last ones, end above `known`."""
    if len(rows) <= _PACE:
        return False
    objective, pace = rows[-1][0], (rows[-1 - _PACE][0] - rows[-1][0]) / _PACE
    return objective - max(most - len(rows), 0) * pace > known


@dataclass
class _Trials:
    """How many pairs may still be forced, which were, and whether one was of use since."""

    budget: int
    forced: set[int] = field(default_factory=set)
    gained: bool = False


def unresolved(
    level: LowerLevel,
    place: Place,
    active: np.ndarray,
    incentives: LinearConstraints,
    descent: Descent,
) -> Descent:
    """What a descent is worth that no length of shows in the objective: nothing, where a quadratic
    model on the piece, and on the one that the descent names, promises no more than rounding."""
    least = worthless(place)
    pieces = [active] if descent.active is None else [active, descent.active]
    promised = [_quadratic_direction(level, place, piece, incentives)[1] for piece in pieces]
    verdict = "yes" if max(promised) <= least else "undecided"
    return replace(descent, verdict=verdict, direction=None, active=None)


def worthless(place: Place) -> float:
    """A gain that is none: rounding of the objective and of its parts."""
    parts = np.abs(place.at.slope * place.at.unit).sum()
    return max(10 * _rounding(place), max(1e-12, 10 * float(place.at.eps)) * parts)


def _onto_kinks(level: LowerLevel, place: Place, active: np.ndarray) -> Place | None:
    """Where pairs that count as zero on both sides are so, if the objective is less there.

    A steep objective tells a kink from the points beside it.
    """
    at, p, size = place.at, len(place.theta), level.x.size
    both = at.degenerate
    off = both & (np.maximum(at.slack, at.multiplier) > 0)
    if not off.any():
        return None
    own = np.where(active[:, None], at.slack_slopes, at.multiplier_slopes)
    other = np.where(active[:, None], at.multiplier_slopes, at.slack_slopes)[both]
    left = np.concatenate(
        [
            np.where(both, np.where(active, at.slack, at.multiplier), 0),
            np.zeros(len(at.missed_slopes)),
            np.where(active, at.multiplier, at.slack)[both],
        ]
    )
    rows = np.concatenate([own, at.missed_slopes, other]) * at.unit
    step = at.unit * Equations(rows, float(at.eps)).onto(-left)
    theta = nearest(level, place.theta + step[:p])
    reached = arrive(level, theta, place.packed[:size] + step[p : p + size])
    least = max(1e-12 * abs(place.objective), 10 * _rounding(place))
    return reached if reached and reached.objective < place.objective - least else None


def _forced(
    level: LowerLevel,
    place: Place,
    active: np.ndarray,
    incentives: LinearConstraints,
    trials: _Trials,
) -> tuple[Place | None, np.ndarray]:
    """A better place on a piece on which one pair has changed sides; and the piece.

    First the pairs whose zero side the objective would like to be positive, by how much it gains;
    then the nearest ones. Pairs that were forced wait for the others.
    """
    at, p, size = place.at, len(place.theta), level.x.size
    own = np.where(active[:, None], at.slack_slopes, at.multiplier_slopes)
    equations = Equations(np.concatenate([own, at.missed_slopes]) * at.unit, float(at.eps))
    gain = equations.multipliers(at.slope * at.unit)[: len(active)]
    gain = np.where(gain > 1e-6 * np.abs(gain).max(initial=0.0), gain, 0)
    far = np.where(active, at.multiplier, at.slack) / (1 + np.abs(at.multiplier).max(initial=0.0))
    pairs = np.flatnonzero(at.two_sided & ~at.fixed)
    pairs = pairs[np.lexsort((far[pairs], -gain[pairs]))]
    if trials.gained and trials.forced.issuperset(pairs):
        trials.forced, trials.gained = set(), False
    for pair in pairs:
        if pair in trials.forced or not trials.budget:
            continue
        trials.budget -= 1
        trials.forced.add(int(pair))
        piece = active.copy()
        piece[pair] = ~piece[pair]
        direction, promised = _quadratic_direction(level, place, piece, incentives)
        if not promised > 10 * _rounding(place):
            continue
        theta = nearest(level, place.theta + direction[:p])
        reached = arrive(level, theta, place.packed[:size] + direction[p : p + size])
        least = max(1e-9 * abs(place.objective), 10 * _rounding(place))
        if reached is not None and reached.objective < place.objective - least:
            trials.gained = True
            return reached, piece
    return None, active


def gradient_on(place: Place, active: np.ndarray) -> np.ndarray:
    """The gradient of the objective on a piece; of several motions of `x` the shortest one."""
    at, p = place.at, len(place.theta)
    own = np.where(active[:, None], at.slack_slopes, at.multiplier_slopes)
    zero = np.concatenate([own, at.missed_slopes])
    # In units of the unknowns, so that ranks can be told.
    adjoint = Equations(zero[:, p:] * at.unit[p:], float(at.eps)).multipliers(
        at.slope[p:] * at.unit[p:]
    )
    return at.slope[:p] + adjoint @ zero[:, :p]


def along(
    level: LowerLevel, place: Place, descent: Descent, incentives: LinearConstraints
) -> Place | None:
    """The first of ever shorter steps along a direction that is worth a tenth of its promise."""
    d, p = descent.direction, len(place.theta)
    assert d is not None
    slope = float(place.at.slope @ d)
    eye = np.eye(p)
    towards = np.concatenate([incentives.inequality @ d[:p], eye @ d[:p], -eye @ d[:p]])
    room = np.concatenate(
        [
            incentives.inequality_level - incentives.inequality @ place.theta,
            incentives.upper - place.theta,
            place.theta - incentives.lower,
        ]
    )
    nearing = towards > 0
    longest = np.min(np.maximum(room[nearing], 0) / towards[nearing], initial=1.0)
    longest = longest if longest > 1e-9 else 1.0  # at a bound: rounding of the direction
    for length in longest * 10.0 ** -np.arange(0.0, 6.5, 0.5):
        theta = nearest(level, place.theta + length * d[:p])
        near = place.packed[: level.x.size] + length * d[p : p + level.x.size]
        reached = arrive(level, theta, near)
        least = max(-0.1 * length * slope, _rounding(place))
        if reached is not None and reached.objective < place.objective - least:
            return reached
    return None


def _step(
    level: LowerLevel, place: Place, active: np.ndarray, incentives: LinearConstraints
) -> tuple[Place | None, bool]:
    """The next equilibrium on the piece, `None` where the piece offers nothing; whether it is the
    last one: so near to the optimum that the objective cannot tell."""
    direction, promised = _quadratic_direction(level, place, active, incentives)
    p, size = len(place.theta), level.x.size
    last = not promised > 10 * _rounding(place)
    for length in 0.3 ** np.arange(1 if last else _LENGTHS):
        theta = nearest(level, place.theta + length * direction[:p])
        near = place.packed[:size] + length * direction[p : p + size]
        reached = arrive(level, theta, near)
        least = -_rounding(place) if last else 1e-3 * length * promised
        if reached is not None and reached.objective < place.objective - least:
            return reached, last
    return None, last


def _quadratic_direction(
    level: LowerLevel, place: Place, active: np.ndarray, incentives: LinearConstraints
) -> tuple[np.ndarray, float]:
    """The step of `u` by a quadratic model on the piece, and the decrease that it promises.

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
        t, weights = _least_quadratic(gradient, bent, rows, rooms)
        d = first + tangent @ t
        direction, promised = unit * d, -float(slope @ d)
        if np.any(missed):
            promised -= float(d @ hessian @ d) / 2
        if not np.any(weights > 0):
            break
    return direction, promised


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
    both, dtype = np.concatenate([place.theta, place.packed]), level.x.dtype
    weights = [part.astype(dtype) for part in (slack, multiplier, missed)]
    hessian = np.asarray(_bent(level, both, at.sign.astype(dtype), weights), float)
    # Where a curvature is infinite, as of a power at zero, the model does without.
    hessian = np.where(np.isfinite(hessian), hessian, 0)
    return unit[:, None] * hessian * unit[None, :]


def _least_quadratic(
    gradient: np.ndarray, hessian: np.ndarray, rows: np.ndarray, rooms: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`argmin g't + t'Ht/2` with `rows t >= -rooms`, and the multipliers; `H` is made convex."""
    if not len(gradient):
        return gradient, np.zeros(len(rows))
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
    # No step is longer than ten times the unit of what moves.
    least = max(1e-8 * np.abs(values).max(initial=0.0), 0.1 * np.linalg.norm(gradient), 1e-100)
    back = vectors / np.sqrt(np.maximum(np.abs(values), least))[None, :]
    return least_quadratic(gradient, back, rows, rooms)


def _rounding(place: Place) -> float:
    """What cannot be told from zero in the objective."""
    return 10 * float(place.at.eps) * max(abs(place.objective), 1e-300)
