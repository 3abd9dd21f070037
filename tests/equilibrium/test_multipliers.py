"""Multipliers of the agents' constraints: what they balance, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix

_MATRIX = jnp.array([[2.0, 0.5, 0.0], [0.3, 1.0, 0.2], [0.1, 0.0, 1.5]])
_THETA = jnp.array([0.3, -0.2, 0.1])
_CAP = ([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], [1.0, 5.0])


def _affine(strategies, eta=None):
    def game(wish):
        plain = ix.Game(lambda theta, x: _MATRIX @ x + theta - wish, strategies)
        return plain if eta is None else ix.QuantalResponse(plain, eta)

    return game


def _moving(level):
    def cap(theta):
        del theta
        return ix.Polyhedron(inequality=([[1.0, 1.0, 1.0]], level[:1]), lower=0.0)

    return ix.Game(lambda theta, x: _MATRIX @ x + theta - jnp.array([3.0, 2.0, 0.4]), cap)


_GAMES = {
    "box": (_affine(ix.Box(0.0, jnp.full(3, 0.5))), [3.0, -1.0, 0.4], {"lower", "upper"}),
    "simplex": (_affine(ix.Simplex(3, total=2.0)), [3.0, -3.0, 0.4], {"lower", "equality"}),
    "polyhedron": (
        _affine(ix.Polyhedron(inequality=_CAP, equality=([[1.0, -1.0, 0.0]], [0.1]), lower=0.0)),
        [3.0, 2.0, 0.4],
        {"lower", "equality", "inequality"},
    ),
    "a cap that is data": (_moving, [1.0], {"lower", "inequality"}),
    "logit": (_affine(ix.Simplex(3), 0.5), [3.0, -3.0, 0.4], {"equality"}),
}


_QUICK = ("box", "logit")


@pytest.mark.parametrize(
    "name",
    [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in _GAMES],
)
def test_multipliers_balance_the_operator_and_have_derivatives(name):
    game, data, borne = _GAMES[name]
    data = jnp.asarray(data)
    found = ix.solve_equilibrium(game(data), _THETA, tol=1e-12)
    mu, strategies = found.multipliers, game(data).strategies(_THETA)
    rows = strategies.constraints(found.x)
    pull = game(data).operator(_THETA, found.x) + rows.equality.transpose(mu["equality"])
    pull = pull + mu["inequality"] @ rows.inequality
    assert jnp.max(jnp.abs(pull - mu["lower"] + mu["upper"])) < 1e-10
    assert {key for key, value in mu.items() if jnp.any(jnp.abs(value) > 1e-3)} == borne
    for key in borne:

        def total(data, key=key):
            return ix.solve_equilibrium(game(data), _THETA, tol=1e-12).multipliers[key].sum()

        step = 1e-5
        apart = [step * unit for unit in np.eye(data.size)]
        slopes = [(total(data + d) - total(data - d)) / (2 * step) for d in apart]
        assert jnp.max(jnp.abs(jax.grad(total)(data) - jnp.stack(slopes))) < 1e-7


def test_a_shared_cap_has_one_price():
    """Two players, (x1 - 1)^2 and (x2 - .5)^2, x1 + x2 <= 1: (.75, .25) and a price of .5."""
    cap = ix.Polyhedron(inequality=([[1.0, 1.0]], [1.0]), lower=0.0, upper=1.0)
    game = ix.Game(lambda theta, x: 2 * (x - jnp.array([1.0, 0.5])), cap)
    found = ix.solve_equilibrium(game, None)
    assert jnp.max(jnp.abs(found.x - jnp.array([0.75, 0.25]))) < 1e-9
    assert abs(found.multipliers["inequality"][0] - 0.5) < 1e-8


def test_bounds_that_meet_bear_on_one_side():
    game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0])))
    mu = ix.solve_equilibrium(game, jnp.array([3.0, 5.0])).multipliers
    assert mu["lower"].tolist() == [0.0, 0.0]
    assert mu["upper"].tolist() == [2.0, 3.0]
