"""Certificates, gaps and best responses: what they say, and that they notice what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix

FOLLOW = ix.Game(lambda theta, x: x - theta, ix.Reals((1,)))


def _problem(objective, game=FOLLOW):
    return ix.DesignProblem(game, lambda theta, x: objective(x).sum(), ix.Reals((1,)))


def test_evidence_does_not_depend_on_the_objectives_offset():
    far = _problem(lambda x: 1e5 + (x - 3) ** 2)
    for theta, ending in ((0.0, ix.ENDINGS.not_stationary), (3.0, ix.ENDINGS.stationary)):
        certificate = ix.certify(far, jnp.array([theta]))
        assert certificate.ending == ending
        assert certificate.equilibrium_residual < 1e-12
        assert certificate.stationarity == pytest.approx(2 * abs(theta - 3))


def test_a_wrong_strategy_is_noticed():
    problem = _problem(lambda x: (x - 3) ** 2)
    certificate = ix.certify(problem, jnp.array([3.0]), jnp.array([2.0]))
    assert certificate.equilibrium_error == pytest.approx(1.0)
    assert "is not it" in certificate.verdict


def test_an_equilibrium_that_is_not_reached_ends_the_verdict():
    game = ix.Game(lambda theta, x: jnp.exp(-x) - 2 + 0 * theta, ix.Reals((1,)))
    hopeless = ix.Game(lambda theta, x: -1 + 0 * (x + theta), ix.NonNegative())
    problem = _problem(lambda x: x**2, hopeless)
    certificate = ix.certify(problem, jnp.zeros(1))
    assert certificate.result != ix.RESULTS.successful
    assert "not reached" in certificate.verdict
    assert "stationary" not in certificate.verdict
    # A decreasing operator has an equilibrium, and is told not to be monotone.
    found = ix.certify(_problem(lambda x: x**2, game), jnp.zeros(1))
    assert found.strong_monotonicity < 0
    assert "not monotone" in found.verdict


def test_a_wrong_derivative_is_noticed():
    @jax.custom_jvp
    def double(x):
        return 2 * x

    double.defjvp(lambda x, dx: (2 * x[0], 3 * dx[0]))  # false by half
    problem = _problem(lambda x: (double(x) - 1) ** 2)
    certificate = ix.certify(problem, jnp.array([2.0]))
    assert certificate.derivative_error > 0.1
    assert "Central differences disagree" in certificate.verdict


def test_an_objective_that_ignores_the_agents_is_told():
    problem = ix.DesignProblem(FOLLOW, lambda theta, x: (theta**2).sum(), ix.Reals((1,)))
    assert "does not change" in ix.certify(problem, jnp.ones(1)).verdict
    seen = ix.certify(_problem(lambda x: (x - 1) ** 2), jnp.ones(1))
    assert not seen.insensitive  # its derivative vanishes at the optimum alone


def test_constants_of_an_affine_game_on_a_simplex():
    """`J = I - 1 1'`: on motions that sum to zero both constants are 1."""
    matrix = jnp.eye(2) - jnp.ones((2, 2))
    game = ix.Game(lambda theta, x: matrix @ x - theta, ix.Simplex(2))
    problem = ix.DesignProblem(game, lambda theta, x: x @ x, ix.Reals((2,)))
    certificate = ix.certify(problem, jnp.zeros(2))
    assert certificate.strong_monotonicity == pytest.approx(1.0)
    assert certificate.lipschitz == pytest.approx(1.0)
    assert "not monotone" not in certificate.verdict


@pytest.mark.parametrize(
    ("strategies", "expected"),
    [
        (ix.Box(jnp.zeros(2), 1.0), 0.5 * 1 + 0.5 * 2),
        (ix.Simplex(2, total=2.0), 0.5 * 3 - 0.5 * 1 - 0),
        (
            ix.Polyhedron(inequality=(jnp.ones((1, 2)), jnp.ones(1)), lower=0.0),
            0.5 * 1 + 0.5 * 2,
        ),
        (ix.NonNegative(), 0.5 * 1 + 0.5 * 2),
    ],
    ids=["box", "simplex", "polyhedron", "unbounded, costs positive"],
)
def test_gap_in_closed_form(strategies, expected):
    cost, x = jnp.array([1.0, 2.0]), jnp.array([0.5, 0.5])
    if isinstance(strategies, ix.Simplex):
        x = jnp.array([0.5, 1.5])
        expected = float(cost @ x - 2.0)
    game = ix.Game(lambda theta, x: cost, strategies)
    assert float(ix.gap(game, None, x)) == pytest.approx(expected)


def test_gap_is_infinite_where_costs_fall_without_end():
    game = ix.Game(lambda theta, x: -jnp.ones(2), ix.NonNegative())
    assert ix.gap(game, None, jnp.ones(2)) == jnp.inf


def test_regret_of_a_duopoly_and_of_costs_that_are_not_convex():
    duopoly = ix.AtomicGame(lambda theta, x: x * (x.sum() - 16), ix.Box(-10.0, 10.0))
    nash = ix.best_response(duopoly, None, jnp.full(2, 16 / 3))
    np.testing.assert_allclose(nash.regret, 0, atol=1e-12)
    falling = ix.AtomicGame(lambda theta, x: x * 0 - x**2, ix.Box(-jnp.ones(1), 5.0))
    response = ix.best_response(falling, None, jnp.array([0.5]))
    assert response.x[0] == 5.0
    assert response.regret[0] == pytest.approx(25 - 0.25)


def test_refusals():
    with pytest.raises(TypeError, match=r"best_response\(game\)"):
        ix.best_response(FOLLOW, jnp.zeros(1), jnp.zeros(1))


def test_regret_under_a_cap_that_players_share():
    cap = ix.Polyhedron(inequality=(jnp.ones((1, 2)), jnp.ones(1)), lower=0.0, upper=1.0)
    game = ix.AtomicGame(lambda theta, x: (x - jnp.array([1.0, 0.5])) ** 2, cap)
    np.testing.assert_allclose(
        ix.best_response(game, None, jnp.array([0.75, 0.25])).regret, 0, atol=1e-12
    )
    response = ix.best_response(game, None, jnp.array([0.5, 0.25]))
    np.testing.assert_allclose(response.x, [0.75, 0.5], atol=1e-9)
    np.testing.assert_allclose(response.regret, [0.1875, 0.0625], atol=1e-9)
    falling = ix.AtomicGame(lambda theta, x: -(x**2), cap)
    response = ix.best_response(falling, None, jnp.array([0.2, 0.1]))
    np.testing.assert_allclose(response.regret, [0.9**2 - 0.2**2, 0.8**2 - 0.1**2], atol=1e-9)


def test_where_the_derivative_does_not_exist_nothing_is_called_stationary():
    """`x* = cbrt(theta)` has an infinite slope at 0; the second objective asks for path flows."""
    steep = ix.Game(lambda theta, x: x**3 - theta, ix.Box(jnp.full(1, -2.0), 2.0))
    problem = ix.DesignProblem(steep, lambda theta, x: x.sum(), ix.Box(-1.0, 1.0))
    certificate = ix.certify(problem, jnp.zeros(1))
    assert certificate.b_stationary != "yes"
    assert "does not exist" in certificate.verdict
    slope = jax.grad(lambda theta: ix.solve_equilibrium(steep, theta).x.sum())
    assert jnp.isnan(slope(jnp.zeros(1))).all()

    def times(theta, x):
        first = x[0] + x[1] + theta[0]
        return jnp.stack([first, first, 2 * x[2]])

    routes = ix.Game(times, ix.Simplex(3))
    problem = ix.DesignProblem(routes, lambda theta, x: x[0], ix.Box(jnp.zeros(1), 2.0))
    certificate = ix.certify(problem, jnp.array([0.2]))
    assert certificate.ending in (ix.ENDINGS.no_derivative, ix.ENDINGS.not_stationary)
    assert "does not exist" in certificate.verdict


def test_other_equilibria_at_corners_are_found_whatever_the_key():
    """Newton's method from inside alone finds them now and then."""
    instance = ix.problems.chicken()
    for seed in range(3):
        found = ix.certify(instance.problem, jnp.full(1, 2 / 3), key=jax.random.key(seed))
        assert found.others == 2
