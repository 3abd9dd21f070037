"""An incentive with its exact equilibrium, and all that is known of it to first order."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ..._compile import compiled
from ._b_stationarity import linearise
from ._lower_level import LowerLevel

# An objective below this that still falls has no least value, whatever its unit.
_BOTTOMLESS = -1e30


def falls_on(objective: Any, slope: Any, theta: Any) -> Any:
    """Whether going further by a share of the way so far would change the objective by a share."""
    return slope * abs(theta).max(initial=0.0) > 1e-6 * abs(objective)


def is_bottomless(objective: Any, slope: Any, theta: Any) -> Any:
    """Whether an objective is as low as none with a least value, and falls on."""
    return (objective < _BOTTOMLESS) & falls_on(objective, slope, theta)


@dataclass
class Place:
    """An incentive, its equilibrium with multipliers, and what is known of it to first order.

    `at` is a [`Linearised`][] whose arrays are numpy's.
    """

    theta: np.ndarray
    packed: np.ndarray
    at: Any

    @property
    def objective(self) -> float:
        """The designer's."""
        return float(self.at.objective)


def arrive(level: LowerLevel, theta: np.ndarray, near: np.ndarray) -> Place | None:
    """The exact equilibrium at `theta` nearest to a strategy, if there is one that has slopes."""
    flat = np.asarray(theta, level.x.dtype)
    packed, value = _settled(level, flat, np.asarray(near, level.x.dtype))
    if not np.isfinite(value):
        return None
    found = linearise(level, flat, packed)
    at = jax.tree.map(lambda leaf: np.array(leaf, float if leaf.dtype != bool else bool), found)
    # A strategy held at its bound does not move, whatever the slope there: that of a power at zero
    # is infinite. Others need one.
    size = level.x.size
    held = np.concatenate([np.zeros(len(flat), bool), at.active[:size] & ~at.idle[:size]])
    for slopes in (at.slope, at.slack_slopes, at.multiplier_slopes, at.missed_slopes):
        part = slopes[..., : len(held)]
        part[~np.isfinite(part) & held] = 0
        if not np.isfinite(slopes).all():
            return None
    return Place(flat, np.asarray(packed), at)


@compiled
def _settled(level: LowerLevel, theta: Array, near: Array) -> tuple[Array, Array]:
    point, value = level.settle(theta, near.reshape(level.x.shape))
    return ravel_pytree(point)[0], value


def nearest(level: LowerLevel, theta: np.ndarray) -> np.ndarray:
    """The nearest point of the incentive set."""
    return np.asarray(_projected(level, np.asarray(theta, level.x.dtype)), float)


@compiled
def _projected(level: LowerLevel, theta: Array) -> Array:
    return ravel_pytree(level.problem.incentive_set.project(level.unravel(theta)))[0]
