"""Tolls on small networks: Pigou, Braess, a grid, parallel roads."""

import itertools
from functools import partial

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box, Simplex
from ._entry import design


@design("Pigou toll", 0.75, "Pigou (1920)")
def pigou():
    game = Game(lambda x, h: jnp.stack([h[0] + x[0], jnp.ones_like(h[0])]), Simplex(2))
    problem = DesignProblem(game, lambda x, h: h[0] ** 2 + h[1], Box(jnp.zeros(1), 1.0))
    return problem, jnp.zeros(1)


# Paths a-d, b-e, a-c-e over links a..e.
BRAESS = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1.0]])


def braess_times(flows):
    return jnp.array([10.0, 1, 1, 1, 10]) * flows + jnp.array([0.0, 50, 10, 50, 0])


@design("Braess tolls", 498.0, "Braess (1968)")
def braess():
    links = jnp.asarray(BRAESS)
    game = Game(lambda tolls, h: links.T @ (braess_times(links @ h) + tolls), Simplex(3, total=6.0))
    problem = DesignProblem(
        game, lambda tolls, h: (links @ h) @ braess_times(links @ h), Box(jnp.zeros(5), 100.0)
    )
    return problem, jnp.zeros(5)


def _grid_paths(side, pairs, longest):
    """Loop-free paths on a grid of two-way roads: a matrix of links by paths, and their counts."""
    nodes = [(i, j) for i in range(side) for j in range(side)]
    links = {}
    for i, j in nodes:
        for end in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if end in nodes:
                links[(i, j), end] = len(links)
    columns, counts = [], []

    def extend(path, end):
        if path[-1] == end:
            column = np.zeros(len(links))
            column[[links[step] for step in itertools.pairwise(path)]] = 1
            columns.append(column)
        elif len(path) <= longest:
            for start, next_node in links:
                if start == path[-1] and next_node not in path:
                    extend([*path, next_node], end)

    for start, end in pairs:
        before = len(columns)
        extend([start], end)
        counts.append(len(columns) - before)
    return np.array(columns).T, counts


def _grid(power):
    """Three commodities on a 3 x 3 grid: link flows alone are unique."""
    pairs = (((0, 0), (2, 2)), ((2, 0), (0, 2)), ((0, 1), (2, 1)))
    incidence, counts = _grid_paths(3, pairs, 6)
    rng = np.random.default_rng(0)
    links, number = jnp.asarray(incidence), len(incidence)
    free, capacity = (jnp.asarray(rng.uniform(*span, number)) for span in ((1, 3), (2, 5)))
    demand = jnp.array([6.0, 5.0, 4.0])

    def times(flows):
        return free * (1 + 0.15 * (flows / capacity) ** power)

    routes = Simplex(counts, total=demand)
    game = Game(lambda tolls, h: links.T @ (times(links @ h) + tolls), routes)
    problem = DesignProblem(
        game,
        lambda tolls, h: (links @ h) @ times(links @ h),
        Box(jnp.zeros(number), 50.0),
    )
    return problem, jnp.zeros(number)


def _parallel(rng_seed):
    rng = np.random.default_rng(rng_seed)
    free, slope = rng.uniform(1, 3, 6), rng.uniform(0.5, 2, 6)
    return free, slope


def _system_optimum(free, slope, demand):
    """Least `sum v (free + slope v)` with flows that sum to the demand: by bisection."""
    low, high = free.min(), free.max() + 2 * slope.max() * demand
    flows = np.zeros(len(free))
    for _ in range(200):
        level = (low + high) / 2
        flows = np.maximum(level - free, 0) / (2 * slope)
        low, high = (level, high) if flows.sum() < demand else (low, level)
    return float(flows @ (free + slope * flows))


@design("first-best tolls on parallel roads", _system_optimum(*_parallel(3), 4.0))
def parallel_roads():
    free, slope = map(jnp.asarray, _parallel(3))
    game = Game(lambda tolls, v: free + slope * v + tolls, Simplex(6, total=4.0))
    problem = DesignProblem(game, lambda tolls, v: v @ (free + slope * v), Box(jnp.zeros(6), 20.0))
    return problem, jnp.zeros(6)


# First-best tolls make the system optimum, whose value is that of the convex program over paths.
design("multicommodity grid, linear", 101.724082839)(partial(_grid, 1))
design("multicommodity grid, fourth power", 106.887235101)(partial(_grid, 4))
