import itertools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest

import incentax as ix

TNTP = Path(__file__).parents[3] / "shared" / "data" / "tntp"


@pytest.fixture(scope="module")
def sioux_falls():
    return ix.traffic.sioux_falls()


def test_sioux_falls_is_the_published_network(sioux_falls):
    network, demand = sioux_falls
    assert (network.number_of_links, demand.trips.size) == (76, 528)
    assert demand.trips.sum() == 360_600
    # The 20 tollable links are ten complete two-way roads.
    tolled = np.asarray(ix.traffic.TOLLED_LINKS)
    roads = set(zip(network.tail[tolled].tolist(), network.head[tolled].tolist()))
    assert len(roads) == 20
    assert {(b, a) for a, b in roads} == roads


@pytest.mark.skipif(not TNTP.exists(), reason="the reference networks are not beside the project")
def test_sioux_falls_holds_against_the_file(sioux_falls):
    network, demand = sioux_falls
    rows = [
        line.split()
        for line in (TNTP / "SiouxFalls_net.tntp").read_text().splitlines()
        if line.strip() and line.strip()[0].isdigit()
    ]
    table = np.asarray([[float(cell) for cell in row[:7]] for row in rows])
    np.testing.assert_array_equal(network.tail + 1, table[:, 0])
    np.testing.assert_array_equal(network.head + 1, table[:, 1])
    np.testing.assert_array_equal(network.capacity, table[:, 2])
    np.testing.assert_array_equal(network.free_flow_time, table[:, 4])
    np.testing.assert_array_equal(network.b, table[:, 5])
    np.testing.assert_array_equal(network.power, table[:, 6])
    trips, origin = {}, 0
    for line in (TNTP / "SiouxFalls_trips.tntp").read_text().splitlines():
        if line.startswith("Origin"):
            origin = int(line.split()[1])
        elif origin:
            for entry in line.split(";")[:-1]:
                destination, number = entry.split(":")
                trips[origin, int(destination)] = float(number)
    listed = {pair: number for pair, number in trips.items() if number > 0}
    ours = {tuple(pair): number for pair, number in zip((demand.pairs + 1).tolist(), demand.trips)}
    assert ours == listed


def _graph(network):
    graph = networkx.DiGraph()
    for tail, head, time in zip(network.tail, network.head, network.free_flow_time):
        graph.add_edge(int(tail), int(head), weight=float(time))
    return graph


def test_k_shortest_paths_against_networkx(sioux_falls):
    """Times, numbers of links and node sequences of every tenth pair, ties in the stated order."""
    network, demand = sioux_falls
    some = ix.traffic.Demand(demand.pairs[::10], demand.trips[::10])
    paths = ix.traffic.k_shortest_paths(network, some, 7)
    graph, first = _graph(network), 0
    for (origin, destination), size in zip(some.pairs.tolist(), paths.sizes):
        expected = []
        for nodes in networkx.shortest_simple_paths(graph, origin, destination, weight="weight"):
            time = sum(graph[a][b]["weight"] for a, b in itertools.pairwise(nodes))
            if len(expected) >= 7 and time > expected[6][0]:
                break
            expected.append((time, len(nodes), nodes))
            expected.sort()
        found = [[origin, *network.head[paths.path(first + p)].tolist()] for p in range(size)]
        assert found == [nodes for _, _, nodes in expected[:7]]
        first += size


def test_k_shortest_paths_ties_zones_and_parallel_links():
    """A grid of equal times, a zone that must not be passed, and a doubled link."""
    network = ix.traffic.Network(
        tail=[0, 0, 2, 3, 0, 1, 2, 2],
        head=[2, 3, 4, 4, 1, 4, 4, 3],
        capacity=np.ones(8),
        free_flow_time=[0.1, 0.2, 0.2, 0.1, 0.0, 0.0, 0.2, 0.1],
        b=np.ones(8),
        power=np.ones(8),
        number_of_nodes=5,
        first_through_node=2,
    )
    demand = ix.traffic.Demand([[0, 4]], [1.0])
    paths = ix.traffic.k_shortest_paths(network, demand, 10)
    assert [paths.path(p).tolist() for p in range(4)] == [[0, 2], [0, 6], [1, 3], [0, 7, 3]]
    assert paths.number_of_paths == 4


