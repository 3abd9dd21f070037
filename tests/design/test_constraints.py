"""Constraints at the equilibrium: closed forms, differences, another solver, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import incentax as ix
from incentax.design.constrained import _designer
from incentax.design.constrained._units import scales_at


# One firm sells 4 - tax at a tax: the revenue tax (4 - tax) has its maximum 4 at 2.
def _firm():
    return ix.Game(lambda tax, x: x + tax - 4, ix.NonNegative((1,)))


def _revenue(tax, x):
    return (tax * x).sum()


def _floor(level, **more):
    constraints = [ix.Constraint(_revenue, lower=level, name="revenue")]
    constraints += [ix.Constraint(lambda tax, x: tax.sum(), name=n, **b) for n, b in more.items()]
    taxes = ix.Box(0.0, jnp.full(1, 4.0))
    return ix.DesignProblem(_firm(), lambda tax, x: (tax**2).sum(), taxes, constraints=constraints)


def test_a_floor_has_its_closed_form_and_its_shadow_price():
    solution = ix.design(_floor(3.0), jnp.zeros(1))
    # tax (4 - tax) = 3 at 1; d tax^2 / d revenue = 2 tax / (4 - 2 tax).
    assert abs(solution.theta[0] - 1) < 1e-9
    assert abs(solution.multipliers["revenue"] + 1) < 1e-7
    assert solution.b_stationary == "yes"
    assert solution.violation < 1e-9
    assert abs(solution.objective - 1) < 1e-9
    certificate = ix.certify(_floor(3.0), solution.theta)
    assert certificate.b_stationary == "yes"
    assert abs(certificate.multipliers["revenue"] + 1) < 1e-7
    assert certificate.stationarity < 1e-7
    assert "kept" in certificate.verdict
    assert "not stationary" in ix.certify(_floor(3.0), solution.theta + 0.5).verdict
    assert "violated by 1.3" in ix.certify(_floor(3.0), solution.theta - 0.5).verdict


@pytest.mark.slow  # designs
def test_room_has_no_price():
    problem = _floor(-1.0, cap={"upper": 3.0})
    solution = ix.design(problem, jnp.full(1, 2.0))
    assert abs(solution.theta[0]) < 1e-7
    assert all(mu == 0 for mu in solution.multipliers.values())


def test_what_cannot_be_met_is_told_with_the_least_violation():
    with pytest.raises(ix.DesignFailure, match="'revenue' alone cannot be met") as failure:
        ix.design(_floor(5.0), jnp.zeros(1))
    solution = failure.value.solution
    assert solution.ending == ix.ENDINGS.infeasible
    assert abs(solution.violation - 1) < 1e-5
    with pytest.raises(ix.DesignFailure, match="'cap' and 'revenue'") as failure:
        ix.design(_floor(3.0, cap={"upper": 0.5}), jnp.zeros(1))
    assert failure.value.solution.violation < 1


@pytest.mark.slow
def test_bounds_are_arrays_of_a_compiled_program():
    def designed(level):
        found = ix.design(_floor(level), jnp.zeros(1), throw=False, starts=2)
        return found.theta[0], found.multipliers["revenue"], found.violation

    levels = jnp.array([1.0, 3.0, 3.5])
    theta, mu, violation = jax.vmap(jax.jit(designed))(levels)
    exact = 2 - jnp.sqrt(4 - levels)
    assert jnp.max(jnp.abs(theta - exact)) < 1e-6
    assert jnp.max(jnp.abs(mu + 2 * exact / (4 - 2 * exact))) < 1e-4
    assert jnp.max(violation) < 1e-6


def test_single_precision():
    with jax.enable_x64(False):
        problem = _floor(jnp.float32(3.0))
        solution = ix.design(problem, jnp.zeros(1, jnp.float32), starts=2)
        assert solution.theta.dtype == jnp.float32
        assert abs(solution.theta[0] - 1) < 1e-3
        assert abs(solution.multipliers["revenue"] + 1) < 1e-3


_COST, _RATE = np.linspace(1.0, 2.0, 5), np.array([1.0, 0.8, 0.6, 0.4, 0.2])


def _profits(tax, x):
    return _COST + _RATE * tax - (10 - x.sum() - x)


def _lost(tax, x):
    return 0.5 * x.sum() ** 2 - 10 * x.sum() + _COST @ x + 0.5 * (_RATE @ x) ** 2


def _paid(tax, x):
    return (tax * (_RATE @ x)).sum()


def _five_firms(level):
    """Cournot firms that pollute at different rates, one tax an emission, a floor of revenue."""
    floor = ix.Constraint(_paid, lower=level, name="floor")
    taxes = ix.Box(0.0, jnp.full(1, 8.0))
    game = ix.Game(_profits, ix.NonNegative((5,)))
    return ix.DesignProblem(game, _lost, taxes, constraints=[floor])


def _by_slsqp(problem, start, bounds):
    def at(theta):
        return ix.solve_equilibrium(problem.game, theta, tol=1e-12).x

    value = jax.jit(jax.value_and_grad(lambda t: problem.objective(t, at(t))))
    rows = []
    for constraint in problem.constraints:
        c = jax.jit(lambda t, one=constraint: jnp.atleast_1d(one.value(t, at(t))))
        slope = jax.jit(jax.jacrev(c))
        equal = constraint.has_lower and constraint.has_upper
        for has, bound, sign in (
            (constraint.has_upper, constraint.upper, -1),
            (constraint.has_lower and not equal, constraint.lower, 1),
        ):
            if has:
                rows.append(
                    {
                        "type": "eq" if equal else "ineq",
                        "fun": lambda t, c=c, b=bound, s=sign: s * np.asarray(c(t) - b),
                        "jac": lambda t, d=slope, s=sign: s * np.asarray(d(t)),
                    }
                )
    return scipy.optimize.minimize(
        lambda t: [np.asarray(part, float) for part in value(t)],
        start,
        jac=True,
        bounds=bounds,
        constraints=rows,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )


@pytest.mark.slow
def test_a_revenue_floor_of_five_firms_against_slsqp_and_differences():
    problem = _five_firms(8.0)
    solution = ix.design(problem, jnp.ones(1), starts=2)
    best = min(
        (_by_slsqp(problem, np.array([s]), [(0, 8)]) for s in (1.0, 3.0, 6.0)),
        key=lambda found: found.fun if found.success else np.inf,
    )
    assert abs(solution.objective - best.fun) < 1e-6 * abs(best.fun)
    assert abs(problem.constraints[0].value(solution.theta, solution.x) - 8) < 1e-6
    step = 1e-3
    above, below = (
        ix.design(_five_firms(8.0 + shift), solution.theta, starts=2).objective
        for shift in (step, -step)
    )
    slope = (above - below) / (2 * step)
    assert abs(slope + solution.multipliers["floor"]) < 1e-4 * abs(slope)


def _random(seed):
    """An affine game of two to four agents, and one to three constraints that some point meets."""
    key = np.random.default_rng(seed)
    n, p, number = int(key.integers(2, 5)), int(key.integers(2, 4)), int(key.integers(1, 4))
    a = key.normal(size=(n, n))
    matrix = jnp.asarray(a @ a.T / n + np.eye(n) + 0.3 * (a - a.T))
    pushed, constant = jnp.asarray(key.normal(size=(n, p))), jnp.asarray(key.normal(size=n))
    strategies = ix.NonNegative((n,)) if key.random() < 0.5 else ix.Simplex([n])
    game = ix.Game(lambda t, x: matrix @ x + pushed @ t + constant, strategies)
    wish, near = jnp.asarray(key.normal(size=n)), jnp.asarray(key.normal(size=p))
    inside = jnp.asarray(key.uniform(-1.5, 1.5, size=p))
    x = ix.solve_equilibrium(game, inside).x
    constraints, equalities = [], 0
    for _ in range(number):
        q, u = jnp.asarray(key.normal(size=n)), jnp.asarray(key.normal(size=p))
        c = [
            lambda t, x, q=q, u=u: q @ x + u @ t,
            lambda t, x, q=q, u=u: (q @ x) ** 2 + u @ t,
            lambda t, x: (t * t).sum() - x.sum(),
        ][int(key.integers(3))]
        level, kind = float(c(inside, x)), key.choice(["equal", "upper", "lower"])
        if kind == "equal" and equalities < p - 1:
            equalities += 1
            constraints.append(ix.Constraint(c, lower=level, upper=level))
        elif kind == "lower":
            constraints.append(ix.Constraint(c, lower=level - key.uniform(0, 0.3)))
        else:
            constraints.append(ix.Constraint(c, upper=level + key.uniform(0, 0.3)))
    problem = ix.DesignProblem(
        game,
        lambda t, x: ((x - wish) ** 2).sum() + 0.3 * ((t - near) ** 2).sum(),
        ix.Box(jnp.full(p, -2.0), 2.0),
        constraints=constraints,
    )
    starts = [np.zeros(p), np.asarray(inside), *key.uniform(-2, 2, size=(6, p))]
    return problem, starts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_problems_against_slsqp(seed):
    """Of equalities, inequalities, some at rest, and optima at kinks of the equilibrium."""
    problem, starts = _random(seed)
    solution = ix.design(problem, jnp.zeros(starts[0].size))
    found = [_by_slsqp(problem, start, [(-2, 2)] * start.size) for start in starts]
    best = min(one.fun if one.success else np.inf for one in found)
    assert solution.objective < best + 1e-6 * (1 + abs(best))
    assert solution.violation < 1e-7
    assert solution.b_stationary == "yes"
    _check_prices(problem, solution)


def _check_prices(problem, solution):
    """Where a bound is moved a little the objective follows its price."""
    step = 1e-4
    for place, constraint in enumerate(problem.constraints):
        mu = solution.multipliers[constraint.name]
        moved = []
        for shift in (step, -step):
            bounds = {
                side: getattr(constraint, side) + shift
                for side in ("lower", "upper")
                if getattr(constraint, f"has_{side}")
            }
            other = list(problem.constraints)
            other[place] = ix.Constraint(constraint.value, **bounds, name=constraint.name)
            changed = ix.DesignProblem(
                problem.game, problem.objective, problem.incentive_set, constraints=other
            )
            moved.append(ix.design(changed, solution.theta, starts=2).objective)
        sides = [(moved[0] - solution.objective) / step, (solution.objective - moved[1]) / step]
        # At a kink the price lies between the slopes to both sides.
        assert min(sides) - 1e-3 <= -mu <= max(sides) + 1e-3


@pytest.mark.slow  # designs
def test_an_optimum_at_a_kink_of_the_equilibrium():
    """x = max(theta, 0): the floor of x holds theta on the kink where x starts to move."""
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative((1,)))
    problem = ix.DesignProblem(
        game,
        lambda theta, x: (theta.sum() + 1) ** 2 - 3 * x.sum(),
        ix.Box(-2.0, jnp.full(1, 2.0)),
        constraints=[ix.Constraint(lambda theta, x: x.sum(), upper=0.0, name="nothing")],
    )
    solution = ix.design(problem, jnp.ones(1))
    assert abs(solution.theta[0] + 1) < 1e-6


def test_what_rounding_leaves_of_strategies_violates_nothing():
    """x = max(theta, 0) may not exceed 0, at theta = -1, where its slope and its size are 0."""
    problem = ix.DesignProblem(
        ix.Game(lambda theta, x: x - theta, ix.NonNegative((1,))),
        lambda theta, x: (theta.sum() + 1) ** 2 - 3 * x.sum(),
        ix.Box(-2.0, jnp.full(1, 2.0)),
        constraints=[ix.Constraint(lambda theta, x: x.sum(), upper=0.0, name="nothing")],
    )
    for x, kept in [(0.0, True), (1e-15, True), (1e-9, False)]:
        scales = scales_at(problem, -jnp.ones(1), jnp.full(1, x))
        assert (scales.violated <= 1) == kept
        assert scales.units > 1e-10


def test_revenue_neutral_tolls_on_sioux_falls():
    """Sequential quadratic steps: too many paths for steps on pieces."""
    instance = ix.problems.second_best_tolls(eta=1.0, paths=5)
    game = instance.problem.game
    links, time = game.tolled_links, game.total_travel_time

    def revenue(toll, x):
        return (toll * game.link_flows(x)[links]).sum()

    def neutral(level):
        even = ix.Constraint(revenue, lower=level, upper=level)
        tolls = ix.Box(-10 * jnp.ones(20), 10.0)
        return ix.DesignProblem(game, time, tolls, constraints=[even])

    solution = ix.design(neutral(0.0), instance.theta0)
    assert solution.b_stationary == "yes"
    assert solution.violation < 1e-6
    assert jnp.min(solution.theta) < -1 < 1 < jnp.max(solution.theta)
    untolled = ix.solve_equilibrium(game, instance.theta0).x
    assert solution.objective < 0.995 * game.total_travel_time(None, untolled)
    step = 100.0
    above, below = (ix.design(neutral(shift), solution.theta).objective for shift in (step, -step))
    slope, mu = (above - below) / (2 * step), solution.multipliers["revenue"]
    assert abs(slope + mu) < 1e-4 * abs(slope)
    certificate = ix.certify(neutral(0.0), solution.theta)
    assert certificate.b_stationary == "yes"
    assert abs(certificate.multipliers["revenue"] - mu) < 1e-3 * abs(mu)


@pytest.mark.parametrize(
    "scheme",
    [
        ix.DoubleLoop(optax.sgd(0.02)),
        ix.DesignAndPlay(optax.sgd(0.02), play_step=0.5),
        ix.ZerothOrderRegulator(smoothing=0.01, step_size=lambda step: 0.01),
        ix.AugmentedLagrangian(ix.DoubleLoop(optax.sgd(0.02)), dual=0.2),
    ],
    ids=lambda scheme: type(scheme).__name__,
)
def test_schemes_keep_constraints(scheme):
    solution = ix.design(_floor(3.0), jnp.zeros(1), scheme, steps=2000, key=jax.random.key(0))
    assert abs(solution.theta[0] - 1) < 1e-4
    assert abs(solution.multipliers["revenue"] + 1) < 1e-3
    assert solution.violation < 1e-3
    run = ix.Run(_floor(3.0), jnp.zeros(1), scheme, key=jax.random.key(0)).advance(2000)
    assert jnp.array_equal(run.theta, solution.theta)


@pytest.mark.slow
def test_a_cap_on_output_under_a_tax_on_emissions_by_design_and_play():
    instance = ix.problems.emission_tax(n=20)
    free = ix.design(instance.problem, instance.theta0, x0=instance.x0)
    cap = ix.Constraint(lambda tax, x: x.sum(), upper=0.95 * free.x.sum(), name="output")
    problem = ix.DesignProblem(
        instance.problem.game,
        instance.problem.objective,
        instance.problem.incentive_set,
        constraints=[cap],
    )
    exact = ix.design(problem, instance.theta0, x0=instance.x0)
    assert exact.objective > free.objective
    scheme = instance.schemes["design-and-play"]
    played = ix.design(problem, instance.theta0, scheme, x0=instance.x0, steps=3000)
    assert played.violation < 1e-3 * free.x.sum()
    assert abs(played.objective - exact.objective) < 1e-3 * abs(exact.objective)
    assert abs(played.multipliers["output"] / exact.multipliers["output"] - 1) < 1e-2


def _refused(constraints, words, error=ValueError):
    def designed():
        game = ix.Game(lambda t, x: x - t, ix.NonNegative((2,)))
        problem = ix.DesignProblem(
            game, lambda t, x: (x**2).sum(), ix.Reals(), constraints=constraints
        )
        return ix.design(problem, jnp.zeros(2))

    with pytest.raises(error, match=words):
        designed()


def test_constraints_that_are_refused():
    with pytest.raises(ValueError, match="needs a bound"):
        ix.Constraint(_revenue)
    with pytest.raises(ValueError, match=r"lower <= upper"):
        ix.Constraint(_revenue, lower=1.0, upper=0.0)
    with pytest.raises(TypeError, match="needs a function"):
        ix.Constraint(3.0, upper=0.0)  # pyright: ignore[reportArgumentType]
    two = ix.Constraint(lambda t, x: x, upper=jnp.zeros(3), name="two")
    _refused([two], r"'two'.*broadcasts to that of `c\(theta, x\)`, \(2,\), got \(3,\)")
    _refused([ix.Constraint(lambda t, x: jnp.float64(1.0), upper=0.0)], "depends neither on")
    equal = {"lower": 0.0, "upper": 0.0}
    _refused([ix.Constraint(lambda t, x: jnp.stack([x[0], x[1], t[0]]), **equal)], "equalities")
    twice = [ix.Constraint(_revenue, upper=1.0), ix.Constraint(_revenue, upper=2.0)]
    _refused(twice, "'_revenue' twice")
    _refused([3.0], "needs a list of `ix.Constraint`", TypeError)
    with pytest.raises(ValueError, match="without a selection"):
        ix.DesignProblem(
            _firm(),
            _revenue,
            ix.Reals(),
            selection="optimistic",
            constraints=[ix.Constraint(_revenue, upper=1.0)],
        )
    nan = ix.Constraint(lambda t, x: jnp.log(t[0] - 1) + x.sum(), upper=0.0, name="log")
    _refused([nan], "finite at `theta0` and its equilibrium, got NaN of 'log'")
    scheme, free = (
        ix.AugmentedLagrangian(ix.DoubleLoop()),
        ix.DesignProblem(_firm(), _revenue, ix.Reals()),
    )
    with pytest.raises(ValueError, match="a problem with constraints"):
        ix.design(free, jnp.zeros(1), scheme)


_TRACKING = ix.Game(lambda theta, x: x - theta, ix.Reals())


def _capped(cap, start, aim=5.0, **bounds):
    """One incentive, followed by x = theta; `(x - aim)^2` is to be least."""
    constraint = ix.Constraint(cap, name="cap", **bounds)
    problem = ix.DesignProblem(
        _TRACKING, lambda theta, x: ((x - aim) ** 2).sum(), ix.Reals(), constraints=[constraint]
    )
    return problem, ix.design(problem, jnp.full(jnp.shape(aim) or (1,), start))


@pytest.mark.slow
def test_a_steep_constraint_is_kept_wherever_the_start_lies():
    """exp(theta) <= 1: at 5 it changes by 150 a unit, at its bound by 1."""
    for start in (0.0, 5.0):
        problem, solution = _capped(lambda t, x: jnp.exp(t).sum(), start, upper=1.0)
        assert abs(solution.theta[0]) < 1e-6
        assert abs(solution.multipliers["cap"] - 10) < 1e-5
    assert "violated by 1.9e+01" in ix.certify(problem, jnp.array([3.0])).verdict


@pytest.mark.parametrize(
    "unit", [1e-6, *(pytest.param(unit, marks=pytest.mark.slow) for unit in (1.0, 1e6))]
)
def test_neither_units_nor_infinite_rows_matter(unit):
    aim = jnp.full(2, 5.0)
    level = unit * jnp.array([1.0, jnp.inf])
    _, solution = _capped(lambda t, x: unit * x, 0.0, aim, upper=level)
    assert jnp.max(jnp.abs(solution.theta - jnp.array([1.0, 5.0]))) < 1e-7
    mu = solution.multipliers["cap"] * unit
    assert jnp.max(jnp.abs(mu - jnp.array([8.0, 0.0]))) < 1e-5
    assert solution.b_stationary == "yes"


def _logit(size, constraints):
    game = ix.QuantalResponse(ix.Game(lambda theta, x: theta + x, ix.Simplex(3)), 0.5)
    return ix.DesignProblem(
        game,
        lambda theta, x: size * (((theta + 0.2) ** 2).sum() + x[0]),
        ix.Box(jnp.full(3, -1.0), 1.0),
        constraints=constraints,
    )


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_by_steps_in_other_units_and_from_a_flat_start(size):
    """Logit choice: no steps on pieces. Where one stops early nothing is claimed."""
    cap = ix.Constraint(lambda theta, x: theta.sum(), upper=-1.2, name="cap")
    problem = _logit(size, [cap])
    solution = ix.design(problem, jnp.full(3, 0.5), starts=1)
    assert solution.b_stationary == "yes"
    assert abs(solution.theta.sum() + 1.2) < 1e-6
    assert ix.certify(problem, jnp.array([-0.5, -0.5, -0.5])).b_stationary == "no"
    early = ix.design(problem, jnp.full(3, 0.5), starts=1, steps=1, throw=False)
    assert early.b_stationary != "yes"
    flat = ix.design(problem, jnp.full(3, -0.2), starts=1)
    assert abs(flat.objective - solution.objective) < 1e-7 * size


@pytest.mark.slow
def test_prices_in_a_program_have_the_right_signs():
    """A cap of 1 and a floor just below it: the cap alone bears."""

    def designed(theta):
        bounds = [{"upper": 1.0, "name": "cap"}, {"lower": 1.0 - 1e-5, "name": "floor"}]
        constraints = [ix.Constraint(lambda t, x: x.sum(), **bound) for bound in bounds]
        problem = ix.DesignProblem(
            _TRACKING, lambda t, x: ((x - 5) ** 2).sum(), ix.Reals(), constraints=constraints
        )
        return ix.design(problem, theta, throw=False, starts=2).multipliers

    mu = jax.jit(designed)(jnp.zeros(1))
    assert abs(mu["cap"] - 8) < 1e-3
    assert abs(mu["floor"]) < 1e-3


@pytest.mark.parametrize(
    ("objective", "result"),
    [
        (lambda x: -x.sum(), ix.RESULTS.unbounded),
        (lambda x: -(x**2).sum(), ix.RESULTS.not_stationary),  # its steps end on the way
    ],
)
def test_steps_without_a_least_value_are_no_success(monkeypatch, objective, result):
    monkeypatch.setattr(_designer, "is_walkable", lambda task: False)
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative((1,)))
    problem = ix.DesignProblem(
        game,
        lambda theta, x: objective(x),
        ix.NonNegative(),
        constraints=[ix.Constraint(lambda theta, x: x.sum(), lower=2.0, name="floor")],
    )
    found = ix.design(problem, jnp.ones(1), starts=1, throw=False)
    assert found.result == result
    assert found.ending == ix.ENDINGS.not_stationary
