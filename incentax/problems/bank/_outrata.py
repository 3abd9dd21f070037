"""Outrata (1990): mathematical programs over a quadratic program."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import NonNegative, Polyhedron, Reals
from ._entry import design


def _outrata_set():
    rows = jnp.array([[-0.333, 1.0], [1.0, -0.333]])
    return Polyhedron(inequality=(rows, jnp.array([2.0, 2.0])), lower=0.0)


def _far(y):
    return ((y[0] - 3) ** 2 + (y[1] - 4) ** 2) / 2


def _outrata1(hessian, linear, weight, start):
    """Outrata 1990, problem 1: `F = H y + linear(x)`."""
    matrix = jnp.array(hessian)
    game = Game(lambda x, y: matrix @ y + linear(x), _outrata_set())
    problem = DesignProblem(game, lambda x, y: _far(y) - 12.5 + weight * x @ x, Reals((2,)))
    return problem, jnp.array(start)


_H1, _H2 = [[1.0, -2.0], [-2.0, 5.0]], [[1.0, 3.0], [3.0, 10.0]]


_cross = np.array([[1.0, -2.0], [-3.0, 3.0]])


def _outrata2(diagonal, start):
    """Outrata 1990, problem 2, x >= 0."""

    def operator(x, y):
        return diagonal(x[0]) * y - jnp.stack([1.333 * x[0] + 3, x[0]])

    game = Game(operator, _outrata_set())
    problem = DesignProblem(game, lambda x, y: _far(y), NonNegative())
    return problem, jnp.array([start])


for _name, _hessian, _linear, _weight, _start, _best in (
    ("Outrata 1a", _H1, lambda x: -x, 0.1, [0.0, 0.0], -8.917203),
    ("Outrata 1b", _H1, lambda x: -x, 1.0, [0.0, 0.0], -7.578458),
    ("Outrata 1c", _H2, lambda x: -x, 0.0, [0.0, 0.0], -11.998499),
    ("Outrata 1d", _H2, lambda x: -x, 0.1, [6.0, -3.0], -3.6),
    ("Outrata 1e", _H2, lambda x: _cross @ x, 0.1, [6.0, -3.0], -3.92),
):
    design(_name, _best, "Outrata (1990)")(partial(_outrata1, _hessian, _linear, _weight, _start))

for _name, _diagonal, _start, _best in (
    ("Outrata 2a", lambda x: jnp.array([1.0, 1.0]), 1.0, 0.501501),
    # A singular Jacobian; y is unique all the same.
    ("Outrata 2b", lambda x: jnp.stack([1 + x, 0 * x]), 5.0, 0.501501),
    ("Outrata 2c", lambda x: jnp.stack([1 + x, 1 + 0.1 * x]), 0.0, 1.860462),
):
    design(_name, _best, "Outrata (1990)")(partial(_outrata2, _diagonal, _start))
