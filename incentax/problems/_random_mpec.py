"""Random problems whose best answer is planted, degenerate pairs among it."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .._checks import require_count
from ..design import DesignAndPlay, DesignProblem
from ..games import Game
from ..sets import Box, NonNegative
from ._instance import Instance
from ._planted import AffineCosts


class _Bowl(eqx.Module):
    """`1 + a·(theta - theta_best) + b·(x - x_best)` and half the squared distances."""

    theta: Float[Array, " p"]
    x: Float[Array, " d"]
    a: Float[Array, " p"]
    b: Float[Array, " d"]

    def __call__(self, theta: Float[Array, " p"], x: Float[Array, " d"]) -> Array:
        moved, went = theta - self.theta, x - self.x
        linear = self.a @ moved + self.b @ went
        return 1 + linear + (jnp.sum(moved**2) + jnp.sum(went**2)) / 2


def random_mpec(
    incentives: int, strategies: int, *, degenerate: int | None = None, seed: int = 0
) -> Instance:
    """A random problem with linear complementarity below, whose global optimum has the value 1.

        F = M x + B theta + c,   x >= 0
        f = 1 + a·(theta - theta_best) + b·(x - x_best) + half the squared distances

    `M` is positive definite and, beyond one strategy, not symmetric. At the planted optimum
    `degenerate` strategies have `x_i = F_i = 0`; of the others about half are positive. `a` and
    `b` make `∇f = sum_i mu_i ∇x_i + sum_i nu_i ∇F_i`, `mu, nu >= 0` on what is zero. So the convex
    `f` is least there among all `x >= 0` with `F >= 0`, complementary or not, and all the more
    among equilibria. There may be other local optima. In the manner of QPECgen (H. Jiang and D.
    Ralph, *Computational Optimization and Applications* 13 (1999) 25-59).

    **Arguments:**

    - `incentives`, `strategies`: how many; incentives lie in [-5, 5].
    - `degenerate`: how many pairs are zero on both sides, by default a fifth of them.
    - `seed`: of numpy's generator.

    **Raises** `ValueError` for counts that are not positive, and more degenerate pairs than
    strategies.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.random_mpec(2, 6, seed=1)
        >>> print(ix.design(instance.problem, instance.theta0).objective.round(6))
        1.0
    """
    p = require_count("random_mpec", "incentives", incentives)
    d = require_count("random_mpec", "strategies", strategies)
    both = max(1, d // 5) if degenerate is None else degenerate
    both = require_count("random_mpec", "degenerate", both, least=0)
    if both > d:
        raise ValueError(
            f"`random_mpec(degenerate=...)` needs a number from 0 to {d}, the strategies, got "
            f"{degenerate}"
        )
    cost, bowl = planted(p, d, both, require_count("random_mpec", "seed", seed, least=0))
    dtype = cost.level.dtype
    problem = DesignProblem(Game(cost, NonNegative((d,))), bowl, Box(jnp.full(p, -5.0, dtype), 5.0))
    step = float(0.5 / np.linalg.norm(np.asarray(cost.matrix), 2) ** 2)
    return Instance(
        problem=problem,
        theta0=jnp.zeros(p, dtype),
        x0=jnp.zeros(d, dtype),
        schemes={"design-and-play": DesignAndPlay(optax.adam(0.02), play_step=step)},
        description=f"{p} incentives over {d} random pairs, {both} of them degenerate",
    )


def planted(p: int, d: int, both: int, seed: int) -> tuple[AffineCosts, _Bowl]:
    """The agents' costs and the objective, which knows the planted optimum."""
    random = np.random.default_rng(seed)
    half, skew = random.normal(size=(2, d, d))
    matrix = half @ half.T / d + 0.5 * np.eye(d) + (skew - skew.T) / 2 / np.sqrt(d)
    influence = random.normal(size=(d, p))
    theta = random.uniform(-1, 1, p)
    side = random.permutation(np.arange(d) % 2)  # of those that are not degenerate
    side[random.permutation(d)[:both]] = 2
    x = np.where(side == 0, random.uniform(0.5, 1.5, d), 0)
    force = np.where(side == 1, random.uniform(0.5, 1.5, d), 0)
    mu = np.where(x == 0, random.uniform(0, 1, d), 0)
    nu = np.where(force == 0, random.uniform(0, 1, d), 0)
    level = force - matrix @ x - influence @ theta
    numbers = matrix, influence, level, theta, x, nu @ influence, mu + nu @ matrix
    dtype = jnp.asarray(0.0).dtype
    matrix, influence, level, theta, x, a, b = (jnp.asarray(part, dtype) for part in numbers)
    return AffineCosts(matrix, influence, level), _Bowl(theta, x, a, b)
