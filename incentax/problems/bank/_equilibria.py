"""Equilibria with known answers, published and of our own making."""

import jax.numpy as jnp
import numpy as np

from ...games import AggregativeGame, AtomicGame, Game
from ...sets import Box, NonNegative, Polyhedron, Simplex
from ._entry import equilibrium
from ._networks import BRAESS, braess_times


def _five_firms(q):
    """The oligopoly of `_oligopolies.py`, g = 1.1, without a leader."""
    g, c, b = 1.1, jnp.array([10.0, 8, 6, 4, 2]), jnp.array([1.2, 1.1, 1, 0.9, 0.8])
    total = q.sum()
    price = 5000 ** (1 / g) * total ** (-1 / g)
    slope = 5000 ** (1 / g) / g * total ** (-1 - 1 / g)
    return c + (q / 5) ** (1 / b) - price + q * slope


@equilibrium(
    "five firms",
    [36.9325, 41.8181, 43.7066, 42.6592, 39.1790],
    source="Murphy, Sherali, Soyster (1982)",
    digits=4,
)
def five_firms():
    game = Game(lambda _, q: _five_firms(q), Box(jnp.zeros(5), 200.0))
    return game, 10 * jnp.ones(5)


@equilibrium(
    "five firms, shared cap",
    [14.05, 17.80, 20.91, 23.11, 24.13],
    source="Murphy, Sherali, Soyster (1982)",
    digits=2,
)
def five_firms_capped():
    cap = Polyhedron(inequality=(jnp.ones((1, 5)), jnp.array([100.0])), lower=0.0, upper=200.0)
    return Game(lambda _, q: _five_firms(q), cap), 10 * jnp.ones(5)


@equilibrium("duopoly", [16 / 3, 16 / 3])
def duopoly():
    game = AtomicGame(lambda _, x: x * (x.sum() - 16), Box(-10.0 * jnp.ones(2), 10.0))
    return game, jnp.zeros(2)


@equilibrium("internet switching", 10 * [0.09])
def internet_switching():
    def cost(_, x):
        return -x / x.sum() * (1 - x.sum())

    return AtomicGame(cost, Box(0.01 * jnp.ones(10), 1.0)), 0.5 * jnp.ones(10)


@equilibrium("two players, shared cap", [0.75, 0.25])
def two_players():
    cap = Polyhedron(inequality=(jnp.ones((1, 2)), jnp.ones(1)), lower=0.0, upper=1.0)
    game = AtomicGame(lambda _, x: (x - jnp.array([1.0, 0.5])) ** 2, cap)
    return game, jnp.zeros(2)


@equilibrium("Braess, demand 6", [2.0, 2.0, 2.0], source="Braess (1968)")
def braess():
    links = jnp.asarray(BRAESS)
    game = Game(lambda _, h: links.T @ braess_times(links @ h), Simplex(3, total=6.0))
    return game, jnp.array([6.0, 0.0, 0.0])


@equilibrium(
    "Kojima, Shindo 1986",
    [np.sqrt(6) / 2, 0, 0, 0.5],
    [1.0, 0, 3.0, 0],
    source="Kojima, Shindo (1986)",
)
def kojima_shindo():
    def operator(_, x):
        a, b, c, d = x
        return jnp.stack(
            [
                3 * a**2 + 2 * a * b + 2 * b**2 + c + 3 * d - 6,
                2 * a**2 + a + b**2 + 10 * c + 2 * d - 2,
                3 * a**2 + a * b + 2 * b**2 + 2 * c + 9 * d - 9,
                a**2 + 3 * b**2 + 2 * c + 3 * d - 3,
            ]
        )

    return Game(operator, Box(jnp.zeros(4), jnp.inf)), jnp.ones(4)


@equilibrium("Murty 1988, n = 128", 127 * [0.0] + [1.0], source="Murty (1988)")
def murty():
    matrix = jnp.triu(2 * jnp.ones((128, 128)), 1) + jnp.eye(128)
    game = Game(lambda _, x: matrix @ x - 1, Box(jnp.zeros(128), jnp.inf))
    return game, jnp.zeros(128)


def _zero_sum(payoff):
    n = len(payoff)
    matrix = jnp.asarray(payoff)

    def operator(_, x):
        return jnp.concatenate([matrix @ x[n:], -matrix.T @ x[:n]])

    start = jnp.zeros(2 * n).at[jnp.array([0, n])].set(1.0)
    return Game(operator, Simplex([n, n])), start


@equilibrium("matching pennies", 4 * [0.5])
def matching_pennies():
    return _zero_sum([[1.0, -1.0], [-1.0, 1.0]])


@equilibrium("rock, paper, scissors", 6 * [1 / 3])
def rock_paper_scissors():
    return _zero_sum([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])


