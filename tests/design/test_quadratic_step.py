"""The quadratic programs of the accurate designer, where they end before their end."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incentax.sets import Box, Polyhedron

quadratic = importlib.import_module("incentax.design.accurate._quadratic")


def program(p=12):
    half = jax.random.normal(jax.random.key(0), (p, p))
    hessian = half @ half.T + 1e-3 * jnp.eye(p)
    return 5 * jax.random.normal(jax.random.key(1), (p,)), hessian, jnp.full(p, 0.5)


def left_after(monkeypatch, steps):
    short = functools.partial(quadratic.solve_kkt, max_steps=steps)
    cut = lambda *args, **more: short(*args, tol=more["tol"])  # noqa: E731
    monkeypatch.setattr(quadratic, "solve_kkt", cut)


def test_a_point_that_promises_a_decrease_is_taken(monkeypatch):
    gradient, hessian, theta = program()
    bounds = Box(jnp.zeros(12), 1.0).constraints(theta)
    best, promised = quadratic.quadratic_step(gradient, hessian, bounds, theta)
    left_after(monkeypatch, 2)
    step, less = quadratic.quadratic_step(gradient, hessian, bounds, theta)
    assert np.abs(step - best).max() > 1e-6  # it is not solved
    assert 0 < less < promised
    np.testing.assert_allclose(less, -(gradient @ step + step @ hessian @ step / 2))


def test_a_point_outside_of_the_set_is_not(monkeypatch):
    gradient, hessian, theta = program()
    rows = (jnp.ones((1, 12)), jnp.array([5.9]))  # theta itself lies beyond by 0.1
    cut = Polyhedron(inequality=rows, lower=jnp.zeros(12), upper=1.0).constraints(theta)
    solved, _ = quadratic.quadratic_step(gradient, hessian, cut, theta)
    assert (theta + solved).sum() == pytest.approx(5.9) or (theta + solved).sum() < 5.9
    left_after(monkeypatch, 0)
    step, less = quadratic.quadratic_step(gradient, hessian, cut, theta)
    assert float(less) == 0
    np.testing.assert_array_equal(step, 0)
