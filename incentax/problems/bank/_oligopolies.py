"""Oligopolies with a leader: Murphy, Sherali, Soyster (1982); Facchinei, Jiang, Qi (1999)."""

from functools import partial

import jax.numpy as jnp

from ...design import DesignProblem
from ...games import Game
from ...sets import Box
from ._entry import design

# Murphy, Sherali, Soyster 1982; Facchinei, Jiang, Qi 1999; MacMPEC gnash. L = 150.
_OLIGOPOLY = {
    "exact exponent": (-343.34526, -203.15507, -68.13565, -19.15407, -3.16118),
    "MacMPEC coding": (-230.823207, -129.911924, -36.933107, -7.061783, -0.179046),
}


def _oligopoly(g, coding):
    c, b, k, most = jnp.array([10.0, 8, 6, 4, 2]), jnp.array([1.2, 1.1, 1, 0.9, 0.8]), 5.0, 150.0

    def price(x, y):
        total = x[0] + y.sum()
        return total, 5000 ** (1 / g) * total ** (-1 / g)

    def operator(x, y):
        total, p = price(x, y)
        power = 1 / b[1:]
        own = (y / k) ** power if coding == "exact exponent" else k**-power * y
        return c[1:] + own - p + y * (5000 ** (1 / g) / g) * total ** (-1 - 1 / g)

    def objective(x, y):
        _, p = price(x, y)
        share = b[0] / (1 + b[0]) * k ** (-1 / b[0])
        return c[0] * x[0] + share * x[0] ** ((1 + b[0]) / b[0]) - x[0] * p

    game = Game(operator, Box(jnp.zeros(4), most))
    return DesignProblem(game, objective, Box(jnp.zeros(1), most)), jnp.array([75.0])


for _coding, _values in _OLIGOPOLY.items():
    for _g, _best in zip((1.0, 1.1, 1.3, 1.5, 1.7), _values):
        design(f"oligopoly, {_coding}, g = {_g}", _best, "Facchinei, Jiang, Qi (1999)")(
            partial(_oligopoly, _g, _coding)
        )
