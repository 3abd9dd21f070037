"""A cap on what firms emit together: a shared constraint that moves with the incentive."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box, Polyhedron
from ._entry import design

_HARM = 0.5


def _benefits(firms):
    return np.linspace(1.0, 5.0, firms)


def _least(firms):
    """What is best if firms obeyed, which a cap reaches: `x_i = (b_i - p)+`, `p = harm sum x`.

    `p` by the number of firms that emit: those of the largest benefits.
    """
    benefits = _benefits(firms)[::-1]
    price = max(_HARM * benefits[:m].sum() / (1 + _HARM * m) for m in range(1, firms + 1))
    x = np.maximum(benefits - price, 0)
    return float(_HARM / 2 * x.sum() ** 2 - np.sum(benefits * x - x**2 / 2))


def _cap(firms):
    benefits = jnp.asarray(_benefits(firms))

    def shared(cap):
        return Polyhedron(inequality=(jnp.ones((1, firms)), cap), lower=0.0, upper=10.0)

    def objective(cap, x):
        return _HARM / 2 * x.sum() ** 2 - jnp.sum(benefits * x - x**2 / 2)

    game = Game(lambda cap, x: x - benefits, shared)
    most = float(benefits.sum())
    return DesignProblem(game, objective, Box(jnp.full(1, 0.1), most)), jnp.full(1, 0.7 * most)


for _n in (2, 10, 60):
    design(f"cap on the emissions of {_n} firms", _least(_n))(partial(_cap, _n))
