"""Random complementarity problems with planted optima, degenerate pairs among them."""

from functools import partial

import jax.numpy as jnp

from ...games import Game
from ...sets import NonNegative
from .._random_mpec import planted, random_mpec
from ._entry import design, equilibrium

# Incentives, strategies, degenerate pairs, seed.
_SIZES = (
    (1, 4, 1, 0), (1, 10, 2, 1), (2, 5, 0, 2), (2, 20, 4, 3), (5, 10, 5, 4),
    (5, 40, 8, 5), (10, 30, 0, 6), (20, 50, 10, 7), (40, 100, 20, 8), (10, 200, 40, 9),
)  # fmt: skip


def _made(p, d, both, seed):
    instance = random_mpec(p, d, degenerate=both, seed=seed)
    return instance.problem, instance.theta0


for _size in _SIZES:
    design(f"random, {_size[0]} over {_size[1]}, {_size[2]} degenerate", 1.0)(
        partial(_made, *_size)
    )


def _settled(d, both, seed):
    """What the agents do at the planted incentive."""
    cost, bowl = planted(1, d, both, seed)
    return Game(lambda _, x: cost(bowl.theta, x), NonNegative((d,))), bowl.x


for _size in ((4, 4, 20), (30, 10, 21), (200, 40, 22), (400, 0, 23)):
    equilibrium(
        f"random, {_size[0]} pairs, {_size[1]} degenerate",
        partial(lambda *size: _settled(*size)[1], *_size),
    )(partial(lambda *size: (_settled(*size)[0], jnp.zeros(size[0])), *_size))
