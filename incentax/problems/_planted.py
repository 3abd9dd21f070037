"""A quantal response whose best incentive is planted."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

from .. import schedules
from .._checks import require_positive
from ..design import DesignAndPlay, DesignProblem
from ..games import Game, QuantalResponse
from ..sets import Box, Simplex
from ._instance import Instance


class AffineCosts(eqx.Module):
    """`M x + B theta + c`."""

    matrix: Float[Array, "d d"]
    influence: Float[Array, "d p"]
    level: Float[Array, " d"]

    def __call__(self, theta: Float[Array, " p"], x: Float[Array, " d"]) -> Float[Array, " d"]:
        return self.matrix @ x + self.influence @ theta + self.level


class _Distance(eqx.Module):
    theta: Float[Array, " p"]
    x: Float[Array, " d"]
    weight: Float[Array, ""]

    def __call__(self, theta: Array, x: Array) -> Array:
        apart = self.weight * jnp.sum((theta - self.theta) ** 2)
        return (jnp.sum((x - self.x) ** 2) + apart) / 2


def planted_choice(eta: ArrayLike = 1.0, weight: ArrayLike = 0.5) -> Instance:
    """Two classes choose among three options each, and the best incentive is known exactly.

        F = M x + B theta + c + eta (log x + 1)
        f = ||x - x_best||^2 / 2 + weight ||theta - theta_best||^2 / 2

    `M` is monotone and not symmetric, `c` such that `x*(theta_best) = x_best`; a charge on the
    first option of each class, in [-2, 2], is best at (1/2, -1/2), where `f` is 0. Meets the
    assumptions of Liu et al. (2022), Theorem 5.5, as far as they can be met together: the game is
    strongly stable with `lambda = 1 / eta`, and Lipschitz where mixing keeps strategies away from
    the boundary.

    **Raises** `ValueError` unless `eta` and `weight` are positive.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.planted_choice()
        >>> print(ix.design(instance.problem, instance.theta0).theta.round(6))
        [ 0.5 -0.5]
    """
    eta = require_positive("planted_choice", "eta", eta)
    weight = require_positive("planted_choice", "weight", weight)
    draw = np.random.default_rng(0).normal(size=(6, 6))
    dtype = jnp.asarray(0.0).dtype
    matrix = jnp.asarray(draw @ draw.T / 6 + (draw - draw.T) / 4, dtype)
    influence = jnp.zeros((6, 2), dtype).at[0, 0].set(1).at[3, 1].set(1)
    x = jnp.asarray([0.5, 0.3, 0.2, 0.2, 0.3, 0.5], dtype)
    theta = jnp.asarray([0.5, -0.5], dtype)
    level = -(matrix @ x) - influence @ theta - eta.astype(dtype) * (jnp.log(x) + 1)
    choices = Simplex([3, 3])
    game = QuantalResponse(Game(AffineCosts(matrix, influence, level), choices), eta)
    objective = _Distance(theta, x, weight.astype(dtype))
    sizes = schedules.theorem_5_5(1.0, 0.3, 0.03)
    scheme = DesignAndPlay(optax.sgd(sizes.design), play_step=sizes.play, mixing=sizes.mixing)
    return Instance(
        problem=DesignProblem(game, objective, Box(jnp.full(2, -2.0, dtype), 2.0)),
        theta0=jnp.asarray([-1.0, 1.0], dtype),
        x0=choices.centre(),
        schemes={"design-and-play": scheme},
        description="quantal response of two classes with a planted optimum",
    )
