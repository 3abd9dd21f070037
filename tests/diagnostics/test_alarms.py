"""No alarm over an answer that is right, and no silence over one that is not."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def follower(strategies, objective):
    game = ix.Game(lambda t, x: x - t, strategies)
    return ix.DesignProblem(game, objective, ix.Reals())


def test_differences_at_an_exact_optimum_are_no_disagreement():
    problem = follower(ix.Reals(), lambda t, x: jnp.sum((x - 3) ** 2))
    certificate = ix.certify(problem, jnp.array([3.0]))
    assert certificate.derivative_error < 1e-8
    assert certificate.verdict == (
        "The equilibrium is exact. The design is stationary: the gradient vanishes "
        f"({certificate.stationarity:.1e})."
    )


@pytest.mark.parametrize(
    ("theta", "answer"), [(0.0, "no"), pytest.param(0.5, "yes", marks=pytest.mark.slow)]
)
def test_kinks_make_no_disagreement(theta, answer):
    problem = follower(ix.NonNegative(), lambda t, x: jnp.sum((t - 1) ** 2 + x**2))
    certificate = ix.certify(problem, jnp.array([theta]))
    assert certificate.b_stationary == answer
    assert "disagree" not in certificate.verdict


def test_a_wrong_derivative_still_disagrees():
    """An operator whose derivative JAX is told wrongly."""

    @jax.custom_jvp
    def twice(t):
        return 2 * t

    twice.defjvp(lambda at, along: (2 * at[0], 3 * along[0]))
    game = ix.Game(lambda t, x: x - twice(t), ix.Reals())
    problem = ix.DesignProblem(game, lambda t, x: jnp.sum((x - 1) ** 2), ix.Reals())
    certificate = ix.certify(problem, jnp.array([2.0]))
    assert certificate.derivative_error > 0.1
    assert "disagree" in certificate.verdict


@pytest.mark.slow
def test_unequal_trips_are_monotone_in_their_weights():
    network = ix.traffic.Network(
        tail=np.array([0, 0, 1, 1]),
        head=np.array([1, 1, 2, 2]),
        capacity=np.ones(4),
        free_flow_time=np.array([1.0, 2.0, 1.0, 1.5]),
        b=np.ones(4),
        power=np.ones(4),
        number_of_nodes=3,
    )
    demand = ix.traffic.Demand(pairs=np.array([[0, 1], [0, 2]]), trips=np.array([1.0, 30.0]))
    paths = ix.traffic.k_shortest_paths(network, demand, 4)
    game = ix.traffic.RoutingGame(network, demand, paths, tolled_links=[0])
    problem = ix.DesignProblem(game, game.total_travel_time, ix.Box(jnp.zeros(1), 50.0))
    certificate = ix.certify(problem, jnp.ones(1))
    assert certificate.monotone
    assert certificate.others == 0
    assert "not monotone" not in certificate.verdict


_HEALTHY = """
import jax, jax.numpy as jnp
import incentax as ix
game = ix.Game(lambda t, x: 2 * x - t, ix.Box(jnp.zeros(2), 1.0))
problem = ix.DesignProblem(game, lambda t, x: jnp.sum((x - 0.3) ** 2), ix.Box(-jnp.ones(2), 3.0))
solution = ix.design(problem, jnp.zeros(2))
print(solution.objective < 1e-12)
"""


def test_no_nan_arises_in_a_healthy_design():
    environment = {**os.environ, "JAX_DEBUG_NANS": "1", "JAX_ENABLE_X64": "1"}
    run = subprocess.run(
        [sys.executable, "-c", _HEALTHY],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "True", run.stderr[-2000:]


def test_infinite_times_are_refused():
    """They ended in "cannot convert float NaN to integer"."""
    with pytest.raises(ValueError, match=r"`Network\(free_flow_time=...\)` needs finite"):
        ix.traffic.Network(
            tail=np.array([0]),
            head=np.array([1]),
            capacity=np.ones(1),
            free_flow_time=np.array([np.inf]),
            b=np.ones(1),
            power=np.ones(1),
            number_of_nodes=2,
        )


@pytest.mark.parametrize("kind", ["polyhedron", "box"])
def test_an_empty_moving_set_has_one_status_compiled_or_not(kind):
    sets = {
        "polyhedron": lambda t: ix.Polyhedron(
            inequality=(jnp.ones((1, 2)), t[None]), lower=jnp.zeros(2)
        ),
        "box": lambda t: ix.Box(jnp.zeros(2), t * jnp.ones(2)),
    }
    game = ix.Game(lambda t, x: x - 1, sets[kind])

    def solve(t):
        return ix.solve_equilibrium(game, t, throw=False)

    for found in (solve(jnp.asarray(-1.0)), jax.jit(solve)(jnp.asarray(-1.0))):
        assert found.result == ix.RESULTS.empty_set
    assert solve(jnp.asarray(1.0)).result == ix.RESULTS.successful
    with pytest.raises(RuntimeError, match="The strategy set has no points"):
        ix.solve_equilibrium(game, jnp.asarray(-1.0))


def test_starts_outside_are_projected_with_one_warning():
    game = ix.Game(lambda t, x: x - t, ix.Box(jnp.zeros(1), 1.0))
    problem = ix.DesignProblem(
        game, lambda t, x: jnp.sum((x - 0.5) ** 2), ix.Box(jnp.zeros(1), 1.0)
    )
    with pytest.warns(UserWarning, match=r"`design\(theta0=...\)` lies outside") as told:
        solution = ix.design(problem, jnp.array([7.0]))
    assert len(told) == 1
    assert told[0].filename == __file__
    np.testing.assert_allclose(solution.theta, 0.5, atol=1e-6)
    with pytest.raises(ValueError, match=r"`design\(theta0=...\)` needs a finite start, got .*nan"):
        ix.design(problem, jnp.array([jnp.nan]))


def test_incentives_may_be_any_pytree_of_arrays():
    import equinox as eqx  # noqa: PLC0415
    import optax  # noqa: PLC0415

    module = eqx.nn.Linear(1, 2, key=jax.random.key(0))
    game = ix.Game(lambda t, x: x - t(jnp.ones(1)), ix.Reals((2,)))
    problem = ix.DesignProblem(game, lambda t, x: jnp.sum((x - 3) ** 2), ix.Reals())
    scheme = ix.DesignAndPlay(optax.sgd(0.1), play_step=0.5)
    solution = ix.design(problem, module, scheme, steps=400, record=400)
    np.testing.assert_allclose(solution.theta(jnp.ones(1)), 3, atol=1e-2)
    network = eqx.nn.MLP(1, 2, 4, 1, key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"eqx.partition"):
        ix.design(problem, network, scheme, steps=3)


def test_a_game_of_unknown_shape_says_what_to_pass():
    game = ix.AtomicGame(lambda t, x: x * (x.sum() - 16) + t * x, ix.NonNegative())
    problem = ix.DesignProblem(game, lambda t, x: (x.sum() - 3) ** 2, ix.Box(jnp.zeros(2), 10.0))
    with pytest.raises(ValueError, match=r"`ix.NonNegative\(\(n,\)\)`"):
        ix.design(problem, jnp.zeros(2))
    # A certificate takes the shape from the strategy.
    assert ix.certify(problem, jnp.zeros(2), jnp.full(2, 16 / 3)).equilibrium_error < 1e-6


def test_tables_of_answers():
    game = ix.Game(lambda t, x: x - t, ix.NonNegative())
    found = ix.solve_equilibrium(game, jnp.array([1.0, -1.0]))
    assert str(found).splitlines()[0].split() == ["strategy", "[1.", "0.]"]
    assert str(found).splitlines()[-1].split() == ["result", "successful"]
    # Of a continuum one row, with its extent: all shares of two equal roads.
    same = ix.Game(lambda t, x: jnp.ones(2), ix.Simplex(2))
    rows = ix.equilibria(same, None)
    assert len(rows.x) == 1
    assert rows.extent[0] > 0.5
    assert "extent" in str(rows)


def test_at_a_bound_a_flat_optimum_makes_no_disagreement():
    """The objective and its slope are zero at the bound, and it rises like a square beside it."""
    instance = ix.problems.coordination()
    certificate = ix.certify(instance.problem, jnp.zeros(1), jnp.array([0.0, 1.0, 0.0, 1.0]))
    assert float(certificate.derivative_error) < 1e-3
    assert "disagree" not in certificate.verdict


def test_at_a_bound_a_wrong_derivative_still_disagrees():
    game = ix.Game(lambda theta, x: x - theta, ix.Reals((1,)))

    def cost(theta, x):
        return jnp.sum(jax.lax.stop_gradient(x) ** 2) + 0.1 * jnp.sum(x)

    problem = ix.DesignProblem(game, cost, ix.Box(jnp.ones(1), 2.0))
    certificate = ix.certify(problem, jnp.ones(1))
    assert float(certificate.derivative_error) > 0.1
    assert "disagree" in certificate.verdict
