"""Small bilevel problems of the literature."""

import jax.numpy as jnp

from ...design import DesignProblem
from ...games import AtomicGame, Game
from ...sets import Box, NonNegative, Polyhedron, Reals
from ._entry import design


def _follow(objective, low=0.5, high=1.5):
    """Agents copy the designer within a box."""
    game = Game(lambda x, y: 2 * (y - x), Box(low * jnp.ones(2), high))
    return DesignProblem(game, objective, Reals((2,))), jnp.zeros(2)


@design("De Silva 1978", -1.0, "De Silva (1978)")
def de_silva():
    return _follow(lambda x, y: ((x - 1) ** 2).sum() + y @ y - 2)


@design("Falk, Liu 1995", -2.25, "Falk, Liu (1995)")
def falk():
    return _follow(lambda x, y: ((x - 1.5) ** 2).sum() + y @ y - 4.5)


def _scalar(operator, objective, incentive_set, start, strategy_set=None):
    strategies = Reals((1,)) if strategy_set is None else strategy_set
    problem = DesignProblem(
        Game(operator, strategies), lambda x, y: objective(x, y).sum(), incentive_set
    )
    return problem, jnp.array([start])


@design("Henrion, Surowiec 2011", 0.0, "Henrion, Surowiec (2011)")
def henrion():
    return _scalar(lambda x, y: y - x, lambda x, y: x**2, Reals((1,)), 1.0)


@design("Macal, Hurter 1997", 81.327869, "Macal, Hurter (1997)")
def macal():
    return _scalar(
        lambda x, y: 500 - 50 * x + y,
        lambda x, y: (x - 1) ** 2 + (y - 1) ** 2,
        Reals((1,)),
        1.0,
    )


@design("Lampariello, Sagratella 2017", 0.5, "Lampariello, Sagratella (2017)")
def lampariello():
    return _scalar(lambda x, y: 2 * (x + y - 1), lambda x, y: x**2 + y**2, Reals((1,)), 1.0)


@design("Shimizu, Aiyoshi 1981", 225.0, "Shimizu, Aiyoshi (1981)")
def shimizu():
    game = Game(lambda x, y: 2 * (y - x), Box(jnp.zeros(2), 10.0))
    rows, levels = jnp.array([[-1.0, -2.0], [1.0, 1.0]]), jnp.array([-30.0, 25.0])
    incentives = Polyhedron(inequality=(rows, levels), upper=jnp.array([jnp.inf, 15.0]))

    def objective(x, y):
        return (x[0] - 30) ** 2 + (x[1] - 20) ** 2 - 20 * y[0] + 20 * y[1]

    return DesignProblem(game, objective, incentives), jnp.array([20.0, 5.0])


@design("Henderson, Quandt", -3266.666667, "Henderson, Quandt")
def henderson():
    return _scalar(
        lambda x, y: 2 * y + 0.5 * x - 100,
        lambda x, y: 0.5 * x**2 + 0.5 * x * y - 95 * x,
        Box(jnp.zeros(1), 200.0),
        0.0,
        NonNegative(),
    )


@design("jr1 (Jiang, Ralph)", 0.5, "Jiang, Ralph")
def jr1():
    return _scalar(
        lambda x, y: y - x,
        lambda x, y: (x - 1) ** 2 + y**2,
        Reals((1,)),
        -1.0,
        NonNegative(),
    )


@design("qpec1 (Jiang, Ralph)", 80.0, "Jiang, Ralph")
def qpec1():
    """Ten pairs are degenerate whatever x is."""
    game = Game(lambda x, y: jnp.concatenate([y[:10] - x, y[10:]]), Box(jnp.zeros(20), jnp.inf))
    problem = DesignProblem(
        game, lambda x, y: ((x + 1) ** 2).sum() + ((y + 2) ** 2).sum(), Reals((10,))
    )
    return problem, jnp.ones(10)


@design("regulated duopoly", -2 / 9, "after Du, Meng, Hu (2025), example 1")
def duopoly():
    """Nonsmooth example after Du, Meng, Hu, kappa = .45: local minimum 0, global -2/9 at 20/9."""

    def cost(theta, x):
        return x**2 / 2 + x[0] * x[1] / 2 - theta * x + 0.45 * theta**2 / 2

    game = AtomicGame(cost, Box(jnp.zeros(2), 1.0))
    problem = DesignProblem(game, lambda t, x: game.cost(t, x).sum(), Box(-jnp.ones(1), 3.0))
    return problem, jnp.zeros(1)
