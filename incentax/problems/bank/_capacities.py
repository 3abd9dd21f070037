"""Capacities of five links, path flows below."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box, Simplex
from ._entry import design

_BRAESS = np.array(
    [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [1, 0, 1, 0, 1.0]]
)  # links s-u, s-v, u-v, u-t, v-t -> paths


_BRAESS2 = np.array(
    [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 1.0]]
)


_PAR2 = np.array(
    [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1.0],
    ]
)


# paths, pair of each path, demand, t0, b, capacity, power, u, cost per unit
B_SPECS = {
    "B1": (
        _BRAESS,
        [0, 0, 0],
        [6.0],
        [1, 5, 1, 5, 1.0],
        1.0,
        [3, 6, 4, 6, 3.0],
        1,
        4.0,
        [1, 1, 1, 1, 1.0],
    ),
    "B2": (
        _BRAESS,
        [0, 0, 0],
        [10.0],
        [2, 8, 1, 8, 2.0],
        0.15,
        [4, 5, 3, 5, 4.0],
        4,
        6.0,
        [1.5, 1, 0.5, 1, 1.5],
    ),
    "B3": (
        _PAR2,
        [0, 0, 0, 1, 1, 1],
        [8.0, 6.0],
        [4, 6, 5, 7, 4.0],
        0.5,
        [3, 4, 3, 4, 2.0],
        2,
        5.0,
        [2, 1, 3, 1, 2.0],
    ),
    "B4": (
        _BRAESS2,
        [0, 0, 0, 1, 1],
        [7.0, 4.0],
        [2, 6, 1, 7, 2.0],
        0.15,
        [3, 4, 2, 4, 3.0],
        4,
        8.0,
        [2, 1, 1, 1, 2.0],
    ),
    "B5": (
        _PAR2,
        [0, 0, 0, 1, 1, 1],
        [10.0, 9.0],
        [3, 4, 2, 4, 3.0],
        0.15,
        [3, 3, 2, 3, 3.0],
        4,
        3.0,
        [1, 1, 4, 1, 1.0],
    ),
    "B6": (
        _BRAESS,
        [0, 0, 0],
        [6.0],
        [0.1, 50, 10, 50, 0.1],
        [100, 0.02, 0.1, 0.02, 100.0],
        [1, 1, 1, 1, 1.0],
        1,
        1.0,
        [60, 5, 5, 5, 60.0],
    ),
}


def capacity_network(name) -> dict[str, Any]:
    """Link times t_a(v, theta) = t0_a (1 + b (v_a / (cap_a + theta_a))^power), v = paths.T @ h,
    path flows h >= 0 with
    sums of each pair equal to its demand; deterministic user equilibrium. theta in [0, u]^5.
    Upper: v @ t(v, theta) + unit_cost @ theta. Link flows are unique."""
    paths, pair, dem, t0, b, cap, p, u, c = B_SPECS[name]
    return dict(
        name=name,
        paths=paths.copy(),
        pair=np.array(pair),
        demand=np.array(dem),
        t0=np.array(t0),
        b=np.asarray(b, float),
        cap=np.array(cap),
        power=float(p),
        u=u,
        unit_cost=np.array(c),
    )


def capacity_design(name):
    """Capacities of five links, strategies path flows."""
    d = capacity_network(name)
    paths, demand, power = jnp.asarray(d["paths"], float), d["demand"], int(d["power"])
    free, b, capacity = (jnp.asarray(d[part]) for part in ("t0", "b", "cap"))
    sizes = np.bincount(d["pair"]).tolist()

    def times(v, added):
        return free * (1 + b * (v / (capacity + added)) ** power)

    def objective(added, h):
        v = h @ paths
        return v @ times(v, added) + jnp.asarray(d["unit_cost"]) @ added

    game = Game(lambda added, h: paths @ times(h @ paths, added), Simplex(sizes, total=demand))
    return DesignProblem(game, objective, Box(jnp.zeros(5), d["u"])), jnp.zeros(5)


# By a grid and Nelder-Mead.
_BEST = {
    "B1": 44.0,
    "B2": 79.1494555963,
    "B3": 95.7237852743,
    "B4": 86.0442265225,
    "B5": 81.0768475284,
    "B6": 550.2020832590,
}
for _name, _best in _BEST.items():
    design(f"capacities {_name}", _best)(partial(capacity_design, _name))
