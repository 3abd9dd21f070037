"""An incentive with its exact equilibrium, and all that is known of it to first order."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ..._compile import compiled
from ._b_stationarity import linearise, Linearised
from ._lower_level import LowerLevel


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
    """The exact equilibrium nearest to a strategy, if there is one that has slopes, at the point of
    the incentive set nearest to `theta`."""
    given = (np.asarray(part, level.x.dtype) for part in (theta, near))
    flat, packed, value, found = _arrived(level, *given)
    if not np.isfinite(value):
        return None
    at = jax.tree.map(lambda leaf: np.array(leaf, float if leaf.dtype != bool else bool), found)
    # A strategy held at its bound does not move, whatever the slope there: that of a power at zero
    # is infinite. Others need one.
    size = level.x.size
    held = np.concatenate([np.zeros(flat.size, bool), at.active[:size] & ~at.idle[:size]])
    for slopes in (at.slope, at.slack_slopes, at.multiplier_slopes, at.missed_slopes):
        part = slopes[..., : len(held)]
        part[~np.isfinite(part) & held] = 0
        if not np.isfinite(slopes).all():
            return None
    return Place(np.asarray(flat), np.asarray(packed), at)


@compiled
def _arrived(
    level: LowerLevel, theta: Array, near: Array
) -> tuple[Array, Array, Array, Linearised]:
    """Incentive, equilibrium, objective, and what is known to first order."""
    inside = _inside(level, theta)
    point, value = level.settle(inside, near.reshape(level.x.shape))
    packed = ravel_pytree(point)[0]
    like = jax.eval_shape(linearise, level, inside, packed)
    found = jax.lax.cond(
        jnp.isfinite(value),
        lambda: linearise(level, inside, packed),
        lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like),
    )
    return inside, packed, value, found


def nearest(level: LowerLevel, theta: np.ndarray) -> np.ndarray:
    """The nearest point of the incentive set."""
    return np.asarray(_projected(level, np.asarray(theta, level.x.dtype)), float)


def _inside(level: LowerLevel, theta: Array) -> Array:
    return ravel_pytree(level.problem.incentive_set.project(level.unravel(theta)))[0]


_projected = compiled(_inside)
