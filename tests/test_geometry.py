import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import incentax as ix

Q = jnp.array([[2.0, 0.5], [0.5, 1.0]])


@pytest.mark.parametrize(
    ("mirror_map", "strategy_set", "x"),
    [
        (ix.Euclidean(), ix.Box(0.0, 1.0), jnp.array([0.3, 0.9])),
        (ix.Euclidean(), ix.Simplex(2), jnp.array([0.3, 0.7])),
        (ix.Mahalanobis(Q), ix.Reals(), jnp.array([0.3, -0.9])),
        (ix.Entropic(), ix.Simplex(2, total=2.0), jnp.array([0.4, 1.6])),
        (ix.EntropicProduct(), ix.Simplex(2, total=2.0), jnp.array([0.4, 1.6])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_step_minimises_its_definition(mirror_map, strategy_set, x):
    """`argmin <F, p> + D(p, x) / beta` by a general solver, with `D` as the map defines it."""
    value, step_size = jnp.array([1.0, -0.7]), jnp.array(0.4)
    state = mirror_map.step(strategy_set, mirror_map.state(x), value, step_size)
    stepped = mirror_map.strategy(state)

    def model(p):
        return float(value @ p + mirror_map.divergence(jnp.asarray(p), x) / step_size)

    constraints, bounds = [], None
    if isinstance(strategy_set, ix.Simplex):
        constraints = [{"type": "eq", "fun": lambda p: p.sum() - float(x.sum())}]
        bounds = [(1e-9, None)] * 2
    elif isinstance(strategy_set, ix.Box):
        bounds = [(0.0, 1.0)] * 2
    found = scipy.optimize.minimize(
        model, np.asarray(x), constraints=constraints, bounds=bounds, tol=1e-12, method="SLSQP"
    )
    np.testing.assert_allclose(stepped, found.x, atol=2e-6)


def test_divergences():
    p, x = jnp.array([0.2, 0.8]), jnp.array([0.5, 0.5])
    assert ix.Euclidean().divergence(p, x) == pytest.approx(0.09)
    assert ix.Mahalanobis(Q).divergence(p, x) == pytest.approx(float((p - x) @ Q @ (p - x) / 2))
    expected = float((p * jnp.log(p / x)).sum())
    assert ix.Entropic().divergence(p, x) == pytest.approx(expected)
    assert ix.Entropic().divergence(jnp.array([0.0, 1.0]), x) == pytest.approx(float(jnp.log(2)))


def test_mixing_keeps_its_share_of_the_centre():
    simplex, entropic = ix.Simplex([2, 3]), ix.Entropic()
    x = jnp.array([1.0, 0.0, 0.5, 0.5, 0.0])
    for nu in (0.0, 1e-6, 0.25):
        mixed = entropic.strategy(entropic.mix(simplex, entropic.state(x), jnp.array(nu)))
        np.testing.assert_allclose(mixed, (1 - nu) * x + nu * simplex.centre(), atol=1e-15)


def test_logarithm_survives_where_the_product_form_does_not():
    simplex, value = ix.Simplex(3), jnp.array([5e3, 7e3, 6e3])
    product = ix.EntropicProduct().step(simplex, simplex.centre(), value, jnp.array(1.0))
    assert jnp.isnan(product).all()
    state = ix.Entropic().state(simplex.centre())
    for _ in range(3):
        state = ix.Entropic().step(simplex, state, value, jnp.array(1.0))
    np.testing.assert_allclose(state.log_x, [0.0, -6e3, -3e3])


def test_refusals():
    with pytest.raises(ValueError, match="square matrix"):
        ix.Mahalanobis(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"symmetric(.|\n)*got 1\.0"):
        ix.Mahalanobis(jnp.array([[1.0, 1.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"positive definite(.|\n)*-1"):
        ix.Mahalanobis(jnp.diag(jnp.array([1.0, -1.0])))
    game = ix.Game(lambda t, x: x, ix.Box(0.0, 1.0))
    for mirror_map, words in (
        (ix.Entropic(), "Simplex"),
        (ix.EntropicProduct(), "Simplex"),
        (ix.Mahalanobis(Q), "Reals"),
    ):
        method = ix.MirrorDescent(0.1, mirror_map)
        with pytest.raises(ValueError, match=words):
            ix.solve_equilibrium(game, None, jnp.ones(2), method=method)


def test_noise_and_schedules():
    key = jax.random.key(3)
    draws = jax.vmap(lambda k: ix.noise.Gaussian(2.0)(k, jnp.ones(4)))(jax.random.split(key, 4096))
    # 16,384 draws: the mean has standard error 2 / 128, the variance about 0.045; 5 sigma.
    assert abs(draws.mean() - 1) < 5 * 2 / 128
    assert abs(draws.var() - 4) < 5 * 0.045
    steps = jnp.array([0, 3, 26])
    for name, powers in (
        ("A", (1 / 2, 2 / 7, 4 / 7)),
        ("B", (1 / 2, 1.0, 4 / 7)),
        ("C", (1.0, 1.0, 1.0)),
    ):
        for schedule, exponent in zip(ix.schedules.setting(name, 2.0, 3.0, 0.5), powers):
            ratio = jax.vmap(schedule)(steps) / schedule(0)
            np.testing.assert_allclose(ratio, (np.asarray(steps) + 1.0) ** -exponent, rtol=1e-12)
    assert ix.schedules.setting("D").mixing(5) == 0
    assert ix.schedules.theorem_5_4(beta=1.0).play(7) == pytest.approx(0.25)
    for bad in (lambda: ix.noise.Gaussian(-1.0), lambda: ix.schedules.power(-2.0, 1.0)):
        with pytest.raises(ValueError, match=r">= 0, got -\d"):
            bad()
    with pytest.raises(ValueError, match="'E'"):
        ix.schedules.setting("E")
