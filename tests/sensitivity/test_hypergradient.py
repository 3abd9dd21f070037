"""Hypergradients: solvers against one another, central differences and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix

from ..cases import BANK, emission_tax_free, ragged_logit


def _equilibrium(case, theta, start=None):
    start = case.x0 if start is None else start
    return ix.solve_equilibrium(case.problem.game, theta, start, tol=1e-13, throw=False)


@pytest.fixture(scope="module", params=BANK, ids=str)
def solved(request):
    """A case, its equilibrium, and central differences of the design objective."""
    case = BANK[request.param]()
    equilibrium = _equilibrium(case, case.theta)
    assert equilibrium.residual < 1e-11
    step = 1e-5

    @jax.jit
    def value(theta):
        return case.problem.objective(theta, _equilibrium(case, theta, equilibrium.x).x)

    shifts = step * jnp.eye(case.theta.size)
    differences = [(value(case.theta + s) - value(case.theta - s)) / (2 * step) for s in shifts]
    return case, equilibrium.x, jnp.asarray(differences)


def test_planted_equilibrium_is_one():
    for name, make in BANK.items():
        case = make()
        if case.equilibrium is not None:
            x = case.equilibrium(case.theta)
            assert ix.natural_residual(case.problem.game, case.theta, x) < 1e-10, name


def test_every_solver_agrees_with_central_differences(solved):
    case, x, differences = solved
    for solver in (*case.solvers, "auto"):
        found = ix.hypergradient(case.problem, case.theta, x, sensitivity=ix.Implicit(solver))
        assert found.residual < 1e-8, solver
        np.testing.assert_allclose(found.value, differences, rtol=1e-6, atol=1e-6, err_msg=solver)


def test_solvers_agree_away_from_equilibrium(solved):
    case, x, _ = solved
    x = case.problem.game.strategy_set.project(x + 0.05 * jnp.cos(jnp.arange(1.0, x.size + 1)))
    values = [
        ix.hypergradient(case.problem, case.theta, x, sensitivity=ix.Implicit(solver)).value
        for solver in case.solvers
    ]
    for value in values[1:]:
        np.testing.assert_allclose(value, values[0], rtol=1e-6, atol=1e-8)


def test_unconstrained_closed_form_off_equilibrium():
    """(4.3) of Liu et al., inverse transposed, at a point that is no equilibrium."""
    case = emission_tax_free()
    theta, x = case.theta, jnp.linspace(2.0, 9.0, 10)
    operator = case.problem.game.operator
    f_theta, f_x = jax.grad(case.problem.objective, (0, 1))(theta, x)
    jacobian = jax.jacobian(operator, 1)(theta, x)
    cross = jax.jacobian(operator, 0)(theta, x)
    expected = f_theta - cross.T @ jnp.linalg.solve(jacobian.T, f_x)
    assert jnp.abs(jacobian - jacobian.T).max() > 0.1
    for solver in case.solvers:
        found = ix.hypergradient(case.problem, theta, x, sensitivity=ix.Implicit(solver))
        np.testing.assert_allclose(found.value, expected, rtol=1e-9)


def test_simplex_matches_the_fixed_point_formula():
    """(4.5) of Liu et al., plus sign, inverse transposed, at equilibrium, for two step sizes."""
    case = ragged_logit()
    theta, game = case.theta, case.problem.game
    x = _equilibrium(case, theta).x
    f_theta, f_x = jax.grad(case.problem.objective, (0, 1))(theta, x)
    found = ix.hypergradient(case.problem, theta, x).value
    for step_size in (0.05, 0.3):

        def played(theta, x, step_size=step_size):
            blocks = jnp.split(x * jnp.exp(-step_size * game.operator(theta, x)), [2, 5])
            return jnp.concatenate([block / block.sum() for block in blocks])

        d_theta, d_x = jax.jacobian(played, (0, 1))(theta, x)
        expected = f_theta + d_theta.T @ jnp.linalg.solve(jnp.eye(9) - d_x.T, f_x)
        np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_inactive_coordinates_do_not_move():
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative())
    problem = ix.DesignProblem(game, lambda theta, x: x.sum(), ix.Reals())
    found = ix.hypergradient(problem, jnp.array([2.0, -2.0]), jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(found.value, [1.0, 0.0], atol=1e-14)


@pytest.mark.parametrize("share", [1e-6, 1e-9, 1e-12])
def test_a_strategy_on_its_way_out_hardly_moves(share):
    """Play leaves unused strategies a small share; what costs more than the rest stays small."""
    game = ix.Game(lambda theta, x: jnp.array([1.0 + x[0] + theta[0], 5.0]), ix.Simplex(2))
    problem = ix.DesignProblem(game, lambda theta, x: x[1], ix.Reals())
    found = ix.hypergradient(problem, jnp.zeros(1), jnp.array([1 - share, share]))
    # d log x_2 = - (motion of costs) / (what it costs more): of the order of its share.
    assert 0 < abs(found.value[0]) < 2 * share


def test_bad_linear_solve_shows_in_the_residual():
    case = BANK["planted_box"]()
    lazy = ix.Implicit("krylov", max_iterations=1)
    found = ix.hypergradient(case.problem, case.theta, jnp.full(8, 0.4), sensitivity=lazy)
    assert found.residual > 1e-3


def test_a_wrong_aggregative_form_is_seen_and_made_good():
    def operator(theta, x, s):
        return x + 0.5 * x[::-1] + s - theta

    game = ix.AggregativeGame(operator, lambda theta, x: x.sum(), ix.Reals((4,)))
    problem = ix.DesignProblem(game, lambda theta, x: x @ x, ix.Reals((4,)))
    point = jnp.array([1.0, 2.0, 3.0, 4.0])
    right = ix.hypergradient(problem, point, point, sensitivity=ix.Implicit("dense"))
    assert right.residual < 1e-10
    found = ix.hypergradient(problem, point, point, sensitivity=ix.Implicit("aggregate"))
    error = jnp.abs(found.value / right.value - 1).max()
    assert found.residual > 1e-8
    assert error < 100 * found.residual
    # By default the residual is looked at, and the next solver taken.
    found = ix.hypergradient(problem, point, point)
    assert found.residual < 1e-10
    np.testing.assert_allclose(found.value, right.value, rtol=1e-10)


def test_single_precision():
    case = BANK["routing"]()
    with jax.enable_x64(False):
        case = BANK["routing"]()
        x = case.problem.game.strategy_set.centre()
        found = ix.hypergradient(case.problem, case.theta, x)
    assert found.value.dtype == jnp.float32
    assert found.residual < 1e-3  # float32


def test_memory_and_vmap_in_a_loop():
    """A remembered inverse gives the same gradient as a fresh solve, alone and in lanes."""
    case = BANK["routing"]()
    scheme = ix.DesignAndPlay(optax.sgd(1e-3), play_step=0.05, sensitivity=ix.Implicit(tol=1e-10))
    record = ix.Record(1, observe=lambda theta, x: (theta, x))
    start = case.problem.game.strategy_set.centre()

    def run(theta):
        return ix.design(case.problem, theta, scheme, x0=start, steps=40, record=record).history

    thetas = jnp.stack([case.theta, case.theta + 1])
    lanes = jax.vmap(run)(thetas)
    alone = run(thetas[1])
    np.testing.assert_allclose(lanes.objective[1], alone.objective, rtol=1e-10)
    theta = alone.observed[0][-2]
    later_x = alone.observed[1][-1]
    fresh = ix.hypergradient(case.problem, theta, later_x).value
    np.testing.assert_allclose(alone.info.gradient[-1], jnp.linalg.norm(fresh), rtol=1e-7)
    assert alone.info.gradient_residual.max() < 1e-7


def _two_choices_in_a_row():
    """Two parallel roads, then two more: four paths, whose flows the links do not determine."""
    network = ix.traffic.Network(
        tail=[0, 0, 1, 1],
        head=[1, 1, 2, 2],
        capacity=np.ones(4),
        free_flow_time=[1.0, 2.0, 1.0, 1.5],
        b=[1.0, 0.25, 2.0, 0.5],
        power=np.ones(4),
        number_of_nodes=3,
    )
    demand = ix.traffic.Demand([[0, 2]], [3.0])
    paths = ix.traffic.k_shortest_paths(network, demand, 4)
    return ix.traffic.RoutingGame(network, demand, paths, tolled_links=[0, 2])


def test_wardrop_equilibrium_whose_link_flows_alone_are_unique():
    """t = t0 (1 + b v), 3 trips: the flow on the first road of each pair in closed form."""
    game = _two_choices_in_a_row()
    problem = ix.DesignProblem(game, game.total_travel_time, ix.Box(jnp.zeros(2), 1.0))
    theta = jnp.array([0.2, 0.3])

    def flows(theta):  # 1 + v + toll = 2 + (3 - v) / 2 and 1 + 2 v + toll = 1.5 + .75 (3 - v)
        first, second = (2.5 - theta[0]) / 1.5, (2.75 - theta[1]) / 2.75
        return jnp.array([first, 3 - first, second, 3 - second])

    def total(theta):
        return flows(theta) @ game.link_times(flows(theta))

    share_first, share_second = flows(theta)[0] / 3, flows(theta)[2] / 3
    network_order = game.flows.incidence.matrix
    share = jnp.array([share_first, 1 - share_first, share_second, 1 - share_second])
    x = jnp.prod(jnp.where(network_order > 0, share[:, None], 1.0), axis=0)
    np.testing.assert_allclose(game.link_flows(x), flows(theta), rtol=1e-12)
    assert ix.natural_residual(game, theta, x) < 1e-12
    found = ix.hypergradient(problem, theta, x)
    assert found.residual < 1e-6
    np.testing.assert_allclose(found.value, jax.grad(total)(theta), rtol=1e-6)
    # One path's flow alone is not determined, and the residual says so.
    vague = ix.DesignProblem(game, lambda theta, x: x[0], ix.Box(jnp.zeros(2), 1.0))
    assert ix.hypergradient(vague, theta, x).residual > 0.1


@pytest.mark.parametrize("solver", ["krylov", "auto", "dense"])
def test_lanes_of_design_and_play_with_noise(solver):
    """Of an aggregative game under `vmap` and `jit`, as in every run over seeds."""
    instance = ix.problems.emission_tax(4)
    scheme = ix.DesignAndPlay(
        optax.sgd(0.01),
        play_step=0.1,
        feedback=ix.noise.Gaussian(0.5),
        sensitivity=ix.Implicit(solver),
    )

    @jax.jit
    @jax.vmap
    def run(key):
        start = {"x0": instance.x0, "steps": 5, "key": key}
        return ix.design(instance.problem, instance.theta0, scheme, **start).theta

    keys = jax.random.split(jax.random.key(0), 3)
    alone = ix.design(
        instance.problem, instance.theta0, scheme, x0=instance.x0, steps=5, key=keys[1]
    )
    np.testing.assert_allclose(run(keys)[1], alone.theta, rtol=1e-8)
