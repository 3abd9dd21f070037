"""Published design problems with their best known values, and problems of our own making.

`DESIGNS` maps a name to `(make, best)`: `make()` returns the problem and the start, `best` is the
least known objective. The values of published problems were verified with an independent interior
point solver; those of our own are in closed form.
"""

import itertools

import jax.numpy as jnp
import numpy as np

import incentax as ix

DESIGNS = {}


def design(name, best):
    def add(make):
        DESIGNS[name] = (make, best)
        return make

    return add


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

    game = ix.Game(operator, ix.Box(jnp.zeros(4), most))
    return ix.DesignProblem(game, objective, ix.Box(jnp.zeros(1), most)), jnp.array([75.0])


for _coding, _values in _OLIGOPOLY.items():
    for _g, _best in zip((1.0, 1.1, 1.3, 1.5, 1.7), _values):
        DESIGNS[f"oligopoly, {_coding}, g = {_g}"] = (
            lambda g=_g, coding=_coding: _oligopoly(g, coding),
            _best,
        )


def _outrata_set():
    rows = jnp.array([[-0.333, 1.0], [1.0, -0.333]])
    return ix.Polyhedron(inequality=(rows, jnp.array([2.0, 2.0])), lower=0.0)


def _far(y):
    return ((y[0] - 3) ** 2 + (y[1] - 4) ** 2) / 2


def _outrata1(hessian, linear, weight, start):
    """Outrata 1990, problem 1: `F = H y + linear(x)`."""
    matrix = jnp.array(hessian)
    game = ix.Game(lambda x, y: matrix @ y + linear(x), _outrata_set())
    problem = ix.DesignProblem(game, lambda x, y: _far(y) - 12.5 + weight * x @ x, ix.Reals((2,)))
    return problem, jnp.array(start)


_H1, _H2 = [[1.0, -2.0], [-2.0, 5.0]], [[1.0, 3.0], [3.0, 10.0]]
_cross = jnp.array([[1.0, -2.0], [-3.0, 3.0]])
DESIGNS |= {
    "Outrata 1a": (lambda: _outrata1(_H1, lambda x: -x, 0.1, [0.0, 0.0]), -8.917203),
    "Outrata 1b": (lambda: _outrata1(_H1, lambda x: -x, 1.0, [0.0, 0.0]), -7.578458),
    "Outrata 1c": (lambda: _outrata1(_H2, lambda x: -x, 0.0, [0.0, 0.0]), -11.998499),
    "Outrata 1d": (lambda: _outrata1(_H2, lambda x: -x, 0.1, [6.0, -3.0]), -3.6),
    "Outrata 1e": (lambda: _outrata1(_H2, lambda x: _cross @ x, 0.1, [6.0, -3.0]), -3.92),
}


def _outrata2(diagonal, start):
    """Outrata 1990, problem 2, x >= 0."""

    def operator(x, y):
        return diagonal(x[0]) * y - jnp.stack([1.333 * x[0] + 3, x[0]])

    game = ix.Game(operator, _outrata_set())
    problem = ix.DesignProblem(game, lambda x, y: _far(y), ix.NonNegative())
    return problem, jnp.array([start])


DESIGNS |= {
    "Outrata 2a": (lambda: _outrata2(lambda x: jnp.array([1.0, 1.0]), 1.0), 0.501501),
    # A singular Jacobian; y is unique all the same.
    "Outrata 2b": (lambda: _outrata2(lambda x: jnp.stack([1 + x, 0 * x]), 5.0), 0.501501),
    "Outrata 2c": (lambda: _outrata2(lambda x: jnp.stack([1 + x, 1 + 0.1 * x]), 0.0), 1.860462),
}


def _follow(objective, low=0.5, high=1.5):
    """Agents copy the designer within a box."""
    game = ix.Game(lambda x, y: 2 * (y - x), ix.Box(low * jnp.ones(2), high))
    return ix.DesignProblem(game, objective, ix.Reals((2,))), jnp.zeros(2)


@design("De Silva 1978", -1.0)
def de_silva():
    return _follow(lambda x, y: ((x - 1) ** 2).sum() + y @ y - 2)


@design("Falk, Liu 1995", -2.25)
def falk():
    return _follow(lambda x, y: ((x - 1.5) ** 2).sum() + y @ y - 4.5)


def _scalar(operator, objective, incentive_set, start, strategy_set=None):
    strategies = ix.Reals((1,)) if strategy_set is None else strategy_set
    problem = ix.DesignProblem(
        ix.Game(operator, strategies), lambda x, y: objective(x, y).sum(), incentive_set
    )
    return problem, jnp.array([start])


