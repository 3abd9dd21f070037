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
    np.testing.assert_allclose(found.x, split, atol=1e-10)


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


def test_a_far_target_draws_nobody_off_equilibrium():
    game = ix.Game(
        lambda theta, x: jnp.stack([x[0] + x[1] - 2, x[0] + x[1] - 2, x[2] - 2]),
        ix.NonNegative((3,)),
    )
    found = ix.nearest_equilibrium(game, None, jnp.array([1.0, 2.0, 1000.0]))
    np.testing.assert_allclose(found.x, [0.5, 1.5, 2.0], atol=1e-7)
    assert float(found.residual) < 1e-7


def test_weights_of_a_game_do_not_bend_what_is_near():
    """`x_1 + 3 y_1 = 2` on a continuum that is monotone in the weights 1 and 3 alone."""

    def operator(theta, x):
        level = x[0] + 3 * x[1] - 2
        return jnp.stack([level, level])

    class Weighted(ix.Game):
        @property
        def weights(self):
            return jnp.array([1.0, 3.0])

    found = ix.nearest_equilibrium(
        Weighted(operator, ix.Box(jnp.zeros(2), 5.0)), None, jnp.array([1.0, 0.5])
    )
    # The projection of (1, 1/2) on the line: (1, 1/2) - (1, 3) / 20.
    np.testing.assert_allclose(found.x, [0.95, 0.35], atol=1e-6)


def test_it_follows_what_the_game_has_captured():
    def sold(demand):
        game = ix.Game(lambda theta, x: x - demand, ix.NonNegative((1,)))
        return ix.nearest_equilibrium(game, None, 0.0).x.sum()

    np.testing.assert_allclose(jax.grad(sold)(jnp.array(2.0)), 1.0, atol=1e-6)


def test_a_wrong_target_is_told():
    with pytest.raises(ValueError, match=r"a number or the shape of x, \(3,\), got \(2,\)"):
        ix.nearest_equilibrium(ROUTES, jnp.zeros(1), jnp.zeros(2))
    with pytest.raises(ValueError, match="needs finite numbers"):
        ix.nearest_equilibrium(ROUTES, jnp.zeros(1), jnp.array([0.0, jnp.nan, 0.0]))
    problem = ix.DesignProblem(
        ROUTES, lambda toll, h: h[0], ix.Box(-1.0, jnp.ones(1)), selection=ix.Nearest(jnp.zeros(2))
    )
    with pytest.raises(ValueError, match=r"`Nearest\(target\)` needs a number or the shape"):
        ix.design(problem, jnp.zeros(1))
