"""User equilibrium on path sets of networks beyond the dense form, and how it answers to tolls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax import _compile

from .files import stored

LINKS = [10, 34, 5, 60]


@pytest.fixture(scope="module")
def sparse_game():
    """Sioux Falls, handled as a large network is."""
    patch = pytest.MonkeyPatch()
    patch.setattr("incentax.traffic._incidence._DENSE", 0)
    network, demand = ix.traffic.sioux_falls()
    paths = ix.traffic.generate_paths(network, demand)
    game = ix.traffic.RoutingGame(network, demand, paths, eta=0, tolled_links=LINKS)
    patch.undo()
    return game


def test_the_equilibrium_is_that_of_the_assignment(sparse_game):
    found = ix.solve_equilibrium(sparse_game, jnp.zeros(len(LINKS)))
    network, demand = ix.traffic.sioux_falls()
    exact = ix.traffic.assign(network, demand, gap=1e-12)
    assert float(sparse_game.total_travel_time(None, found.x)) == pytest.approx(
        exact.total_travel_time, rel=1e-9
    )
    np.testing.assert_allclose(sparse_game.link_flows(found.x), exact.flows, rtol=1e-5)
    assert float(found.residual) < 1e-8


@pytest.mark.slow  # large programs
def test_pairs_without_trips_take_their_cheapest_paths(sparse_game):
    trips = sparse_game.flows.trips[jnp.asarray(np.unique(sparse_game.simplex.blocks.ids,
                                                          return_index=True)[1])]  # fmt: skip
    game = sparse_game.with_trips(trips.at[::7].set(0.0))
    few = sparse_game.with_trips(trips.at[::7].set(1e-9))
    theta = jnp.zeros(len(LINKS))
    found = ix.solve_equilibrium(game, theta)
    assert found.residual < 1e-8
    expected = few.link_flows(ix.solve_equilibrium(few, theta).x)
    np.testing.assert_allclose(game.link_flows(found.x), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.slow  # large programs
def test_a_start_nearby_takes_few_steps(sparse_game):
    there = ix.solve_equilibrium(sparse_game, jnp.zeros(len(LINKS)))
    near = ix.solve_equilibrium(sparse_game, jnp.full(len(LINKS), 1e-3), there.x)
    assert int(near.steps) < int(there.steps) / 2


@pytest.mark.slow  # large programs
def test_single_precision_comes_as_near_as_it_can(sparse_game):
    single = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if _is_double(leaf) else leaf, sparse_game
    )
    found = ix.solve_equilibrium(single, jnp.zeros(len(LINKS), jnp.float32), throw=False)
    total = float(single.total_travel_time(None, found.x))
    assert found.x.dtype == jnp.float32
    assert total == pytest.approx(7480225.4, rel=1e-3)


def _is_double(leaf) -> bool:
    return isinstance(leaf, jax.Array) and leaf.dtype == jnp.float64


@pytest.mark.parametrize(
    ("dense", "widened"),
    [
        (200, False),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in ((10, False), (10, True), (200, True))
        ),
    ],
)
def test_derivatives_match_differences(sparse_game, widened, dense, monkeypatch):
    """By conjugate gradients, which take over beyond an aggregate of 200, and by its inverse."""
    monkeypatch.setattr("incentax.sensitivity._implicit._DENSE", dense)
    monkeypatch.setattr("incentax.sensitivity._implicit._EXPLICIT", 0)  # nothing makes up for it
    _compile._program.cache_clear()  # programs are kept for another limit
    theta = jnp.array([0.5, 1.0, 0.2, 0.7])
    game = sparse_game
    if widened:
        network, demand = ix.traffic.sioux_falls()
        patch = pytest.MonkeyPatch()
        patch.setattr("incentax.traffic._incidence._DENSE", 0)
        paths = ix.traffic.generate_paths(network, demand)
        game = ix.traffic.RoutingGame(
            network, demand, paths, eta=0, tolled_links=LINKS[:2], widened_links=LINKS[2:]
        )
        patch.undo()
    problem = ix.DesignProblem(game, game.total_travel_time, ix.Reals((4,)))
    x = ix.solve_equilibrium(game, theta, tol=1e-12, throw=False).x
    slope = ix.hypergradient(problem, theta, x).value
    for index in range(4):
        step = 1e-4 * jnp.eye(4)[index]
        above, below = (
            problem.objective(
                theta + side, ix.solve_equilibrium(game, theta + side, x, tol=1e-12, throw=False).x
            )
            for side in (step, -step)
        )
        assert float(slope[index]) == pytest.approx(float(above - below) / 2e-4, rel=1e-4, abs=1e-2)


@pytest.mark.slow
def test_tolls_at_user_equilibrium_are_the_limit_of_logit_tolls():
    """Of 20 tolls on Anaheim: as dispersion falls, the best value comes to that without any."""
    network, demand = stored("Anaheim")
    paths = ix.traffic.generate_paths(network, demand)
    flows = ix.traffic.assign(network, demand).flows
    links = ix.traffic.most_congested(network, flows, 20)
    values, theta = [], jnp.zeros(20)
    for eta in (0.1, 0.01, 0.001, 0.0):
        game = ix.traffic.RoutingGame(network, demand, paths, eta=eta, tolled_links=links)
        problem = ix.DesignProblem(game, game.total_travel_time, ix.Box(jnp.zeros(20), 10.0))
        found = ix.design(problem, theta, throw=False)
        values.append(float(found.objective))
        theta = found.theta if eta > 0 else theta
    assert values[-1] == pytest.approx(values[-2], rel=1e-4)
    # Far below what no tolls cost.
    assert values[-1] < 0.99 * 1_419_913.85


def test_small_dispersion_on_a_small_network_is_reached():
    """The general method stops at a residual of 0.04 here."""
    instance = ix.problems.second_best_tolls(eta=0.01, paths=10)
    found = ix.solve_equilibrium(instance.problem.game, instance.theta0)
    assert found.residual < 1e-9


def test_ready_tolls_without_dispersion():
    network, demand = ix.traffic.generate_city(4, zones=6)
    instance = ix.problems.network_tolls(network, demand, [0, 5], eta=0.0)
    assert "cheapest routes" in instance.description
    found = ix.solve_equilibrium(instance.problem.game, instance.theta0)
    assert found.residual < 1e-8


@pytest.mark.parametrize(
    ("paths", "eta"), [(3, 0.005), (3, 0.002), (10, 0.003), (5, 1e-3), (10, 1e-4)]
)
def test_dispersions_that_newton_reaches_on_the_way_down_alone(paths, eta):
    instance = ix.problems.second_best_tolls(eta=eta, paths=paths)
    found = ix.solve_equilibrium(instance.problem.game, instance.theta0)
    assert found.residual < 1e-8


def test_a_search_that_is_short_of_steps_keeps_what_smoothing_led_to():
    network, demand = ix.traffic.generate_city(8)
    links = ix.traffic.most_congested(network, ix.traffic.assign(network, demand).flows, 8)
    instance = ix.problems.network_tolls(network, demand, links, eta=0.0)
    found = ix.design(instance.problem, instance.theta0, steps=5, throw=False)
    best = 434109.56  # with 31 steps
    assert found.steps == 5
    assert best < found.objective < best + 0.2 * (435488.78 - best)
