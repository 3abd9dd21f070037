"""Designs that count on the equilibrium nearest to a target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def times(toll, h):
    """Two routes over one road with a toll, and a third one: `(2 - toll) / 3` take the road."""
    shared = h[0] + h[1] + toll[0]
    return jnp.stack([shared, shared, 2 * h[2]])


ROUTES = ix.Game(times, ix.Simplex(3))


@pytest.mark.parametrize(
    ("target", "split"),
    [
        ([1.0, 0.0, 0.0], [2 / 3, 0.0, 1 / 3]),
        ([0.0, 1.0, 0.0], [0.0, 2 / 3, 1 / 3]),
        ([0.3, 0.2, 0.5], [23 / 60, 17 / 60, 1 / 3]),
    ],
)
def test_of_a_continuum_it_is_the_projection_of_the_target(target, split):
    found = ix.nearest_equilibrium(ROUTES, jnp.zeros(1), jnp.asarray(target))
    np.testing.assert_allclose(found.x, split, atol=2e-7)


def test_where_there_is_one_equilibrium_the_target_is_of_no_matter():
    game = ix.Game(lambda theta, x: 2 * x - theta, ix.Box(jnp.zeros(2), 1.0))
    found = ix.nearest_equilibrium(game, jnp.array([1.0, 4.0]), 0.3)
    np.testing.assert_allclose(found.x, [0.5, 1.0], atol=1e-6)


def test_its_derivative_is_that_of_the_projection():
    def split(toll):
        return ix.nearest_equilibrium(ROUTES, toll, jnp.array([0.3, 0.2, 0.5])).x

    slope = jax.jacobian(split)(jnp.zeros(1))
    np.testing.assert_allclose(slope[:, 0], [-1 / 6, -1 / 6, 1 / 3], atol=1e-5)


def test_a_design_counts_on_it():
    """The road's `S = (2 - toll) / 3`, split by the target's difference of 0.1."""
    problem = ix.DesignProblem(
        ROUTES,
        lambda toll, h: h[0] ** 2 + (h[2] - 0.5) ** 2,
        ix.Box(-1.0, jnp.ones(1)),
        selection=ix.Nearest(jnp.array([0.2, 0.3, 0.1])),
    )
    found = ix.design(problem, jnp.zeros(1))
    np.testing.assert_allclose(found.theta, [0.74], atol=1e-5)
    np.testing.assert_allclose(found.objective, 0.032, atol=1e-7)
    assert ix.certify(problem, found.theta, found.x).b_stationary == "yes"
    other = ix.DesignProblem(
        ROUTES, problem.objective, problem.incentive_set, selection=ix.Nearest(jnp.eye(3)[1])
    )
    # All on the second route: h_0 = 0, and a toll of 1/2 leaves half for the third.
    np.testing.assert_allclose(ix.design(other, jnp.zeros(1)).theta, [0.5], atol=1e-5)


def test_wrong_uses_are_told():
    cap = ix.Constraint(lambda toll, h: h[0], upper=0.3)
    with pytest.raises(ValueError, match="without a selection"):
        ix.DesignProblem(
            ROUTES,
            lambda toll, h: h[0],
            ix.Box(-1.0, jnp.ones(1)),
            selection=ix.Nearest(0.0),
            constraints=[cap],
        )
    with pytest.raises(ValueError, match=r"`Tikhonov\(weight=\.\.\.\)` needs"):
        ix.Tikhonov(ROUTES, 0.0, -1.0)
