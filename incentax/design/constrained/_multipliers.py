"""Shadow prices: what makes the Lagrangian of a constrained design level at its end.

    ∇f + sum of mu ∇c + (incentive set, equilibrium conditions) = 0,   d f_* / d bound = -mu

with `mu >= 0` at an upper bound and `mu <= 0` at a lower one.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._compile import compiled
from ..._results import ENDINGS
from ...sets import LinearConstraints
from .._constraint import Limits, limits_of
from ..accurate import (
    arrive,
    Equations,
    gradient_on,
    LowerLevel,
    nearest,
    Place,
)
from ._sequential import At
from ._units import closeness, units_from

# What is left of a gradient, in its parts, that counts as none.
_NOTHING = 1e-6


@dataclass
class ShadowPrices:
    """Multipliers, a number a row of the constraints, and what they make of the Lagrangian.

    `stationarity`: its gradient, projected on the incentive set; `zero`: whether that is nothing,
    relative to its parts. `kinks`: pairs of the agents with both sides zero; `bounds`: whether the
    incentive set bears something.
    """

    mu: np.ndarray
    stationarity: float
    zero: bool
    kinks: int
    bounds: bool

    @property
    def at_rest(self) -> ENDINGS:
        """The ending of a design that is stationary so."""
        if self.kinks:
            return ENDINGS.kink
        return ENDINGS.at_bounds if self.bounds else ENDINGS.stationary


@compiled
def _limits(level: LowerLevel, theta: Array, packed: Array) -> tuple[Limits, Array]:
    def at(both: Float[Array, " u"]) -> Limits:
        x = level.unpack(both[theta.size :]).x.reshape(level.x.shape)
        return limits_of(level.problem.constraints, level.unravel(both[: theta.size]), x)

    both = jnp.concatenate([theta, packed])
    return at(both), jax.jacrev(lambda both: at(both).value)(both)


def shadow_prices(
    level: LowerLevel,
    theta: np.ndarray,
    near: np.ndarray,
    incentives: LinearConstraints,
    scales: Any,
    *,
    of_violation: bool = False,
) -> ShadowPrices | None:
    """By non-negative least squares over what binds; `None` where there is no equilibrium.

    `scales`: those of [`scales_of`][]. `of_violation`: for the sum of all violations, each in its
    unit, in place of the objective.
    """
    place = arrive(level, theta, near)
    if place is None:
        return None
    at, p = place.at, len(place.theta)
    both: Any = jax.tree.map(np.asarray, _limits(level, place.theta, place.packed))
    limits, rows = both
    rows = np.where(np.isfinite(rows), rows, 0)
    close, unit = 10 * np.asarray(scales.close), np.asarray(scales.units)
    binding, violated = _binding(limits, close), np.zeros(len(unit))
    if of_violation:
        binding, violated = _and_violated(limits, close, binding, unit)
        at = eqx.tree_at(lambda a: a.slope, at, violated @ rows)
    walls = _incentive_walls(at.unit, place.theta, incentives)
    pushing, size = _pushing(rows * at.unit, binding)
    found, left = np.zeros(0), 0.0
    for together in (False, True):
        free, one_sided = _agents(at, incentives, p, together)
        tangent = Equations(free, float(at.eps)).basis()
        columns = np.concatenate([pushing, walls, one_sided]) @ tangent
        found, left = _nonnegative(columns, at.slope * at.unit @ tangent)
        if left <= 1e-5:
            break
    mu, borne = _by_row(found[: len(pushing)] / size, binding), found[len(pushing) :][: len(walls)]
    whole = eqx.tree_at(lambda a: a.slope, at, at.slope + mu @ rows)
    slope = gradient_on(Place(place.theta, place.packed, whole), at.active)
    parts = np.abs(at.slope * at.unit).sum() + np.abs(mu) @ np.abs(rows) @ at.unit
    kinks = int(at.degenerate.sum())
    ends = (borne, parts)
    return _priced(level, place.theta, slope, mu + violated, ends, kinks=kinks, zero=left <= 1e-5)


def prices_by_gradients(
    level: LowerLevel,
    at: At,
    incentives: LinearConstraints,
    width: np.ndarray,
    *,
    of_violation: bool = False,
) -> ShadowPrices:
    """The same from gradients in the incentive."""
    theta, close = at.theta, 10 * np.asarray(closeness(at, width, level.x.dtype), float)
    unit = np.asarray(units_from(at, width), float)[1:]
    binding, violated = _binding(at.limits, close), np.zeros(len(unit))
    if of_violation:
        binding, violated = _and_violated(at.limits, close, binding, unit)
        at = at._replace(gradient=violated @ at.rows)
    pushing, size = _pushing(at.rows * width, binding)
    walls = _incentive_walls(width, theta, incentives)
    equal: Any = incentives.equality.dense(np.dtype(float)) * width
    tangent = Equations(equal, 1e-16).basis() if len(equal) else np.eye(len(theta))
    columns, slope = np.concatenate([pushing, walls]) @ tangent, at.gradient * width @ tangent
    found, left = _nonnegative(columns, slope)
    mu = _by_row(found[: len(pushing)] / size, binding)
    parts = at.parts[0] + np.abs(mu) @ at.parts[1:]
    # Of a gradient that is nothing itself, what is left of it is nothing.
    nothing = max(_NOTHING, 100 * float(jnp.finfo(level.x.dtype).eps))
    zero = left * np.linalg.norm(slope) <= nothing * parts
    slope, borne = at.gradient + mu @ at.rows, (found[len(pushing) :], parts)
    return _priced(level, theta, slope, mu + violated, borne, kinks=at.degenerate, zero=bool(zero))


def _priced(
    level: LowerLevel,
    theta: np.ndarray,
    slope: np.ndarray,
    mu: np.ndarray,
    borne: tuple[np.ndarray, float],
    *,
    kinks: int,
    zero: bool,
) -> ShadowPrices:
    left = float(np.linalg.norm(theta - nearest(level, theta - slope)))
    walls, parts = borne
    return ShadowPrices(mu, left, zero, kinks, bool(np.any(walls > 1e-6 * parts)))


def _binding(limits: Any, close: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows at their upper and at their lower bound."""
    return (
        limits.value >= limits.upper - close,
        limits.value <= limits.lower + close,
    )


