"""Several leaders over one equilibrium."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix

AIMS = {"a": 1.0, "b": 2.0}


def aiming(pay=1.0, sets=None):
    """`x = theta_a + theta_b`; each wants its aim and pays for what it gives."""
    game = ix.Game(lambda theta, x: x - theta["a"] - theta["b"], ix.Reals((1,)))

    def objective(name):
        return lambda theta, x: ((x - AIMS[name]) ** 2 + pay * theta[name] ** 2).sum()

    sets = {name: ix.Reals((1,)) for name in AIMS} if sets is None else sets
    return ix.LeadersProblem(game, {name: objective(name) for name in AIMS}, sets)


START = {name: jnp.zeros(1) for name in AIMS}


@pytest.mark.parametrize(
    "order", ["one after another", pytest.param("at once", marks=pytest.mark.slow)]
)
def test_linear_leaders_end_at_their_closed_form(order):
    """`theta_a = 1 - x`, `theta_b = 2 - x`, so `x = 1`."""
    found = ix.design_leaders(aiming(), START, order=order)
    np.testing.assert_allclose(found.theta["a"], [0.0], atol=3e-6)
    np.testing.assert_allclose(found.theta["b"], [1.0], atol=3e-6)
    assert max(float(regret) for regret in found.regrets.values()) < 1e-9
    assert int(found.rounds) == len(found.history)
    assert float(found.residual) < 1e-8


@pytest.mark.slow
def test_leaders_at_their_bounds():
    """Who may not go below 0.2 does not, and the other gives less."""
    sets = {"a": ix.Box(jnp.full(1, 0.2), 5.0), "b": ix.Box(jnp.zeros(1), 5.0)}
    found = ix.design_leaders(aiming(sets=sets), {"a": jnp.ones(1), "b": jnp.ones(1)})
    np.testing.assert_allclose(found.theta["a"], [0.2], atol=1e-6)
    np.testing.assert_allclose(found.theta["b"], [0.9], atol=1e-6)


@pytest.mark.slow
def test_leaders_who_chase_one_another_are_told_with_their_regret():
    """One wants the same as the other, who wants the opposite: no equilibrium in the box."""
    game = ix.Game(lambda theta, x: x - jnp.concatenate([theta["a"], theta["b"]]), ix.Reals((2,)))
    problem = ix.LeadersProblem(
        game,
        {"a": lambda t, x: -((x[0] + x[1]) ** 2), "b": lambda t, x: (x[0] + x[1]) ** 2},
        {name: ix.Box(jnp.full(1, -1.0), 1.0) for name in AIMS},
    )
    start = {"a": jnp.full(1, 0.5), "b": jnp.full(1, 0.5)}
    with pytest.raises(ix.DesignFailure, match="The leaders do not settle"):
        ix.design_leaders(problem, start, rounds=4)
    found = ix.design_leaders(problem, start, rounds=4, throw=False)
    assert found.result == ix.RESULTS.leaders_apart
    assert max(float(regret) for regret in found.regrets.values()) > 0.5


@pytest.mark.slow
def test_overshooting_leaders_are_damped():
    """Free of charge both correct the whole gap at once: the sum swings for ever."""
    game = ix.Game(lambda theta, x: x - theta["a"] - theta["b"], ix.Reals((1,)))
    same = {name: lambda t, x: ((x - 1) ** 2).sum() for name in AIMS}
    sets = {name: ix.Box(jnp.full(1, -5.0), 5.0) for name in AIMS}
    problem = ix.LeadersProblem(game, same, sets)
    apart = ix.design_leaders(problem, START, order="at once", rounds=6, throw=False)
    assert apart.result == ix.RESULTS.leaders_apart
    found = ix.design_leaders(problem, START, order="at once", share=0.5)
    np.testing.assert_allclose(found.theta["a"] + found.theta["b"], [1.0], atol=1e-5)


@pytest.mark.slow
def test_two_regions_of_sioux_falls_are_worse_off_than_one_regulator():
    regions = ix.problems.two_regions()
    game = regions.problem.game
    found = ix.design_leaders(regions.problem, regions.theta0)
    at_once = ix.design_leaders(regions.problem, regions.theta0, order="at once")
    for name in found.theta:
        np.testing.assert_allclose(found.theta[name], at_once.theta[name], atol=1e-4)
        assert float(found.regrets[name]) < 1e-6 * float(found.objectives[name])
    together = ix.DesignProblem(game, game.total_travel_time, ix.Box(jnp.zeros(20), 10.0))
    one = ix.design(together, jnp.zeros(20))
    without = ix.solve_equilibrium(game, jnp.zeros(20)).x
    least = float(one.objective)
    assert least < float(game.total_travel_time(None, without))
    assert least < float(game.total_travel_time(None, found.x))
    # Every region: no toll of its own is better by central differences.
    for name in found.theta:
        own = regions.problem.of(name, found.theta)

        def value(theta, own=own):
            return own.objective(theta, ix.solve_equilibrium(own.game, theta, found.x).x)

        slope = jax.grad(value)(found.theta[name])
        inside = (found.theta[name] > 1e-3) & (found.theta[name] < 10 - 1e-3)
        assert float(jnp.max(jnp.abs(jnp.where(inside, slope, 0)))) < 1.0


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match=r"the same names, of two leaders at least, got \['a'\]"):
        ix.LeadersProblem(aiming().game, {"a": lambda t, x: x.sum()}, {"a": ix.Reals((1,))})
    with pytest.raises(TypeError, match="needs a set for 'a'"):
        ix.LeadersProblem(aiming().game, aiming().objectives, {"a": 1, "b": ix.Reals()})
    with pytest.raises(ValueError, match="needs an incentive for each of"):
        ix.design_leaders(aiming(), {"a": jnp.zeros(1)})
    with pytest.raises(ValueError, match="needs 'one after another' or 'at once'"):
        ix.design_leaders(aiming(), START, order="jacobi")
    with pytest.raises(ValueError, match=r"at most 1, got 1\.5"):
        ix.design_leaders(aiming(), START, share=1.5)


@pytest.mark.slow
def test_who_would_gain_from_elsewhere_goes_there():
    """One leader starts at a maximum of its objective: the regret pass leads away from it."""
    game = ix.Game(lambda theta, x: x - jnp.concatenate([theta["a"], theta["b"]]), ix.Reals((2,)))
    problem = ix.LeadersProblem(
        game,
        {"a": lambda t, x: (x[0] - x[1]) ** 2, "b": lambda t, x: -(x[1] ** 2)},
        {name: ix.Box(jnp.zeros(1), 1.0) for name in AIMS},
    )
    found = ix.design_leaders(problem, START)
    np.testing.assert_allclose([found.theta["a"][0], found.theta["b"][0]], [1, 1], atol=1e-5)


@pytest.mark.slow
def test_a_constant_in_an_objective_hides_no_regret():
    game = ix.Game(lambda theta, x: x - theta["a"] - theta["b"], ix.Reals((1,)))
    problem = ix.LeadersProblem(
        game,
        {
            "a": lambda t, x: (t["a"] ** 2).sum() + 1e7,
            "b": lambda t, x: ((x**2 - 1) ** 2 + 0.3 * x).sum() + 1e7,
        },
        {name: ix.Box(jnp.full(1, -2.0), 2.0) for name in AIMS},
    )
    found = ix.design_leaders(problem, {"a": jnp.zeros(1), "b": jnp.full(1, 0.96)})
    np.testing.assert_allclose(found.theta["b"], [-1.0358], atol=1e-3)


@pytest.mark.slow
def test_a_wide_set_and_a_far_start_are_no_excuse():
    sets = {name: ix.Box(jnp.full(1, -1e6), 1e6) for name in AIMS}
    problem = aiming(sets=sets)
    scaled = {name: (lambda t, x, f=f: 1e-3 * f(t, x)) for name, f in problem.objectives.items()}
    problem = ix.LeadersProblem(problem.game, scaled, sets)
    found = ix.design_leaders(problem, {name: jnp.full(1, 1e6) for name in AIMS})
    np.testing.assert_allclose(found.theta["b"], [1.0], atol=1e-4)


@pytest.mark.slow
def test_a_failure_carries_what_there_is():
    game = ix.Game(lambda theta, x: x - theta["a"] - theta["b"], ix.Reals((1,)))
    nowhere = {name: lambda t, x: jnp.log(x - 50).sum() for name in AIMS}
    problem = ix.LeadersProblem(game, nowhere, aiming().incentive_sets)
    with pytest.raises(ix.DesignFailure) as failure:
        ix.design_leaders(problem, START, rounds=1)
    assert failure.value.solution.rounds == 1
