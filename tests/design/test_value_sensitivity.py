"""The slope of the optimal value by the envelope theorem, against designs anew."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import incentax as ix


def _revenue(tax, x):
    return (tax * x).sum()


def _lost(tax, x):
    return ((x - 1.5) ** 2).sum() + 0.1 * (tax**2).sum()


class _Operator(eqx.Module):
    data: dict

    def __call__(self, tax, x):
        return self.data["cost"] + tax - (self.data["demand"] - x.sum() - x)


def _problem_of(data):
    """Three firms, a tax each of at most `most`, a floor of revenue."""
    floor = ix.Constraint(_revenue, lower=data["floor"], name="revenue")
    taxes = ix.Box(jnp.zeros(3), data["most"])
    game = ix.Game(_Operator(data), ix.NonNegative((3,)))
    return ix.DesignProblem(game, _lost, taxes, constraints=[floor])


@pytest.mark.slow  # many programs
def test_all_data_of_a_problem():
    data = {
        "cost": jnp.array([1.0, 1.5, 2.0]),
        "demand": jnp.array(10.0),
        "floor": jnp.array(9.0),
        "most": jnp.array([2.0, 4.0, 4.0]),
    }
    solution = ix.design(_problem_of(data), jnp.ones(3), starts=2)
    assert abs(solution.theta[0] - 2) < 1e-9  # a bound of the incentive set bears something
    assert solution.multipliers["revenue"] < -1e-2
    slope = ix.value_sensitivity(_problem_of, data, solution)
    flat, unravel = jax.flatten_util.ravel_pytree(data)
    found, _ = jax.flatten_util.ravel_pytree(slope)
    step = 1e-4

    def best(flat):
        problem = _problem_of(unravel(flat))
        start = problem.incentive_set.project(solution.theta)
        return ix.design(problem, start, starts=2).objective

    for place in (0, 3, 4, 5, 6):  # a cost, demand, the floor, a bound that binds, one with room
        apart = jnp.zeros_like(flat).at[place].set(step)
        seen = (best(flat + apart) - best(flat - apart)) / (2 * step)
        assert abs(seen - found[place]) < 1e-5 * (1 + abs(seen)), place


def test_what_does_not_fit_is_refused():
    data = {
        "cost": jnp.ones(3),
        "demand": jnp.array(10.0),
        "floor": jnp.array(3.0),
        "most": jnp.full(3, 4.0),
    }
    solution = ix.design(_problem_of(data), jnp.ones(3), starts=2)
    with pytest.raises(TypeError, match="needs a `DesignProblem`, got 3"):
        ix.value_sensitivity(lambda data: 3, data, solution)  # pyright: ignore[reportArgumentType]

    def other(data):
        problem = _problem_of(data)
        return ix.DesignProblem(problem.game, problem.objective, problem.incentive_set)

    with pytest.raises(ValueError, match=r"needs the constraints of the problem, \[\], got"):
        ix.value_sensitivity(other, data, solution)


def test_a_kink_of_the_agents_is_refused():
    """x = max(0, theta - p): at the optimum theta = p the equilibrium is about to move."""

    def problem_of(p):
        game = ix.Game(lambda theta, x: x - theta + p, ix.NonNegative((1,)))
        return ix.DesignProblem(
            game, lambda theta, x: (10 * x - theta).sum(), ix.Box(-2.0, jnp.full(1, 2.0))
        )

    p = jnp.array([1.3])
    solution = ix.design(problem_of(p), jnp.zeros(1), starts=2)
    assert abs(solution.theta[0] - 1.3) < 1e-8
    with pytest.raises(ValueError, match="off the kinks"):
        ix.value_sensitivity(problem_of, p, solution)
