"""Kinks: whether any direction descends, and what the designer makes of networks and inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.design.accurate._lower_level import LowerLevel
from incentax.design.accurate._model import _least_quadratic
from incentax.design.accurate._pieces import _is_behind, _onto_kinks, _PACE
from incentax.design.accurate._place import arrive

KINDS = {"A": "multicommodity tolls", "B": "capacities", "C": "inverse problem", "D": "kink"}
BANK = {
    name.rpartition(" ")[2]: entry
    for name, entry in ix.problems.bank.designs.items()
    if name.startswith(tuple(KINDS.values()))
}

# At these points the judge's enumeration of active sets finds a descent, or proves that none is.
_POINTS = {
    "D1": "no", "D2": "no", "D3": "no", "D4": "no", "D5": "yes", "D6": "no", "D7": "no",
    "D8": "no", "D11": "yes",
}  # fmt: skip
# D9, D10 and C11 to C13 have local optima that are B-stationary too.
_LOCAL = {"D10": 0.04, "C11": 0.03, "C12": 0.05, "C13": 0.06, "A7": 1e-6, "C10": 1e-2}
_QUICK = ("A1", "B2")


@pytest.mark.parametrize(
    "name", [n if n == "D3" else pytest.param(n, marks=pytest.mark.slow) for n in _POINTS]
)
def test_a_degenerate_point_is_judged(name):
    """Of 50,000 random directions at D3 none descends, and yet one does."""
    problem, point = BANK[name].problem, BANK[name].theta0
    certificate = ix.certify(problem, point)
    assert certificate.b_stationary == _POINTS[name]
    assert certificate.degenerate > 0
    if _POINTS[name] == "yes":
        assert certificate.ending == ix.ENDINGS.kink
        assert certificate.least_slope > -1e-6
        assert "no direction descends" in certificate.verdict
    else:
        assert certificate.least_slope < -1e-4
        assert "not stationary" in certificate.verdict


@pytest.mark.parametrize(
    "name", [n if n in _QUICK else pytest.param(n, marks=pytest.mark.slow) for n in BANK]
)
def test_the_best_known_value_is_found(name):
    problem, start = BANK[name].problem, BANK[name].theta0
    best = BANK[name].best
    solution = ix.design(problem, start)
    assert solution.result == ix.RESULTS.successful
    assert solution.residual < 1e-7
    size = max(abs(best), 1e-3)
    assert solution.objective > best - 1e-7 * size
    assert solution.objective < best + _LOCAL.get(name, 1e-6) * size
    assert solution.b_stationary != "no"
    assert len(solution.history.objective) == solution.steps


@pytest.mark.slow
def test_words_of_an_ending():
    """A batch has a list of endings; the table names all."""
    game = ix.Game(lambda t, x: x - t, ix.NonNegative((2,)))
    problem = ix.DesignProblem(
        game, lambda t, x: jnp.sum((x - t - 1) ** 2) + jnp.sum(t**2), ix.Box(-jnp.ones(2), 1.0)
    )
    starts = jnp.array([[0.5, 0.1], [-0.5, 1.0]])
    batch = jax.vmap(lambda theta: ix.design(problem, theta, throw=False))(starts)
    np.testing.assert_allclose(batch.theta, -0.5, atol=1e-6)
    assert batch.b_stationary == ["yes", "yes"]
    assert str(batch).count("'stationary: the gradient vanishes'") == 2
    alone = ix.design(problem, starts[0])
    assert "successful" in str(alone)
    assert "RESULTS<" not in str(alone)


def test_a_quadratic_step_does_not_depend_on_the_units_of_the_objective():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(6, 6))
    gradient, hessian = rng.normal(size=6), half @ half.T + np.eye(6)
    rows, rooms = rng.normal(size=(4, 6)), np.zeros(4)
    step, weights = _least_quadratic(gradient, hessian, rows, rooms, np.zeros(4))
    assert (weights > 0).any()
    np.testing.assert_allclose(gradient + hessian @ step, rows.T @ weights, atol=1e-9)
    for unit in (1e-12, 1e10, 1e16):
        other, borne = _least_quadratic(unit * gradient, unit * hessian, rows, rooms, np.zeros(4))
        np.testing.assert_allclose(other, step, rtol=1e-7)
        np.testing.assert_allclose(borne, unit * weights, rtol=1e-7)


def test_what_walls_bear_does_not_shorten_steps():
    """A flat direction is not held back by a slope into a wall, known from its multiplier."""
    gradient, hessian = np.array([1e3, -1.0]), np.diag([1.0, 1e-2])
    rows, rooms = np.eye(2)[:1], np.zeros(1)  # the first entry is at its wall
    short, weights = _least_quadratic(gradient, hessian, rows, rooms, np.zeros(1))
    assert short[1] < 0.02
    long, _ = _least_quadratic(gradient, hessian, rows, rooms, weights)
    np.testing.assert_allclose(long, [0, 10], atol=1e-9)  # 0.1 |-1| is the floor of curvature


def test_a_walk_gives_up_only_where_its_pace_does_not_reach_the_other():
    """From 2 downwards by 0.01 a step, beside one that stands at 1."""
    rows = [(2 - 0.01 * k, 1.0, 1.0) for k in range(_PACE + 1)]
    here = rows[-1][0]
    needed = round((here - 1) / 0.01)
    assert not _is_behind(rows, len(rows) + needed + 1, 1.0)
    assert _is_behind(rows, len(rows) + needed - 1, 1.0)
    assert not _is_behind(rows[:-1], len(rows), 1.0)  # too few to tell a pace
    assert not _is_behind(rows, len(rows), np.inf)
    assert not _is_behind(rows, len(rows), here + 0.1)


def test_a_point_beside_a_kink_is_led_onto_it():
    """`x = max(theta, 0)`: 5e-8 counts as zero, and a slope of 10 tells it from there."""
    game = ix.Game(lambda t, x: x - t, ix.NonNegative((1,)))
    problem = ix.DesignProblem(
        game, lambda t, x: 10 * jnp.sum(x) - jnp.sum(t) + 1e-3, ix.Box(-jnp.ones(1), 1.0)
    )
    level = LowerLevel(problem, jnp.zeros(1), jnp.zeros(1))
    beside = arrive(level, np.array([5e-8]), np.array([5e-8]))
    assert beside is not None
    assert beside.at.degenerate.all()
    assert beside.objective > 1e-3 + 4e-7
    onto = _onto_kinks(level, beside, beside.at.active & ~beside.at.degenerate)
    assert onto is not None
    np.testing.assert_allclose(onto.theta, 0, atol=1e-14)
    assert onto.objective == pytest.approx(1e-3, abs=1e-12)
    # On the kink there is nothing left to do.
    assert _onto_kinks(level, onto, onto.at.active & ~onto.at.degenerate) is None
