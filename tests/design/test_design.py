import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix
from incentax.design._solution import raise_unless_designed
from incentax.design.accurate import _pieces, arrive, incentives_of, LowerLevel
from incentax.design.accurate._smoothed import evaluate_smoothed, start_point

from ..cases import BANK, emission_tax_free


def _quadratic(incentive_set=None):
    """min sum (x* - 3)^2 with x* = theta: optimum 3, or the nearest point of the set."""
    game = ix.Game(lambda theta, x: x - theta, ix.Reals())
    incentives = ix.Reals() if incentive_set is None else incentive_set
    return ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3.0) ** 2), incentives)


def _scheme(**changes):
    return ix.DesignAndPlay(optax.sgd(0.1), **({"play_step": 0.5} | changes))


def test_emission_tax_reaches_its_closed_form_optimum():
    """Strongly convex emission tax: optimum from the closed form of x*(theta)."""
    case = emission_tax_free()
    value = jax.jit(lambda t: case.problem.objective(t, case.equilibrium(t)))
    gradient, hessian = jax.grad(value), jax.hessian(value)
    zero = jnp.zeros(10)
    best = -jnp.linalg.solve(hessian(zero), gradient(zero))  # the objective is quadratic
    scheme = ix.DesignAndPlay(optax.sgd(0.004), play_step=0.05)
    found = ix.design(case.problem, zero, scheme, steps=4000, record=1000)
    np.testing.assert_allclose(found.theta, best, atol=1e-7)
    np.testing.assert_allclose(found.objective, value(best), rtol=1e-10)
    assert found.history.info.gradient[-1] < 1e-5


def test_algorithm_1_step_by_step():
    """Two steps of the single loop against the printed algorithm, written out."""
    sizes = ix.schedules.theorem_5_4(alpha=0.3, beta=0.4)
    problem = _quadratic(ix.Box(-1.0, 1.5))
    scheme = ix.DesignAndPlay(optax.sgd(sizes.design), play_step=sizes.play)
    record = ix.Record(observe=lambda theta, x: (theta, x))
    found = ix.design(
        problem, jnp.array([1.0]), scheme, x0=jnp.array([0.5]), steps=2, record=record
    )
    theta, x = 1.0, 0.5
    for k in range(2):
        x = x - 0.4 / (k + 1) ** (2 / 3) * (x - theta)
        theta = np.clip(theta - 0.3 / (k + 1) * 2 * (x - 3), -1.0, 1.5)
        np.testing.assert_allclose(found.history.observed[0][k], theta, rtol=1e-12)
        np.testing.assert_allclose(found.history.observed[1][k], x, rtol=1e-12)
        np.testing.assert_allclose(found.history.residual[k], abs(x - theta), rtol=1e-12)


def test_algorithm_2_step_by_step():
    """Entropic step, mixing, and the hypergradient at the mixed strategy."""
    case = BANK["ragged_logit"]()
    game, theta = case.problem.game, case.theta
    sizes = ix.schedules.setting("A", alpha=0.05, beta=0.2, nu=0.1)
    scheme = ix.DesignAndPlay(optax.sgd(sizes.design), play_step=sizes.play, mixing=sizes.mixing)
    record = ix.Record(observe=lambda theta, x: (theta, x))
    found = ix.design(case.problem, theta, scheme, steps=3, record=record)
    x = uniform = game.strategy_set.centre()
    for k in range(3):
        blocks = jnp.split(x * jnp.exp(-0.2 / (k + 1) ** (2 / 7) * game.operator(theta, x)), [2, 5])
        x = jnp.concatenate([block / block.sum() for block in blocks])
        nu = 0.1 / (k + 1) ** (4 / 7)
        x = (1 - nu) * x + nu * uniform
        gradient = ix.hypergradient(case.problem, theta, x).value
        theta = jnp.clip(theta - 0.05 / (k + 1) ** 0.5 * gradient, -1.0, 1.0)
        np.testing.assert_allclose(found.history.observed[1][k], x, rtol=1e-10)
        np.testing.assert_allclose(found.history.observed[0][k], theta, rtol=1e-9)


