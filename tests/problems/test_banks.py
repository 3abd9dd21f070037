"""The published problems and our own: every equilibrium and every design, with defaults."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import incentax as ix
from incentax import bench
from incentax.problems.bank import _emission_taxes, _routes, _supply_functions

DESIGNS, EQUILIBRIA = ix.problems.bank.designs, ix.problems.bank.equilibria

# Those that `test_b_stationarity.py` solves, each with what is known of its local optima; and what
# has no derivative.
_ELSEWHERE = ("multicommodity tolls", "capacities", "inverse problem", "kink", "black box")
NAMES = [name for name in DESIGNS if not name.startswith(_ELSEWHERE)]
# Some of every kind run on every change; all of them with the slow tests (each compiles anew).
_QUICK = (
    "oligopoly, exact exponent, g = 1.0",
    "Outrata 1e",
    "qpec1 (Jiang, Ralph)",
    "planted kinks, n = 40",  # a local optimum that forcing a pair to its other side leaves
)


_SOON = ("five firms", "five firms, shared cap", "Kojima, Shindo 1986", "matching pennies",
         "planted box, n = 2", "planted polyhedron, dependent rows", "battle of the sexes",
         "10 parallel routes", "logit on 10 parallel routes", "3 users under a cap",
         "Cournot, 10 firms, at most 8 each", "loads of 3 households in 4 hours")  # fmt: skip


# Kinds of many problems of one form, of which a few are examined beyond their answer.
_OF_ONE_FORM = (
    "emission taxes",
    "random",
    "followers",
    "prices",
    "caps",
    "routes",
    "supply functions",
    "electricity",
)
_FEW = (
    *(n for n in DESIGNS if n.startswith("emission tax, output")),
    "random, 2 over 20, 4 degenerate",
    "leader over 20 followers",
    "Bertrand taxes, 5 firms",
    "cap on the emissions of 10 firms",
    "tolls on 2 parallel routes",
    "logit toll, 5 routes, eta = 0.5",
    "supply functions of 2 firms",
    "electricity, 3 households, 4 hours",
)
EXAMINED = [n for n in NAMES if n in _FEW or DESIGNS[n].kind not in _OF_ONE_FORM]


def test_the_banks_are_large_enough():
    assert len(NAMES) >= 80
    assert len(DESIGNS) >= 120
    assert len(EQUILIBRIA) >= 60
    assert set(_FEW) <= set(DESIGNS)


def test_best_values_are_those_of_their_formulas():
    """What takes longer than a formula is written down, and computed again here."""
    for name, best in _routes.LOGIT.items():
        assert _routes.best_first_toll(*name) == pytest.approx(best, rel=1e-10)
    for firms, best in _emission_taxes.PER_DAMAGE.items():
        assert _emission_taxes.least_per_damage(firms) == pytest.approx(best, rel=1e-10)
    # Published digits of the two formulas at 100 firms.
    assert _emission_taxes._least_free(100) == pytest.approx(637.599413, abs=1e-6)
    assert _emission_taxes.least_per_damage(100) == pytest.approx(-2364.102714, abs=1e-6)
    for firms, best in _supply_functions.PROGRAMMES.items():
        assert _supply_functions.best_response(firms) == pytest.approx(best, rel=1e-10)


@pytest.mark.parametrize("name", [n for n in DESIGNS if n.startswith("black box")])
def test_black_boxes_are_minimised_without_derivatives(name):
    """By Nelder-Mead; a derivative is refused with words."""
    entry = DESIGNS[name]
    with pytest.raises(ValueError, match="do not support JVP"):
        ix.design(entry.problem, entry.theta0)
    solve = bench.METHODS["Nelder-Mead"].prepare(entry.problem, jnp.asarray(entry.theta0))
    assert bench.judged(entry, solve())["status"] == "solved"


@pytest.mark.parametrize(
    "name",
    [n if n in _SOON else pytest.param(n, marks=pytest.mark.slow) for n in EQUILIBRIA],
)
def test_equilibrium_is_found_with_defaults(name):
    entry = EQUILIBRIA[name]
    found = ix.solve_equilibrium(entry.game, None, entry.x0)
    assert found.residual < 1e-8
    tolerance = max(1e-7, 0.6 * 10.0**-entry.digits)
    assert min(np.abs(found.x - answer).max() for answer in entry.solutions) < tolerance


@pytest.mark.parametrize("name", [n for n in EQUILIBRIA if n.startswith("planted")])
def test_planted_equilibrium_is_one(name):
    entry = EQUILIBRIA[name]
    (planted,) = entry.solutions
    assert ix.natural_residual(entry.game, None, jnp.asarray(planted)) < 1e-10


@pytest.mark.filterwarnings("ignore:`objective:UserWarning")  # one of them does ignore x
@pytest.mark.parametrize(
    "name",
    [n if n in _QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def test_design_is_found_with_defaults(name):
    entry = DESIGNS[name]
    problem, theta0, best = entry.problem, entry.theta0, entry.best
    assert entry.source
    solution = ix.design(problem, theta0)
    assert solution.residual < 1e-8
    # Published values are rounded to six decimals, some to five.
    rounding = 6e-6 if abs(best) > 1e-3 else 0.0
    assert abs(solution.objective - best) <= 1e-6 * max(abs(best), 1e-6) + rounding
    assert solution.result == ix.RESULTS.successful
    assert problem.incentive_set.violation(solution.theta) < 1e-8
    again = ix.solve_equilibrium(problem.game, solution.theta, solution.x)
    np.testing.assert_allclose(
        problem.objective(solution.theta, again.x), solution.objective, rtol=1e-9, atol=1e-12
    )
    assert jnp.isfinite(solution.history.objective[: solution.steps]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMINED)
def test_derivative_matches_differences(name):
    """Along three directions, at the first points around the start that are differentiable."""
    problem, theta0 = DESIGNS[name].problem, DESIGNS[name].theta0
    flat0, unravel = ravel_pytree(theta0)
    width = 1e-4 * max(1.0, float(jnp.abs(flat0).max()))

    def answer(flat):
        theta = unravel(flat)
        found = ix.solve_equilibrium(problem.game, theta, tol=1e-13, throw=False)
        return problem.objective(theta, found.x), found

    @jax.jit
    def along(flat, direction):
        """Objective, its slope, and how far the point is from a change of the active set."""
        (value, found), (slope, moved) = jax.jvp(answer, (flat,), (direction,))
        game, theta = problem.game, unravel(flat)
        margin = game.strategies(theta).pairs(found.x, game.operator(theta, found.x)).margin
        return value, slope, margin / (1e-12 + jnp.abs(moved.x).max()), found.residual

    gradient = jax.jit(jax.grad(lambda flat: answer(flat)[0]))
    checked = 0
    for key in jax.random.split(jax.random.key(5), 30):
        around, *keys = jax.random.split(key, 4)
        spread = 0.5 * max(1.0, float(jnp.abs(flat0).max()))
        drawn = flat0 + spread * jax.random.normal(around, flat0.shape)
        flat, _ = ravel_pytree(problem.incentive_set.project(unravel(drawn)))
        for key_direction in keys:
            direction = jax.random.normal(key_direction, flat.shape) / np.sqrt(flat.size)
            value, slope, margin, residual = along(flat, direction)
            # Ten pairs of this problem are degenerate whatever theta is, and never move.
            smooth = margin > 10 * width or name == "qpec1 (Jiang, Ralph)"
            if not (smooth and residual < 1e-9 and abs(slope) > 1e-9 * abs(value)):
                continue
            ends = [along(flat + k * width * direction, direction)[0] for k in (-2, -1, 1, 2)]
            expected = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * width)
            noise = 1e-14 * abs(value) / width
            close = {"rtol": 1e-6, "atol": max(float(noise), 1e-9 * abs(float(slope)))}
            np.testing.assert_allclose(slope, expected, **close)
            np.testing.assert_allclose(gradient(flat) @ direction, expected, **close)
            checked += 1
        if checked >= 3:
            return
    assert checked, "no differentiable point was found around the start"
