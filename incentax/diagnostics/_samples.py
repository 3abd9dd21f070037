"""What a certificate looks at around a design: differences of the objective, slopes of costs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from .._checks import is_inside
from .._compile import compiled
from ..design import DesignProblem, unit_of
from ..equilibrium import solve_equilibrium
from ..games import AbstractGame

# Up to this many unknowns a Jacobian's spectrum is computed, beyond it is sampled.
_DENSE = 300
DIRECTIONS = 4
_PAIRS = 32
# An equilibrium that moves by more, while the incentive moves by some 1e-5, has jumped.
_JUMP = 1e-2


class Differences(NamedTuple):
    """Of four directions: the motion of a flat `theta`, the objective's values at both points, and
    whether these lie to one side, at the motion and at twice of it: a bound is in the way."""

    motion: Float[Array, "directions p"]
    first: Float[Array, " directions"]
    second: Float[Array, " directions"]
    one_sided: Bool[Array, " directions"]

    def slope(self, here: Array) -> Float[Array, " directions"]:
        """By what the objective changes over the motion, to second order."""
        forward = (4 * self.first - 3 * here - self.second) / 2
        return jnp.where(self.one_sided, forward, (self.first - self.second) / 2)


def differences_around(
    problem: DesignProblem, theta: PyTree, x: Array, key: PRNGKeyArray
) -> Differences:
    """The objective around `theta`, solved anew; NaN where that ends in another equilibrium, which
    is no neighbour of `x`."""
    points, motion, one_sided = _around(problem, theta, key)

    def value(point: PyTree) -> Array:
        again = solve_equilibrium(problem.game, point, x, tol=1e-11, throw=False)
        far = jnp.max(jnp.abs(again.x - x)) > _JUMP * (1 + jnp.max(jnp.abs(x)))
        return jnp.where(far, jnp.nan, _objective(problem, point, again.x))

    if is_inside(problem, points, x):
        first, second = jax.lax.map(value, points).reshape(2, DIRECTIONS)
        return Differences(motion, first, second, one_sided)
    # One after another by the program that found `x`: there is none to compile for them.
    leaves, structure = jax.tree.flatten(points)
    values = [value(structure.unflatten(one)) for one in zip(*map(np.asarray, leaves))]
    first, second = jnp.asarray(np.reshape(values, (2, DIRECTIONS)))
    return Differences(motion, first, second, one_sided)


_objective = compiled(lambda problem, theta, x: problem.objective(theta, x))


@compiled
def _around(
    problem: DesignProblem, theta: PyTree, key: PRNGKeyArray
) -> tuple[PyTree, Array, Array]:
    flat, unravel = ravel_pytree(theta)
    incentives = problem.incentive_set.constraints(theta)
    # A box may be wide, and the objective curved all the same.
    unit = jnp.minimum(unit_of(incentives, flat), jnp.maximum(1, jnp.max(jnp.abs(flat))))
    key_directions = jax.random.split(key, 4)[0]
    directions = jax.random.normal(key_directions, (DIRECTIONS, flat.size), flat.dtype)
    length = float(jnp.finfo(flat.dtype).eps) ** (1 / 3)

    def inside(point: Array) -> Array:
        return ravel_pytree(problem.incentive_set.project(unravel(point)))[0]

    def both(direction: Array) -> tuple[Array, Array, Array, Array]:
        step = length * unit * direction / jnp.linalg.norm(direction)
        above, below = inside(flat + step), inside(flat - step)
        apart = jnp.max(jnp.abs(above + below - 2 * flat) / unit)
        one_sided = apart > 1e-3 * length
        # Of two sides the one with more room.
        further = jnp.linalg.norm(above - flat) >= jnp.linalg.norm(below - flat)
        motion = jnp.where(one_sided & ~further, below, above) - flat
        first = flat + motion
        second = jnp.where(one_sided, inside(flat + 2 * motion), below)
        return first, second, motion, one_sided

    first, second, motion, one_sided = jax.vmap(both)(directions)
    return jax.vmap(unravel)(jnp.concatenate([first, second])), motion, one_sided


def constants_near(
    game: AbstractGame, theta: PyTree, x: Array, key: PRNGKeyArray
) -> tuple[Array, Array]:
    """Least slope of `<F(a) - F(b), a - b>` and largest of `||F(a) - F(b)||`, where looked.

    In the game's own weights where it knows some.
    """
    strategies = game.strategies(theta)
    weights = jnp.ones_like(x) if game.weights is None else game.weights.astype(x.dtype)

    def slopes(key: PRNGKeyArray) -> tuple[Array, Array]:
        width = 0.1 * (1 + jnp.max(jnp.abs(x)))
        draws = width * jax.random.normal(key, (2, *x.shape), x.dtype)
        a, b = strategies.project(x + draws[0]), strategies.project(x + draws[1])
        apart, differ = a - b, game.operator(theta, a) - game.operator(theta, b)
        differ = differ * weights
        size = jnp.sum(apart**2)
        fine = jnp.all(jnp.isfinite(differ)) & (size > 0)
        size = jnp.where(fine, size, 1)
        low = jnp.where(fine, jnp.sum(apart * jnp.where(fine, differ, 0)) / size, jnp.inf)
        high = jnp.where(fine, jnp.sqrt(jnp.sum(jnp.where(fine, differ, 0) ** 2) / size), 0)
        return low, high

    low, high = jax.lax.map(slopes, jax.random.split(key, _PAIRS))
    least, largest = jnp.min(low), jnp.max(high)
    if x.size <= _DENSE:
        matrix = jax.jacfwd(lambda x: weights * game.operator(theta, x))(x)
        matrix = matrix.reshape(x.size, x.size)
        finite = jnp.all(jnp.isfinite(matrix))
        # Only motions that stay on the equalities count.
        rows = strategies.constraints(x).equality.dense(x.dtype)
        along = jnp.eye(x.size, dtype=x.dtype) - jnp.linalg.pinv(rows) @ rows
        matrix = along @ jnp.where(finite, matrix, 0) @ along
        norm = jnp.linalg.norm(matrix, 2)
        across = (norm + 1) * (jnp.eye(x.size, dtype=x.dtype) - along)
        spectrum = jnp.linalg.eigvalsh((matrix + matrix.T) / 2 + across)
        least = jnp.where(finite, jnp.minimum(least, spectrum[0]), least)
        largest = jnp.where(finite, jnp.maximum(largest, norm), largest)
    return least, largest