def test_times_that_tie_on_paper_tie():
    """0.1 + 0.3 in one sum and 1.3 in another: fewer links come first."""
    network = ix.traffic.Network(
        tail=[0, 0, 1, 1, 3],
        head=[1, 1, 2, 3, 2],
        capacity=np.ones(5),
        free_flow_time=[1.0, 1.0, 0.1 + 0.2, 0.15, 0.15],
        b=np.ones(5),
        power=np.ones(5),
        number_of_nodes=4,
    )
    demand = ix.traffic.Demand([[0, 2]], [1.0])
    paths = ix.traffic.k_shortest_paths(network, demand, 4)
    assert [paths.path(p).tolist() for p in range(4)] == [[0, 2], [1, 2], [0, 3, 4], [1, 3, 4]]


@pytest.mark.parametrize("k", [5, 8, 10])
def test_number_of_paths(sioux_falls, k):
    assert ix.traffic.k_shortest_paths(*sioux_falls, k).number_of_paths == 528 * k


def test_routing_game_against_a_loop(sioux_falls):
    network, demand = sioux_falls
    paths = ix.traffic.k_shortest_paths(network, demand, 2)
    tolled = [3, 11, 50]
    game = ix.traffic.RoutingGame(network, demand, paths, eta=0.7, tolled_links=tolled)
    x = game.strategy_set.project(jax.random.uniform(jax.random.key(0), (paths.number_of_paths,)))
    theta = jnp.array([1.0, 2.0, 3.0])
    flows = np.zeros(76)
    for path in range(paths.number_of_paths):
        flows[paths.path(path)] += demand.trips[path // 2] * x[path]
    times = network.free_flow_time * (1 + 0.15 * (flows / network.capacity) ** 4)
    costs = times.copy()
    costs[tolled] += np.asarray(theta)
    expected = [costs[paths.path(path)].sum() for path in range(paths.number_of_paths)]
    safe = np.maximum(np.asarray(x), np.finfo(float).tiny)
    expected = np.asarray(expected) + 0.7 * (np.log(safe) + 1)
    np.testing.assert_allclose(game.link_flows(x), flows, rtol=1e-12)
    np.testing.assert_allclose(game.operator(theta, x), expected, rtol=1e-12)
    np.testing.assert_allclose(game.total_travel_time(theta, x), flows @ times, rtol=1e-12)


@pytest.mark.parametrize(
    ("eta", "expected"),
    [
        (0.5, 7_430_323.868246),
        (1.0, 7_436_905.687328),
        (2.0, 7_602_851.314571),
        (5.0, 8_905_751.266695),
    ],
)
def test_logit_equilibrium_from_uniform(eta, expected):
    """Reference values of an independent solver, on ten paths a pair."""
    instance = ix.problems.second_best_tolls(eta=eta)
    game = instance.problem.game
    found = ix.solve_equilibrium(game, instance.theta0)
    assert found.result == ix.RESULTS.successful
    np.testing.assert_allclose(game.total_travel_time(None, found.x), expected, rtol=1e-8)


@pytest.mark.parametrize("eta", [0.5, 2.0])
def test_newton_in_link_flows_reaches_the_equilibrium_of_play(eta):
    instance = ix.problems.second_best_tolls(eta=eta, paths=3)
    game, tolls = instance.problem.game, jnp.linspace(0.0, 10.0, 20)
    played = ix.solve_equilibrium(game, tolls, tol=1e-10)
    found = ix.traffic.logit_equilibrium(game, tolls)
    assert found.steps < 25
    assert found.residual < 1e-9
    np.testing.assert_allclose(found.x, played.x, atol=1e-8)


def test_system_optimum():
    game = ix.problems.second_best_tolls(eta=1.0).problem.game
    found = ix.traffic.system_optimum(game)
    # 7,206,300.151 on ten paths a pair, by an independent solver.
    assert 0 < found.total_travel_time / 7_206_300.151 - 1 < found.relative_gap < 1e-5


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_second_best_tolls_by_design_and_play(noise):
    """3,000 steps of setting A from zero tolls; the total travel time is that at equilibrium."""
    instance = ix.problems.second_best_tolls(eta=1.0, paths=10, max_toll=10.0, noise=noise)
    problem = instance.problem
    found = ix.design(
        problem,
        instance.theta0,
        instance.schemes["design-and-play"],
        x0=instance.x0,
        steps=3000,
        record=300,
        key=jax.random.key(1),
    )
    equilibrium = ix.solve_equilibrium(problem.game, found.theta)
    total = problem.objective(found.theta, equilibrium.x)
    # Within 0.02 % without noise and 0.1 % with it; what is reached is far better than both.
    assert abs(total / 7_348_543.27560 - 1) < (1e-6 if noise == 0.0 else 1e-5)
    assert found.history.info.gradient_residual.max() < 1e-4


def test_the_adjoint_is_solved_to_its_tolerance_and_no_further():
    """Every digit more would cost rounds of the whole system, several times a step's work."""
    instance = ix.problems.second_best_tolls(eta=1.0, paths=2, noise=1.0)
    scheme, key = instance.schemes["design-and-play"], jax.random.key(1)
    found = ix.design(instance.problem, instance.theta0, scheme, x0=instance.x0, steps=60, key=key)
    left = found.history.info.gradient_residual[40:]
    assert scheme.sensitivity.tol == 1e-4
    assert left.max() < 1e-4
    assert jnp.median(left) > 1e-7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"capacity": [1.0, 0.0]}, r"capacity=(.|\n)*positive(.|\n)*0\.0 at index 1"),
        ({"free_flow_time": [1.0, -2.0]}, r"free_flow_time=(.|\n)*-2\.0 at index 1"),
        ({"head": [1, 7]}, r"head=(.|\n)*0\.\.2, got 1\.\.7"),
        ({"b": [1.0]}, r"b=(.|\n)*\(2,\)(.|\n)*\(1,\)"),
    ],
)
def test_network_refusals(change, words):
    arguments = {
        "tail": [0, 1],
        "head": [1, 2],
        "capacity": [1.0, 1.0],
        "free_flow_time": [1.0, 1.0],
        "b": [1.0, 1.0],
        "power": [1.0, 1.0],
        "number_of_nodes": 3,
    }
    with pytest.raises(ValueError, match=words):
        ix.traffic.Network(**(arguments | change))


