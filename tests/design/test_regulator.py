"""Graphs, seeking with partial information, smoothing, and the regulator without derivatives."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.cli import main

GRAPHS = {
    "ring": lambda: ix.graphs.ring(6),
    "star": lambda: ix.graphs.star(6),
    "complete": lambda: ix.graphs.complete(6),
    "Erdos-Renyi": lambda: ix.graphs.erdos_renyi(6, 0.5, jax.random.key(0)),
    "directed circle": lambda: ix.graphs.from_adjacency(np.roll(np.eye(6), 1, axis=1)),
    "directed": lambda: ix.graphs.from_adjacency(
        np.roll(np.eye(6), 1, axis=1) + np.eye(6)[[2] + 5 * [0]] * (np.arange(6) == 0)[:, None]
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_weights_are_doubly_stochastic(name):
    graph = GRAPHS[name]()
    weights = np.asarray(graph.weights)
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-12)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    assert (np.diag(weights) > 0).all()
    assert ((weights > 0) == (np.asarray(graph.adjacency) | np.eye(6, dtype=bool))).all()
    singular = np.linalg.svd(weights, compute_uv=False)[1]
    assert float(graph.second_singular_value) == pytest.approx(singular, abs=1e-12)
    assert singular < 1


def test_second_singular_value_of_a_ring_in_closed_form():
    """Metropolis weights are 1/3: eigenvalues `(1 + 2 cos(2 pi k / n)) / 3`."""
    expected = (1 + 2 * np.cos(2 * np.pi / 7)) / 3
    assert float(ix.graphs.ring(7).second_singular_value) == pytest.approx(expected)


def _game(n, low=-5.0):
    slope = jnp.linspace(1.0, 2.0, n)

    def cost(theta, x):
        return slope * x**2 / 2 + 0.5 * x * x.sum() / n - theta * x

    return ix.AtomicGame(cost, ix.Box(jnp.full(n, low), 5.0))


def test_fifty_players_agree_on_the_equilibrium_as_fast_as_the_bound_says():
    game, theta, start = _game(50), jnp.array(1.0), jnp.zeros(50)
    graph = ix.graphs.erdos_renyi(50, 0.3, jax.random.key(1))
    exact = ix.solve_equilibrium(game, theta, start).x
    constants = ix.seeking_constants(game, theta, start)
    assert constants.affine
    step = float(constants.step_bound(graph))
    found = ix.solve_equilibrium(
        game, theta, start, method=ix.ConsensusSeeking(graph, 0.1), tol=1e-10
    )
    np.testing.assert_allclose(found.x, exact, atol=1e-8)
    # The step that is known to converge: linear, and never slower than the factor.
    method = ix.ConsensusSeeking(graph, step, constants=constants)

    @jax.jit
    def errors():
        def advance(state, count):
            return method.step(game, theta, state, count), jnp.sum((state - exact[None]) ** 2)

        return jax.lax.scan(advance, method.init(game, theta, start), jnp.arange(4000))[1]

    error = np.asarray(errors())
    fitted = np.exp(np.polyfit(np.arange(2000), np.log(error[1000:3000]), 1)[0])
    factor = float(constants.contraction_factor(graph, step))
    assert fitted <= factor < 1
    needed = int(constants.inner_steps(graph, step, error[0], 1e-3 * error[0]))
    assert needed == int(np.ceil(np.log(1e3) / np.log(1 / factor)))


def test_players_of_different_size_on_simplices():
    """Flat strategies: blocks of 2 and 3 routes, each block one player's."""
    matrix = jnp.eye(5) + 0.1

    game = ix.Game(lambda theta, x: matrix @ x - theta, ix.Simplex([2, 3]))
    theta = jnp.array([0.5, 0.2, 0.9, 0.1, -3.0])
    graph = ix.graphs.complete(2)
    found = ix.solve_equilibrium(
        game, theta, method=ix.ConsensusSeeking(graph, 0.1, sizes=[2, 3]), tol=1e-10
    )
    np.testing.assert_allclose(found.x, ix.solve_equilibrium(game, theta).x, atol=1e-8)
    assert (found.x == 0).any()  # a route that nobody takes