@design("Henrion, Surowiec 2011", 0.0)
def henrion():
    return _scalar(lambda x, y: y - x, lambda x, y: x**2, ix.Reals((1,)), 1.0)


@design("Macal, Hurter 1997", 81.327869)
def macal():
    return _scalar(
        lambda x, y: 500 - 50 * x + y,
        lambda x, y: (x - 1) ** 2 + (y - 1) ** 2,
        ix.Reals((1,)),
        1.0,
    )


@design("Lampariello, Sagratella 2017", 0.5)
def lampariello():
    return _scalar(lambda x, y: 2 * (x + y - 1), lambda x, y: x**2 + y**2, ix.Reals((1,)), 1.0)


@design("Shimizu, Aiyoshi 1981", 225.0)
def shimizu():
    game = ix.Game(lambda x, y: 2 * (y - x), ix.Box(jnp.zeros(2), 10.0))
    rows, levels = jnp.array([[-1.0, -2.0], [1.0, 1.0]]), jnp.array([-30.0, 25.0])
    incentives = ix.Polyhedron(inequality=(rows, levels), upper=jnp.array([jnp.inf, 15.0]))

    def objective(x, y):
        return (x[0] - 30) ** 2 + (x[1] - 20) ** 2 - 20 * y[0] + 20 * y[1]

    return ix.DesignProblem(game, objective, incentives), jnp.array([20.0, 5.0])


@design("Henderson, Quandt", -3266.666667)
def henderson():
    return _scalar(
        lambda x, y: 2 * y + 0.5 * x - 100,
        lambda x, y: 0.5 * x**2 + 0.5 * x * y - 95 * x,
        ix.Box(jnp.zeros(1), 200.0),
        0.0,
        ix.NonNegative(),
    )


@design("jr1 (Jiang, Ralph)", 0.5)
def jr1():
    return _scalar(
        lambda x, y: y - x,
        lambda x, y: (x - 1) ** 2 + y**2,
        ix.Reals((1,)),
        -1.0,
        ix.NonNegative(),
    )


@design("qpec1 (Jiang, Ralph)", 80.0)
def qpec1():
    """Ten pairs are degenerate whatever x is."""
    game = ix.Game(
        lambda x, y: jnp.concatenate([y[:10] - x, y[10:]]), ix.Box(jnp.zeros(20), jnp.inf)
    )
    problem = ix.DesignProblem(
        game, lambda x, y: ((x + 1) ** 2).sum() + ((y + 2) ** 2).sum(), ix.Reals((10,))
    )
    return problem, jnp.ones(10)


@design("Pigou toll", 0.75)
def pigou():
    game = ix.Game(lambda x, h: jnp.stack([h[0] + x[0], jnp.ones_like(h[0])]), ix.Simplex(2))
    problem = ix.DesignProblem(game, lambda x, h: h[0] ** 2 + h[1], ix.Box(jnp.zeros(1), 1.0))
    return problem, jnp.zeros(1)


# Paths a-d, b-e, a-c-e over links a..e.
BRAESS = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1.0]])


def braess_times(flows):
    return jnp.array([10.0, 1, 1, 1, 10]) * flows + jnp.array([0.0, 50, 10, 50, 0])


@design("Braess tolls", 498.0)
def braess():
    links = jnp.asarray(BRAESS)
    game = ix.Game(
        lambda tolls, h: links.T @ (braess_times(links @ h) + tolls), ix.Simplex(3, total=6.0)
    )
    problem = ix.DesignProblem(
        game, lambda tolls, h: (links @ h) @ braess_times(links @ h), ix.Box(jnp.zeros(5), 100.0)
    )
    return problem, jnp.zeros(5)


# The emission tax: closed forms and an active set enumeration, to the digits given.
_TAXES = {
    ("free", "unit interval", None): 127.503065,
    ("free", "free", None): 637.599413,
    ("non-negative", "free", None): -2584.126380,
    ("non-negative", "non-negative", None): -2542.961002,
    ("non-negative", "per damage", None): -2364.102714,
}


def _tax(output, tax, penalty):
    instance = ix.problems.emission_tax(output=output, tax=tax, penalty=penalty)
    return instance.problem, instance.theta0


for (_output, _kind, _penalty), _best in _TAXES.items():
    DESIGNS[f"emission tax, output {_output}, tax {_kind}"] = (
        lambda output=_output, kind=_kind, penalty=_penalty: _tax(output, kind, penalty),
        _best,
    )


