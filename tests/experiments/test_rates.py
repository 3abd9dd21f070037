"""Exponents: fitted, refused, and those of the theorems on problems with known optima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.experiments import liu2022_rates, rates_measured as rates


def test_fitted_rates_and_what_they_refuse():
    steps = jnp.arange(1.0, 1001.0)
    noise = jnp.exp(0.3 * jax.random.normal(jax.random.key(0), (50, 1000)))
    fit = ix.diagnostics.fit_rate(steps, 2 * (steps ** (-2 / 3))[None] * noise)
    assert fit.low < -2 / 3 < fit.high
    assert fit.high - fit.low < 0.05
    assert float(fit.constant) == pytest.approx(2 * np.exp(0.3**2 / 2), rel=0.05)
    with pytest.raises(ValueError, match="two decades at least, got 50 from 1 to 50"):
        ix.diagnostics.fit_rate(steps[:50], steps[:50])
    with pytest.raises(ValueError, match="positive and finite"):
        ix.diagnostics.fit_rate(steps, 0 * steps)


@pytest.mark.slow
def test_algorithm_1_falls_like_its_step_sizes():
    """Theorem 5.4 states -2/3 for both gaps; the upper one falls like `alpha_k`, faster."""
    instance = ix.problems.emission_tax(4)
    best = ix.design(instance.problem, instance.theta0, starts=1).theta
    sizes = ix.schedules.theorem_5_4(0.02, 0.3)
    _, _, fits = rates.measure(
        instance.problem, instance.theta0, best, sizes, steps=20_000, seeds=60
    )
    # Two decades of 20,000 steps, 60 seeds: exponents to 0.15, which -2/3 and 0 are apart from.
    assert float(fits["lower"].exponent) == pytest.approx(-2 / 3, abs=0.1)
    assert float(fits["upper"].exponent) == pytest.approx(-1, abs=0.15)


@pytest.mark.slow
def test_algorithm_2_falls_like_its_step_sizes():
    instance = ix.problems.planted_choice()
    sizes = ix.schedules.theorem_5_5(1.0, 0.3, 0.03)
    best = jnp.array([0.5, -0.5])
    _, _, fits = rates.measure(
        instance.problem, instance.theta0, best, sizes, steps=30_000, seeds=60
    )
    assert float(fits["lower"].exponent) == pytest.approx(-2 / 7, abs=0.1)
    assert float(fits["upper"].exponent) == pytest.approx(-1 / 2, abs=0.1)


@pytest.mark.slow
def test_without_strong_stability_gaps_grow():
    problem, best = rates.planted([[0.0, 1.0], [-1.0, 0.0]], 2, 1.0)
    sizes = ix.schedules.theorem_5_4(1.0, 0.3)
    assert ix.assumptions.strong_stability(problem).verdict == "fails"
    _, gaps, fits = rates.measure(problem, jnp.zeros(2), best, sizes, steps=3000, seeds=20)
    assert fits["lower"].low > 0
    assert gaps["upper"][:, -1].mean() > gaps["upper"][:, 0].mean()


def test_rate_of_the_regulator():
    """`gamma = c / sqrt(K)`: `E ||∇F_delta||^2 ~ K^(-1/2)` over exact equilibria."""
    _, fit = rates.regulator_rate((100, 1000, 10_000), 16, inexact=None)
    assert -0.6 < fit.low <= fit.exponent <= fit.high <= -0.4


@pytest.mark.slow
@pytest.mark.parametrize("inexact", [0.25, 1.0])
def test_rate_of_the_regulator_over_inexact_equilibria(inexact):
    """No slower than stated, `K^(-min(1/2, a))`."""
    _, fit = rates.regulator_rate((100, 1000, 10_000), 16, inexact=inexact)
    assert fit.high <= -min(0.5, inexact) + 0.1


@pytest.mark.slow
def test_the_exponent_of_inexactness_binds_where_errors_do_not_cancel():
    _, fit = rates.regulator_rate((100, 316, 1000, 3162, 10_000), 16, inexact=0.25, anew=True)
    assert fit.low - 0.02 <= -0.25 <= fit.high + 0.02
    assert fit.low > -0.4


def test_seeking_contracts_at_least_as_fast_as_its_bound():
    found = rates.seeking_factors(np.asarray([1e-3, 4e-3, 0.1]))
    assert (found["bound"][:2] < 1).all()
    assert (found["seen"] <= found["bound"]).all()
    assert (found["iterations_seen"] <= found["iterations_bound"]).all()
    assert found["seen"][2] < 1 < found["bound"][2]  # beyond the bound, and yet it contracts


def test_verdicts_carry_the_band_and_what_it_excludes():
    fit = ix.diagnostics.RateFit(*map(jnp.asarray, (-0.44, 1.0, -0.47, -0.40)))
    words = liu2022_rates._findings(
        {}, {"exact": (np.arange(1), np.ones((1, 1)), fit)}, _NO_SEEKING
    )
    assert words == [
        "Regulator, exact: -0.44 [-0.47, -0.40] against -0.50 stated: more slowly than stated, "
        "which the band excludes."
    ]
    assert liu2022_rates._against(fit, -0.45) == "as stated"
    assert liu2022_rates._against(fit, -0.25) == "faster than stated, which the band excludes"


_NO_SEEKING = {"iterations_bound": np.full(1, np.inf), "iterations_seen": np.full(1, np.inf)}