@pytest.mark.parametrize("size", [1, 5, 50])
def test_two_point_estimates_are_unbiased_and_central_ones_vary_less(size):
    """`f = t'At/2 + b't` smoothed over a ball has the gradient of `f` itself."""
    curvature, slope = jnp.linspace(1.0, 3.0, size), jnp.linspace(-1.0, 1.0, size)
    theta = jnp.full(size, 0.3)

    def function(t):
        return curvature @ t**2 / 2 + slope @ t

    def draws(estimator):
        def one(key):
            return ix.smoothing.estimate_gradient(
                function, theta, key, smoothing=0.5, estimator=estimator
            )

        return jax.vmap(one)(jax.random.split(jax.random.key(size), 4096))

    exact = curvature * theta + slope
    spread = {}
    for estimator in ("central", "forward"):
        found = draws(estimator)
        error = jnp.std(found, axis=0) / 64
        assert (jnp.abs(found.mean(0) - exact) <= 4 * error + 1e-12).all()
        spread[estimator] = float(jnp.var(found, axis=0).sum())
    assert spread["central"] < spread["forward"]


@pytest.mark.slow  # many steps
def test_charging_with_private_costs():
    instance = ix.problems.ev_charging()
    best = ix.design(instance.problem, instance.theta0)
    assert float(best.theta[0]) == pytest.approx(1.1625, abs=2.5e-3)
    assert float(best.objective) == pytest.approx(-76.0440, abs=1e-4)

    def run(key):
        return ix.design(
            instance.problem,
            instance.theta0,
            instance.schemes["regulator"],
            x0=instance.x0,
            steps=600,
            record=100,
            key=key,
        )

    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(3), 20))
    assert (jnp.abs(found.theta[:, 0] - 1.1625) <= 0.02).sum() >= 18
    info = found.history.info
    assert (info.oracle_calls[:, -1] == 1200).all()
    # Three lanes (theta and two trials), 50 rounds, 600 steps.
    graph = instance.schemes["regulator"].seeking.graph
    assert int(info.messages[0, -1]) == 3 * 50 * 600 * int(graph.messages)
    assert info.player_costs.shape == (20, 6, 10)
    np.testing.assert_allclose(info.player_costs.sum(-1), info.objective, rtol=1e-12)


@pytest.mark.parametrize(("kappa", "best", "close"), [(0.45, 20 / 9, 0.05), (0.0, 3.0, 0.02)])
def test_the_best_of_eight_starts_finds_the_global_optimum(kappa, best, close):
    instance = ix.problems.regulated_duopoly(kappa)
    scheme = instance.schemes["regulator"]

    def run(key, start):
        found = ix.design(instance.problem, start, scheme, steps=400, record=400, key=key)
        return found.theta[0], found.objective

    starts = jnp.linspace(-1.0, 3.0, 8)[:, None]
    theta, objective = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 8), starts)
    assert float(theta[jnp.argmin(objective)]) == pytest.approx(best, abs=close)


