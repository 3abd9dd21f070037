"""Fronts of two objectives: a closed form, their slopes, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax import plots
from incentax.design.constrained import _along


def _squared(tax, x):
    del x
    return (tax**2).sum()


def _unpaid(tax, x):
    return -(tax * x).sum()


def _problem(**more):
    game = ix.Game(lambda tax, x: x + tax - 4, ix.NonNegative((1,)))
    return ix.DesignProblem(game, _squared, ix.Box(0.0, jnp.full(1, 4.0)), **more)


def test_a_front_has_its_closed_form_and_its_slope(tmp_path):
    front = ix.pareto(_problem(), jnp.zeros(1), _unpaid, points=5)
    revenue = jnp.linspace(4.0, 0.0, 5)
    tax = 2 - jnp.sqrt(4 - revenue)
    exact = jnp.stack([tax**2, -revenue], axis=1)
    assert jnp.max(jnp.abs(front.objectives - exact)) < 1e-5
    assert bool(front.reached.all())
    assert not bool(front.dominated.any())
    inner = slice(1, 4)
    assert jnp.max(jnp.abs(front.slope + 2 * tax / (4 - 2 * tax))[inner]) < 1e-5
    assert front.slope[-1] == 0
    assert jnp.isnan(front.slope[0])
    assert "5 of 5" in str(front)
    figure = plots.new_figure(4, 3)
    plots.draw_front(figure.subplots(), front, ("cost", "unpaid"))
    plots.save(figure, str(tmp_path / "front.png"))  # words do for a path
    assert (tmp_path / "front.png").stat().st_size > 5000


@pytest.mark.slow
def test_levels_that_cannot_be_met_are_told():
    cap = ix.Constraint(lambda tax, x: tax.sum(), upper=1.5, name="cap")
    problem = _problem(constraints=[cap])
    front = ix.pareto(problem, jnp.zeros(1), _unpaid, bounds=[-5.0, -3.0, -1.0])
    assert front.reached.tolist() == [False, True, True]
    assert jnp.max(jnp.abs(front.objectives[1] - jnp.array([1.0, -3.0]))) < 1e-6


@pytest.mark.parametrize("capped", [False, True])
def test_steps_and_walks_lead_to_one_front(monkeypatch, capped):
    """The designer of large problems on one small enough for both; a level that does not bind."""
    game = ix.Game(lambda tax, x: x + x.sum() + tax - 8, ix.NonNegative((2,)))
    output = ix.Constraint(lambda tax, x: x.sum(), lower=2.0, upper=4.6, name="output")
    problem = ix.DesignProblem(
        game,
        lambda tax, x: 0.5 * (x**2).sum() - 5 * x.sum() + 0.3 * (tax**2).sum(),
        ix.Box(-jnp.full(2, 3.0), 4.0),
        constraints=[output] * capped,
    )
    bounds = [9.0, -2.0, -4.0]
    walked = ix.pareto(problem, jnp.array([1.0, 0.0]), _unpaid, bounds=bounds)
    monkeypatch.setattr(_along, "is_walkable", lambda task: False)
    stepped = ix.pareto(problem, jnp.array([1.0, 0.0]), _unpaid, bounds=bounds)
    assert stepped.reached.all()
    np.testing.assert_allclose(stepped.objectives, walked.objectives, atol=1e-6)
    np.testing.assert_allclose(stepped.slope, walked.slope, atol=1e-6)
    assert stepped.slope[-1] == 0


def _by_steps(monkeypatch, game, objective, incentives, second, **how):
    monkeypatch.setattr(_along, "is_walkable", lambda task: False)
    start = jnp.ones(3) / 3
    return ix.pareto(ix.DesignProblem(game, objective, incentives), start, second, **how)


_OBEYS = ix.Game(lambda theta, x: x - theta, ix.Reals((3,)))


def test_points_lie_in_a_set_with_equalities(monkeypatch):
    """In closed form: the first share is bought, the others give up one half each, down to zero."""
    wanted = jnp.array([0.2, 0.3, 0.5])
    front = _by_steps(
        monkeypatch,
        _OBEYS,
        lambda theta, x: ((theta - wanted) ** 2).sum(),
        ix.Simplex(3),
        lambda theta, x: -x[0],
        bounds=[-0.3, -0.5, -0.9, -0.99],
    )
    right = [[0.99, 0, 0.01], [0.9, 0, 0.1], [0.5, 0.15, 0.35], [0.3, 0.25, 0.45]]
    np.testing.assert_allclose(front.theta, right, atol=1e-6)
    assert front.reached.all()


def test_ends_of_a_set_with_equalities_are_reached(monkeypatch):
    front = _by_steps(
        monkeypatch,
        _OBEYS,
        lambda theta, x: ((x - 1.0) ** 2).sum() + x[1],
        ix.Simplex(3),
        lambda theta, x: ((x - jnp.array([2.0, 1.0, 0.0])) ** 2).sum(),
        points=3,
    )
    assert front.reached.all()


def test_ends_on_one_level_are_one_point(monkeypatch):
    front = _by_steps(
        monkeypatch,
        _OBEYS,
        lambda theta, x: x[0] - x[1],
        ix.Simplex(3),
        lambda theta, x: x[0],
        points=4,
    )
    np.testing.assert_allclose(front.theta, [[0, 1, 0]] * 4, atol=1e-9)


def test_a_second_objective_without_a_derivative_at_the_start(monkeypatch):
    monkeypatch.setattr(_along, "is_walkable", lambda task: False)
    problem = ix.DesignProblem(_OBEYS, lambda theta, x: ((x - 1.0) ** 2).sum(), ix.Reals())
    front = ix.pareto(
        problem, jnp.zeros(3), lambda theta, x: jnp.linalg.norm(theta), bounds=[0.5, 1.0], starts=1
    )
    np.testing.assert_allclose(jnp.linalg.norm(front.theta, axis=1), [0.5, 1.0], atol=1e-6)
    assert front.reached.all()


@pytest.mark.slow
def test_revenue_against_time_on_sioux_falls(tmp_path):
    """By sequential quadratic steps; each point stands alone too."""
    instance = ix.problems.second_best_tolls(eta=1.0, paths=3)
    game, problem = instance.problem.game, instance.problem
    links = game.tolled_links

    def unpaid(toll, x):
        return -(toll * game.link_flows(x)[links]).sum() / 1e3

    front = ix.pareto(problem, instance.theta0, unpaid, points=5)
    assert bool(front.reached.all())
    assert not bool(front.dominated.any())
    first, second = np.asarray(front.objectives).T
    assert (np.diff(first) < 0).all()
    assert (np.diff(second) > 0).all()
    # A front that bends: its slopes lie between those of the chords to both sides.
    chords = np.diff(first) / np.diff(second)
    for place in (1, 2, 3):
        around = sorted(chords[place - 1 : place + 1])
        assert around[0] <= front.slope[place] <= around[1]
    bound = ix.Constraint(unpaid, upper=front.levels[2], name="paid")
    alone = ix.DesignProblem(game, problem.objective, problem.incentive_set, constraints=[bound])
    again = ix.design(alone, instance.theta0)
    assert abs(again.objective - first[2]) < 1e-6 * first[2]
    # Uneven levels, one below the least that there is.
    uneven = [float(front.levels[0]) - 10, float(front.levels[1]), float(front.levels[2])]
    bought = ix.pareto(problem, instance.theta0, unpaid, bounds=uneven)
    assert bought.reached.tolist() == [False, True, True]
    assert np.abs(np.asarray(bought.objectives)[1:, 0] / first[1:3] - 1).max() < 1e-8
    figure = plots.new_figure(4, 3)
    plots.draw_front(figure.subplots(), front, ("hours", "unpaid"))
    plots.save(figure, tmp_path / "front.png")


def test_fronts_that_are_refused():
    with pytest.raises(ValueError, match="needs a second objective, got None"):
        ix.pareto(_problem(), jnp.zeros(1))
    with pytest.raises(ValueError, match="at least 2, got 1"):
        ix.pareto(_problem(), jnp.zeros(1), _unpaid, points=1)
    with pytest.raises(ValueError, match="finite levels"):
        ix.pareto(_problem(), jnp.zeros(1), _unpaid, bounds=[jnp.nan])
    with pytest.raises(ValueError, match="known values"):
        jax.jit(lambda t: ix.pareto(_problem(), t, _unpaid).slope)(jnp.zeros(1))
