"""Gradients of objective and constraints, and the units in which they count beside one another."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..._compile import compiled
from ...sensitivity import Implicit
from .._constraint import Limits, limits_of
from .._problem import DesignProblem
from ..accurate import unit_of

# What a violation of one unit costs to begin with, in parts of what the objective changes by.
WEIGHT = 10.0
# Units of rounding that are not told from none.
_ROUNDED = 100


class Gradients(NamedTuple):
    """Objective and constraints at an equilibrium, their gradients in a flat incentive, and parts.

    `parts`: what the objective and each constraint would change by over the width of the
    incentives and the size of the strategies, if the effects of both added up; `noise`: by what
    rounding of the strategies; `degenerate`: constraints of the agents without a multiplier.
    """

    objective: Float[Array, ""]
    gradient: Float[Array, " p"]
    limits: Limits
    rows: Float[Array, "rows p"]
    parts: Float[Array, " 1+rows"]
    noise: Float[Array, " 1+rows"]
    degenerate: Float[Array, ""]


def gradients_of(problem: DesignProblem, theta: PyTree, x: Array) -> Gradients:
    """By one adjoint solve each, one after another: side by side each would do the work of every
    branch of every other, the solvers that no system needs among them."""

    def values(theta: PyTree, x: Array) -> Array:
        at = limits_of(problem.constraints, theta, x)
        return jnp.concatenate([problem.objective(theta, x)[None], at.value])

    value, pull = jax.vjp(values, theta, x)
    width = unit_of(problem.incentive_set.constraints(theta), ravel_pytree(theta)[0])
    largest = jnp.max(jnp.abs(x))
    rounding = _ROUNDED * jnp.finfo(x.dtype).eps * (1 + largest)
    # Strategies that are nothing but rounding have no size.
    size = jnp.where(largest > rounding, jnp.abs(x) + 1e-3 * largest, 0)

    def gradient(row: Array) -> tuple[Array, Array, Array, Array]:
        direct, through = pull(row)
        pulled = Implicit().pullback(problem.game, theta, x, through)
        whole = ravel_pytree(jax.tree.map(jnp.add, direct, pulled.theta))[0]
        parts = jnp.abs(ravel_pytree(direct)[0]) @ width + jnp.sum(jnp.abs(through * size))
        return whole, parts, rounding * jnp.sum(jnp.abs(through)), pulled.degenerate

    rows = jnp.eye(value.size, dtype=value.dtype)
    slopes, parts, noise, degenerate = jax.lax.map(gradient, rows)
    limits = limits_of(problem.constraints, theta, x)
    slopes = slopes.astype(width.dtype)
    return Gradients(value[0], slopes[0], limits, slopes[1:], parts, noise, jnp.max(degenerate))


def units_from(found: Any, width: Any) -> Any:
    """By how much the objective and each constraint change over the width of the incentives; where
    a gradient is nothing, what its parts would change by. In numpy, if that is what is given."""
    xp: Any = np if isinstance(found.gradient, np.ndarray) else jnp
    slopes = xp.concatenate([found.gradient[None], found.rows])
    change = xp.abs(slopes) @ width
    fine = xp.isfinite(change) & (change > 1e-9 * found.parts)
    units = xp.where(fine, change, found.parts)
    return xp.where(xp.isfinite(units) & (units > 0), units, 1)


def closeness(found: Any, width: Any, dtype: jnp.dtype) -> Any:
    """How far from a bound a constraint counts as on it: what rounding of the incentives makes, or
    of the strategies. In numpy, if that is what is given."""
    xp: Any = np if isinstance(found.rows, np.ndarray) else jnp
    eps = _ROUNDED * float(jnp.finfo(dtype).eps)
    moved = xp.minimum(xp.abs(found.rows) @ width, found.parts[1:])
    moved = xp.where(xp.isfinite(moved), moved, 0)
    return max(1e-7, eps) * moved + eps * xp.abs(found.limits.value) + found.noise[1:]


class Scales(NamedTuple):
    """At an equilibrium: `units` of the constraints, `change` of the objective, `close` to bounds,
    and the largest violation in parts of that."""

    units: Float[Array, " rows"]
    change: Float[Array, ""]
    close: Float[Array, " rows"]
    violated: Float[Array, ""]


def scales_of(problem: DesignProblem, theta: PyTree, x: Array) -> Scales:
    """By gradients there."""
    found = gradients_of(problem, theta, x)
    width = unit_of(problem.incentive_set.constraints(theta), ravel_pytree(theta)[0])
    units, close = units_from(found, width), closeness(found, width, x.dtype)
    tiny = float(jnp.finfo(close.dtype).tiny)
    violated = jnp.max(found.limits.violation / jnp.maximum(close, tiny))
    return Scales(units[1:], units[0], close, violated)


scales_at = compiled(scales_of)
