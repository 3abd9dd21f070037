"""Tolls on many links of a large network: second derivatives by responses to every toll."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
import incentax.sensitivity._face_system as face_system
from incentax.design.accurate._responses import curvature_by_responses, has_responses
from incentax.sensitivity import FaceSystem, solve_by_gradients, symmetry_of


def city(size, tolls, eta=1.0):
    network, demand = ix.traffic.generate_city(size, load=1.5)
    user = ix.traffic.assign(network, demand)
    links = ix.traffic.most_congested(network, user.flows, tolls)
    paths = ix.traffic.generate_paths(network, demand, most=20)
    return ix.problems.network_tolls(network, demand, links, paths=paths, eta=eta)


def test_the_curvature_is_how_the_hypergradient_changes():
    instance = city(4, 4)
    problem, theta = instance.problem, jnp.array([0.3, 1.0, 0.0, 2.0])
    assert has_responses(problem, theta, instance.x0)

    @jax.jit
    def gradient(theta):
        x = ix.traffic.logit_equilibrium(problem.game, theta).x
        return ix.hypergradient(problem, theta, x).value

    x = ix.traffic.logit_equilibrium(problem.game, theta).x
    found = curvature_by_responses(problem, theta, theta, x)
    step = 1e-4
    right = [(gradient(theta + step * e) - gradient(theta - step * e)) / (2 * step)
             for e in jnp.eye(4)]  # fmt: skip
    assert np.abs(right).max() > 1
    # Its linear systems are solved to a hundredth.
    np.testing.assert_allclose(found, np.stack(right), atol=0.02 * np.abs(right).max())
    np.testing.assert_allclose(found, found.T, atol=1e-5 * np.abs(right).max())


def test_other_games_have_no_responses_to_ask_for():
    instance = ix.problems.emission_tax(3)
    assert not has_responses(instance.problem, instance.theta0, instance.x0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`cheap_paths`:UserWarning")
def test_many_tolls_are_stationary_after_few_steps():
    """In 12 steps, where steps alone take 47 to learn the curvature."""
    instance = city(8, 60)
    assert instance.x0.size > 2000
    found = ix.design(instance.problem, instance.theta0, steps=120)
    assert found.ending in (ix.ENDINGS.stationary, ix.ENDINGS.at_bounds)
    assert int(found.steps) <= 25
    for seed in (0, 1):
        away = 1e-2 * jax.random.normal(jax.random.key(seed), found.theta.shape)
        theta = instance.problem.incentive_set.project(found.theta + away)
        x = ix.traffic.logit_equilibrium(instance.problem.game, theta).x
        assert instance.problem.objective(theta, x) >= found.objective


def test_a_right_side_that_is_rounding_leaves_no_response(monkeypatch):
    """Of a toll that all paths of a pair meet, rounding alone: there conjugate gradients may
    come to 0 / 0."""
    instance = city(4, 4)
    game, theta = instance.problem.game, instance.theta0
    x = ix.traffic.logit_equilibrium(game, theta).x
    value, push = jax.linearize(lambda x: game.operator(theta, x), x)
    face = game.strategies(theta).face(x, value, 1.0)
    system, symmetry = FaceSystem(face, push), symmetry_of(game, theta, x)
    right = face.project(face.scale * jax.random.normal(jax.random.key(0), x.shape))

    def solved():
        how = {"tol": 1e-8, "max_iterations": 300, "adjoint": False}
        return solve_by_gradients(system, right, 0 * x, symmetry, **how)

    left = system.on_face(solved()) - right
    assert np.linalg.norm(left) <= 1e-6 * np.linalg.norm(right)
    monkeypatch.setattr(face_system, "cg", lambda _, b, *rest, **how: (b * jnp.nan, None))
    np.testing.assert_array_equal(solved(), 0)
