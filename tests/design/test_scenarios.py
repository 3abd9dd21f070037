"""One incentive for many scenarios: expected value, worst case, conditional value at risk."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import linprog

import incentax as ix


def firm(demand):
    """Sells `demand - tax`; society wants 1 of it, so the best tax is `demand - 1`."""
    game = ix.Game(lambda tax, x: x + tax - demand, ix.NonNegative((1,)))
    return ix.DesignProblem(game, lambda tax, x: ((x - 1) ** 2).sum(), ix.Box(0.0, 2.9))


DEMANDS = jnp.array([3.0, 3.2, 4.0])


def test_expected_value_is_the_weighted_mean_of_the_best():
    problem = ix.ScenarioProblem(firm, DEMANDS, weights=[0.5, 0.25, 0.25])
    found = ix.design(problem, jnp.zeros(1))
    np.testing.assert_allclose(found.theta, [2.3], atol=1e-7)
    assert found.b_stationary == "yes"


def test_the_worst_case_lies_between_the_two_ends():
    problem = ix.ScenarioProblem(firm, DEMANDS, risk="worst")
    found = ix.design(problem, jnp.zeros(1))
    np.testing.assert_allclose(found.theta, [2.5], atol=1e-7)
    np.testing.assert_allclose(found.objective, 0.25, atol=1e-9)
    np.testing.assert_allclose(found.multipliers["scenarios"], [0.5, 0, 0.5], atol=1e-6)
    certificate = ix.certify(problem, found.theta, found.x)
    assert certificate.b_stationary == "yes"
    assert ix.certify(problem, found.theta + 0.05).b_stationary == "no"


def test_conditional_value_at_risk_is_its_linear_program():
    """`max q'f` over `0 <= q <= p / (1 - a)`, `sum q = 1`."""
    rng = np.random.default_rng(0)
    costs, weights = rng.normal(size=7), rng.dirichlet(np.ones(7))
    data = jnp.asarray(costs)

    def problem_of(cost):
        game = ix.Game(lambda theta, x: x - theta, ix.Reals((1,)))
        return ix.DesignProblem(game, lambda theta, x: x[0] + cost, ix.Reals((1,)))

    for level in (0.1, 0.5, 0.85):
        problem = ix.ScenarioProblem(problem_of, data, weights=weights, risk=level)
        most = [(0, weight / (1 - level)) for weight in weights]
        best = linprog(-costs, A_eq=np.ones((1, 7)), b_eq=[1], bounds=most)
        found = problem.objective(jnp.zeros(1), jnp.zeros((7, 1)))
        np.testing.assert_allclose(found, -best.fun, atol=1e-12)


def market(data):
    """Three firms; a tax each, which society pays for too."""

    def operator(tax, x, total):
        return jnp.arange(3.0) + tax - (data["price"] - data["slope"] * (x + total))

    def cost(tax, x):
        total = x.sum()
        gained = data["price"] * total - data["slope"] * total**2 / 2 - 4 * total
        return 0.1 * (tax**2).sum() - gained

    game = ix.AggregativeGame(operator, lambda tax, x: x.sum(), ix.NonNegative((3,)))
    return ix.DesignProblem(game, cost, ix.Box(jnp.zeros(3), 9.0))


@pytest.fixture
def markets():
    rng = np.random.default_rng(1)
    return {
        "price": jnp.asarray(rng.uniform(7, 14, 6)),
        "slope": jnp.asarray(rng.uniform(0.7, 1.3, 6)),
    }


@pytest.mark.parametrize("risk", ["expected", "worst", 0.6])
def test_gradients_agree_with_central_differences(markets, risk):
    problem, theta = ix.ScenarioProblem(market, markets, risk=risk), jnp.array([1.0, 0.3, 0.2])

    def value(theta):
        return problem.objective(theta, ix.solve_equilibrium(problem.game, theta).x)

    x = ix.solve_equilibrium(problem.game, theta).x
    found = ix.hypergradient(problem, theta, x)
    for k, unit in enumerate(np.eye(3)):
        step = 1e-5 * jnp.asarray(unit)
        seen = (value(theta + step) - value(theta - step)) / 2e-5
        np.testing.assert_allclose(found.value[k], seen, atol=1e-6)
    np.testing.assert_allclose(jax.grad(value)(theta), found.value, atol=1e-8)
    assert float(found.residual) < 1e-9


def test_equilibria_are_those_of_each_scenario(markets):
    problem, theta = ix.ScenarioProblem(market, markets), jnp.array([1.0, 0.3, 0.2])
    x = problem.in_scenarios(ix.solve_equilibrium(problem.game, theta).x)
    for k in range(6):
        one = market(jax.tree.map(lambda leaf, k=k: leaf[k], markets))
        np.testing.assert_allclose(x[k], ix.solve_equilibrium(one.game, theta).x, atol=1e-9)


_RARE = [pytest.param(k, marks=pytest.mark.slow) for k in ("ragged", "polyhedron", "quantal")]


@pytest.mark.parametrize("kind", ["box", "simplex", *_RARE])
def test_every_set_stands_side_by_side(kind):
    rows = ([[1.0, 1.0, 0.0]], [1.0])
    sets = {
        "simplex": lambda d: ix.Simplex(3, total=d),
        "ragged": lambda d: ix.Simplex([1, 2], total=jnp.stack([d, 2 * d])),
        "polyhedron": lambda d: ix.Polyhedron(inequality=rows, lower=0.0, upper=d),
        "box": lambda d: ix.Box(jnp.zeros(3), d),
        "quantal": lambda d: ix.Simplex(3, total=d),
    }

    def problem_of(d):
        game = ix.Game(lambda theta, x: (1 + d) * x - theta, sets[kind](d))
        game = ix.QuantalResponse(game, 0.3) if kind == "quantal" else game
        return ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 1) ** 2), ix.Reals((3,)))

    data, theta = jnp.array([0.5, 1.0, 2.0]), jnp.array([0.3, 1.2, 0.7])
    problem = ix.ScenarioProblem(problem_of, data)
    found = ix.solve_equilibrium(problem.game, theta)
    x = problem.in_scenarios(found.x)
    apart = [ix.solve_equilibrium(problem_of(d).game, theta).x for d in data]
    np.testing.assert_allclose(x, jnp.stack(apart), atol=1e-8)
    gradients = [
        ix.hypergradient(problem_of(d), theta, one).value
        for d, one in zip(data, apart, strict=True)
    ]
    mean = sum(gradients) / 3
    np.testing.assert_allclose(ix.hypergradient(problem, theta, found.x).value, mean, atol=1e-8)


@pytest.mark.slow
def test_schemes_serve(markets):
    problem = ix.ScenarioProblem(market, markets)
    best = ix.design(problem, jnp.ones(3))
    for scheme in (
        ix.DesignAndPlay(optax.sgd(0.1), play_step=0.15),
        ix.DoubleLoop(optax.sgd(0.1)),
    ):
        found = ix.design(problem, jnp.ones(3), scheme, steps=800, record=800)
        np.testing.assert_allclose(found.objective, best.objective, rtol=1e-3)


@pytest.mark.slow
def test_a_constraint_holds_in_every_scenario():
    def problem_of(demand):
        one = firm(demand)
        sold = ix.Constraint(lambda tax, x: x.sum(), upper=demand - 2.6, name="sold")
        return ix.DesignProblem(one.game, one.objective, one.incentive_set, constraints=[sold])

    problem = ix.ScenarioProblem(problem_of, DEMANDS)
    found = ix.design(problem, jnp.zeros(1))
    # demand - tax <= demand - 2.6: a tax of 2.6, where 2.4 would be best
    np.testing.assert_allclose(found.theta, [2.6], atol=1e-6)
    assert found.multipliers["sold"].shape == (3, 1) or found.multipliers["sold"].shape == (3,)
    total = float(jnp.sum(found.multipliers["sold"]))
    np.testing.assert_allclose(total, 2 * (2.6 - 2.4), atol=1e-5)


def test_it_works_under_jit_and_with_other_numbers_compiles_nothing(markets):
    def value(price):
        problem = ix.ScenarioProblem(market, markets | {"price": price}, risk="worst")
        theta = jnp.ones(3)
        return problem.objective(theta, ix.solve_equilibrium(problem.game, theta).x)

    inside = jax.jit(value)(markets["price"])
    np.testing.assert_allclose(inside, value(markets["price"]), rtol=1e-12)


def test_trips_of_a_road_network_are_scenarios():
    network, demand = ix.traffic.sioux_falls()
    paths = ix.traffic.k_shortest_paths(network, demand, 2)
    game = ix.traffic.RoutingGame(network, demand, paths, eta=1.0, tolled_links=[0, 5])

    def problem_of(level):
        other = game.with_trips(level * jnp.asarray(demand.trips))
        return ix.DesignProblem(other, other.total_travel_time, ix.Box(jnp.zeros(2), 5.0))

    problem = ix.ScenarioProblem(problem_of, jnp.array([0.5, 1.0]))
    theta = jnp.array([1.0, 2.0])
    x = problem.in_scenarios(ix.solve_equilibrium(problem.game, theta).x)
    np.testing.assert_allclose(x[1], ix.solve_equilibrium(game, theta).x, atol=1e-8)
    assert float(jnp.max(jnp.abs(x[0] - x[1]))) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"risk": "median"}, "needs 'expected', 'worst' or a level"),
        ({"risk": 1.5}, "got 1.5"),
        ({"risk": 0.0}, "got 0.0"),
        ({"risk": None}, "got None"),
        ({"data": jnp.zeros(0)}, "a common leading axis"),
        ({"data": [3.0, 4.0]}, "of a list make one"),
        ({"weights": [0.5, 0.6, 0.1]}, "sum to 1"),
        ({"weights": [0.5, 0.5]}, "shape \\(3,\\), got \\(2,\\)"),
        ({"data": {"a": jnp.zeros(2), "b": jnp.zeros(3)}}, "a common leading axis"),
        ({"data": jnp.zeros(())}, "a common leading axis"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    data = arguments.pop("data", DEMANDS)
    with pytest.raises(ValueError, match=message):
        ix.ScenarioProblem(firm, data, **arguments)


def test_what_scenarios_cannot_be_is_told():
    with pytest.raises(TypeError, match="needs a `DesignProblem`"):
        ix.ScenarioProblem(lambda d: d, DEMANDS)

    def moving(d):
        game = ix.Game(lambda theta, x: x - d, lambda theta: ix.Box(jnp.zeros(1), theta))
        return ix.DesignProblem(game, lambda theta, x: x.sum(), ix.NonNegative((1,)))

    with pytest.raises(ValueError, match="do not depend on theta"):
        ix.ScenarioProblem(moving, DEMANDS)

    def shapeless(d):
        game = ix.Game(lambda theta, x: x - d, ix.Reals())
        return ix.DesignProblem(game, lambda theta, x: x.sum(), ix.NonNegative((1,)))

    with pytest.raises(ValueError, match="need a strategy set that has a shape"):
        ix.ScenarioProblem(shapeless, DEMANDS)


def test_one_incentive_set_serves_all():
    def problem_of(d):
        one = firm(d)
        return ix.DesignProblem(one.game, one.objective, ix.Box(0.0, d - 2.5))

    with pytest.raises(ValueError, match="needs one incentive set for all scenarios"):
        ix.ScenarioProblem(problem_of, DEMANDS)


@pytest.mark.slow
def test_a_scenario_without_weight_is_none():
    problem = ix.ScenarioProblem(firm, DEMANDS, weights=[0.5, 0.5, 0.0], risk="worst")
    found = ix.design(problem, jnp.zeros(1))
    np.testing.assert_allclose(found.theta, [2.1], atol=1e-6)
    assert ix.certify(problem, found.theta, found.x).b_stationary == "yes"


def test_another_level_is_another_number_of_the_same_program():
    problems = [ix.ScenarioProblem(firm, DEMANDS, risk=level) for level in (0.3, 0.6)]
    assert jax.tree.structure(problems[0]) == jax.tree.structure(problems[1])


@pytest.mark.parametrize("risk", ["expected", "worst", 0.6])
@pytest.mark.slow
def test_the_value_follows_the_data(risk):
    def many(scale):
        def problem_of(demand):
            game = ix.Game(lambda tax, x: x + tax - scale * demand, ix.NonNegative((1,)))
            return ix.DesignProblem(game, lambda tax, x: ((x - 1) ** 2).sum(), ix.Box(0.0, 9.0))

        return ix.ScenarioProblem(problem_of, jnp.array([3.0, 4.0]), risk=risk)

    def best(scale):
        return float(ix.design(many(jnp.array(scale)), jnp.zeros(1)).objective)

    found = ix.design(many(jnp.array(1.0)), jnp.zeros(1))
    slope = ix.value_sensitivity(many, jnp.array(1.0), found)
    np.testing.assert_allclose(slope, (best(1.001) - best(0.999)) / 2e-3, rtol=1e-5)


def test_what_a_lane_has_captured_is_differentiated():
    def total(scale, wrapped):
        def problem_of(demand):
            game = ix.Game(lambda tax, x: x + tax - scale * demand, ix.NonNegative((1,)))
            game = ix.Tikhonov(game, 0.0, 1.0) if wrapped else game
            return ix.DesignProblem(game, lambda tax, x: x.sum(), ix.Box(0.0, 9.0))

        problem = ix.ScenarioProblem(problem_of, jnp.array([3.0, 4.0]))
        return ix.solve_equilibrium(problem.game, jnp.zeros(1)).x.sum()

    for wrapped, slope in ((False, 7.0), (True, 3.5)):
        found = jax.grad(lambda scale, w=wrapped: total(scale, w))(jnp.array(1.0))
        np.testing.assert_allclose(found, slope, atol=1e-7)


def test_a_front_refuses_what_it_would_lose():
    worst = ix.ScenarioProblem(firm, DEMANDS, risk="worst")
    with pytest.raises(ValueError, match="over scenarios of expected value"):
        ix.pareto(worst, jnp.zeros(1), lambda tax, x: -(tax * x).sum())
