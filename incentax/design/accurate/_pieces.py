"""Sequential quadratic steps in `(theta, x, y, z)` on a piece, where `x` need not be unique.

On a piece it is chosen which side of every pair is zero; the others stay positive. Every step ends
at an exact equilibrium. Where no step on a piece is of use the linear program over the pairs with
both sides zero decides whether the point is B-stationary, and names the next piece if it is not.
Luo, Pang, Ralph (1996), chapter 6; S. Leyffer and T. Munson, *Optimization Methods and Software* 22
(2007). On the host: a few compiled functions of the problem, the rest is numpy and scipy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from ...sets import LinearConstraints
from .._looks import is_enough, stepped
from ._b_stationarity import decide, Descent
from ._lower_level import LowerLevel
from ._model import is_convex, quadratic_step_on
from ._place import arrive, Place
from ._tangent import Equations
from ._unbounded import is_bottomless

# Pieces that are walked to, and lengths of a step on one, at most.
_PIECES, _LENGTHS = 60, 8
# Steps over which the pace of a walk is measured.
_PACE = 40
# Of objectives, relative, and of unknowns, in their units.
_SAME, _NEAR = 1e-9, 1e-7
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


def walk(
    level: LowerLevel,
    place: Place,
    incentives: LinearConstraints,
    most: int,
    before: Sequence[Walk] = (),
) -> Walk:
    """Downhill from piece to piece in at most so many steps, until no neighbour descends.

    Then pieces that are no neighbours are tried: every pair in turn is forced to its other side.
    `before`: other walks; one that will not come so far at its pace gives up, and one that comes
    to where another ended, of which it is proved that no direction descends, ends there too.
    """
    known = min((other.place.objective for other in before), default=np.inf)
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

    free = not np.isfinite([incentives.lower, incentives.upper]).all()

    def may() -> bool:
        return len(rows) < most and not is_enough()

    for _ in range(_PIECES):
        last = False
        while may() and not last:
            if _is_behind(rows, most, known):
                return Walk(place, descent, rows)
            if free and rows and is_bottomless(place.objective, rows[-1][1], place.theta):
                return Walk(place, Descent("no", np.nan), rows)
            reached, last = _step(level, place, active, incentives)
            if reached is None:
                break
            active, place = move(reached, active), reached
        for other in before:
            if other.descent.verdict == "yes" and _is_at(place, other.place):
                return other
        descent = decide(place.at, incentives, place.theta)
        reached, piece = None, active
        if may() and descent.verdict == "no":
            assert descent.active is not None
            reached, piece = along(level, place, descent, incentives), descent.active
        if reached is None and descent.verdict == "no" and may():
            descent = unresolved(level, place, active, incentives, descent)
        if reached is None and may():
            reached, piece = _onto_kinks(level, place, active), active
        # Another walk has ended at this value, and forced pairs as far as its budget went.
        again = np.isfinite(known) and abs(place.objective - known) <= _SAME * abs(known)
        if reached is None and may() and not again:
            reached, piece = _forced(level, place, active, incentives, trials)
        if reached is None:
            break
        active, place = move(reached, piece), reached
    else:
        descent = decide(place.at, incentives, place.theta)
    return Walk(place, descent, rows)


def _is_at(place: Place, other: Place) -> bool:
    """Whether both are one point but for what steps leave."""
    apart = np.concatenate([place.theta - other.theta, place.packed - other.packed])
    least = max(_SAME * abs(other.objective), worthless(other))
    near = np.max(np.abs(apart) / other.at.unit, initial=0.0) <= max(_NEAR, 10 * other.at.eps)
    return bool(near and abs(place.objective - other.objective) <= least)


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
    promised = [quadratic_step_on(level, place, piece, incentives).promised for piece in pieces]
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
    reached = arrive(level, place.theta + step[:p], place.packed[:size] + step[p : p + size])
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
    then the nearest ones, but where a convex model promises nothing there. Pairs that were forced
    wait for the others.
    """
    at, p, size = place.at, len(place.theta), level.x.size
    sides = at.two_sided & ~at.fixed
    if not sides.any():
        return None, active
    _, promised, gain = quadratic_step_on(level, place, active, incentives)
    promising = gain > 1e-12 * np.abs(gain).max(initial=0.0)
    gain = np.where(gain > 1e-6 * np.abs(gain).max(initial=0.0), gain, 0)
    far = np.where(active, at.multiplier, at.slack) / (1 + np.abs(at.multiplier).max(initial=0.0))
    if not (promised <= worthless(place) and is_convex(level, place)):
        promising[:] = True
    pairs = np.flatnonzero(sides & promising)
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
        direction, promised, _ = quadratic_step_on(level, place, piece, incentives)
        if not promised > 10 * _rounding(place):
            continue
        near = place.packed[:size] + direction[p : p + size]
        reached = arrive(level, place.theta + direction[:p], near)
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
        near = place.packed[: level.x.size] + length * d[p : p + level.x.size]
        reached = arrive(level, place.theta + length * d[:p], near)
        least = max(-0.1 * length * slope, _rounding(place))
        if reached is not None and reached.objective < place.objective - least:
            return reached
    return None


def _step(
    level: LowerLevel, place: Place, active: np.ndarray, incentives: LinearConstraints
) -> tuple[Place | None, bool]:
    """The next equilibrium on the piece, `None` where the piece offers nothing; whether it is the
    last one: so near to the optimum that the objective cannot tell."""
    direction, promised, _ = quadratic_step_on(level, place, active, incentives)
    p, size = len(place.theta), level.x.size
    last = not promised > 10 * _rounding(place)
    for length in 0.3 ** np.arange(1 if last else _LENGTHS):
        near = place.packed[:size] + length * direction[p : p + size]
        reached = arrive(level, place.theta + length * direction[:p], near)
        least = -_rounding(place) if last else 1e-3 * length * promised
        if reached is not None and reached.objective < place.objective - least:
            return reached, last
    return None, last


def _rounding(place: Place) -> float:
    """What cannot be told from zero in the objective."""
    return 10 * float(place.at.eps) * max(abs(place.objective), 1e-300)
