"""Equilibria of markets, contests and shared goods, by their formulas."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from ...games import AggregativeGame, AtomicGame, Game
from ...sets import Box, NonNegative, Polyhedron, Simplex
from ._entry import equilibrium
from ._prices import _market

_PRICE = 100.0


def _cournot_outputs(costs, most):
    """`x_i = clip(p - c_i, 0, most)`, the price `p = 100 - sum x` by bisection."""
    low, high, p = 0.0, _PRICE, 0.0
    for _ in range(200):
        p = (low + high) / 2
        low, high = (p, high) if np.clip(p - costs, 0, most).sum() < _PRICE - p else (low, p)
    return np.clip(p - costs, 0, most)


def _cournot(firms, most):
    costs = np.linspace(10.0, 95.0, firms)
    each = jnp.asarray(costs)
    strategies = NonNegative((firms,)) if np.isinf(most) else Box(jnp.zeros(firms), most)
    game = AggregativeGame(
        lambda _, x, total: each - (_PRICE - total) + x, lambda _, x: x.sum(), strategies
    )
    return game, jnp.ones(firms), _cournot_outputs(costs, most)


for _n, _most in ((2, np.inf), (10, np.inf), (10, 8.0), (100, 1.0), (1000, np.inf)):
    _limit = "" if np.isinf(_most) else f", at most {_most:g} each"
    equilibrium(f"Cournot, {_n} firms{_limit}", partial(lambda n, m: _cournot(n, m)[2], _n, _most))(
        partial(lambda n, m: _cournot(n, m)[:2], _n, _most)
    )


def _bertrand(firms):
    matrix, level, _ = _market(firms)
    matrix, level = jnp.asarray(matrix), jnp.asarray(level)
    return Game(lambda _, p: matrix @ p - level, Box(jnp.zeros(firms), 50.0)), jnp.ones(firms)


for _n in (2, 5, 50):
    equilibrium(f"Bertrand, {_n} firms", partial(lambda n: np.linalg.solve(*_market(n)[:2]), _n))(
        partial(_bertrand, _n)
    )


def _contest(players):
    """Shares of a prize by effort, Tullock (1980): the effort of each is `(n - 1) / n^2`."""

    def cost(_, x):
        return x - x / x.sum()

    return AtomicGame(cost, Box(jnp.full(players, 1e-3), 1.0)), jnp.full(players, 0.5)


for _n in (2, 5, 20):
    equilibrium(f"contest of {_n}", np.full(_n, (_n - 1) / _n**2), source="Tullock (1980)")(
        partial(_contest, _n)
    )


def _wishes(players):
    return np.linspace(0.2, 2.0, players)


def _under_a_cap(players):
    """Costs `(x_i - w_i)^2 / 2` and `sum x <= n / 2`: all pay one price of the cap."""
    wish = jnp.asarray(_wishes(players))
    cap = Polyhedron(
        inequality=(jnp.ones((1, players)), jnp.array([players / 2])), lower=0.0, upper=5.0
    )
    return Game(lambda _, x: x - wish, cap), jnp.zeros(players)


def _shared(players):
    """`x_i = (w_i - price)+`, the price by the number of those who get something."""
    wish = _wishes(players)[::-1]
    price = max((wish[:m].sum() - players / 2) / m for m in range(1, players + 1))
    return np.maximum(wish - max(price, 0), 0)[::-1]


for _n in (3, 10, 100):
    equilibrium(f"{_n} users under a cap", partial(_shared, _n))(partial(_under_a_cap, _n))


def _two_by_two(first, second):
    """Costs of two players who mix two strategies each."""
    first, second = jnp.asarray(first), jnp.asarray(second)
    game = Game(lambda _, x: jnp.concatenate([first @ x[2:], second.T @ x[:2]]), Simplex([2, 2]))
    return game, jnp.array([0.9, 0.1, 0.2, 0.8])


equilibrium("prisoners' dilemma", [0.0, 1, 0, 1])(
    partial(_two_by_two, [[1.0, 3], [0, 2]], [[1.0, 0], [3, 2]])
)
equilibrium("battle of the sexes", [1.0, 0, 1, 0], [0.0, 1, 0, 1], [2 / 3, 1 / 3, 1 / 3, 2 / 3])(
    partial(_two_by_two, [[-2.0, 0], [0, -1]], [[-1.0, 0], [0, -2]])
)
equilibrium("chicken", [1.0, 0, 0, 1], [0.0, 1, 1, 0], [0.1, 0.9, 0.1, 0.9])(
    partial(_two_by_two, [[10.0, -1], [1, 0]], [[10.0, 1], [-1, 0]])
)
equilibrium("zero sum with a mixed answer", [0.4, 0.6, 0.5, 0.5])(
    partial(_two_by_two, [[3.0, -3], [-2, 2]], [[-3.0, 3], [2, -2]])
)


def _obstacle(points):
    """A string over a floor: `2.001 x_i - x_(i-1) - x_(i+1) + c_i >= 0`, `x >= 0`; planted."""
    random = np.random.default_rng(points)
    x = np.maximum(np.sin(np.linspace(0, 3 * np.pi, points)), 0)
    pull = np.where(x > 1e-9, 0, random.uniform(0, 1, points) * (random.random(points) < 0.7))
    x = np.where(x > 1e-9, x, 0)

    def bent(x, zeros):
        return 2.001 * x - zeros(x[1:], (0, 1)) - zeros(x[:-1], (1, 0))

    level = jnp.asarray(pull - bent(x, np.pad))
    game = Game(lambda _, x: bent(x, jnp.pad) + level, NonNegative((points,)))
    return game, jnp.zeros(points), x


for _n in (10, 100, 1000):
    equilibrium(f"obstacle, {_n} points", partial(lambda n: _obstacle(n)[2], _n))(
        partial(lambda n: _obstacle(n)[:2], _n)
    )