def test_any_optax_transformation_and_projection():
    problem = _quadratic(ix.Box(0.0, 2.0))
    for optimizer in (optax.adam(0.05), optax.chain(optax.clip(1.0), optax.sgd(0.1, 0.9))):
        scheme = ix.DesignAndPlay(optimizer, play_step=0.5)
        with jax.numpy_dtype_promotion("standard"):  # adam itself mixes dtypes
            found = ix.design(problem, jnp.zeros(2), scheme, steps=400, record=400)
        np.testing.assert_allclose(found.theta, 2.0, atol=1e-6)


def test_theta_may_be_a_pytree():
    game = ix.Game(lambda theta, x: x - theta["level"] + theta["tilt"], ix.Reals())
    sets = ix.Product({"level": ix.Box(-1.0, 2.0), "tilt": ix.Box(-0.5, 0.5)})
    problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 4.0) ** 2), sets)
    start = {"level": jnp.zeros(2), "tilt": jnp.zeros(2)}
    found = ix.design(problem, start, _scheme(), x0=jnp.zeros(2), steps=300, record=300)
    np.testing.assert_allclose(found.theta["level"], 2.0)
    np.testing.assert_allclose(found.theta["tilt"], -0.5)


def test_jit_and_vmap_over_key_start_and_game_parameters():
    def solve(key, theta0, eta):
        game = ix.QuantalResponse(ix.Game(lambda theta, x: theta * x, ix.Simplex(2)), eta)
        problem = ix.DesignProblem(game, lambda theta, x: x[0] ** 2, ix.Box(-jnp.ones(2), 1.0))
        scheme = ix.DesignAndPlay(
            optax.sgd(0.1), play_step=0.2, mixing=0.01, feedback=ix.noise.Gaussian(0.1)
        )
        return ix.design(problem, theta0, scheme, key=key, steps=20, record=5)

    keys = jax.random.split(jax.random.key(0), 3)
    thetas, etas = jnp.zeros((3, 2)).at[1].set(0.5), jnp.array([0.5, 1.0, 2.0])
    lanes = jax.jit(jax.vmap(solve))(keys, thetas, etas)
    assert lanes.history.objective.shape == (3, 4)
    alone = solve(keys[1], thetas[1], etas[1])
    np.testing.assert_allclose(lanes.theta[1], alone.theta, rtol=1e-12)
    again = solve(keys[1], thetas[1], etas[1])
    np.testing.assert_array_equal(alone.theta, again.theta)
    assert not np.allclose(solve(keys[2], thetas[1], etas[1]).theta, alone.theta)


def test_one_compilation_a_shape():
    traced = []

    def operator(theta, x):
        traced.append(1)
        return x - theta

    problem = ix.DesignProblem(
        ix.Game(operator, ix.Reals()), lambda theta, x: jnp.sum(x**2), ix.Reals()
    )
    scheme, start = _scheme(), jnp.ones(2)
    ix.design(problem, start, scheme, x0=start, steps=4)
    first = len(traced)
    ix.design(problem, 2 * start, scheme, x0=start, steps=4)
    assert len(traced) - first <= 1  # the door asks for shapes, nothing is compiled again


def test_history_rows_and_a_last_row_that_is_short():
    problem = _quadratic()
    every = ix.design(problem, jnp.zeros(1), _scheme(), steps=10).history
    some = ix.design(problem, jnp.zeros(1), _scheme(), steps=10, record=4).history
    np.testing.assert_array_equal(some.step, [4, 8, 10])
    rows = some.step - 1
    np.testing.assert_allclose(some.objective, every.objective[rows], rtol=1e-13)
    np.testing.assert_allclose(some.info.gradient, every.info.gradient[rows], rtol=1e-13)


