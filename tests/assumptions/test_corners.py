"""Sampled bounds reach the corners and edges of sets, where curved operators are steepest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.assumptions import design_constants, regulator_constants

CORNERS = {
    "iso-elastic": (
        lambda t, x: 1 + t[0] - x.sum() ** -1.25 * (1 - 1.25 * x / x.sum()),
        ix.Box(jnp.full(2, 0.05), 10.0),
        (0.05, 0.05),
    ),
    "one low, one high": (
        lambda t, x: jnp.exp(4 * (x[0] - x[1])) * jnp.array([1.0, -1.0]),
        ix.Box(-jnp.ones(2), 1.0),
        (1.0, -1.0),
    ),
    "one bound": (
        lambda t, x: -1 / (0.01 + x),
        ix.Box(jnp.zeros(2), jnp.inf),
        (0.0, 0.0),
    ),
    "upper bound": (lambda t, x: jnp.exp(x), ix.Box(jnp.full(2, -jnp.inf), 3.0), (3.0, 3.0)),
    "triangle": (
        lambda t, x: x**9,
        ix.Polyhedron(
            inequality=(jnp.ones((1, 2)), jnp.ones(1)), lower=jnp.zeros(2), upper=jnp.ones(2)
        ),
        (1.0, 0.0),
    ),
}


@pytest.mark.parametrize(
    "name",
    [n if n == "upper bound" else pytest.param(n, marks=pytest.mark.slow) for n in CORNERS],
)
def test_bounds_are_met_where_the_operator_is_steepest(name):
    operator, strategies, corner = CORNERS[name]
    objective = lambda t, x: jnp.sum(x**2) + jnp.sum(t**2)  # noqa: E731
    problem = ix.DesignProblem(ix.Game(operator, strategies), objective, ix.Box(jnp.zeros(1), 1.0))
    slopes = np.asarray(jax.jacobian(lambda x: operator(jnp.zeros(1), x))(jnp.asarray(corner)))
    steepest = regulator_constants(problem).lipschitz.low
    assert steepest == pytest.approx(np.linalg.norm(slopes, 2), rel=1e-6)
    found = design_constants(problem).operator_lipschitz.low
    if not isinstance(strategies, ix.Polyhedron):  # there agents are one
        assert found == pytest.approx(np.sqrt(2) * np.linalg.norm(slopes, axis=1).max(), rel=1e-6)
