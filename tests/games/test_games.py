import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def test_atomic_operator_is_each_players_own_derivative():
    """Vector strategies, costs that depend on everybody: against the diagonal of the Jacobian."""
    weight = jax.random.normal(jax.random.key(0), (3, 3))

    def cost(theta, x):
        return jnp.sum(x**2, axis=1) * theta + weight @ jnp.sin(x).sum(1) + x[:, 0] * x[::-1, 1]

    game = ix.AtomicGame(cost, ix.Reals((3, 2)))
    x = jax.random.normal(jax.random.key(1), (3, 2))
    jacobian = jax.jacobian(cost, 1)(jnp.array(0.7), x)
    expected = jnp.stack([jacobian[i, i] for i in range(3)])
    np.testing.assert_allclose(game.operator(jnp.array(0.7), x), expected, rtol=1e-13)
    np.testing.assert_allclose(game.cost(jnp.array(0.7), x), cost(jnp.array(0.7), x))


@pytest.mark.parametrize("epsilon", [0.0, 0.01])
def test_log_operator_is_the_operator_of_the_exponential(epsilon):
    game = ix.Game(lambda theta, x: jnp.cumsum(x) * theta, ix.Simplex(4))
    logit = ix.QuantalResponse(game, 0.5, epsilon=epsilon)
    log_x = jnp.array([-1.0, -2.0, -3.0, -40.0])
    np.testing.assert_allclose(
        logit.log_operator(jnp.array(2.0), jnp.exp(log_x), log_x),
        logit.operator(jnp.array(2.0), jnp.exp(log_x)),
        rtol=1e-12,
    )


def test_logit_is_exact_where_the_strategy_underflows():
    game = ix.QuantalResponse(ix.Game(lambda theta, x: theta, ix.Simplex(2)), 0.1)
    value = game.log_operator(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([0.0, -5000.0]))
    np.testing.assert_allclose(value, [0.1, 0.1 * (1 - 5000.0)])
    assert jnp.isfinite(game.operator(jnp.zeros(2), jnp.array([1.0, 0.0]))).all()


def test_aggregative_form_gives_the_operator():
    game = ix.AggregativeGame(
        lambda theta, x, s: x * theta + s, lambda theta, x: x.sum(), ix.Simplex(3)
    )
    logit = ix.QuantalResponse(game, 1.0)
    x = jnp.array([0.2, 0.3, 0.5])
    for one in (game, logit):
        form = one.aggregative_form
        value = form.operator(2.0, x, form.aggregate(2.0, x))
        np.testing.assert_allclose(value, one.operator(2.0, x))


def test_games_pass_through_jit_and_vmap_as_pytrees():
    game = ix.QuantalResponse(ix.Game(lambda theta, x: theta + x, ix.Simplex(2)), 1.0)
    x = jnp.array([0.25, 0.75])
    value = jax.jit(lambda game, x: game.operator(1.0, x))(game, x)
    np.testing.assert_allclose(value, game.operator(1.0, x))
    etas = jnp.array([0.5, 2.0])

    def operator(eta):
        return ix.QuantalResponse(game.game, eta).operator(1.0, x)

    lanes = jax.vmap(operator)(etas)
    np.testing.assert_allclose(lanes[1], operator(2.0))


def test_refusals():
    with pytest.raises(ValueError, match=r"eta >= 0, got -1\.0"):
        ix.QuantalResponse(ix.Game(lambda t, x: x, ix.Simplex(2)), -1.0)
    with pytest.raises(TypeError, match="strategy_set"):
        ix.Game(lambda t, x: x, "simplex")
    with pytest.raises(TypeError, match="function"):
        ix.Game(3, ix.Reals())
    game = ix.Game(lambda theta, x: x[:1], ix.Reals((2,)))
    with pytest.raises(ValueError, match=r"shape of x, \(2,\), got \(1,\)"):
        game.operator(None, jnp.ones(2))
    atomic = ix.AtomicGame(lambda theta, x: x.sum(), ix.Reals((2,)))
    with pytest.raises(ValueError, match=r"one number a player(.|\n)*\(2,\), got \(\)"):
        atomic.operator(None, jnp.ones(2))