@pytest.mark.parametrize(
    ("optimizer", "play_step", "result"),
    [
        (optax.sgd(1e308), 0.5, ix.RESULTS.nonfinite_design),
        (optax.sgd(1e200), 0.5, ix.RESULTS.nonfinite_objective),
        (optax.sgd(0.1), 1e200, ix.RESULTS.nonfinite_objective),
    ],
)
def test_a_run_that_turns_non_finite_keeps_what_there_is(optimizer, play_step, result):
    problem, scheme = _quadratic(), ix.DesignAndPlay(optimizer, play_step=play_step)
    with pytest.raises(ix.DesignFailure, match="broke off after step") as failure:
        ix.design(problem, jnp.array([2.0]), scheme, steps=400)
    found = failure.value.solution
    assert found.result == result
    assert 0 <= found.steps < 400
    assert jnp.isfinite(found.theta).all()
    assert jnp.isfinite(found.x).all()
    steps = int(found.steps)
    assert jnp.isfinite(found.history.info.gradient[:steps]).all()
    assert jnp.isnan(found.history.objective[steps:]).all()
    coarse = ix.design(problem, jnp.array([2.0]), scheme, steps=400, record=400, throw=False)
    assert coarse.history.step[0] == steps
    assert jnp.isfinite(coarse.history.objective[0]) == (steps > 0)
    told = eqx.filter_jit(lambda t: ix.design(problem, t, scheme, steps=400))(jnp.array([2.0]))
    assert told.result == found.result
    assert jnp.isnan(told.theta).all()
    with ix.compiled_errors(), pytest.raises(RuntimeError, match="non-finite"):
        eqx.filter_jit(lambda t: ix.design(problem, t, scheme, steps=400).theta)(jnp.array([2.0]))


def test_nan_from_the_users_functions_is_told_at_the_start():
    game = ix.Game(lambda theta, x: x - jnp.log(theta), ix.Reals())
    problem = ix.DesignProblem(game, lambda theta, x: jnp.sum(x), ix.Reals())
    found = ix.design(problem, -jnp.ones(1), _scheme(), steps=5, throw=False)
    assert found.result == ix.RESULTS.nonfinite_start
    assert found.steps == 0
    np.testing.assert_array_equal(found.theta, -1.0)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p: ix.design(p, jnp.ones(2), _scheme(), steps=0), ValueError, "steps >= 1, got 0"),
        (lambda p: ix.design(p, jnp.ones(2), _scheme(), record=0), ValueError, ">= 1, got 0"),
        (
            lambda p: ix.design(p, jnp.ones(3), _scheme()),
            ValueError,
            r"theta0=(.|\n)*\(2,\).*\(3,\)",
        ),
        (
            lambda p: ix.hypergradient(p, 5 * jnp.ones(2), jnp.ones(2)),
            ValueError,
            r"theta=(.|\n)*value=5\.0",
        ),
        (
            lambda p: ix.design(p, jnp.array([jnp.nan, 0]), _scheme()),
            ValueError,
            r"theta0=(.|\n)*nan",
        ),
        (
            lambda p: ix.design(p, jnp.ones(2), _scheme(), x0=jnp.ones(3)),
            ValueError,
            r"x0=.*\(3,\)",
        ),
        (lambda p: ix.design(p, jnp.ones(2), 3), TypeError, "scheme"),
        (
            lambda p: ix.design(p, jnp.ones(2), _scheme(feedback=ix.noise.Gaussian(1.0))),
            ValueError,
            "key=",
        ),
        (lambda p: _scheme(play_step=-0.5), ValueError, r">= 0, got -0\.5"),
        (lambda p: ix.DesignAndPlay(0.1, play_step=0.1), TypeError, "optax"),
        (lambda p: ix.Implicit("magic"), ValueError, "'magic'"),
        (
            lambda p: ix.hypergradient(
                p, jnp.ones(2), jnp.ones(2), sensitivity=ix.Implicit("aggregate")
            ),
            ValueError,
            "aggregative game, got Game",
        ),
        (lambda p: ix.DesignProblem(p.game, p.objective, "set"), TypeError, "incentive_set"),
    ],
)
def test_refusals(call, error, words):
    game = ix.Game(lambda theta, x: x - theta, ix.Reals((2,)))
    problem = ix.DesignProblem(game, lambda theta, x: jnp.sum(x**2), ix.Box(jnp.zeros(2), 2.0))
    with pytest.raises(error, match=words):
        call(problem)