@pytest.mark.slow
def test_charging_is_reproduced_as_tables_and_figures(tmp_path):
    assert main(["reproduce", "charging", "--steps", "80", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "charging.json").read_text())
    findings = content["findings"]
    assert findings["seeds within 0.02 of the optimum"] >= 18
    assert findings["costs asked for, a seed"] == 160
    assert "stand-in" in content["problem"]
    assert "equilibrium is exact" in content["certificate"]["verdict"]
    assert len(content["theta_mean"]) == 80
    assert (tmp_path / "charging.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_vector_prices_and_the_plain_price_whose_optimum_is_a_corner():
    plain = ix.problems.ev_charging(price="plain")
    assert round(float(ix.design(plain.problem, plain.theta0).theta[0]), 12) in (0.5, 6.0)
    slots = ix.problems.ev_charging(4, slots=3)
    scheme = ix.ZerothOrderRegulator(
        smoothing=0.1,
        step_size=0.02,
        seeking=ix.ProjectedGradient(0.05),
        inner_steps=200,
        inner_tol=1e-6,
        directions=2,
    )
    found = ix.design(slots.problem, slots.theta0, scheme, steps=300, key=jax.random.key(0))
    best = ix.design(slots.problem, slots.theta0)
    np.testing.assert_allclose(found.theta, best.theta, atol=0.05)  # noise of the estimates
    assert found.history.info.inner_residual[-1] <= 1e-6
    assert (found.history.info.inner_steps < 200).any()  # ended by the tolerance


def test_goldstein_measure_of_a_kink_and_of_a_slope():
    game = ix.Game(lambda theta, x: x - theta, ix.Reals())
    problem = ix.DesignProblem(game, lambda theta, x: jnp.abs(x).sum(), ix.Box(-2.0, 2.0))

    def measure(theta):
        return ix.goldstein_measure(
            problem, jnp.array([theta]), smoothing=0.5, key=jax.random.key(0), samples=16
        )

    assert float(measure(0.0).measure) == pytest.approx(0, abs=1e-9)
    assert float(measure(1.0).measure) == pytest.approx(1)
    # Outside of the set the envelope pulls back: 1 + 0.25 / 0.5.
    assert float(measure(2.25).measure) == pytest.approx(1.5)


def test_black_box_and_its_own_errors():
    def simulator(key, theta):
        noise = float(jax.random.normal(key)) * 1e-3
        return np.array([float(((np.asarray(theta["fee"]) - 1) ** 2).sum()), noise])

    scheme = ix.ZerothOrderRegulator(smoothing=0.2, step_size=0.1)
    fees = ix.Product({"fee": ix.Box(jnp.zeros(2), 0.8)})
    start = {"fee": jnp.zeros(2)}
    run = ix.regulate(simulator, start, fees, scheme, steps=120, key=jax.random.key(0))
    np.testing.assert_allclose(run.theta["fee"], 0.8, atol=0.05)  # noise of the simulator
    assert run.player_costs.shape == (120, 2)
    assert int(run.oracle_calls) == 120 * 3 + 1

    def broken(key, theta):
        raise OSError("no licence")

    with pytest.raises(OSError, match="no licence") as caught:
        ix.regulate(broken, start, fees, scheme, steps=1, key=jax.random.key(0))
    assert "theta =" in caught.value.__notes__[0]

    def partial(key, theta):
        fee = np.asarray(theta["fee"])
        return np.array([np.nan if (fee < 0).any() else 1.0])

    with pytest.raises(ValueError, match=r"finite costs(.|\n)*in direction"):
        ix.regulate(partial, start, fees, scheme, steps=1, key=jax.random.key(0))


@pytest.mark.parametrize("estimator", ["central", pytest.param("forward", marks=pytest.mark.slow)])
def test_costs_that_are_not_defined_outside_are_told_with_the_direction(estimator):
    game = ix.Game(lambda theta, x: x - theta, ix.Reals())
    problem = ix.DesignProblem(
        game, lambda theta, x: jnp.sum(jnp.sqrt(theta) + x), ix.Box(jnp.zeros(2), 1.0)
    )
    scheme = ix.ZerothOrderRegulator(smoothing=0.1, step_size=0.05, estimator=estimator)
    with pytest.raises(ix.DesignFailure) as caught:
        ix.design(problem, 0.2 * jnp.ones(2), scheme, steps=200, key=jax.random.key(0))
    words = str(caught.value)
    assert "not finite at theta = [" in words
    assert "in direction [" in words
    point = words.split("theta = ")[1].split(",", maxsplit=1)[0]
    assert "-" in point  # outside of the set
    assert caught.value.solution.steps > 0
    with pytest.raises(ValueError, match="in direction"):
        ix.smoothing.estimate_gradient(
            lambda t: jnp.log(t[0]), jnp.array([0.1]), jax.random.key(0), smoothing=0.5
        )
    with pytest.raises(ValueError, match="in direction"):
        ix.goldstein_measure(
            problem, 0.05 * jnp.ones(2), smoothing=0.1, key=jax.random.key(0), samples=8
        )


def test_strategies_belong_to_the_incentive_that_is_returned():
    game = ix.AtomicGame(lambda th, x: x**2 + x * (0.2 * x.sum() - th), ix.Box(-10.0, 10.0))
    problem = ix.DesignProblem(game, None, ix.Box(0.0, 5.0))
    scheme = ix.ZerothOrderRegulator(
        smoothing=0.1,
        step_size=0.02,
        seeking=ix.ConsensusSeeking(ix.graphs.ring(5), 0.1),
        inner_steps=5000,
        inner_tol=1e-6,
    )
    found = ix.design(
        problem, jnp.array(1.0), scheme, x0=jnp.zeros(5), steps=4, key=jax.random.key(0)
    )
    assert found.residual <= 1e-6
    assert found.history.info.design_step[-1] > 1e-3


def test_players_on_sets_of_their_own_and_sets_that_couple_them():
    """A player on a box beside one on a simplex, as one polyhedron; a simplex over both."""
    rows = jnp.array([[0.0, 1.0, 1.0]])
    beside = ix.Polyhedron(equality=(rows, jnp.ones(1)), lower=0.0, upper=2.0)
    game = ix.Game(lambda t, x: x - t, beside)
    t = jnp.array([0.5, 0.9, 0.3])
    method = ix.ConsensusSeeking(ix.graphs.complete(2), 0.3, sizes=[1, 2])
    found = ix.solve_equilibrium(game, t, method=method)
    np.testing.assert_allclose(found.x, [0.5, 0.8, 0.2], atol=1e-7)
    for coupled in (ix.Simplex(3), ix.Polyhedron(equality=(jnp.ones((1, 3)), jnp.ones(1)))):
        with pytest.raises(ValueError, match="product over players"):
            ix.solve_equilibrium(ix.Game(lambda t, x: x - t, coupled), t, method=method)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ix.graphs.from_adjacency([[0, 1], [0, 0]]), "strongly connected"),
        (lambda: ix.graphs.from_adjacency(np.ones((2, 3))), r"square matrix(.|\n)*\(2, 3\)"),
        (lambda: ix.graphs.erdos_renyi(40, 0.001, jax.random.key(0)), "not connected"),
        (lambda: ix.graphs.erdos_renyi(4, 1.5, jax.random.key(0)), "0 < p <= 1, got 1.5"),
        (
            lambda: ix.graphs.from_adjacency([[0, 1], [1, 0]], weights=[[0.5, 0.5], [0.4, 0.6]]),
            "doubly stochastic",
        ),
        (
            lambda: ix.ZerothOrderRegulator(
                smoothing=0.1, step_size=0.1, inner_steps=lambda k: 0 * k
            ),
            "at least one step",
        ),
        (lambda: ix.ZerothOrderRegulator(smoothing=0.0, step_size=0.1), "smoothing > 0, got 0"),
        (
            lambda: ix.ZerothOrderRegulator(smoothing=1.0, step_size=0.1, estimator="backward"),
            "'central' or 'forward', got 'backward'",
        ),
        (
            lambda: ix.solve_equilibrium(
                _game(4),
                jnp.array(1.0),
                jnp.zeros(4),
                method=ix.ConsensusSeeking(ix.graphs.ring(5), 0.1),
            ),
            "players, x.shape",
        ),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_steps_beyond_a_bound_are_warned_of():
    with pytest.warns(UserWarning, match="2 smoothing = 0.2"):
        ix.ZerothOrderRegulator(smoothing=0.1, step_size=0.3)
    game, graph = _game(5), ix.graphs.ring(5)
    constants = ix.seeking_constants(game, jnp.array(1.0), jnp.zeros(5))
    with pytest.warns(UserWarning, match=r"factor is(.|\n)*>= 1"):
        ix.ConsensusSeeking(graph, 0.5, constants=constants)
