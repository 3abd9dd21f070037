"""Parallel routes: tolls on all of them, equilibrium flows and those of a planner."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game, QuantalResponse
from ...sets import Box, Simplex
from ._entry import design, equilibrium

DEMAND = 10.0


def times(routes, seed=0):
    """`t_i = a_i + b_i v_i`: free-flow times from 1 to 20, some routes too long to be used."""
    random = np.random.default_rng(routes + seed)
    return np.sort(random.uniform(1, 20, routes)), random.uniform(0.5, 2, routes)


def filled(free, slope, demand=DEMAND):
    """`v` with `a_i + b_i v_i` equal on all routes that are used, the quickest first."""
    order, level = np.argsort(free), np.inf
    for count in range(1, len(free) + 1):
        used = order[:count]
        level = (demand + np.sum(free[used] / slope[used])) / np.sum(1 / slope[used])
        if count == len(free) or level <= free[order[count]]:
            break
    return np.maximum(level - free, 0) / slope


def _planned(routes):
    """Total time of the planner's flows: equilibrium flows for slopes twice as steep."""
    free, slope = times(routes)
    v = filled(free, 2 * slope)
    return float(v @ (free + slope * v))


def _tolled(routes, tolls, eta=None):
    """Tolls on the first routes, which are the shortest."""
    free, slope = map(jnp.asarray, times(routes))
    split = Simplex(routes, total=DEMAND)

    def cost(toll, v):
        return (free + slope * v).at[:tolls].add(toll)

    game = Game(cost, split) if eta is None else QuantalResponse(Game(cost, split), eta)
    problem = DesignProblem(game, lambda _, v: v @ (free + slope * v), Box(jnp.zeros(tolls), 40.0))
    return problem, jnp.zeros(tolls)


for _n in (2, 10, 100):
    design(f"tolls on {_n} parallel routes", _planned(_n))(partial(_tolled, _n, _n))


def chosen(free, slope, eta):
    """Flows of the logit choice: `a_i + b_i v_i + eta log v_i` is one number for all routes."""
    import scipy.optimize  # noqa: PLC0415 (a quarter of a second)

    def flows(level):
        v = np.full(len(free), DEMAND / len(free))
        for _ in range(100):  # Newton's steps in log v
            left = free + slope * v + eta * np.log(v) - level
            v = v * np.exp(np.clip(-left / (slope * v + eta), -3, 3))
        return v

    return flows(scipy.optimize.brentq(lambda c: flows(c).sum() - DEMAND, -100, 200, xtol=1e-13))


def best_first_toll(routes, eta):
    """The least total time with one toll, on the shortest route, over a logit choice."""
    import scipy.optimize  # noqa: PLC0415 (a quarter of a second)

    free, slope = times(routes)

    def total(toll):
        v = chosen(free + toll * (np.arange(routes) == 0), slope, eta)
        return v @ (free + slope * v)

    grid = np.linspace(0, 40, 81)
    near = grid[np.argmin([total(toll) for toll in grid])]
    around = max(near - 0.5, 0), min(near + 0.5, 40)
    found: Any = scipy.optimize.minimize_scalar(
        total, bounds=around, method="bounded", options={"xatol": 1e-9}
    )
    return found.fun


# Routes, dispersion of choices: [`best_first_toll`][].
LOGIT = {
    (2, 1.0): 111.307588837194,
    (5, 0.5): 91.500371569672,
    (20, 2.0): 43.193125073416,
}
for (_n, _eta), _best in LOGIT.items():
    design(f"logit toll, {_n} routes, eta = {_eta}", _best)(partial(_tolled, _n, 1, _eta))


def _settled(routes, eta, seed):
    free, slope = map(jnp.asarray, times(routes, seed))
    split = Simplex(routes, total=DEMAND)
    game = Game(lambda _, v: free + slope * v, split)
    return (game if eta is None else QuantalResponse(game, eta)), split.centre()


for _n, _seed in ((2, 1), (10, 1), (100, 1), (1000, 1)):
    equilibrium(f"{_n} parallel routes", partial(lambda n, s: filled(*times(n, s)), _n, _seed))(
        partial(_settled, _n, None, _seed)
    )
for _n, _eta in ((2, 1.0), (10, 0.3), (200, 1.0)):
    equilibrium(
        f"logit on {_n} parallel routes",
        partial(lambda n, e: chosen(*times(n, 1), e), _n, _eta),
        digits=8,
    )(partial(_settled, _n, _eta, 1))