def test_objective_must_be_one_number():
    game = ix.Game(lambda theta, x: x - theta, ix.Reals((2,)))
    problem = ix.DesignProblem(game, lambda theta, x: x, ix.Reals())
    with pytest.raises(ValueError, match=r"one number, got shape \(2,\)"):
        ix.design(problem, jnp.ones(2), _scheme())


def test_refusal_in_compiled_code():
    problem = _quadratic(ix.Box(0.0, 2.0))
    game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.zeros(1), 2.0))
    run = eqx.filter_jit(lambda x: ix.gap(game, jnp.ones(1), x))
    assert jnp.isfinite(run(jnp.ones(1)))
    assert jnp.isnan(run(jnp.array([5.5])))
    with ix.compiled_errors(), pytest.raises(RuntimeError, match=r"x=(.|\n)*value=5\.5"):
        eqx.filter_jit(lambda x: ix.gap(game, jnp.ones(1), x))(jnp.array([5.5]))
    # A start is projected.
    begin = eqx.filter_jit(lambda theta: ix.design(problem, theta, _scheme(), steps=1).theta)
    np.testing.assert_allclose(begin(jnp.array([5.5])), begin(jnp.array([2.0])))


@pytest.mark.parametrize("steps", [3, 100])
def test_an_objective_that_turns_nan_is_no_success(steps):
    """Its gradient stays finite, and so do theta and x."""
    problem = ix.DesignProblem(
        ix.Game(lambda theta, x: x - theta, ix.Reals()),
        lambda theta, x: jnp.where(x[0] > 0.5, jnp.nan, ((x - 3.0) ** 2).sum()),
        ix.Reals(),
    )
    found = ix.design(problem, jnp.zeros(1), _scheme(), steps=steps, throw=False)
    assert found.result == ix.RESULTS.nonfinite_objective
    with pytest.raises(ix.DesignFailure):
        ix.design(problem, jnp.zeros(1), _scheme(), steps=steps)


def test_an_infinite_cost_is_not_hidden_by_a_bound():
    game = ix.Game(lambda theta, x: jnp.where(theta > 0.5, -jnp.inf, x - 1.0), ix.Box(0.0, 1.0))
    problem = ix.DesignProblem(game, lambda theta, x: -theta.sum() + x.sum(), ix.Box(0.0, 1.0))
    found = ix.design(problem, jnp.zeros(1), _scheme(), x0=jnp.zeros(1), steps=50, throw=False)
    assert found.result == ix.RESULTS.nonfinite_play


def test_degenerate_constraints_are_counted():
    """Where a bound is reached without being felt x* has only one-sided derivatives: told."""
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative())
    problem = ix.DesignProblem(game, lambda theta, x: x.sum(), ix.Reals())
    found = ix.hypergradient(problem, jnp.array([0.0, -1.0, 1.0]), jnp.array([0.0, 0.0, 1.0]))
    assert found.degenerate == 1
    simplex = ix.Game(lambda theta, x: theta, ix.Simplex(2))
    problem = ix.DesignProblem(simplex, lambda theta, x: x[0] ** 2, ix.Reals())
    vertex = jnp.array([1.0, 0.0])
    assert ix.hypergradient(problem, jnp.array([1.0, 1.0]), vertex).degenerate == 1
    assert ix.hypergradient(problem, jnp.array([1.0, 2.0]), vertex).degenerate == 0


