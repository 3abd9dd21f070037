"""Firms that offer supply functions (linear): how far demand should be made to respond."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box
from ._entry import design, equilibrium

_SIZE, _RESPONSE, _COST = 20.0, 0.5, 0.4


def _operator(curvature, response, s):
    """Firm i offers `s_i p`; its best slope is `(1 - c_i s_i) (b + sum of the others' slopes)`.

    After P. Klemperer and M. Meyer (1989), linear and with costs of their own: demand `a - b p`,
    costs `c_i q^2 / 2`. Divided so that it is `s_i / (b + others) - 1 + c_i s_i`, which grows in
    `s_i`.
    """
    residual = response + s.sum() - s
    return s / residual - 1 + curvature * s


def _slopes(curvature, response):
    """By the fixed point, from above: best slopes grow with the others'."""
    s = np.full(len(curvature), 1 / curvature.min())
    for _ in range(2000):
        residual = response + s.sum() - s
        s = residual / (1 + curvature * residual)
    return s


def _curvatures(firms):
    return np.linspace(0.5, 1.5, firms)


def _loss(curvature, response):
    """Half the squared price `a / (b + sum s)`, and what the response costs."""
    price = _SIZE / (response + _slopes(curvature, response).sum())
    return price**2 / 2 + _COST * (response - _RESPONSE) ** 2


def best_response(firms):
    """The least loss over one response."""
    import scipy.optimize  # noqa: PLC0415 (a quarter of a second)

    curvature = _curvatures(firms)
    found: Any = scipy.optimize.minimize_scalar(
        lambda b: _loss(curvature, b),
        bounds=(_RESPONSE, 10),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return found.fun


def _programme(firms):
    curvature = jnp.asarray(_curvatures(firms))

    def objective(response, s):
        price = _SIZE / (response[0] + s.sum())
        return price**2 / 2 + _COST * (response[0] - _RESPONSE) ** 2

    game = Game(lambda b, s: _operator(curvature, b[0], s), Box(jnp.full(firms, 1e-3), 10.0))
    return DesignProblem(game, objective, Box(jnp.full(1, _RESPONSE), 10.0)), jnp.ones(1)


# Firms: [`best_response`][].
PROGRAMMES = {2: 10.352780557680, 4: 6.729350586667}
for _n, _best in PROGRAMMES.items():
    design(f"supply functions of {_n} firms", _best)(partial(_programme, _n))


def _offers(firms):
    curvature = jnp.asarray(_curvatures(firms))
    game = Game(lambda _, s: _operator(curvature, _RESPONSE, s), Box(jnp.full(firms, 1e-3), 10.0))
    return game, jnp.ones(firms)


for _n in (2, 3, 10):
    equilibrium(
        f"supply functions of {_n} firms",
        partial(lambda n: _slopes(_curvatures(n), _RESPONSE), _n),
    )(partial(_offers, _n))
