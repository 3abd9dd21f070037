"""A leader's output over followers of a linear market, some of whom stay out.

In the manner of H. D. Sherali, A. L. Soyster and F. H. Murphy (1983); instances of our own.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import AggregativeGame
from ...sets import Box, NonNegative
from ._entry import design

_PRICE = 100.0


def _costs(followers):
    """The leader's, and the followers' in order."""
    return 15.0, np.linspace(20.0, 90.0, followers)


def _least_cost(followers):
    """The leader's loss at its best output, one number of active followers after the other.

    With `m` of them active the price is `(p0 - x + sum c) / (m + 1)`: a parabola of the leader's
    profit between the outputs at which a follower leaves.
    """
    own, costs = _costs(followers)
    best = 0.0
    for m in range(followers + 1):
        known, most = costs[:m].sum(), (costs[m] if m < followers else np.inf)
        least = costs[m - 1] if m else 0.0  # the price lies between these costs
        low = max(_PRICE + known - (m + 1) * most, 0.0)
        high = max(_PRICE + known - (m + 1) * least, 0.0)
        top = (_PRICE + known - (m + 1) * own) / 2
        for x in np.clip([low, top, high], low, high):
            price = (_PRICE - x + known) / (m + 1)
            best = min(best, (own - price) * x)
    return best


def _leader(followers):
    own, costs = _costs(followers)
    each = jnp.asarray(costs)
    game = AggregativeGame(
        lambda x, y, total: each - (_PRICE - x[0] - total) + y,
        lambda _, y: y.sum(),
        NonNegative((followers,)),
    )

    def objective(x, y):
        return (own - (_PRICE - x[0] - y.sum())) * x[0]

    return DesignProblem(game, objective, Box(jnp.zeros(1), _PRICE)), jnp.full(1, 10.0)


for _n in (1, 2, 5, 20, 200, 2000):
    design(f"leader over {_n} followers", _least_cost(_n))(partial(_leader, _n))
