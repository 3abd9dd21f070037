"""Firms that set prices for differentiated goods (Bertrand): taxes towards wished prices."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box
from ._entry import design

_OWN, _CROSS, _WEIGHT = 2.0, 1.0, 0.5


def _market(firms):
    """Demand `q_i = a_i - 2 p_i + mean of the others' p_j`, costs, and the prices wished for."""
    random = np.random.default_rng(firms)
    size, cost = random.uniform(8, 12, firms), random.uniform(1, 2, firms)
    others = (np.ones((firms, firms)) - np.eye(firms)) / (firms - 1)
    # The slope of the profit: q_i - 2 (p_i - c_i - theta_i) = 0.
    matrix = 2 * _OWN * np.eye(firms) - _CROSS * others
    return matrix, size + _OWN * cost, 0.8 * np.linalg.solve(matrix, size + _OWN * cost)


def _least(firms):
    """Prices are linear in taxes, the objective is a square: `p = K^-1 (a + 2 c + 2 theta)`."""
    matrix, level, wish = _market(firms)
    answer = _OWN * np.linalg.inv(matrix)
    left = np.linalg.solve(matrix, level) - wish
    rows = np.concatenate([answer, np.sqrt(_WEIGHT) * np.eye(firms)])
    goal = -np.concatenate([left, np.zeros(firms)])
    theta = np.linalg.lstsq(rows, goal)[0]
    return float(np.sum((rows @ theta - goal) ** 2) / 2)


def _taxes(firms):
    matrix, level, wish = map(jnp.asarray, _market(firms))

    def operator(tax, p):
        return matrix @ p - level - _OWN * tax

    def objective(tax, p):
        return (jnp.sum((p - wish) ** 2) + _WEIGHT * jnp.sum(tax**2)) / 2

    game = Game(operator, Box(jnp.zeros(firms), 50.0))
    return DesignProblem(game, objective, Box(jnp.full(firms, -20.0), 20.0)), jnp.zeros(firms)


for _n in (2, 5, 50):
    design(f"Bertrand taxes, {_n} firms", _least(_n))(partial(_taxes, _n))
