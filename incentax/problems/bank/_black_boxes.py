"""Objectives that are programs of their own, without a derivative."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box, Simplex
from ._entry import design


def _simulated(value):
    """`value` of numpy arrays, as a program that JAX cannot look into."""

    def objective(theta, x):
        like = jax.ShapeDtypeStruct((), x.dtype)
        run = partial(_as_number, value, x.dtype)
        return jax.pure_callback(run, like, theta, x, vmap_method="sequential")

    return objective


def _as_number(value, dtype, theta, x):
    return np.asarray(value(np.asarray(theta), np.asarray(x)), dtype)


@design("black box, queues at three counters", 3.0)
def queues():
    """Customers choose a counter by its fee and its queue, `F_i = 3 x_i + theta_i`; a simulator
    counts `3 + sum |x_i - s_i|`, `s` the shares of the staff. Fees `-3 s_i` reach 3."""
    staff = np.array([0.5, 0.3, 0.2])
    game = Game(lambda fee, x: 3 * x + fee, Simplex(3))
    value = _simulated(lambda fee, x: 3 + np.abs(x - staff).sum())
    return DesignProblem(game, value, Box(jnp.full(3, -3.0), 3.0)), jnp.zeros(3)


@design("black box, deposits at five shops", 2.0)
def deposits():
    """Shops return `x_i = clip(theta_i, 0, 1)` of their bottles; a simulator counts `2 + sum
    w_i (x_i - s_i)^2`."""
    wish, weight = np.array([0.2, 0.9, 0.5, 0.7, 0.4]), np.array([1.0, 2, 1, 3, 1])
    game = Game(lambda deposit, x: x - deposit, Box(jnp.zeros(5), 1.0))
    value = _simulated(lambda deposit, x: 2 + np.sum(weight * (x - wish) ** 2))
    return DesignProblem(game, value, Box(jnp.full(5, -0.5), 1.5)), jnp.full(5, 0.5)
