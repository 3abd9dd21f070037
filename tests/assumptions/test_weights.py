"""Weights of the agents: verdicts in any units, and least weights."""

import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.assumptions import (
    design_constants,
    regulator_constants,
    strong_monotonicity,
    strong_stability,
)

from .test_diagnosis import _Linear, _pennies, _problem

# Two agents with own slopes a and d and cross ones b and c: weights exist iff b c < a d.
_UNEQUAL = {
    "leader": ([[1.0, 1000.0], [0.0, 1.0]], "holds"),
    "steep leader": ([[1.0, 1e8], [0.0, 1.0]], "holds"),
    "scales": ([[1e-6, 0.0], [0.0, 1e6]], "holds"),
    "far scales": ([[1e-150, 0.0], [0.0, 1e150]], "holds"),
    "scaled rows": ([[1e-6, 5e-7], [3e5, 1e6]], "holds"),
    "near singular": ([[1.0, 1 - 1e-9], [1 - 1e-9, 1.0]], "holds"),
    "scaled substitutes": ([[1e-6, 2.0], [2.0, 1e6]], "fails"),
    "slightly concave": ([[-1e-12, 0.0], [0.0, 1.0]], "fails"),
    "beyond singular": ([[1.0, 1 + 1e-14], [1.0, 1.0]], "fails"),
    # Singular as written, not as rounded.
    "rounded": ([[0.1 * 0.1, 0.1 * 0.3], [0.1 * 0.3, 0.3 * 0.3]], "not decidable"),
}


@pytest.mark.parametrize("name", _UNEQUAL)
def test_verdicts_do_not_depend_on_units(name):
    matrix, verdict = _UNEQUAL[name]
    problem = _Linear(matrix).problem()
    assert strong_monotonicity(problem).verdict == verdict
    assert strong_stability(problem).verdict == verdict


def test_constants_do_not_depend_on_units():
    problem = _Linear([[1e-6, 0.0], [0.0, 1e6]]).problem()
    assert regulator_constants(problem).strong_monotonicity.low == pytest.approx(1e-6)
    found = design_constants(problem)
    assert found.inverse_jacobian.is_exact
    assert found.inverse_jacobian.low == pytest.approx(1e6)
    assert found.stability.weights[0] == pytest.approx(5e5, rel=0.02)
    # Of lambda with mean 1 the best is 2 / (1 / a + 1 / d); what is returned says how near it is.
    monotone = strong_monotonicity(problem)
    assert 0.98 * 2e-6 <= monotone.constant.low <= 2e-6
    assert "no weights reach more than 2e-06" in monotone.reason
    singular = design_constants(_Linear([[1.0, 1.0], [1.0, 1.0]]).problem())
    assert singular.inverse_jacobian.low == np.inf
    zero = regulator_constants(_Linear([[0.0, 0.0], [0.0, 1.0]]).problem())
    assert zero.strong_monotonicity.high == 0
    # One slope of 1 that moves, beside one of 1e6 that does not.
    curved = _problem(
        lambda t, x: jnp.array([1e-8, 1e6]) * (x + x**3 * jnp.array([1.0, 0])), ix.Reals((2,))
    )
    assert not strong_monotonicity(curved).constant.is_exact


def test_weights_of_stability_are_the_least():
    """Matching pennies and `c x`, both at (1/2, 1/2): `lambda c |x - x*|^2 >= D(x*, x)`."""
    pennies = _pennies().game
    problem = _problem(lambda t, x: pennies.operator(t, x) + 2 / 3 * x, ix.Simplex([2, 2]))
    found = strong_stability(problem, mixing=0.1)
    low = 0.05
    ratio = 0.5 * np.log(0.25 / (low * (1 - low))) / (2 * (0.5 - low) ** 2)
    np.testing.assert_allclose(found.weights, 2 * [1.5 * ratio], rtol=0.02)
    assert found.constant.is_exact
    # Of the least norm, on which the theorem's step depends, not of the least sum.
    leader = strong_stability(_Linear([[1, 10], [0, 1]]).problem())
    a, b = leader.weights
    assert min(a, b) >= 0.5
    assert (a - 0.5) * (b - 0.5) >= 25 * a**2 * (1 - 1e-9)
    grid = np.linspace(0.51, 5, 100_000)
    least = np.sqrt(grid**2 + (0.5 + 25 * grid**2 / (grid - 0.5)) ** 2).min()
    assert np.hypot(a, b) <= 1.02 * least
