"""The constants of Du, Meng, Hu (2025), and the step sizes that they allow the regulator."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._checks import require_count
from .._compile import compiled
from ..design import DesignProblem
from ..games import AtomicGame
from ..sets import Simplex
from ._asked import region
from ._design_constants import incentive_effect
from ._estimate import Estimate, exact, largest, least, UNKNOWN
from ._matrices import least_slope
from ._quadratic import DENSE_HESSIAN
from ._sampled import sample, Sampled
from ._spectrum import lowest_slope


class RegulatorConstants(NamedTuple):
    """Answer of [`regulator_constants`][]; each an [`Estimate`][], in Euclidean norms.

    - `players`, `incentives`: `N` (1 where the objective is not the sum of the players' costs) and
      `p`.
    - `strong_monotonicity`, `lipschitz`: `mu` and `L` of the operator in `x`.
    - `incentive_lipschitz`: `l`, of the operator in `theta`.
    - `cost_by_strategy`, `cost_by_incentive`: `L_x` and `L_theta`, of each player's cost.
    """

    players: int
    incentives: int
    strong_monotonicity: Estimate
    lipschitz: Estimate
    incentive_lipschitz: Estimate
    cost_by_strategy: Estimate
    cost_by_incentive: Estimate

    @property
    def social_lipschitz(self) -> Estimate:
        """`L0 = N (L_x l / mu + L_theta)`, of the social cost in `theta`: Lemma 5."""
        ends = []
        for end in ("low", "high"):
            steep = [
                getattr(part, end)
                for part in (
                    self.cost_by_strategy,
                    self.incentive_lipschitz,
                    self.cost_by_incentive,
                )
            ]
            mu = self.strong_monotonicity.high if end == "low" else self.strong_monotonicity.low
            through = 0.0 if 0 in steep[:2] else steep[0] * steep[1]
            through = 0.0 if through == 0 else through / mu if mu > 0 else math.inf
            ends.append(self.players * (through + steep[2]))
        return Estimate(*ends)

    @property
    def play_step(self) -> Estimate:
        """`mu / L^2`, the best step of projected play with full information."""
        mu, steep = self.strong_monotonicity, self.lipschitz
        high = (
            0.0 if math.isinf(steep.low) else mu.high / steep.low**2 if steep.low > 0 else math.inf
        )
        low = 0.0 if math.isinf(steep.high) else mu.low / steep.high**2
        return Estimate(max(low, 0.0), max(high, 0.0))

    def step_bound(self, smoothing: float) -> Estimate:
        """`delta / (p L0 + 1)`: below it the smoothed cost with its envelope falls on average.

        The gradient of the cost smoothed over a ball of radius `delta` is `p L0 / delta`-Lipschitz,
        that of the envelope `1 / delta`.
        """
        slope = self.social_lipschitz
        ends = [smoothing / (self.incentives * end + 1) for end in (slope.high, slope.low)]
        return Estimate(*ends)


def regulator_constants(
    problem: DesignProblem,
    theta: PyTree = None,
    *,
    samples: int = 16,
    key: PRNGKeyArray | None = None,
) -> RegulatorConstants:
    """The constants of Assumptions 1 and 2 of Du, Meng, Hu (2025), and `L0` of their Lemma 5.

    `mu`, `L` and `l` are exact where the operator has one Jacobian at all samples. `L_x` and
    `L_theta` of quadratic costs lie between what is met at samples and what intervals allow; `L0`
    is a bound, seldom attained. Where the objective is not the sum of the players' costs it takes
    their place, as that of one player.

    **Arguments:** `problem`, `theta`, `samples` and `key` as in [`design_constants`][].

    !!! example

        >>> import incentax as ix
        >>> problem = ix.problems.regulated_duopoly(0.45).problem
        >>> constants = ix.assumptions.regulator_constants(problem)
        >>> print(constants.strong_monotonicity, "and", constants.lipschitz)
        0.5 (exact) and 1.5 (exact)
    """
    samples = require_count("regulator_constants", "samples", samples)
    theta, x = region("regulator_constants", problem, theta)
    key = jax.random.key(0) if key is None else key
    seen = sample(problem.game, problem.incentive_set, theta, x, samples, key=key)
    return regulated(problem, theta, x, seen)


def regulated(problem: DesignProblem, theta: PyTree, x: Array, seen: Sampled) -> RegulatorConstants:
    """[`regulator_constants`][] of what was sampled."""
    by_strategy, by_incentive, players = _costs(problem, theta, x, seen)
    if seen.by_x is None:
        mu, steep = UNKNOWN, Estimate(0.0, math.inf)
        if seen.entropic:
            steep = exact(math.inf)
            # At samples; an entropy's slope is at least eta / total.
            monotone = lowest_slope(problem.game, seen, np.ones(x.size)) >= 0
            mu = Estimate(float((seen.eta / seen.total).min()), math.inf) if monotone else UNKNOWN
    else:
        assert seen.tangent is not None
        matrices = seen.jacobians() @ seen.tangent
        square = np.swapaxes(seen.tangent[None], 1, 2) @ matrices
        constant = seen.affine_in_x and not seen.eta.any()
        eps, unit = float(np.finfo(seen.x.dtype).eps), np.eye(square.shape[1])
        slopes = [least_slope(one, unit, eps) for one in square[: 1 if constant else None]]
        mu = slopes[0] if constant else least([one.high for one in slopes], False)
        steep = largest(np.linalg.norm(matrices, 2, axis=(1, 2)), constant)
        if seen.entropic:
            steep = exact(math.inf)
            if seen.affine_in_x:
                base = seen.tangent.T @ seen.by_x[0] @ seen.tangent
                sure = np.linalg.eigvalsh((base + base.T) / 2)[0] + (seen.eta / seen.total).min()
                mu = Estimate(float(min(sure, mu.high)), mu.high)
    flat, _ = ravel_pytree(theta)
    return RegulatorConstants(
        players=players,
        incentives=int(flat.size),
        strong_monotonicity=mu,
        lipschitz=steep,
        incentive_lipschitz=incentive_effect(problem, seen),
        cost_by_strategy=by_strategy,
        cost_by_incentive=by_incentive,
    )


def _costs(
    problem: DesignProblem, theta: PyTree, x: Array, seen: Sampled
) -> tuple[Estimate, Estimate, int]:
    """`L_x`, `L_theta` and the number of players."""
    social = isinstance(problem.game, AtomicGame) and problem.is_social_cost
    players = x.shape[0] if social else 1
    thetas, xs = seen.points(None if seen.by_x is not None else 4)
    slopes = np.asarray(_cost_derivatives(problem, thetas, xs, social, 1))  # points, players, d + p
    by_x, by_theta = slopes[:, :, : x.size], slopes[:, :, x.size :]
    met = [np.linalg.norm(part, axis=-1).max() for part in (by_x, by_theta)]
    flat, _ = ravel_pytree(theta)
    unknowns = x.size + flat.size
    if players * unknowns**2 > 100 * DENSE_HESSIAN or not np.isfinite(slopes).all():
        return Estimate(float(met[0]), math.inf), Estimate(float(met[1]), math.inf), players
    curves = np.asarray(_cost_derivatives(problem, *seen.points(3), social, 2))
    size = max(np.abs(curves).max(), 1e-300)
    if np.abs(curves - curves[:1]).max() > 1e-9 * size:
        return Estimate(float(met[0]), math.inf), Estimate(float(met[1]), math.inf), players
    lower, upper = _box(problem, theta, x)
    bounded = np.isfinite(lower) & np.isfinite(upper)
    lower, upper = np.where(bounded, lower, 0), np.where(bounded, upper, 0)
    centre, reach = (lower + upper) / 2, np.where(bounded, (upper - lower) / 2, math.inf)
    begin = np.concatenate([seen.x[0].ravel(), np.asarray(ravel_pytree(seen.incentive(0))[0])])
    middle = slopes[0] + curves[0] @ np.where(bounded, centre - begin, 0)
    with np.errstate(invalid="ignore"):  # 0 inf, where a cost does not depend on an entry
        wide = np.where(curves[0] == 0, 0.0, np.abs(curves[0]) * reach).sum(-1)
    most = np.abs(middle) + wide
    ends = [np.linalg.norm(part, axis=-1).max() for part in (most[:, : x.size], most[:, x.size :])]
    return Estimate(float(met[0]), float(ends[0])), Estimate(float(met[1]), float(ends[1])), players


def _box(problem: DesignProblem, theta: PyTree, x: Array) -> tuple[np.ndarray, np.ndarray]:
    strategies = problem.game.strategies(theta)
    inner, outer = strategies.constraints(x), problem.incentive_set.constraints(theta)
    upper = inner.upper
    if isinstance(strategies, Simplex):
        upper = strategies.blocks.transpose(strategies.total.astype(x.dtype))
    if problem.game.moves:
        upper = jnp.full_like(upper, jnp.inf)
    return (
        np.concatenate([np.asarray(inner.lower), np.asarray(outer.lower)]),
        np.concatenate([np.asarray(upper), np.asarray(outer.upper)]),
    )


def _values(problem: DesignProblem, both: Array, theta: PyTree, x: Array, social: bool) -> Array:
    _, unravel = ravel_pytree(theta)
    incentive, strategy = unravel(both[x.size :]), both[: x.size].reshape(x.shape)
    if social:
        assert isinstance(problem.game, AtomicGame)
        return problem.game.cost(incentive, strategy)
    return problem.objective(incentive, strategy)[None]


@compiled
def _cost_derivatives(
    problem: DesignProblem, thetas: PyTree, xs: Array, social: bool, order: int
) -> Array:
    """First or second derivatives of the costs in `x` and `theta` together, point by point."""
    derivative = jax.jacrev if order == 1 else jax.hessian

    def one(point):
        theta, x = point
        both = jnp.concatenate([x.ravel(), ravel_pytree(theta)[0]])
        return derivative(lambda both: _values(problem, both, theta, x, social))(both)

    return jax.lax.map(one, (thetas, xs))
