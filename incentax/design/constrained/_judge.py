"""What is proved of a design within constraints."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..._results import ENDINGS
from ...equilibrium import known_entropic
from .._constraint import named
from .._problem import DesignProblem
from ..accurate import incentives_of, is_judgeable, judge, LowerLevel
from ._multipliers import prices_by_gradients, shadow_prices, ShadowPrices
from ._penalty import penalised, sides_of, with_violations
from ._sequential import Evaluate
from ._units import kept_to, units_of, WEIGHT


class Verdict(NamedTuple):
    """As in [`Certificate`][]."""

    ending: ENDINGS
    stationarity: float
    least_slope: float
    degenerate: int
    multipliers: dict[str, Array]


def judge_constrained(
    problem: DesignProblem, theta: PyTree, x: Array, key: PRNGKeyArray
) -> Verdict | None:
    """Of `theta`, whose equilibrium is near `x`; `None` where there is none."""
    units, change = units_of(problem, theta, x, key)
    level = LowerLevel(problem, theta, x)
    incentives, width = incentives_of(level)
    kept = bool(jnp.max(problem.limits(theta, x).violation / units) <= 100 * kept_to(x.dtype))
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
        ending = prices.at_rest if prices.zero else ENDINGS.not_stationary
        return told(prices, ending, np.nan)
    prices = shadow_prices(level, flat, np.asarray(x).ravel(), incentives, np.asarray(units))
    if prices is None:
        return None
    sides, size = sides_of(problem, theta, x), 1 + jnp.max(jnp.abs(x))
    weight = WEIGHT * change + 2 * float(np.max(np.abs(prices.mu) * np.asarray(units)))
    whole = penalised(problem, sides, x.shape, units / size, weight / size)
    found = judge(whole, theta, with_violations(problem, sides, units / size, theta, x))
    if found is None:
        return None
    ending = prices.at_rest if found.ending == ENDINGS.kink else found.ending
    return told(prices, ending, found.least_slope)
