"""Assignment against published and closed-form equilibria."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax.traffic.assignment import _assign

from ..files import stored


def _network(links, nodes, **more):
    """Links as (tail, head, time, b, capacity, power)."""
    tail, head, time, b, capacity, power = (np.asarray(column) for column in zip(*links))
    return ix.traffic.Network(tail, head, capacity, time, b, power, nodes, **more)


def _demand(*rows):
    return ix.traffic.Demand([row[:2] for row in rows], [float(row[2]) for row in rows])


def test_sioux_falls():
    network, demand = ix.traffic.sioux_falls()
    user = ix.traffic.assign(network, demand, gap=1e-13)
    np.testing.assert_allclose(user.total_travel_time, 7_480_225.3449, rtol=1e-10)
    np.testing.assert_allclose(user.beckmann, 4_231_335.287107, rtol=1e-12)
    assert user.reached
    assert user.relative_gap <= 1e-13
    assert user.average_excess_cost < 1e-11
    # Every node keeps what it gets.
    balance = np.bincount(network.head, user.flows, 24) - np.bincount(network.tail, user.flows, 24)
    ends = np.zeros(24)
    np.add.at(ends, demand.pairs[:, 1], demand.trips)
    np.add.at(ends, demand.pairs[:, 0], -demand.trips)
    np.testing.assert_allclose(balance, ends, atol=1e-6)


def test_marginal_cost_tolls_make_the_optimum_an_equilibrium():
    network, demand = ix.traffic.sioux_falls()
    best = ix.traffic.assign(network, demand, objective="system", gap=1e-13)
    np.testing.assert_allclose(best.total_travel_time, 7_194_256.052893, rtol=1e-10)
    tolls = best.marginal_cost_tolls
    np.testing.assert_allclose((tolls.min(), tolls.max()), (0.0270, 58.0456), atol=1e-4)
    tolled = ix.traffic.assign(network, demand, tolls=tolls, gap=1e-12)
    np.testing.assert_allclose(tolled.flows, best.flows, rtol=1e-4)
    np.testing.assert_allclose(tolled.total_travel_time, best.total_travel_time, rtol=1e-9)
    # On the tolled links alone they are far worse than none.
    few = {link: tolls[link] for link in ix.traffic.TOLLED_LINKS}
    found = ix.traffic.assign(network, demand, tolls=few, gap=1e-12)
    np.testing.assert_allclose(found.total_travel_time, 11_028_874.888, rtol=1e-8)


def test_a_warm_start_ends_at_the_same_flows():
    network, demand = ix.traffic.sioux_falls()
    free = ix.traffic.assign(network, demand, gap=1e-10)
    cold = ix.traffic.assign(network, demand, tolls={3: 5.0}, gap=1e-12)
    warm = ix.traffic.assign(network, demand, tolls={3: 5.0}, gap=1e-12, start=free)
    np.testing.assert_allclose(warm.flows, cold.flows, atol=1e-3)
    assert len(warm.history) < len(cold.history)
    # What it started from is as it was.
    again = ix.traffic.assign(network, demand, gap=1e-10, start=free)
    np.testing.assert_allclose(again.flows, free.flows, atol=1e-3)


def test_what_links_may_be():
    """Zero times, constant costs, zero powers, parallel links, powers below 1: two ways, alike."""
    network = _network(
        [
            (0, 1, 0.0, 0.15, 1.0, 4.0),  # a connector
            (1, 2, 1.0, 1.0, 10.0, 1.0),
            (1, 2, 2.0, 0.0, 1.0, 0.0),  # parallel, and constant
            (2, 3, 0.0, 0.0, 1e-3, 16.8),
        ],
        4,
    )
    found = ix.traffic.assign(network, _demand((0, 3, 30)), gap=1e-12)
    np.testing.assert_allclose(found.flows, [30, 10, 20, 30])
    np.testing.assert_allclose(found.costs, [0, 2, 2, 0])
    # Where the power is 0 the time is `t0 (1 + b)`, at a flow of 0 too.
    constant = _network([(0, 1, 1.0, 0.5, 1.0, 0.0), (0, 1, 1.6, 0.0, 1.0, 1.0)], 2)
    found = ix.traffic.assign(constant, _demand((0, 1, 3)))
    np.testing.assert_allclose(found.flows, [3, 0])
    np.testing.assert_allclose(found.total_travel_time, 4.5)
    root = _network([(0, 1, 1.0, 1.0, 1.0, 0.5), (0, 1, 2.0, 1.0, 1.0, 0.5)], 2)
    found = ix.traffic.assign(root, _demand((0, 1, 9)), gap=1e-12)
    np.testing.assert_allclose(found.costs[0], found.costs[1], rtol=1e-6)


def test_no_path_passes_a_zone():
    links = [(0, 1, 1, 0, 1, 1), (1, 2, 1, 0, 1, 1), (0, 3, 5, 0, 1, 1), (3, 2, 5, 0, 1, 1)]
    through = ix.traffic.assign(_network(links, 4), _demand((0, 2, 1)))
    np.testing.assert_allclose(through.total_travel_time, 2)
    closed = ix.traffic.assign(_network(links, 4, first_through_node=3), _demand((0, 2, 1)))
    np.testing.assert_allclose(closed.total_travel_time, 10)
    np.testing.assert_allclose(closed.flows, [0, 0, 1, 1])
    with pytest.raises(ValueError, match="the same links"):
        ix.traffic.assign(closed.network, closed.demand, start=through)
    with pytest.raises(ValueError, match="within nodes alone"):
        ix.traffic.assign(closed.network, _demand((1, 1, 3)))


@pytest.mark.slow
def test_against_a_convex_program_on_random_networks():
    """The sum of integrals of costs is the least that scipy finds over path flows."""
    from scipy.optimize import minimize  # noqa: PLC0415

    rng = np.random.default_rng(0)
    for _ in range(5):
        links = [
            (a, b, rng.uniform(1, 5), rng.uniform(0.1, 1), rng.uniform(1, 4), rng.integers(1, 5))
            for a in range(5)
            for b in range(5)
            if a != b and rng.uniform() < 0.7
        ]
        links += [(a, (a + 1) % 5, 9.0, 0.1, 5.0, 4) for a in range(5)]
        network, demand = _network(links, 5), _demand((0, 2, 4), (1, 4, 3), (3, 0, 5))
        found = ix.traffic.assign(network, demand, gap=1e-10)
        paths = ix.traffic.cheap_paths(network, demand, found.costs, tolerance=2.0)
        matrix = np.zeros((len(links), paths.number_of_paths))
        for index in range(paths.number_of_paths):
            matrix[paths.path(index), index] = np.repeat(demand.trips, paths.sizes)[index]

        def beckmann(x, network=network, matrix=matrix):
            load, power = matrix @ x, network.power
            means = network.free_flow_time * (
                1 + network.b / (power + 1) * (load / network.capacity) ** power
            )
            return load @ means

        ends = np.cumsum(paths.sizes)
        sums = [
            {"type": "eq", "fun": lambda x, a=a, b=b: x[a:b].sum() - 1}
            for a, b in zip(ends - paths.sizes, ends)
        ]
        start = np.repeat(1 / paths.sizes, paths.sizes)
        bounds = [(0, 1)] * len(start)
        reference = minimize(
            beckmann, start, bounds=bounds, constraints=sums, options={"ftol": 1e-12}
        )
        np.testing.assert_allclose(found.beckmann, reference.fun, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "user", "system"),
    [
        ("Braess", 552, 498),
        ("friedrichshain-center", 728_609.306, 670_664.565),
        ("EMA", 28_181.423, 27_323.932),
        ("Anaheim", 1_419_913.851, 1_395_015.087),
        ("Barcelona", 1_365_715.683, 1_334_389.088),
        ("Winnipeg", 925_828.074, 890_048.481),
    ],
)
def test_stored_networks(name, user, system):
    network, demand = stored(name)
    found = ix.traffic.assign(network, demand, gap=1e-11)
    np.testing.assert_allclose(found.total_travel_time, user, rtol=3e-8)
    best = ix.traffic.assign(network, demand, objective="system", gap=1e-11)
    np.testing.assert_allclose(best.total_travel_time, system, rtol=3e-8)


@pytest.mark.slow
def test_large_networks():
    """Chicago with its demand once and twice, Berlin: to what the stored trips are rounded to."""
    network, demand = stored("ChicagoSketch")
    doubled = ix.traffic.Demand(demand.pairs, 2 * demand.trips)
    for trips, user, system in (
        (demand, 18_935_450.262, 18_518_575.806),
        (doubled, 69_830_049.915, 67_482_096.570),
    ):
        found = ix.traffic.assign(network, trips, gap=1e-11)
        np.testing.assert_allclose(found.total_travel_time, user, rtol=2e-9)
        best = ix.traffic.assign(network, trips, objective="system", gap=1e-11)
        np.testing.assert_allclose(best.total_travel_time, system, rtol=2e-9)
    with pytest.warns(UserWarning, match="stand twice"):
        network, demand = stored("berlin-center")
    berlin = ix.traffic.assign(network, demand, gap=1e-6)
    np.testing.assert_allclose(berlin.beckmann, 20_817_213.1987, rtol=1e-6)


def test_refusals():
    network, demand = ix.traffic.sioux_falls()
    assign = ix.traffic.assign
    for arguments, words in (
        ({"gap": 0.0}, "gap > 0, got 0"),
        ({"objective": "both"}, r'"user"(.|\n)*both|both'),
        ({"tolls": np.ones(3)}, r"one finite toll a link, shape \(76,\), got \(3,\)"),
        ({"tolls": {76: 1.0}}, r"links in 0\.\.75, got 76"),
        ({"tolls": {0: np.nan}}, "not finite"),
        ({"tolls": {0: -9.0}}, r"costs >= 0 with tolls, got -3 on link 1 \(1-2\)"),
        ({"tolls": {0: 1.0}, "objective": "system"}, "tolls are transfers"),
        ({"max_iterations": 0}, "max_iterations"),
    ):
        with pytest.raises(ValueError, match=words):
            assign(network, demand, **arguments)
    with pytest.warns(UserWarning, match="relative gap"):
        assert not assign(network, demand, max_iterations=1).reached
    with pytest.raises(ValueError, match=r"0\.\.23, got 24"):
        assign(network, _demand((0, 24, 1)))
    island = _network([(0, 1, 1, 1, 1, 1)], 3, node_names=np.array(["a", "b", "c"]))
    with pytest.raises(ValueError, match="from node a to node c"):
        assign(island, _demand((0, 2, 1)))
    other = _demand((0, 5, 1))
    with pytest.raises(ValueError, match="the same demand"):
        assign(network, other, start=assign(network, demand))


def test_memory_is_estimated_before_the_work():
    from incentax.traffic.assignment._assign import require_memory  # noqa: PLC0415

    require_memory("assign", 1000, "nothing much")
    with pytest.raises(ValueError, match=r"`assign` needs about 1000000\.0 GB of memory for a lot"):
        require_memory("assign", 10**15, "a lot")


def test_progress_and_words(capsys):
    network, demand = ix.traffic.sioux_falls()
    found = ix.traffic.assign(network, demand, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(found.history)
    assert "relative gap" in lines[0]
    seen = []
    ix.traffic.assign(network, demand, progress=lambda *row: seen.append(row))
    assert [row[1] for row in seen] == list(found.history)
    for word in ("total travel time", "relative gap", "average excess cost", "Beckmann"):
        assert word in str(found)


def test_link_costs_are_the_same_wherever_they_are_computed():
    """In games, in assignments and in their compiled part; empty links and any power included."""
    rng, links = np.random.default_rng(0), 60
    power = np.resize([0, 0.5, 1, 2.5, 4, 16], links)
    network = ix.traffic.Network(
        np.zeros(links, int), np.ones(links, int), rng.uniform(0.5, 2, links),
        rng.uniform(0, 3, links), rng.uniform(0, 1, links), power, 2,
        fixed_cost=rng.uniform(0, 1, links),
    )  # fmt: skip
    flows = np.where(np.arange(links) % 5 == 0, 0, rng.uniform(0, 3, links))
    times = ix.traffic.RoutingGame(
        network, _demand((0, 1, 1)), ix.traffic.k_shortest_paths(network, _demand((0, 1, 1)), 1)
    ).link_times
    by_game, slopes = jax.jvp(times, (jnp.asarray(flows),), (jnp.ones(links),))
    kernels = _assign.compiled_kernels()
    traffic = kernels.Traffic(
        kernels.graph_of(network), _assign._costs(network, np.zeros(links), "user"),
        flows.copy(), np.zeros(links), np.zeros(links),
    )  # fmt: skip
    kernels.update_costs(traffic)
    np.testing.assert_allclose(traffic.cost, by_game, rtol=1e-12)
    np.testing.assert_allclose(_assign._time(network, flows), by_game, rtol=1e-12)
    # At rest a power below 1 has no finite slope.
    finite = (flows > 0) | (network.power >= 1) | (network.power == 0)
    np.testing.assert_allclose(traffic.slope[finite], np.asarray(slopes)[finite], rtol=1e-12)
