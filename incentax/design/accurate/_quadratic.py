"""The quadratic program of a sequential quadratic step."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...sets import DenseJacobian, LinearConstraints, Rows, solve_kkt


def quadratic_step(
    gradient: Float[Array, " p"],
    hessian: Float[Array, "p p"],
    constraints: LinearConstraints,
    theta: Float[Array, " p"],
) -> tuple[Float[Array, " p"], Float[Array, ""]]:
    """`argmin g'd + d'Bd/2` with `theta + d` in the set, and the decrease that is promised.

    A step of zero where none was found. `B` is positive definite.
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
        max_steps=80,
    )
    solved = residual <= max(1e-8, 100 * float(jnp.finfo(theta.dtype).eps))
    step = jnp.where(solved, unit * own * found.x, 0)
    return step, -(gradient @ step + step @ hessian @ step / 2)
