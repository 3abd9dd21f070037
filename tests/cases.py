"""The problem bank: design problems with what is known of their equilibria and optima.

`BANK` maps a name to a `Case`. `equilibrium(theta)` is a closed form where there is one; every
case can be differentiated at `theta`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

import incentax as ix


@dataclass(frozen=True)
class Case:
    problem: ix.DesignProblem
    theta: jax.Array
    x0: jax.Array | None = None
    equilibrium: Callable | None = None
    solvers: tuple[str, ...] = ("dense", "krylov")
    notes: dict = field(default_factory=dict)


def emission_tax_free() -> Case:
    """Cournot firms on all of R^n, taxed by firm (Liu et al. 2022, section 7, 10 firms).

    `F_i = c_i + theta_i - (p0 - gamma_i (a_i + Q))` with unequal slopes `gamma_i`, so that the
    Jacobian is not symmetric. Closed form: one linear system.
    """
    n, p0, tau = 10, 100.0, 10.0
    cost = jnp.linspace(1.0, 2.0, n)
    slope = jnp.linspace(0.5, 2.0, n)
    damage = 10 - jnp.exp(cost)
    matrix = jnp.diag(slope) + slope[:, None] * jnp.ones((1, n))

    def operator(theta, a, total):
        return cost + theta - (p0 - slope * (a + total))

    def objective(theta, a):
        total = a.sum()
        welfare = p0 * total - total**2 / 2 - (cost * a).sum() - tau * (damage * a).sum()
        return -welfare + 50 * (theta**2).sum()

    return Case(
        ix.DesignProblem(
            ix.AggregativeGame(operator, lambda theta, a: a.sum(), ix.Reals((n,))),
            objective,
            ix.Reals((n,)),
        ),
        theta=jnp.linspace(-1.0, 1.0, n),
        equilibrium=lambda theta: jnp.linalg.solve(matrix, p0 - cost - theta),
        solvers=("dense", "krylov", "aggregate"),
    )


def _asymmetric(d: int, seed: int) -> np.ndarray:
    """A strongly monotone matrix (symmetric part >= I) that is far from symmetric."""
    rng = np.random.default_rng(seed)
    half, skew = rng.normal(size=(d, d)), rng.normal(size=(d, d))
    return half @ half.T / d + np.eye(d) + (skew - skew.T) / 2


def planted_box() -> Case:
    """Affine asymmetric operator on [0, 1]^8; two bounds active at each end, with multipliers.

    `F(theta, x) = M (x - z) + B theta - m` with the equilibrium planted at `z` for `theta = 0`.
    """
    d = 8
    matrix = jnp.asarray(_asymmetric(d, 0))
    planted = jnp.array([0.0, 0.0, 1.0, 1.0, 0.2, 0.4, 0.6, 0.8])
    multiplier = jnp.array([0.5, 1.0, -0.5, -1.0, 0, 0, 0, 0])
    influence = jnp.asarray(np.random.default_rng(1).normal(size=(d, 3)))

    def operator(theta, x):
        return matrix @ (x - planted) + influence @ theta + multiplier

    return Case(
        ix.DesignProblem(
            ix.Game(operator, ix.Box(jnp.zeros(d), 1.0)),
            lambda theta, x: jnp.sum((x - 0.5) ** 3) + theta @ theta,
            ix.Box(-jnp.ones(3), 1.0),
        ),
        theta=jnp.zeros(3),
        equilibrium=lambda theta: planted,
    )


def planted_simplex() -> Case:
    """Affine asymmetric operator on ragged simplices of total (1, 2.5), one strategy unused."""
    sizes, totals = (3, 4), jnp.array([1.0, 2.5])
    matrix = jnp.asarray(_asymmetric(7, 2))
    planted = jnp.array([0.3, 0.7, 0.0, 0.5, 1.0, 0.6, 0.4])
    # Equal costs within a block, and more for the strategy that is not used.
    level = jnp.array([1.0, 1.0, 2.0, -3.0, -3.0, -3.0, -3.0])
    influence = jnp.asarray(np.random.default_rng(3).normal(size=(7, 2)))

    def operator(theta, x):
        return matrix @ (x - planted) + influence @ theta + level

    return Case(
        ix.DesignProblem(
            ix.Game(operator, ix.Simplex(sizes, total=totals)),
            lambda theta, x: jnp.sum(jnp.sin(x)) + theta @ theta,
            ix.Box(-jnp.ones(2), 1.0),
        ),
        theta=jnp.zeros(2),
        equilibrium=lambda theta: planted,
    )


def ragged_logit() -> Case:
    """Quantal response of an asymmetric game on ragged simplices, some strategies below 1e-6."""
    matrix = jnp.asarray(_asymmetric(9, 4))
    level = jnp.array([0.0, 1.0, 0.0, 0.5, 6.0, 0.0, 0.2, 0.4, 7.0])
    influence = jnp.asarray(np.random.default_rng(5).normal(size=(9, 3)))
    game = ix.Game(lambda theta, x: matrix @ x + level + influence @ theta, ix.Simplex([2, 3, 4]))
    return Case(
        ix.DesignProblem(
            ix.QuantalResponse(game, 0.4),
            lambda theta, x: x @ (matrix @ x) + theta @ theta,
            ix.Box(-jnp.ones(3), 1.0),
        ),
        theta=jnp.array([0.3, -0.2, 0.1]),
    )


def routing() -> Case:
    """Logit routing with very unequal numbers of trips (three pairs of the Braess network)."""
    network = ix.traffic.Network(
        tail=[0, 0, 2, 2, 3],
        head=[2, 3, 1, 3, 1],
        capacity=[1.0] * 5,
        free_flow_time=[1.0, 50.0, 50.0, 10.0, 1.0],
        b=[2.0, 0.02, 0.02, 0.1, 2.0],
        power=[1.0, 1.0, 2.0, 1.0, 4.0],
        number_of_nodes=4,
    )
    demand = ix.traffic.Demand([[0, 1], [0, 3], [2, 1]], [6.0, 0.3, 0.01])
    paths = ix.traffic.k_shortest_paths(network, demand, 3)
    game = ix.traffic.RoutingGame(network, demand, paths, eta=3.0, tolled_links=[0, 3, 4])
    return Case(
        ix.DesignProblem(game, game.total_travel_time, ix.Box(jnp.zeros(3), 100.0)),
        theta=jnp.array([1.0, 5.0, 2.0]),
        solvers=("dense", "krylov", "aggregate"),
    )


def charging() -> Case:
    """Aggregative game on a box with bounds active: mean load felt by all (after Du et al.)."""
    n = 6
    weight = jnp.linspace(0.5, 1.5, n)
    wish = jnp.linspace(1.0, 9.0, n)

    def operator(theta, x, load):
        return 2 * weight * x - wish + theta[0] * load + theta[1]

    return Case(
        ix.DesignProblem(
            ix.AggregativeGame(operator, lambda theta, x: x.mean(), ix.Box(0.5 * jnp.ones(n), 3.0)),
            lambda theta, x: jnp.sum(weight * x**2 - 0.3 * wish * x),
            ix.Box(jnp.zeros(2), 5.0),
        ),
        theta=jnp.array([1.0, 0.5]),
        solvers=("dense", "krylov", "aggregate"),
    )


BANK = {
    case.__name__: case
    for case in (
        emission_tax_free,
        planted_box,
        planted_simplex,
        ragged_logit,
        routing,
        charging,
    )
}
