"""Followers whose costs are not convex, and players with sets of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def bumps(selection=None):
    """The follower jumps from one valley to another at x = 1: best is 1.0018 there."""

    def cost(x, y):
        return -x * jnp.exp(-((y + 1) ** 2)) - jnp.exp(-((y - 1) ** 2))

    game = ix.AtomicGame(cost, ix.Box(-2 * jnp.ones(1), 2.0))
    return ix.DesignProblem(
        game,
        lambda x, y: (x[0] - 2) ** 2 + (y[0] - 1) ** 2,
        ix.Box(jnp.zeros(1), 3.0),
        selection=selection,
    )


def test_a_better_reply_elsewhere_is_found_and_told():
    problem = bumps()
    x, y = jnp.array([1.991]), jnp.array([0.8948])
    reply = ix.best_response(problem.game, x, y)
    np.testing.assert_allclose(reply.x, -0.99, atol=0.02)
    assert reply.regret > 0.9
    with pytest.warns(UserWarning, match="to first order only"):
        solution = ix.design(problem, jnp.array([0.5]))
    verdict = ix.certify(problem, solution.theta, solution.x).verdict
    assert "to first order only" in verdict
    assert "is exact" not in verdict


@pytest.mark.slow
def test_the_optimistic_selection_counts_nash_equilibria_alone():
    problem = bumps("optimistic")
    solution = ix.design(problem, jnp.array([0.5]))
    np.testing.assert_allclose(solution.theta, 1.0, atol=1e-4)
    np.testing.assert_allclose(solution.x, 0.9575, atol=1e-4)
    np.testing.assert_allclose(solution.objective, 1.0018, atol=1e-4)
    assert solution.ending == ix.ENDINGS.jump


@pytest.mark.parametrize(
    "seed", [s if s < 2 else pytest.param(s, marks=pytest.mark.slow) for s in range(10)]
)
def test_replies_agree_with_a_fine_grid(seed):
    """Costs with several valleys, in one and two dimensions."""
    rng = np.random.default_rng(seed)
    size = 1 + seed % 2
    waves, turn = jnp.asarray(rng.uniform(1, 4, size)), jnp.asarray(rng.uniform(0, 6, size))

    def cost(theta, x):
        own = jnp.sum(jnp.cos(waves[None] * x + turn[None]) + 0.1 * x**2, axis=1)
        return own + 0.1 * jnp.sum(x) * x[:, 0]

    game = ix.AtomicGame(cost, ix.Box(-2 * jnp.ones((2, size)), 2.0))
    x = jnp.asarray(rng.uniform(-2, 2, (2, size)))
    found = ix.best_response(game, None, x)
    ticks = jnp.linspace(-2, 2, 4001 if size == 1 else 161)
    grid = jnp.stack(jnp.meshgrid(*[ticks] * size), axis=-1).reshape(-1, size)
    costs = jax.vmap(lambda own: game.cost(None, x.at[0].set(own))[0])(grid)
    assert found.cost[0] <= costs.min() + 1e-9
    assert (found.regret >= 0).all()


def households(number=20, hours=6):
    """Each needs its energy over the hours; the price of an hour rises with its load."""
    need = np.random.default_rng(0).uniform(2, 6, number)
    own = [ix.Polyhedron(equality=(np.ones((1, hours)), [n]), lower=0.0, upper=2.5) for n in need]

    def cost(prices, x):
        return x @ (1 + 0.1 * x.sum(axis=0) + prices)

    return ix.AtomicGame(cost, ix.PerPlayer(own)), need


@pytest.mark.slow
def test_households_as_rows_of_a_game():
    game, need = households()
    found = ix.solve_equilibrium(game, jnp.zeros(6))
    assert found.x.shape == (20, 6)
    np.testing.assert_allclose(found.x, np.tile(need[:, None] / 6, 6), atol=1e-9)
    assert ix.best_response(game, jnp.zeros(6), found.x).regret.max() < 1e-9
    # By symmetry each hour answers its own price alike, and loads keep their sum.
    slopes = jax.jacobian(lambda t: ix.solve_equilibrium(game, t).x.sum(axis=0))(jnp.zeros(6))
    np.testing.assert_allclose(slopes.sum(axis=0), 0, atol=1e-8)
    np.testing.assert_allclose(jnp.diagonal(slopes), slopes[0, 0], rtol=1e-8)
    # F = price + .1 (load + x) with sum to zero: d load_h / d price_h = -(1 - 1/6) n / (.1 (n+1)).
    np.testing.assert_allclose(slopes[0, 0], -(5 / 6) * 20 / (0.1 * 21), rtol=1e-8)


def test_sets_of_unequal_shape_are_refused():
    with pytest.raises(ValueError, match=r"`PerPlayer\(sets\)` needs sets of one shape"):
        ix.PerPlayer([ix.Simplex(2), ix.Simplex(3)])
    with pytest.raises(ValueError, match=r"`Polyhedron\(shape=...\)` needs bounds that broadcast"):
        ix.Polyhedron(lower=jnp.zeros(6), shape=(2, 2))
    with pytest.raises(ValueError, match=r"`Polyhedron\(...\)` needs rows and bounds of one"):
        ix.Polyhedron(equality=(jnp.ones((1, 6)), jnp.ones(1)), shape=(2, 2))