def _kinked_value(a, b):
    """`min over t of (clip(t, 0, 1) - a)^2 + (t - b)^2`, coordinate by coordinate."""
    pieces = [
        (np.minimum(b, 0), 0.0 * b),
        (np.clip((a + b) / 2, 0, 1), np.clip((a + b) / 2, 0, 1)),
        (np.maximum(b, 1), 0.0 * b + 1),
    ]
    return np.min([(x - a) ** 2 + (t - b) ** 2 for t, x in pieces], axis=0).sum()


def _kinked(n, seed):
    """Wishes outside of what agents can do: optima at the kinks of `clip(theta, 0, 1)`."""
    rng = np.random.default_rng(seed)
    a = np.where(rng.random(n) < 0.5, rng.uniform(-2, -0.5, n), rng.uniform(1.5, 3, n))
    b = rng.uniform(-1, 2, n)
    game = ix.Game(lambda t, x: x - t, ix.Box(jnp.zeros(n), 1.0))

    def objective(t, x):
        return ((x - jnp.asarray(a)) ** 2).sum() + ((t - jnp.asarray(b)) ** 2).sum()

    return ix.DesignProblem(game, objective, ix.Reals((n,))), jnp.zeros(n), _kinked_value(a, b)


for _n, _seed in ((5, 0), (40, 1), (100, 100)):
    DESIGNS[f"planted kinks, n = {_n}"] = (
        lambda n=_n, seed=_seed: _kinked(n, seed)[:2],
        _kinked(_n, _seed)[2],
    )


@design("tiny objective, portfolio with weights at zero", 1e-6)
def portfolio():
    """Investors hold `argmin x'Sx/2 - theta'x` on the simplex; the target has two zeros."""
    factors = jnp.asarray(np.random.default_rng(2).normal(size=(6, 6)))
    risk = factors @ factors.T / 6 + 0.1 * jnp.eye(6)
    target = jnp.array([0.4, 0.3, 0.2, 0.1, 0.0, 0.0])
    game = ix.Game(lambda t, x: risk @ x - t, ix.Simplex(6))
    problem = ix.DesignProblem(
        game, lambda t, x: 1e-6 * (1 + ((x - target) ** 2).sum()), ix.Box(-jnp.ones(6), 1.0)
    )
    return problem, jnp.zeros(6)


@design("tiny objective, portfolio of 50 with 25 weights at zero", 1e-6)
def large_portfolio():
    """Far from the target most weights are zero, and nothing depends on their incentives."""
    rng = np.random.default_rng(50)
    factors = jnp.asarray(rng.normal(size=(50, 50)))
    risk = factors @ factors.T / 50 + 0.05 * jnp.eye(50)
    weights = np.where(np.arange(50) < 25, rng.uniform(0, 1, 50), 0)
    target = jnp.asarray(weights / weights.sum())
    game = ix.Game(lambda t, x: risk @ x - t, ix.Simplex(50))
    problem = ix.DesignProblem(
        game, lambda t, x: 1e-6 * (1 + ((x - target) ** 2).sum()), ix.Box(-jnp.ones(50), 1.0)
    )
    return problem, jnp.zeros(50)


def _grid_paths(side, pairs, longest):
    """Loop-free paths on a grid of two-way roads: a matrix of links by paths, and their counts."""
    nodes = [(i, j) for i in range(side) for j in range(side)]
    links = {}
    for i, j in nodes:
        for end in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if end in nodes:
                links[(i, j), end] = len(links)
    columns, counts = [], []

    def extend(path, end):
        if path[-1] == end:
            column = np.zeros(len(links))
            column[[links[step] for step in itertools.pairwise(path)]] = 1
            columns.append(column)
        elif len(path) <= longest:
            for start, next_node in links:
                if start == path[-1] and next_node not in path:
                    extend([*path, next_node], end)

    for start, end in pairs:
        before = len(columns)
        extend([start], end)
        counts.append(len(columns) - before)
    return np.array(columns).T, counts


def _grid(power):
    """Three commodities on a 3 x 3 grid: link flows alone are unique."""
    pairs = (((0, 0), (2, 2)), ((2, 0), (0, 2)), ((0, 1), (2, 1)))
    incidence, counts = _grid_paths(3, pairs, 6)
    rng = np.random.default_rng(0)
    links, number = jnp.asarray(incidence), len(incidence)
    free, capacity = (jnp.asarray(rng.uniform(*span, number)) for span in ((1, 3), (2, 5)))
    demand = jnp.array([6.0, 5.0, 4.0])

    def times(flows):
        return free * (1 + 0.15 * (flows / capacity) ** power)

    routes = ix.Simplex(counts, total=demand)
    game = ix.Game(lambda tolls, h: links.T @ (times(links @ h) + tolls), routes)
    problem = ix.DesignProblem(
        game,
        lambda tolls, h: (links @ h) @ times(links @ h),
        ix.Box(jnp.zeros(number), 50.0),
    )
    return problem, jnp.zeros(number)


