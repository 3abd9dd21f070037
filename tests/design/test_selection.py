"""Designs of games with several equilibria: optimistic, pessimistic, and where play leads."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix


def _selected(instance, selection, objective=None, incentives=None):
    problem = instance.problem
    return ix.DesignProblem(
        problem.game,
        problem.objective if objective is None else objective,
        problem.incentive_set if incentives is None else incentives,
        selection=selection,
    )


@pytest.mark.parametrize(
    ("selection", "theta", "objective"),
    [
        # Both at the second place is an equilibrium without any subsidy,
        pytest.param("optimistic", 0.0, 0.0, marks=pytest.mark.slow),
        # both at the first is one up to a subsidy of 2,
        pytest.param("pessimistic", 2.0, 0.04, marks=pytest.mark.slow),
        # and from (1/2, 1/2) play goes to the first place while (1 + theta) / 3 < 1/2.
        ("play", 0.5, 0.0025),
    ],
)
def test_coordination(selection, theta, objective):
    instance = ix.problems.coordination()
    problem = _selected(instance, selection)
    found = ix.design(problem, instance.theta0, x0=instance.x0)
    # Halvings end within a thousandth of a jump.
    assert found.theta[0] == pytest.approx(theta, abs=1e-3)
    assert found.objective == pytest.approx(objective, abs=1e-4)
    assert found.residual < 1e-8
    np.testing.assert_allclose(found.x, [0, 1, 0, 1], atol=1e-6)
    if selection != "optimistic":  # the least value is not attained: on the far side of a jump
        assert found.theta[0] >= theta
        assert found.ending == ix.ENDINGS.jump


@pytest.mark.parametrize(
    "selection", [pytest.param("optimistic", marks=pytest.mark.slow), "pessimistic"]
)
def test_a_continuum_of_path_flows(selection):
    """Shared flow `s = (2 - theta) / 3`, and of it anything on the first route."""
    instance = ix.problems.three_routes()

    def objective(theta, h):
        return (h[0] - 0.1) ** 2 + 0.5 * (theta[0] - 0.5) ** 2

    found = ix.design(_selected(instance, selection, objective), instance.theta0)
    if selection == "optimistic":
        theta, first, least = 0.5, 0.1, 0.0
    else:  # everyone on the first route: ((1.7 - theta) / 3)^2 + (theta - 1/2)^2 / 2
        theta = (1.7 / 4.5 + 0.5) / (1 / 4.5 + 1)
        first = (2 - theta) / 3
        least = (first - 0.1) ** 2 + 0.5 * (theta - 0.5) ** 2
    assert found.theta[0] == pytest.approx(theta, abs=1e-3)
    assert found.x[0] == pytest.approx(first, abs=1e-3)
    assert found.objective == pytest.approx(least, abs=1e-4)
    assert found.result == ix.RESULTS.successful


@pytest.mark.parametrize(
    ("selection", "sign"),
    [pytest.param("pessimistic", 1.0, marks=pytest.mark.slow), ("optimistic", -1.0)],
)
def test_the_extreme_of_a_continuum_may_be_at_its_end(selection, sign):
    """Five routes alike: the farthest point of the simplex from `c` is a vertex."""
    c = jnp.array([0.3, 0.25, 0.2, 0.15, 0.1])
    game = ix.Game(lambda theta, x: jnp.ones(5) * theta.sum(), ix.Simplex(5))
    problem = ix.DesignProblem(
        game,
        lambda theta, x: sign * jnp.sum((x - c) ** 2) + 0.5 * (theta[0] - 0.5) ** 2,
        ix.Box(jnp.zeros(1), 1.0),
        selection=selection,
    )
    found = ix.design(problem, jnp.zeros(1))
    far = float(jnp.sum((jnp.eye(5)[4] - c) ** 2))
    assert found.objective == pytest.approx(sign * far, abs=1e-6)
    assert found.theta[0] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.slow
def test_a_large_objective_does_not_hide_its_slope():
    game = ix.Game(lambda theta, x: x - theta, ix.Reals((1,)))

    def objective(theta, x):
        return 1e6 * jnp.sum((x - 0.7) ** 4 + (theta - 0.7) ** 4) + 1e9

    problem = ix.DesignProblem(game, objective, ix.Box(-jnp.ones(1), 1.0), selection="optimistic")
    found = ix.design(problem, jnp.full(1, 0.1), throw=False)
    assert found.theta[0] == pytest.approx(0.7, abs=0.05)  # flat to the fourth order


@pytest.mark.slow
def test_one_equilibrium_is_everyones_selection():
    instance = ix.problems.regulated_duopoly()
    best = ix.design(instance.problem, instance.theta0)
    for selection in ("optimistic", "pessimistic", "play"):
        found = ix.design(_selected(instance, selection), instance.theta0)
        assert found.objective == pytest.approx(float(best.objective), abs=1e-7)
        assert found.theta[0] == pytest.approx(20 / 9, abs=1e-4)


@pytest.mark.slow
def test_what_a_certificate_says_of_the_selection():
    instance = ix.problems.coordination()
    theta = jnp.zeros(1)
    good, bad = jnp.array([0.0, 1, 0, 1]), jnp.array([1.0, 0, 1, 0])
    optimistic = _selected(instance, "optimistic")
    assert "not the one that the problem selects" in ix.certify(optimistic, theta, bad).verdict
    assert "not the one that" not in ix.certify(optimistic, theta, good).verdict
    pessimistic = _selected(instance, "pessimistic")
    assert "not the one that the problem selects" in ix.certify(pessimistic, theta, good).verdict
    assert "not the one that" not in ix.certify(pessimistic, theta, bad).verdict


def test_refusals():
    instance = ix.problems.coordination()
    with pytest.raises(ValueError, match=r"selection=...\)` needs 'optimistic'"):
        _selected(instance, "hopeful")
    pessimistic = _selected(instance, "pessimistic")
    scheme = ix.DesignAndPlay(optax.sgd(0.05), play_step=0.1)
    with pytest.raises(ValueError, match="where play leads"):
        ix.design(pessimistic, instance.theta0, scheme)
    with pytest.raises(ValueError, match="known values"):
        jax.jit(lambda t: ix.design(pessimistic, t).theta)(instance.theta0)
    # A scheme plays: it goes where a selection of play does.
    played = ix.design(_selected(instance, "play"), instance.theta0, scheme, steps=3)
    assert jnp.isfinite(played.objective)


@pytest.mark.parametrize(
    "x0", [0.2, *(pytest.param(x, marks=pytest.mark.slow) for x in (-0.2, 0.5, 0.0))]
)
def test_play_is_told_from_standing_still(x0):
    """`F = x^3 - x - t` from `x0`: up while `t > x0^3 - x0`, down below, and at it at rest."""
    game = ix.Game(lambda t, x: x**3 - x - t, ix.Box(-jnp.full(1, 2.0), 2.0))

    def objective(t, x):
        return jnp.sum((x - 0.5) ** 2 + t**2 / 2 + 0.2 * t)

    incentives = ix.Box(-jnp.ones(1), 1.0)
    problem = ix.DesignProblem(game, objective, incentives, selection="play")
    found = ix.design(problem, jnp.zeros(1), x0=jnp.array([x0]))
    jump = x0**3 - x0
    upper = max(np.roots([1, 0, -1, -jump]).real)
    least = (upper - 0.5) ** 2 + jump**2 / 2 + 0.2 * jump
    assert found.theta[0] == pytest.approx(jump, abs=1e-4)
    assert found.theta[0] >= jump
    assert found.x[0] == pytest.approx(upper, abs=1e-3)
    assert found.objective == pytest.approx(least, abs=1e-3)
    assert found.ending == ix.ENDINGS.jump


def test_an_unstable_start_is_left_at_every_incentive():
    """`x0 = 0` is an equilibrium throughout, which play from close by leaves to -1 or to 1."""
    game = ix.Game(lambda t, x: x**3 - x + 0 * t, ix.Box(-jnp.full(1, 2.0), 2.0))
    problem = ix.DesignProblem(
        game,
        lambda t, x: jnp.sum((x - 0.5) ** 2 + (t - 0.3) ** 2),
        ix.Box(-jnp.ones(1), 1.0),
        selection="play",
    )
    found = ix.design(problem, jnp.zeros(1), x0=jnp.zeros(1))
    assert found.theta[0] == pytest.approx(0.3, abs=1e-6)
    assert found.objective == pytest.approx(1.5**2, abs=1e-6)  # the worse of the two
