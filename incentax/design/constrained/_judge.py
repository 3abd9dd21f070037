"""What is proved of a design within constraints."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from ..._results import ENDINGS
from ...equilibrium import known_entropic
from .._constraint import named
from .._problem import DesignProblem
from ..accurate import incentives_of, is_judgeable, judge, LowerLevel
from ._multipliers import prices_by_gradients, shadow_prices, ShadowPrices
from ._penalty import penalised, sides_of, with_violations
from ._sequential import Evaluate
from ._units import scales_at, WEIGHT


class Verdict(NamedTuple):
    """As in [`Certificate`][]."""

    ending: ENDINGS
    stationarity: float
    least_slope: float
    degenerate: int
    multipliers: dict[str, Array]


def judge_constrained(problem: DesignProblem, theta: PyTree, x: Array) -> Verdict | None:
    """Of `theta`, whose equilibrium is near `x`; `None` where there is none."""
    scales = scales_at(problem, theta, x)
    level = LowerLevel(problem, theta, x)
    incentives, width = incentives_of(level)
    kept = bool(scales.violated <= 100)
    entropic = known_entropic(problem.game)
    flat = np.asarray(ravel_pytree(theta)[0])
    shapes = problem.constraint_shapes(theta, x)

    def told(prices: ShadowPrices, ending: ENDINGS, least: float) -> Verdict:
        mu = named(problem.constraints, shapes, jnp.asarray(prices.mu, x.dtype))
        ending = ending if kept else ENDINGS.infeasible
        return Verdict(ending, prices.stationarity, least, prices.kinks, mu)

    if not is_judgeable(problem, theta, x, entropic):
        at = Evaluate(problem, sides_of(problem, theta, x), theta, entropic)(flat, x)
        prices = prices_by_gradients(level, at, incentives, width)
        at_rest = ENDINGS.undecided if prices.kinks else prices.at_rest
        ending = at_rest if prices.zero else ENDINGS.not_stationary
        return told(prices, ending, np.nan)
    prices = shadow_prices(level, flat, np.asarray(x).ravel(), incentives, scales)
    if prices is None:
        return None
    sides, size = sides_of(problem, theta, x), 1 + jnp.max(jnp.abs(x))
    units = scales.units / size
    weight = WEIGHT * scales.change + 2 * jnp.max(jnp.abs(prices.mu) * scales.units)
    whole = penalised(problem, sides, x.shape, units, (weight / size).astype(x.dtype))
    found = judge(whole, theta, with_violations(problem, sides, units, theta, x))
    if found is None:
        return None
    ending = prices.at_rest if found.ending == ENDINGS.kink else found.ending
    return told(prices, ending, found.least_slope)