def test_routing_refusals(sioux_falls):
    network, demand = sioux_falls
    with pytest.raises(ValueError, match="k >= 1, got 0"):
        ix.traffic.k_shortest_paths(network, demand, 0)
    paths = ix.traffic.k_shortest_paths(network, demand, 1)
    for changes, words in (
        ({"tolled_links": [76]}, r"0\.\.75, got 76"),
        ({"tolled_links": [3, 3]}, "got 3 2 times"),
        ({"eta": -1.0}, r"eta >= 0, got -1\.0"),
    ):
        with pytest.raises(ValueError, match=words):
            ix.traffic.RoutingGame(network, demand, paths, **changes)
    game = ix.traffic.RoutingGame(network, demand, paths, eta=1.0, tolled_links=[0, 1])
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        game.operator(jnp.zeros(3), game.strategy_set.centre())
    lonely = ix.traffic.Demand([[0, 1]], [1.0])
    with pytest.raises(ValueError, match="their order"):
        ix.traffic.RoutingGame(network, lonely, paths)
    island = ix.traffic.Network([0], [1], [1.0], [1.0], [1.0], [1.0], 3)
    with pytest.raises(ValueError, match="from node 1 to node 3"):
        ix.traffic.k_shortest_paths(island, ix.traffic.Demand([[0, 2]], [1.0]), 1)
    for bad in ({"eta": -1.0}, {"max_toll": 0.0}, {"paths": 0}, {"noise": -1.0}):
        with pytest.raises(ValueError, match=r"got -?\d"):
            ix.problems.second_best_tolls(**bad)


@pytest.mark.slow
def test_seeds_run_side_by_side():
    """All lanes of a vmapped run are the runs of their keys."""
    instance = ix.problems.second_best_tolls(eta=1.0, paths=2, noise=1.0)
    scheme = instance.schemes["design-and-play"]

    @eqx.filter_jit
    @eqx.filter_vmap
    def run(key):
        return ix.design(
            instance.problem, instance.theta0, scheme, x0=instance.x0, steps=30, key=key
        ).theta

    keys = jax.random.split(jax.random.key(0), 3)
    lanes = run(keys)
    np.testing.assert_allclose(lanes[2:], run(keys[2:]), rtol=1e-6)
    assert not np.allclose(lanes[0], lanes[1])


def test_capacities_run_side_by_side(sioux_falls):
    """A game is built inside `vmap` over the capacities of its network."""
    network, demand = sioux_falls
    paths = ix.traffic.k_shortest_paths(network, demand, 2)

    def total(scale):
        wider = ix.traffic.Network(
            network.tail,
            network.head,
            scale * jnp.asarray(network.capacity),
            network.free_flow_time,
            network.b,
            network.power,
            network.number_of_nodes,
        )
        game = ix.traffic.RoutingGame(wider, demand, paths, eta=1.0)
        x = ix.solve_equilibrium(game, jnp.zeros(76)).x
        return game.total_travel_time(None, x)

    lanes = jax.vmap(total)(jnp.array([1.0, 1.5]))
    assert lanes[1] < lanes[0]
    np.testing.assert_allclose(lanes[1], total(1.5), rtol=1e-8)