def _and_violated(
    limits: Any, close: np.ndarray, binding: tuple[np.ndarray, np.ndarray], unit: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """What binds without being violated, and the slope of the sum of violations in the values."""
    over = limits.value > limits.upper + close
    under = limits.value < limits.lower - close
    return (binding[0] & ~over, binding[1] & ~under), (over * 1.0 - under) / unit


def _pushing(
    rows: np.ndarray, binding: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Outward slopes of what binds, of size one, and their sizes."""
    outward = np.concatenate([rows[binding[0]], -rows[binding[1]]])
    size = np.maximum(np.abs(outward).max(axis=1, initial=0.0), 1e-300)
    return outward / size[:, None], size


def _by_row(found: np.ndarray, binding: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    upper, lower = binding
    mu, count = np.zeros(len(upper)), int(upper.sum())
    mu[upper] += found[:count]
    mu[lower] -= found[count:]
    return mu


def _agents(
    at: Any, incentives: LinearConstraints, p: int, together: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of what the agents keep to: as equations, and those of kinks one-sided (or, `together`,
    as equations too)."""
    own = np.where(at.active[:, None], at.slack_slopes, at.multiplier_slopes)
    at_kinks = [at.slack_slopes[at.degenerate], at.multiplier_slopes[at.degenerate]]
    equal = np.zeros((len(incentives.equality_level), len(at.unit)))
    equal[:, :p] = incentives.equality.dense(np.dtype(float))
    rows = [own[~at.degenerate], at.missed_slopes, equal, *(at_kinks if together else [])]
    one_sided = np.concatenate(at_kinks) if not together else np.zeros((0, len(at.unit)))
    return np.concatenate(rows) * at.unit, -one_sided * at.unit


def _incentive_walls(
    unit: np.ndarray, theta: np.ndarray, incentives: LinearConstraints
) -> np.ndarray:
    """Outward rows of what binds of the incentive set, in these units of `u`."""
    p, own = len(theta), unit[: len(theta)]
    eye = np.eye(p, len(unit))
    room = incentives.inequality_level - incentives.inequality @ theta
    near = room <= 1e-8 * np.maximum(np.abs(incentives.inequality) @ own, 1e-300)
    more = np.zeros((int(near.sum()), len(unit)))
    more[:, :p] = incentives.inequality[near] * own
    low = theta - incentives.lower <= 1e-8 * own
    high = incentives.upper - theta <= 1e-8 * own
    return np.concatenate([-eye[low], eye[high], more])


def _nonnegative(columns: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, float]:
    """`w >= 0` with `slope + columns' w = 0` as nearly as can be, and what is left, relative."""
    import scipy.optimize  # noqa: PLC0415 (half a second, for constraints alone)

    size = max(float(np.linalg.norm(slope)), 1e-300)
    if not len(columns) or not len(slope):
        return np.zeros(len(columns)), float(np.linalg.norm(slope)) / size
    found, left = scipy.optimize.nnls(columns.T, -slope / size, maxiter=30 * columns.shape[0] + 100)
    return found * size, float(left)
