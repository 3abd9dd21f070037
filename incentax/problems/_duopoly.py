"""A small game whose social cost has a kink and two local minima."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import require_positive
from ..design import DesignProblem, ZerothOrderRegulator
from ..games import AtomicGame
from ..schedules import power
from ..sets import Box
from ._instance import Instance


class _Cost(eqx.Module):
    kappa: Float[Array, ""]

    def __call__(self, theta: Float[Array, " 1"], x: Float[Array, " 2"]) -> Float[Array, " 2"]:
        return x**2 / 2 + x[0] * x[1] / 2 - theta * x + self.kappa * theta**2 / 2


def regulated_duopoly(kappa: ArrayLike = 0.45) -> Instance:
    """Two firms in [0, 1] and a subsidy in [-1, 3] that costs `kappa theta^2 / 2` each.

        J_i = x_i^2 / 2 + x_1 x_2 / 2 - theta x_i + kappa theta^2 / 2 , x* = clip(2 theta / 3, 0, 1)

    A stand-in for Du, Meng, Hu (2025), Example 1. With `kappa = 0` the social cost has a kink at
    3/2, is concave before it, and least, -4, at the bound 3. With `kappa = .45` there is a local
    minimum 0 at 0 and the global one, -2/9, at 20/9.

    **Raises** `ValueError` for a negative `kappa`.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.regulated_duopoly()
        >>> solution = ix.design(instance.problem, instance.theta0)
        >>> print(solution.theta.round(4), solution.objective.round(4))
        [2.2222] -0.2222
    """
    kappa = require_positive("regulated_duopoly", "kappa", kappa, strictly=False)
    game = AtomicGame(_Cost(kappa), Box(jnp.zeros(2), 1.0))
    problem = DesignProblem(game, None, Box(jnp.full(1, -1.0), 3.0))
    regulator = ZerothOrderRegulator(smoothing=0.05, step_size=power(0.09, 0.25))
    return Instance(
        problem=problem,
        theta0=jnp.zeros(1),
        x0=jnp.zeros(2),
        schemes={"regulator": regulator},
        description=f"regulated duopoly, kappa = {float(kappa):g}",
    )
