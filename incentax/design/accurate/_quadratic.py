"""The quadratic programs of sequential quadratic steps: in a compiled search, and on the host."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...sets import DenseJacobian, LinearConstraints, Rows, solve_kkt


def quadratic_step(
    gradient: Float[Array, " p"],
    hessian: Float[Array, "p p"],
    constraints: LinearConstraints,
    theta: Float[Array, " p"],
) -> tuple[Float[Array, " p"], Float[Array, ""]]:
    """`argmin g'd + d'Bd/2` with `theta + d` in the set, and the decrease that is promised.

    Where it was not found, a point of the set that promises one; a step of zero where there is none
    either. `B` is positive definite.
    """
    # Curvatures may differ by ten orders of magnitude near a kink: each direction in its own unit,
    # all in that of the gradient, rows of length one.
    own = 1 / jnp.sqrt(jnp.diagonal(hessian))
    unit = jnp.max(jnp.abs(own * gradient))
    unit = jnp.where(unit > 0, unit, 1)
    slope, model = own * gradient / unit, own[:, None] * hessian * own[None, :]
    rows = constraints.inequality * own[None, :]
    length = jnp.linalg.norm(rows, axis=1)
    length = jnp.where(length > 0, length, 1)
    room = constraints.inequality_level - constraints.inequality @ theta
    level = constraints.equality_level - constraints.equality(theta)
    matrix = constraints.equality.dense(theta.dtype) * own[None, :]
    scaled = LinearConstraints(
        (constraints.lower - theta) / own / unit,
        (constraints.upper - theta) / own / unit,
        Rows(matrix),
        level / unit,
        rows / length[:, None],
        room / length / unit,
    )
    found, residual, _ = solve_kkt(
        lambda y: (slope + model @ y, DenseJacobian(model)),
        lambda y: slope + model @ y,
        scaled,
        jnp.zeros_like(theta),
        tol=1e-10,
        max_steps=200,
    )
    small = max(1e-8, 100 * float(jnp.finfo(theta.dtype).eps))
    beyond = scaled.inequality @ found.x - scaled.inequality_level
    missed = scaled.equality(found.x) - scaled.equality_level
    # Bounds are kept by whoever takes the step.
    inside = (jnp.max(beyond, initial=0.0) <= small) & (
        jnp.max(jnp.abs(missed), initial=0.0) <= small
    )
    step = unit * own * found.x
    promised = -(gradient @ step + step @ hessian @ step / 2)
    fine = (residual <= small) | (inside & (promised > 0))
    return jnp.where(fine, step, 0), jnp.where(fine, promised, 0)


def least_quadratic(
    gradient: np.ndarray, back: np.ndarray, rows: np.ndarray, rooms: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`argmin g't + t'Ht/2` with `rows t >= -rooms` for `H^-1 = back back'`, and the multipliers.

    Zeros where there is no such `t`. By non-negative least squares: C. L. Lawson and R. J. Hanson,
    *Solving Least Squares Problems* (1974), chapter 23.
    """
    import scipy.optimize  # noqa: PLC0415 (half a second, for kinks and constraints alone)

    image = back.T @ gradient  # t = back @ (y - image)
    if not len(rows):
        return -back @ image, np.zeros(0)
    sides = rows @ back
    level = -rooms + sides @ image
    size = np.maximum(np.linalg.norm(sides, axis=1), 1e-300)
    # In units of the largest level: what is left below is 1 / (1 + |step|^2).
    with np.errstate(over="ignore", invalid="ignore"):  # told apart below
        unit = max(np.max(np.abs(level) / size), 1e-300)
        sides, level = sides / size[:, None], level / size / unit
    system = np.concatenate([sides.T, level[None, :]])
    aim = np.zeros(len(system))
    aim[-1] = 1
    if not np.isfinite(system).all():  # numbers near the largest that there are
        return np.zeros(len(gradient)), np.zeros(len(rows))
    try:
        found, _ = scipy.optimize.nnls(system, aim)
    except RuntimeError:  # its steps are used up
        return np.zeros(len(gradient)), np.zeros(len(rows))
    left = aim - system @ found
    if not left[-1] > 1e-14:
        return np.zeros(len(gradient)), np.zeros(len(rows))
    nearest = left[:-1] * (unit / left[-1])
    return -back @ (nearest + image), found * (unit / left[-1]) / size