# First-best tolls make the system optimum, whose value is that of the convex program over paths.
DESIGNS |= {
    "multicommodity grid, linear": (lambda: _grid(1), 101.724082839),
    "multicommodity grid, fourth power": (lambda: _grid(4), 106.887235101),
}


_WISH, _PRICE = jnp.linspace(-1.0, 2.0, 8), jnp.linspace(1.0, -1.0, 8)


@design("ill-conditioned lower level", float(((_WISH - _PRICE) ** 2).sum() / 2))
def ill_conditioned():
    """`F = D (x - theta)` with a condition number of 1e6: `x* = theta`."""
    scale = 10.0 ** jnp.linspace(-6, 0, 8)
    game = ix.Game(lambda t, x: scale * (x - t), ix.Reals((8,)))
    problem = ix.DesignProblem(
        game,
        lambda t, x: ((x - _WISH) ** 2).sum() + ((t - _PRICE) ** 2).sum(),
        ix.Reals((8,)),
    )
    return problem, jnp.zeros(8)


_BUDGET_WISH = jnp.array([0.9, 0.4, 0.2, -0.3])


@design(
    "budget for subsidies",
    float(((ix.Simplex(4).project(_BUDGET_WISH) - _BUDGET_WISH) ** 2).sum()),
)
def budget():
    """Subsidies share a budget of 1; the best is a projection on the simplex."""
    game = ix.Game(lambda t, x: x - t, ix.Reals((4,)))
    incentives = ix.Polyhedron(inequality=(jnp.ones((1, 4)), jnp.ones(1)), lower=0.0)
    problem = ix.DesignProblem(game, lambda t, x: ((x - _BUDGET_WISH) ** 2).sum(), incentives)
    return problem, jnp.zeros(4)


@design("capacity that the designer moves", 1.21875)
def capacity():
    """Agents use all of a capacity c of which each wants more, `x = c / 2`: optimum c = 1.25."""
    game = ix.Game(
        lambda c, x: x - 3.0,
        lambda c: ix.Polyhedron(inequality=(jnp.ones((1, 2)), c), lower=jnp.zeros(2)),
    )
    problem = ix.DesignProblem(
        game, lambda c, x: ((x - 1) ** 2).sum() + c[0] * 0.75, ix.Box(jnp.zeros(1), 2.0)
    )
    return problem, jnp.array([1.5])


def _parallel(rng_seed):
    rng = np.random.default_rng(rng_seed)
    free, slope = rng.uniform(1, 3, 6), rng.uniform(0.5, 2, 6)
    return free, slope


def _system_optimum(free, slope, demand):
    """Least `sum v (free + slope v)` with flows that sum to the demand: by bisection."""
    low, high = free.min(), free.max() + 2 * slope.max() * demand
    for _ in range(200):
        level = (low + high) / 2
        flows = np.maximum(level - free, 0) / (2 * slope)
        low, high = (level, high) if flows.sum() < demand else (low, level)
    return float(flows @ (free + slope * flows))


@design("first-best tolls on parallel roads", _system_optimum(*_parallel(3), 4.0))
def parallel_roads():
    free, slope = map(jnp.asarray, _parallel(3))
    game = ix.Game(lambda tolls, v: free + slope * v + tolls, ix.Simplex(6, total=4.0))
    problem = ix.DesignProblem(
        game, lambda tolls, v: v @ (free + slope * v), ix.Box(jnp.zeros(6), 20.0)
    )
    return problem, jnp.zeros(6)


@design("regulated duopoly", -2 / 9)
def duopoly():
    """Nonsmooth example after Du, Meng, Hu, kappa = .45: local minimum 0, global -2/9 at 20/9."""

    def cost(theta, x):
        return x**2 / 2 + x[0] * x[1] / 2 - theta * x + 0.45 * theta**2 / 2

    game = ix.AtomicGame(cost, ix.Box(jnp.zeros(2), 1.0))
    problem = ix.DesignProblem(game, lambda t, x: game.cost(t, x).sum(), ix.Box(-jnp.ones(1), 3.0))
    return problem, jnp.zeros(1)
