"""Global search: what is proved is so, and what is not is said."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.design.globally._branch import bound_by_branching
from incentax.design.globally._follow import bound_by_following
from incentax.design.globally._structure import NoBound, quadratic_design

DESIGNS = ix.problems.bank.designs


class Force(eqx.Module):
    """`slope x + push theta + level`: problems of other numbers share their programs."""

    slope: jax.Array
    push: jax.Array
    level: jax.Array

    def __call__(self, theta, x):
        return self.slope @ x + self.push @ theta + self.level


class Distance(eqx.Module):
    """Of affine values of incentives and strategies from a goal, squared."""

    rows: jax.Array
    goal: jax.Array

    def __call__(self, theta, x):
        return jnp.sum((self.rows @ jnp.concatenate([theta, x]) - self.goal) ** 2)


def drawn(seed, p, d=3):
    """Agents between 0 and 1, most of them at a bound for most incentives."""
    random = np.random.default_rng(seed)
    half = random.normal(size=(d, d))
    slope = half @ half.T + 0.3 * np.eye(d) + 0.3 * (half - half.T)
    force = Force(
        *map(jnp.asarray, (slope, random.normal(size=(d, p)), 0.5 * random.normal(size=d)))
    )
    cost = Distance(*map(jnp.asarray, (random.normal(size=(2, p + d)), 2 * random.normal(size=2))))
    game = ix.Game(force, ix.Box(jnp.zeros(d), 1.0))
    return ix.DesignProblem(game, cost, ix.Box(jnp.full(p, -2.0), 2.0))


@jax.jit
def values(problem, thetas):
    def one(theta):
        x = ix.solve_equilibrium(problem.game, theta, throw=False).x
        return problem.objective(theta, x), x

    return jax.lax.map(one, thetas)


def grid(p, count):
    axes = np.meshgrid(*[np.linspace(-2, 2, count)] * p)
    return jnp.asarray(np.stack([axis.ravel() for axis in axes], axis=1))


@pytest.mark.parametrize(
    ("p", "count", "seeds"), [(1, 401, 6), pytest.param(2, 31, 6, marks=pytest.mark.slow)]
)
def test_no_incentive_of_a_grid_is_better_than_the_bound(p, count, seeds):
    thetas, several = grid(p, count), 0
    for seed in range(seeds):
        problem = drawn(seed, p)
        found, xs = values(problem, thetas)
        program = quadratic_design(problem, thetas[0], xs[0])
        # From the worst point of the grid: nothing is given away.
        worst = int(np.argmax(found))
        start = np.concatenate([thetas[worst], xs[worst]])
        bound = bound_by_branching(
            program,
            lambda flat, problem=problem: float(values(problem, jnp.asarray(flat)[None])[0][0]),
            (start, float(found[worst])),
            margin=1e-6,
            max_nodes=500,
        )
        least = float(found.min())
        assert bound.value <= least + 1e-8
        assert bound.objective - bound.value <= 1.1e-6
        steep = float(np.abs(np.diff(np.asarray(found).reshape((count,) * p), axis=0)).max())
        assert bound.objective >= least - p * steep  # the grid is as fine as this
        inner = np.asarray(found).reshape((count,) * p)
        several += p == 1 and ((inner[1:-1] < inner[:-2]) & (inner[1:-1] < inner[2:])).sum() > 1
    assert p > 1 or several  # local optima mislead in some of them


class Indefinite(eqx.Module):
    """`u^T bend u / 2` of `u = (theta, x)`, with curvatures of both signs."""

    bend: jax.Array

    def __call__(self, theta, x):
        u = jnp.concatenate([theta, x])
        return u @ self.bend @ u / 2


def followed(problem, incentives, strategies, seed):
    """Strongly monotone agents, sets and an objective of which nothing but its degree is known."""
    random = np.random.default_rng(seed)
    bend = random.normal(size=(4, 4))
    game = ix.Game(problem.game.operator, strategies)
    return ix.DesignProblem(game, Indefinite(jnp.asarray(bend + bend.T)), incentives)


SIDES = ix.Polyhedron(inequality=(jnp.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 1.0]]), jnp.ones(2)),
                      lower=-jnp.ones(3), upper=1.0)  # fmt: skip


# Rows that say the same twice, and a strategy that cannot move.
TWICE = ix.Polyhedron(
    inequality=(jnp.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]]), jnp.array([1.0, 2.0])),
    lower=jnp.array([-1.0, -1.0, 0.3]),
    upper=jnp.array([1.0, 1.0, 0.3]),
)


@pytest.mark.parametrize(
    "strategies",
    [ix.Box(jnp.zeros(3), 1.0), ix.Simplex((3,)), SIDES, TWICE],
    ids=["box", "simplex", "sides", "twice"],
)
def test_the_least_value_along_one_incentive_is_that_of_a_fine_grid(strategies):
    thetas = jnp.linspace(-2.0, 2.0, 2001)[:, None]
    for seed in range(8):
        problem = followed(drawn(seed, 1), ix.Box(jnp.full(1, -2.0), 2.0), strategies, seed)
        found, xs = values(problem, thetas)
        worst = int(np.argmax(found))
        start = np.concatenate([thetas[worst], xs[worst]]), float(found[worst])
        program = quadratic_design(problem, thetas[0], xs[0])
        bound = bound_by_following(program, start, margin=1e-9, max_pieces=100)
        assert bound.finished
        assert bound.value <= float(found.min()) + 1e-8
        assert bound.value >= float(found.min()) - 1e-3 * (1 + abs(float(found.min())))
        again = float(values(problem, jnp.asarray(bound.theta)[None])[0][0])
        assert again == pytest.approx(bound.value, rel=1e-7, abs=1e-7)


def test_agents_that_are_alike_reach_their_limits_together():
    """Three firms in step: a breakpoint of one is that of all; three others stay at zero."""
    slope = jnp.eye(6) + jnp.ones((6, 6))
    game = ix.Game(lambda theta, x: slope @ x - theta * jnp.array([1.0] * 3 + [0.0] * 3),
                   ix.Box(jnp.zeros(6), 1.0))  # fmt: skip
    problem = ix.DesignProblem(
        game, lambda theta, x: x @ x - 3 * x[0] * theta[0] + theta @ theta / 4, ix.Box(-9.0, 9.0)
    )
    theta = jnp.zeros(1)
    program = quadratic_design(problem, theta, jnp.zeros(6))
    bound = bound_by_following(program, (np.zeros(7), 0.0), margin=1e-9, max_pieces=10)
    # x = theta / 4 up to theta = 4, then 1: 3 - 3 theta + theta^2 / 4 is least at 6.
    assert bound.value == pytest.approx(-6.0)
    assert bound.theta == pytest.approx(6.0)
    assert bound.nodes == 3
    found = ix.design_globally(problem, theta, starts=2)
    assert found.proved
    assert found.bound == pytest.approx(-6.0)


@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e9, 1e14])
def test_a_proof_in_other_units_of_costs_and_strategies(unit):
    """`x = (min(5 theta, 1/2), min(theta, 1))` above 0: best is 4, and there is one at -1."""
    slope, low = unit * jnp.eye(2), jnp.zeros(2)
    force = Force(slope, -unit * jnp.array([[5.0], [1.0]]), low)
    game = ix.Game(force, ix.Box(low, jnp.array([0.5, 1.0])))
    problem = ix.DesignProblem(
        game, lambda theta, x: -(theta[0] ** 2) / 2 - theta[0] + 4 * x[1], ix.Box(-4.0, 4.0)
    )
    found = ix.design_globally(problem, jnp.array([-4.0]), starts=1)
    assert found.proved
    assert found.bound == pytest.approx(-8.0)
    np.testing.assert_allclose(found.solution.theta, [4.0])


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e6])
def test_a_curvature_that_is_small_in_its_unit_counts(unit):
    """`t + t^2 / 2 - 2 y + 5 y^2 - 4 y t` with `y = min(max(t, 0), 1)`: -1.5 at 3, -0.5 at -1."""
    both = jnp.array([1.0, unit])

    def objective(theta, x):
        t, y = theta[0], x[1] / unit
        return t + t**2 / 2 - 2 * y + 5 * y**2 - 4 * y * t

    game = ix.Game(
        lambda theta, x: (x - jnp.array([5.0, 1.0]) * both * theta) / both,
        ix.Box(jnp.zeros(2), jnp.array([0.5, 1.0]) * both),
    )
    problem = ix.DesignProblem(game, objective, ix.Box(-4.0, 4.0))
    program = quadratic_design(problem, jnp.array([-1.0]), jnp.zeros(2))
    start = np.array([-1.0, 0.0, 0.0]), -0.5
    bound = bound_by_following(program, start, margin=1e-9, max_pieces=10)
    assert bound.value == pytest.approx(-1.5)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e6])
def test_an_objective_that_is_not_convex_in_any_unit(unit):
    """`theta_1^2 - y^2` with `y = x_1 / unit`."""
    both = jnp.array([1.0, unit])
    game = ix.Game(lambda theta, x: x / both - theta, ix.Box(jnp.zeros(2), both))
    problem = ix.DesignProblem(
        game, lambda theta, x: theta[0] ** 2 - (x[1] / unit) ** 2, ix.Box(jnp.zeros(2), 1.0)
    )
    assert not quadratic_design(problem, jnp.ones(2), both).is_convex
    crossed = ix.DesignProblem(
        game, lambda theta, x: theta[0] ** 2 + theta[1] * x[1] / unit, problem.incentive_set
    )
    assert not quadratic_design(crossed, jnp.ones(2), both).is_convex
    plain = ix.DesignProblem(
        game, lambda theta, x: (theta[0] - x[1] / unit) ** 2, problem.incentive_set
    )
    assert quadratic_design(plain, jnp.ones(2), both).is_convex


def test_rounding_of_agents_that_have_left_is_no_slope():
    """At a tax beyond all of them nobody produces, and the objective is level for ever."""
    entry = DESIGNS["emission tax, 50 firms, output non-negative, tax per damage"]
    theta = jnp.array([9.74893])
    x = ix.solve_equilibrium(entry.problem.game, theta).x
    value = float(entry.problem.objective(theta, x))
    program = quadratic_design(entry.problem, theta, x)
    start = np.concatenate([theta, x]), value
    bound = bound_by_following(program, start, margin=1e-9, max_pieces=200)
    assert bound.nodes >= 50  # they leave one after another
    assert bound.value == pytest.approx(entry.best, rel=1e-6)


def test_where_equilibria_are_not_followed():
    def why(problem, words, **more):
        program = quadratic_design(problem, jnp.zeros(1), jnp.zeros(2))
        with pytest.raises(NoBound, match=words):
            bound_by_following(program, (np.zeros(3), 0.0), margin=1e-9, **{"max_pieces": 9} | more)

    game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.zeros(2), 1.0))
    downhill = ix.DesignProblem(game, lambda theta, x: x.sum() - theta.sum(), ix.Reals((1,)))
    why(downhill, "falls without end along the incentive")
    kept = ix.DesignProblem(game, lambda theta, x: x.sum() - theta.sum(), ix.Box(-3.0, 3.0))
    why(kept, "not all pieces were followed", max_pieces=1)
    swaps = ix.Game(lambda theta, x: x[::-1] - theta, ix.Box(jnp.zeros(2), 1.0))
    why(ix.DesignProblem(swaps, downhill.objective, kept.incentive_set), "strongly monotone")
    # Where they are not, and the objective is not convex, nothing is proved.
    two = ix.DesignProblem(game, lambda theta, x: theta @ x, ix.Box(jnp.zeros(2), 1.0))
    found = ix.design_globally(two, jnp.ones(2), starts=1)
    assert found.reason == "the objective is not convex in incentives and strategies together"


def test_basins_and_a_proof():
    """Agents follow the tax up to 1: staying away has an optimum of its own."""
    game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.zeros(1), 1.0))

    def objective(theta, x):
        return 0.1 * jnp.sum((theta + 1) ** 2) - jnp.sum(x)

    problem = ix.DesignProblem(game, objective, ix.Box(-3.0, 3.0))
    local = ix.design(problem, jnp.array([-2.0]), starts=1)
    assert float(local.objective) == pytest.approx(0.0, abs=1e-9)
    found = ix.design_globally(problem, jnp.array([-2.0]), starts=8)
    assert found.proved
    assert found.bound == pytest.approx(-0.6, rel=1e-6)
    assert float(found.solution.objective) == pytest.approx(-0.6, rel=1e-9)
    assert [round(one.objective, 6) for one in found.basins] == [-0.6, 0.0]
    assert sum(one.starts for one in found.basins) + found.failed == 8
    # With one start the search ends at the wrong one, and branching leads to the right one.
    alone = ix.design_globally(problem, jnp.array([-2.0]), starts=1)
    ends = [(round(one.objective, 6), one.starts) for one in alone.basins]
    assert ends == [(-0.6, 0), (0.0, 1)]
    assert alone.proved
    assert float(alone.solution.objective) == pytest.approx(-0.6, rel=1e-9)
    assert "global optimum            proved" in str(alone)


def refused(problem, theta, words):
    x = problem.game.strategies(theta).centre()
    with pytest.raises(NoBound, match=words):
        quadratic_design(problem, theta, x)


def test_what_is_not_affine_or_not_convex_is_not_proved():
    box, one = ix.Box(jnp.zeros(2), 1.0), jnp.ones(2)
    plain = ix.Game(lambda theta, x: x - theta, box)

    def square(theta, x):
        return jnp.sum((x - 0.5) ** 2)

    def of(game, objective=square, **more):
        return ix.DesignProblem(game, objective, ix.Box(jnp.zeros(2), 1.0), **more)

    quadratic_design(of(plain), one, one)  # nothing is refused
    # Affine where it is looked at, and nowhere else: no sample of derivatives tells.
    bent = ix.Game(lambda theta, x: x - jnp.where(theta > 100.0, theta**2, theta), box)
    refused(of(bent), one, "operator is not affine")
    refused(of(ix.Game(lambda theta, x: x**3 - theta, box)), one, "operator is not affine")
    refused(of(plain, lambda theta, x: jnp.sum(x**4)), one, "objective is not quadratic")
    moving = ix.Game(lambda theta, x: x - 2.0, lambda theta: ix.Box(jnp.zeros(2), theta))
    refused(of(moving), one, "sets that do not move")
    cap = ix.Constraint(lambda theta, x: theta.sum(), upper=1.0)
    refused(of(plain, constraints=[cap]), one, "without constraints on the equilibrium")


@jax.custom_jvp
def _cubed(theta):
    return theta**3


@_cubed.defjvp
def _(primals, tangents):
    return _cubed(*primals), tangents[0]


def test_what_its_derivatives_do_not_show_is_not_proved():
    """Steps have no slope, corners none beyond them, and a derivative may be made up."""
    box, one = ix.Box(jnp.zeros(2), 1.0), jnp.full(2, 0.3)

    def of(change, objective=lambda theta, x: jnp.sum((x - 0.5) ** 2)):
        game = ix.Game(lambda theta, x: x - change(theta), box)
        return ix.DesignProblem(game, objective, ix.Box(jnp.zeros(2), 1.0))

    for change in (
        jnp.floor,
        jnp.round,
        jnp.sign,
        lambda theta: theta.astype(int).astype(float),
        lambda theta: (theta > 1).astype(float),
        lambda theta: jnp.arange(3.0)[jnp.argmax(theta)] * jnp.ones(2),
        lambda theta: jnp.where(theta > 1, 1.0, 0.0),
        jnp.abs,
        jnp.sort,
    ):
        refused(of(change), one, "operator is not affine")
    for change in (_cubed, jax.lax.stop_gradient):
        refused(of(change), one, "operator is not affine|not those of its derivatives")
    plain = lambda theta: theta  # noqa: E731
    for objective in (
        lambda theta, x: -jnp.abs(theta + 0.5).sum() + x.sum(),
        lambda theta, x: jnp.minimum(theta, 0.0).sum() + (x**2).sum(),
        lambda theta, x: -jnp.maximum(theta, x).sum(),
        lambda theta, x: jnp.clip(x, 0.2, 0.6).sum(),
        lambda theta, x: (x > 0.5).sum().astype(float) + (x**2).sum(),
        lambda theta, x: jnp.where(theta[0] > 0.5, 5.0, 0.0) + (x**2).sum(),
        lambda theta, x: jnp.max(x),
    ):
        refused(of(plain, objective), one, "objective is not quadratic")
    for objective in (
        lambda theta, x: jnp.sum(x * x) + theta @ jnp.ones(2) / 3,
        lambda theta, x: jnp.sum(jnp.where(jnp.array([True, False]), x, theta) ** 2),
        lambda theta, x: jnp.concatenate([theta, x])[::-1][1:3].sum() + jnp.cumsum(x)[-1] ** 2,
    ):
        quadratic_design(of(plain, objective), one, one)  # nothing is refused


def test_a_proof_that_is_not_finished_is_a_bound_all_the_same():
    problem = drawn(3, 2)
    found, xs = values(problem, grid(2, 11))
    worst = int(np.argmax(found))
    start = np.concatenate([grid(2, 11)[worst], xs[worst]])
    bound = bound_by_branching(
        quadratic_design(problem, jnp.zeros(2), xs[0]),
        lambda flat: np.inf,
        (start, float(found[worst])),
        margin=1e-6,
        max_nodes=1,
    )
    assert bound.nodes <= 1
    assert bound.value <= float(found.min()) + 1e-9


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_a_proof_in_other_units_of_the_objective(unit):
    game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.zeros(1), 1.0))
    problem = ix.DesignProblem(
        game, lambda theta, x: unit * jnp.sum(0.1 * (theta + 1) ** 2 - x), ix.Box(-3.0, 3.0)
    )
    found = ix.design_globally(problem, jnp.array([-2.0]), starts=3)
    assert found.proved
    np.testing.assert_allclose(found.bound, -0.6 * unit, rtol=1e-6)


def test_a_limit_of_time():
    """After one start it is over: what was found, and that nothing more is known."""
    found = ix.design_globally(drawn(3, 2), jnp.zeros(2), starts=200, seconds=1e-3)
    assert sum(basin.starts for basin in found.basins) + found.failed == 1
    assert found.nodes == 0
    assert not found.proved
    assert found.reason == "`seconds`, 0.001, were not enough"


def test_wrong_arguments():
    problem = drawn(0, 1)
    with pytest.raises(ValueError, match=r"`design_globally\(starts=...\)` .* got 0"):
        ix.design_globally(problem, jnp.zeros(1), starts=0)
    with pytest.raises(ValueError, match=r"`design_globally\(tol=...\)` .* got -1"):
        ix.design_globally(problem, jnp.zeros(1), tol=-1.0)
    with pytest.raises(ValueError, match=r"`design_globally\(seconds=...\)` .* got 0"):
        ix.design_globally(problem, jnp.zeros(1), seconds=0)
    with pytest.raises(ValueError, match="outside of `jit` and `vmap`"):
        jax.jit(lambda theta: ix.design_globally(problem, theta).bound)(jnp.zeros(1))


_AFFINE = ("Pigou toll", "kink D1", "kink D4", "Outrata 1a", "Outrata 1b", "Outrata 1c",
           "Outrata 1d", "Outrata 1e", "Outrata 2a", "De Silva 1978", "Falk, Liu 1995",
           "Henrion, Surowiec 2011", "Macal, Hurter 1997", "Lampariello, Sagratella 2017",
           "Shimizu, Aiyoshi 1981", "jr1 (Jiang, Ralph)",
           "emission tax, output non-negative, tax per damage",
           *(n for n in DESIGNS if n.endswith("firms, output non-negative, tax per damage")),
           *(n for n in DESIGNS if n.startswith("leader over")),
           "Henderson, Quandt", "regulated duopoly",
           "random, 1 over 4, 1 degenerate", "random, 1 over 10, 2 degenerate",
           "random, 2 over 5, 0 degenerate", "random, 2 over 20, 4 degenerate",
           "Bertrand taxes, 2 firms", "tolls on 2 parallel routes",
           "electricity, 1 household, 2 hours", "coordination of two players",
           "three routes, two on one road")  # fmt: skip


@pytest.mark.slow  # each compiles anew
@pytest.mark.filterwarnings("ignore:`objective:UserWarning")  # one of them does ignore x
@pytest.mark.parametrize("name", [n for n in DESIGNS if jnp.size(DESIGNS[n].theta0) <= 2])
def test_designs_of_the_bank_with_at_most_two_incentives(name):
    entry = DESIGNS[name]
    found = ix.design_globally(entry.problem, entry.theta0, starts=8)
    best, rounding = entry.best, 6e-6 if abs(entry.best) > 1e-3 else 0.0
    assert abs(found.solution.objective - best) <= 1e-6 * max(abs(best), 1e-6) + rounding
    assert found.proved == (name in _AFFINE), found.reason
    assert found.bound <= found.solution.objective + 1e-9
