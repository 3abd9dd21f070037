"""The two forms of the incidence, and all that JAX does with them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.traffic._incidence import (
    DenseIncidence,
    entries_of,
    incidence_of,
    SparseIncidence,
)


@pytest.fixture(scope="module")
def both():
    network, demand = ix.traffic.sioux_falls()
    paths = ix.traffic.k_shortest_paths(network, demand, 3)
    return DenseIncidence(76, paths), SparseIncidence(76, paths.number_of_paths, entries_of(paths))


def _apply(incidence, name, values):
    return getattr(incidence, name)(values)


def _compare(one, other, value):
    np.testing.assert_allclose(other(value), one(value), rtol=1e-12)
    lanes = jnp.stack([value, 2 * value, value**2])
    np.testing.assert_allclose(jax.vmap(other)(lanes), jax.vmap(one)(lanes), rtol=1e-12)

    def square(function, v):
        return jnp.sum(function(v) ** 2) + jnp.sum(jnp.sin(function(v)))

    for mode in (jax.grad, jax.jacrev, jax.jacfwd):
        np.testing.assert_allclose(
            mode(functools.partial(square, other))(value),
            mode(functools.partial(square, one))(value),
            rtol=1e-9,
        )
    _, moved = jax.jvp(other, (value,), (value,))
    np.testing.assert_allclose(moved, one(value), rtol=1e-12)


@pytest.mark.slow  # every mode compiles
def test_both_forms_agree_in_every_mode(both):
    dense, sparse = both
    rng = np.random.default_rng(0)
    link, path = jnp.asarray(rng.random(76)), jnp.asarray(rng.random(1584))
    for name, value in (("along_paths", link), ("over_links", path)):
        # Methods of arrays have no hash, by which JAX tells functions apart.
        _compare(
            functools.partial(_apply, dense, name), functools.partial(_apply, sparse, name), value
        )
    single = sparse.along_paths(link.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, dense.along_paths(link), rtol=1e-5)


def test_a_transpose_is_no_scatter_over_all_entries(both):
    """Backwards too, sums are gathers with one short scatter behind them."""
    _, sparse = both
    text = jax.jit(jax.grad(lambda v: jnp.sum(sparse.along_paths(v) ** 2))).lower(jnp.ones(76))
    scatters = [line for line in text.as_text().splitlines() if '"stablehlo.scatter"' in line]
    assert len(scatters) <= 4


def test_no_place_is_compared(both):
    """A second table of places, kept for every loop, is what comparisons would make."""
    _, sparse = both
    values = jnp.ones(sparse.along.values)
    text = jax.jit(functools.partial(_apply, sparse, "along_paths")).lower(values).as_text()
    assert "compare" not in text


def test_the_form_follows_the_size():
    network, demand = ix.traffic.sioux_falls()
    assert isinstance(
        incidence_of(76, ix.traffic.k_shortest_paths(network, demand, 1)), DenseIncidence
    )
    paths = ix.traffic.k_shortest_paths(network, demand, 1)
    assert isinstance(incidence_of(10_000, paths), SparseIncidence)


@pytest.mark.slow
def test_designs_and_derivatives_do_not_depend_on_the_form(monkeypatch):
    """Second-best tolls by both, and the hypergradient against differences."""
    network, demand = ix.traffic.sioux_falls()
    paths = ix.traffic.k_shortest_paths(network, demand, 3)
    links = ix.traffic.TOLLED_LINKS[:4]
    answers = []
    for entries in (10**9, 1):
        monkeypatch.setattr("incentax.traffic._incidence._DENSE", entries)
        game = ix.traffic.RoutingGame(network, demand, paths, eta=1.0, tolled_links=links)
        problem = ix.DesignProblem(game, game.total_travel_time, ix.Box(jnp.zeros(4), 10.0))
        theta = jnp.array([1.0, 2.0, 0.5, 3.0])
        x = ix.solve_equilibrium(game, theta, tol=1e-12).x
        gradient = ix.hypergradient(problem, theta, x)
        assert gradient.residual < 1e-8

        def total(theta, game=game, x=x):
            return game.total_travel_time(theta, ix.solve_equilibrium(game, theta, x, tol=1e-13).x)

        for k in range(4):
            step = 1e-4 * jnp.eye(4)[k]
            difference = (total(theta + step) - total(theta - step)) / 2e-4
            np.testing.assert_allclose(gradient.value[k], difference, rtol=1e-6)
        answers.append(ix.design(problem, jnp.zeros(4)).objective)
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-9)