def _monotone(n, seed, exponent=0.0):
    """Symmetric part with eigenvalues down to `10^exponent`, skew part as large."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    skew = rng.normal(size=(n, n))
    return basis @ np.diag(10.0 ** np.linspace(exponent, 0, n)) @ basis.T + (skew - skew.T) / 4


def _planted_box(n, seed, exponent=0.0):
    """A quarter at the lower bound (half of them without a multiplier), a quarter at the upper."""
    rng = np.random.default_rng(seed)
    matrix, quarter = jnp.asarray(_monotone(n, seed, exponent)), n // 4
    x, force = rng.uniform(0.1, 0.9, n), np.zeros(n)
    x[:quarter], x[quarter : 2 * quarter] = 0, 1
    force[quarter // 2 : quarter] = 1 + rng.random(quarter - quarter // 2)
    force[quarter : 2 * quarter] = -1 - rng.random(quarter)
    planted, force = jnp.asarray(x), jnp.asarray(force)
    game = Game(lambda _, x: matrix @ (x - planted) + force, Box(jnp.zeros(n), 1.0))
    return game, 0.5 * jnp.ones(n), planted


def _planted_simplex(n, seed):
    """Two blocks; half of each is unused, one of those without a multiplier."""
    rng = np.random.default_rng(seed)
    matrix = jnp.asarray(_monotone(2 * n, seed))
    blocks = rng.uniform(0.1, 1, (2, n))
    blocks[:, n // 2 :] = 0
    blocks /= blocks.sum(1, keepdims=True)
    excess = np.where(blocks > 0, 0, 1 + rng.random((2, n)))
    excess[:, -1] = 0
    planted = jnp.asarray(blocks.ravel())
    level = jnp.asarray((excess + np.array([[1.0], [-2.0]])).ravel())
    simplex = Simplex([n, n])
    game = Game(lambda _, x: matrix @ (x - planted) + level, simplex)
    return game, simplex.centre(), planted


def _planted_polyhedron(n, seed, repeated=False):
    """Random rows active with multipliers, one of them twice where `repeated`."""
    rng = np.random.default_rng(seed)
    matrix, planted = jnp.asarray(_monotone(n, seed)), rng.normal(size=n)
    rows = rng.normal(size=(n, n))
    slack = np.where(np.arange(n) < n // 3, 0, rng.uniform(0.5, 1, n))
    multiplier = np.where(np.arange(n) < n // 3, rng.uniform(0.5, 1, n), 0)
    if repeated:
        rows[n // 3] = 2 * rows[0]  # a degenerate vertex: dependent active rows
        slack[n // 3] = 0
    equality = rng.normal(size=(1, n))
    force = -(rows.T @ multiplier) - 0.7 * equality[0]
    polyhedron = Polyhedron(
        inequality=(rows, rows @ planted + slack), equality=(equality, equality @ planted)
    )
    planted, force = jnp.asarray(planted), jnp.asarray(force)
    game = Game(lambda _, x: matrix @ (x - planted) + force, polyhedron)
    return game, polyhedron.centre(), planted


_PLANTED = {
    "planted box, n = 2": lambda: _planted_box(4, 0),
    "planted box, n = 50": lambda: _planted_box(50, 1),
    "planted box, n = 500": lambda: _planted_box(500, 2),
    "planted box, condition 1e6": lambda: _planted_box(40, 3, -6.0),
    "planted simplices, n = 2 x 10": lambda: _planted_simplex(10, 4),
    "planted simplices, n = 2 x 100": lambda: _planted_simplex(100, 5),
    "planted polyhedron, n = 6": lambda: _planted_polyhedron(6, 6),
    "planted polyhedron, n = 60": lambda: _planted_polyhedron(60, 7),
    "planted polyhedron, dependent rows": lambda: _planted_polyhedron(9, 8, repeated=True),
}


for _name, _make in _PLANTED.items():
    equilibrium(_name, lambda make=_make: make()[2])(lambda make=_make: make()[:2])


@equilibrium("Cournot, 10,000 firms", lambda: _cournot()[1])
def cournot():
    return _cournot()[0], jnp.zeros(10_000)


def _cournot():
    """`a_i = p - c_i` where that is positive, with the price `p = p0 - Q`."""
    cost = jnp.linspace(1.0, 2.0, 10_000)
    game = AggregativeGame(
        lambda _, a, total: cost - (100 - (a + total)), lambda _, a: a.sum(), NonNegative()
    )

    def excess(p):
        return jnp.maximum(p - cost, 0).sum() - (100 - p)

    low, high = jnp.array(1.0), jnp.array(100.0)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = jnp.where(
            excess(middle) < 0, jnp.stack([middle, high]), jnp.stack([low, middle])
        )
    return game, jnp.maximum(low - cost, 0)