def test_mixed_precision_and_schedules_checked_in_compiled_code():
    problem = _quadratic()
    start = jnp.zeros(1, jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        found = ix.design(problem, jnp.ones(1), _scheme(), x0=start, steps=3)
    assert found.x.dtype == jnp.float64

    def run(mixing):
        scheme = _scheme(mixing=mixing)
        return ix.design(problem, jnp.ones(1), scheme, x0=jnp.ones(1), steps=3)

    told = eqx.filter_jit(run)(jnp.array(2.0))
    assert told.result != ix.RESULTS.successful
    assert jnp.isnan(told.x).all()

    def raising(mixing):
        with ix.compiled_errors():
            return run(mixing).x

    with pytest.raises(RuntimeError, match=r"mixing(.|\n)*got 2\.0"):
        eqx.filter_jit(raising)(jnp.array(2.0))


def test_feedback_of_another_shape_is_refused():
    scheme = _scheme(feedback=lambda key, value: value.sum())
    with pytest.raises(ValueError, match=r"feedback(.|\n)*\(2,\), got \(\)"):
        ix.design(_quadratic(), jnp.ones(2), scheme, key=jax.random.key(0), steps=2)


def test_smoothed_gradient_follows_bounds_that_meet_and_move():
    def strategies(theta):
        low = jnp.stack([theta[0] ** 2, 0 * theta[1], -1 + 0 * theta[0]])
        return ix.Box(low, jnp.stack([theta[0] ** 2, 2 + theta[1], jnp.inf + 0 * theta[0]]))

    matrix = jnp.array([[2.0, 0.5, -0.3], [0.4, 1.5, 0.2], [0.1, -0.6, 1.0]])
    game = ix.Game(lambda theta, x: matrix @ x - theta[1], strategies)
    problem = ix.DesignProblem(game, lambda theta, x: (x**2).sum() + theta @ x[:2], ix.Reals((2,)))
    x = jnp.array([1.0, 1.0, 0.0])
    mu = jnp.asarray(1e-2)

    @jax.jit
    def smoothed(theta):
        return evaluate_smoothed(problem, theta, start_point(problem, theta, x), (3,), mu)

    theta, step = jnp.array([0.7, 1.1]), 1e-5
    shifts = step * jnp.eye(2)
    ends = [(smoothed(theta + s).objective, smoothed(theta - s).objective) for s in shifts]
    expected = jnp.stack([(up - down) / (2 * step) for up, down in ends])
    np.testing.assert_allclose(smoothed(theta).gradient, expected, rtol=1e-6)


def test_an_objective_that_ignores_the_agents_is_told():
    game = ix.Game(lambda theta, x: x - theta, ix.Reals())
    problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((theta - 1) ** 2), ix.Reals())
    scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
    with pytest.warns(UserWarning, match="ignores x"):
        ix.design(problem, jnp.zeros(1), scheme, steps=2)


@pytest.mark.parametrize("objective", [lambda x: -x.sum(), lambda x: -jnp.exp(x).sum()])
def test_an_objective_without_a_least_value_is_told(objective):
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative((1,)))
    problem = ix.DesignProblem(game, lambda theta, x: objective(x), ix.NonNegative())
    with pytest.raises(ix.DesignFailure, match="falls without end as the incentive grows"):
        ix.design(problem, jnp.ones(1))


@pytest.mark.parametrize(
    ("objective", "incentives", "best"),
    [
        (lambda x: 1e31 * ((x - 2.0) ** 2 - 3.0).sum(), ix.Box(0.0, 4.0), 2.0),
        (lambda x: 1e31 * ((x - 2.0) ** 2 - 3.0).sum(), ix.NonNegative(), 2.0),
        (lambda x: -(x**2).sum(), ix.Box(0.0, 1e16), 1e16),
    ],
)
def test_a_very_low_objective_is_no_alarm(objective, incentives, best):
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative((1,)))
    problem = ix.DesignProblem(game, lambda theta, x: objective(x), incentives)
    found = ix.design(problem, jnp.ones(1))
    np.testing.assert_allclose(found.theta, best, rtol=1e-6)


