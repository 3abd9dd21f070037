"""Route choice at every crossing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def _one_way(**more):
    """Four crossings, every link leads onwards: walks are paths."""
    return ix.traffic.Network(
        [0, 0, 1, 1, 2], [1, 2, 2, 3, 3], [3.0, 6, 4, 6, 3], [1.0, 5, 1, 5, 1], [1.0] * 5,
        [2.0] * 5, 4, **more,
    )  # fmt: skip


def test_without_cycles_it_is_logit_choice_of_paths():
    network = _one_way()
    demand = ix.traffic.Demand([[0, 3], [1, 3], [0, 2]], [6.0, 2.0, 1.0])
    paths = ix.traffic.k_shortest_paths(network, demand, 10)
    theta = jnp.array([0.3, 0.5])
    listed = ix.traffic.RoutingGame(network, demand, paths, eta=0.5, tolled_links=[0, 2])
    walked = ix.traffic.MarkovianGame(network, demand, eta=0.5, tolled_links=[0, 2])
    flows = listed.link_flows(ix.solve_equilibrium(listed, theta, tol=1e-10).x)
    found = ix.solve_equilibrium(walked, theta)
    np.testing.assert_allclose(found.x, flows, rtol=1e-6)
    # What drivers expect is the log of the sum over paths.
    costs = walked.link_times(flows) + walked.acts.tolls(theta)
    along = listed.costs.incidence.along_paths(costs)
    first = along[: paths.sizes[0]]
    np.testing.assert_allclose(
        walked.expected_costs(costs)[0], -0.5 * jax.nn.logsumexp(-first / 0.5), rtol=1e-9
    )


def test_walks_in_circles_count():
    """Two crossings, out and back, and the way to town: W = c - eta log(1 / (1 - e^(-2/eta)))."""
    network = ix.traffic.Network(
        [0, 1, 0], [1, 0, 2], [1.0] * 3, [1.0, 1, 3], [0.0] * 3, [1.0] * 3, 3
    )
    demand = ix.traffic.Demand([[0, 2]], [1.0])
    game = ix.traffic.MarkovianGame(network, demand, eta=1.0)
    circles = np.exp(-2.0)
    costs = jnp.array([1.0, 1, 3])
    np.testing.assert_allclose(game.expected_costs(costs), [3 + np.log(1 - circles)])
    flows = ix.solve_equilibrium(game, jnp.zeros(3)).x
    np.testing.assert_allclose(flows, [circles / (1 - circles)] * 2 + [1.0], rtol=1e-9)


def test_no_walk_passes_a_zone():
    """With 0 to 1 zones alone, 1 is no way from 0 to 3."""
    network, demand = (
        _one_way(first_through_node=2),
        ix.traffic.Demand([[0, 3], [0, 1]], [6.0, 1.0]),
    )
    game = ix.traffic.MarkovianGame(network, demand, eta=1.0)
    flows = ix.solve_equilibrium(game, jnp.zeros(5)).x
    np.testing.assert_allclose(flows, [1, 6, 0, 0, 6], atol=1e-9)


@pytest.mark.slow
def test_sioux_falls_tolls_and_their_derivative():
    network, demand = ix.traffic.sioux_falls()
    game = ix.traffic.MarkovianGame(
        network, demand, eta=1.0, tolled_links=ix.traffic.TOLLED_LINKS[:3]
    )
    problem = ix.DesignProblem(game, game.total_travel_time, ix.Box(jnp.zeros(3), 10.0))
    theta = jnp.array([1.0, 0.5, 2.0])
    x = ix.solve_equilibrium(game, theta).x
    gradient = ix.hypergradient(problem, theta, x)
    assert gradient.residual < 1e-8

    def total(theta):
        return game.total_travel_time(theta, ix.solve_equilibrium(game, theta).x)

    through = jax.grad(total)(theta)
    for k in range(3):
        step = 1e-3 * jnp.eye(3)[k]
        difference = (total(theta + step) - total(theta - step)) / 2e-3
        np.testing.assert_allclose(gradient.value[k], difference, rtol=1e-6)
        np.testing.assert_allclose(through[k], difference, rtol=1e-6)
    solution = ix.design(problem, jnp.zeros(3), starts=1)
    assert solution.result == ix.RESULTS.successful
    assert solution.objective < total(jnp.zeros(3))


def test_refusals():
    network, demand = ix.traffic.sioux_falls()
    for eta in (100.0, 1e-3):
        with pytest.raises(ValueError, match=r"finite expected(.|\n)*got"):
            ix.traffic.MarkovianGame(network, demand, eta=eta)
    with pytest.raises(ValueError, match="eta > 0"):
        ix.traffic.MarkovianGame(network, demand, eta=0.0)
    game = ix.traffic.MarkovianGame(network, demand, eta=1.0, tolled_links=[0])
    with pytest.raises(ValueError, match=r"MarkovianGame(.|\n)*tolled link \(1\)(.|\n)*\(2,\)"):
        game.operator(jnp.zeros(2), jnp.ones(76))


def test_walks_without_end_are_no_answer():
    """A circle that pays, and one that another destination hides at free-flow times."""
    network = ix.traffic.Network(
        [0, 1, 1], [1, 0, 2], [1.0] * 3, [1.0] * 3, [0.0] * 3, [1.0] * 3, 3
    )
    game = ix.traffic.MarkovianGame(network, ix.traffic.Demand([[0, 2]], [1.0]), eta=1.0)
    paid = jnp.array([-1.1, -1.1, 0.0])
    assert ix.solve_equilibrium(game, paid, throw=False).result != ix.RESULTS.successful
    assert jnp.isnan(game.expected_costs(1 + paid)).all()
    hidden = ix.traffic.Network(
        [0, 0, 1, 0, 1], [1, 1, 0, 2, 2], [1.0] * 5, [0.1, 0.1, 0.1, 5, 5], [0.0] * 5, [1.0] * 5, 3
    )
    demand = ix.traffic.Demand([[0, 1], [1, 0], [0, 2]], [1000.0, 1000.0, 1.0])
    with pytest.raises(ValueError, match="finite expected"):
        ix.traffic.MarkovianGame(hidden, demand, eta=1.0)
    for pair, words in (([[2, 0]], "got none from node 3 to node 1"), ([[1, 1]], "within node 2")):
        with pytest.raises(ValueError, match=words):
            ix.traffic.MarkovianGame(network, ix.traffic.Demand(pair, [1.0]), eta=1.0)
