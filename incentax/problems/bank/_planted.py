"""Problems of our own whose optimum is known in closed form."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game, QuantalResponse
from ...sets import Box, Polyhedron, Reals, Simplex
from .._planted import planted_choice
from ._entry import design, equilibrium


def _kinked_value(a, b):
    """`min over t of (clip(t, 0, 1) - a)^2 + (t - b)^2`, coordinate by coordinate."""
    pieces = [
        (np.minimum(b, 0), 0.0 * b),
        (np.clip((a + b) / 2, 0, 1), np.clip((a + b) / 2, 0, 1)),
        (np.maximum(b, 1), 0.0 * b + 1),
    ]
    return np.min([(x - a) ** 2 + (t - b) ** 2 for t, x in pieces], axis=0).sum()


def _wishes(n, seed):
    """Outside of what agents can do: optima at the kinks of `clip(theta, 0, 1)`."""
    rng = np.random.default_rng(seed)
    a = np.where(rng.random(n) < 0.5, rng.uniform(-2, -0.5, n), rng.uniform(1.5, 3, n))
    return a, rng.uniform(-1, 2, n)


def _kinked(n, seed):
    a, b = _wishes(n, seed)
    game = Game(lambda t, x: x - t, Box(jnp.zeros(n), 1.0))

    def objective(t, x):
        return ((x - jnp.asarray(a)) ** 2).sum() + ((t - jnp.asarray(b)) ** 2).sum()

    return DesignProblem(game, objective, Reals((n,))), jnp.zeros(n)


for _n, _seed in ((5, 0), (40, 1), (100, 100)):
    design(f"planted kinks, n = {_n}", _kinked_value(*_wishes(_n, _seed)))(
        partial(_kinked, _n, _seed)
    )


@design("tiny objective, portfolio with weights at zero", 1e-6)
def portfolio():
    """Investors hold `argmin x'Sx/2 - theta'x` on the simplex; the target has two zeros."""
    factors = jnp.asarray(np.random.default_rng(2).normal(size=(6, 6)))
    risk = factors @ factors.T / 6 + 0.1 * jnp.eye(6)
    target = jnp.array([0.4, 0.3, 0.2, 0.1, 0.0, 0.0])
    game = Game(lambda t, x: risk @ x - t, Simplex(6))
    problem = DesignProblem(
        game, lambda t, x: 1e-6 * (1 + ((x - target) ** 2).sum()), Box(-jnp.ones(6), 1.0)
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
    game = Game(lambda t, x: risk @ x - t, Simplex(50))
    problem = DesignProblem(
        game, lambda t, x: 1e-6 * (1 + ((x - target) ** 2).sum()), Box(-jnp.ones(50), 1.0)
    )
    return problem, jnp.zeros(50)


_WISH, _PRICE = np.linspace(-1.0, 2.0, 8), np.linspace(1.0, -1.0, 8)


@design("ill-conditioned lower level", float(((_WISH - _PRICE) ** 2).sum() / 2))
def ill_conditioned():
    """`F = D (x - theta)` with a condition number of 1e6: `x* = theta`."""
    scale = 10.0 ** jnp.linspace(-6, 0, 8)
    game = Game(lambda t, x: scale * (x - t), Reals((8,)))
    problem = DesignProblem(
        game,
        lambda t, x: ((x - _WISH) ** 2).sum() + ((t - _PRICE) ** 2).sum(),
        Reals((8,)),
    )
    return problem, jnp.zeros(8)


_BUDGET_WISH = np.array([0.9, 0.4, 0.2, -0.3])


@design(
    "budget for subsidies",
    3 / 6**2 + 0.3**2,  # three subsidies give up 1/6 each, the fourth is at its bound
)
def budget():
    """Subsidies share a budget of 1; the best is a projection on the simplex."""
    game = Game(lambda t, x: x - t, Reals((4,)))
    incentives = Polyhedron(inequality=(jnp.ones((1, 4)), jnp.ones(1)), lower=0.0)
    problem = DesignProblem(game, lambda t, x: ((x - _BUDGET_WISH) ** 2).sum(), incentives)
    return problem, jnp.zeros(4)


@design("capacity that the designer moves", 1.21875)
def capacity():
    """Agents use all of a capacity c of which each wants more, `x = c / 2`: optimum c = 1.25."""
    game = Game(
        lambda c, x: x - 3.0,
        lambda c: Polyhedron(inequality=(jnp.ones((1, 2)), c), lower=jnp.zeros(2)),
    )
    problem = DesignProblem(
        game, lambda c, x: ((x - 1) ** 2).sum() + c[0] * 0.75, Box(jnp.zeros(1), 2.0)
    )
    return problem, jnp.array([1.5])


def _response(eta):
    """Choices of [`planted_choice`][] at its best charge."""
    choice: Any = planted_choice(eta=eta).problem.game
    best, rational = jnp.array([0.5, -0.5]), choice.game
    game = Game(lambda _, x: rational.operator(best, x), choice.strategies(None))
    return QuantalResponse(game, eta), jnp.full(6, 1 / 3)


for _eta in (1.0, 0.1):
    equilibrium(f"planted quantal response, eta = {_eta}", [0.5, 0.3, 0.2, 0.2, 0.3, 0.5])(
        partial(_response, _eta)
    )