def test_a_failure_in_single_precision_says_so():
    problem = _quadratic()
    found = ix.design(problem, jnp.ones(1), _scheme(), steps=1)
    single = found.x.astype(jnp.float32)
    failed = eqx.tree_at(lambda s: (s.x, s.result), found, (single, ix.RESULTS.not_stationary))
    with pytest.raises(ix.DesignFailure, match="set `jax_enable_x64`"):
        raise_unless_designed(failed, throw=True)


def test_many_free_incentives_in_a_curved_valley():
    """Rosenbrock's chain, whose least value is 0 at ones."""
    game = ix.Game(lambda theta, x: x - theta, ix.Reals((100,)))

    def objective(theta, x):
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    solution = ix.design(ix.DesignProblem(game, objective, ix.Reals()), jnp.zeros(100) - 1.0)
    np.testing.assert_allclose(solution.theta, 1.0, atol=1e-4)
    assert solution.b_stationary == "yes"


def test_searches_that_end_in_one_point_are_proved_once(monkeypatch):
    proofs = []
    decide = _pieces.decide
    monkeypatch.setattr(_pieces, "decide", lambda *a: proofs.append(a) or decide(*a))
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative((2,)))
    problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 2) ** 2), ix.Box(0.0, 5.0))
    solution = ix.design(problem, jnp.ones(2))
    np.testing.assert_allclose(solution.theta, 2.0, rtol=1e-6)
    assert len(proofs) == 1


def test_a_walk_ends_where_another_has_proved_its_end_and_nowhere_else():
    """The least value on a piece draws all walks, one that had no step left among them."""
    game = ix.Game(lambda theta, x: x - theta[:1], ix.NonNegative((1,)))

    def objective(theta, x):
        return jnp.sum((x - 1) ** 2) + 0.05 * (theta[1] - 1) ** 2 + 0.1 * theta[0] ** 2

    problem = ix.DesignProblem(game, objective, ix.Box(-5.0, 5.0))
    level = LowerLevel(problem, jnp.zeros(2), jnp.zeros(1))
    incentives, _ = incentives_of(level)
    first, second = (
        arrive(level, np.array(theta), np.zeros(1)) for theta in ([-1.0, 3.0], [-2.0, -3.0])
    )
    ended = _pieces.walk(level, first, incentives, 1)
    assert ended.descent.verdict == "no"
    found = _pieces.walk(level, second, incentives, 50, [ended])
    assert found.descent.verdict == "yes"
    np.testing.assert_allclose(found.place.objective, 1 / 11, rtol=1e-9)
    assert _pieces.walk(level, first, incentives, 50, [found]) is found


def test_values_that_are_refused_are_no_alarm_to_those_who_look_for_nan():
    def objective(theta, x):
        return jnp.sum(x - 0.5 * jnp.log(x - 0.1))

    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative((2,)))
    problem = ix.DesignProblem(game, objective, ix.Box(0.0, 5.0))
    with jax.debug_nans(True):
        solution = ix.design(problem, jnp.ones(2))
    np.testing.assert_allclose(solution.theta, 0.6, rtol=1e-6)


def test_many_incentives_without_a_least_value_end_soon():
    game = ix.Game(lambda theta, x: x - theta, ix.Reals((70,)))
    problem = ix.DesignProblem(game, lambda theta, x: -jnp.sum(x), ix.Reals())
    solution = ix.design(problem, jnp.zeros(70), throw=False)
    assert solution.result == ix.RESULTS.unbounded
    assert solution.steps < 200
