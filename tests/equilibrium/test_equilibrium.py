import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix

from ..cases import BANK


@pytest.mark.parametrize("name", BANK)
def test_bank_is_solved_and_matches_its_closed_form(name):
    case = BANK[name]()
    found = ix.solve_equilibrium(case.problem.game, case.theta, case.x0)
    assert found.result == ix.RESULTS.successful
    assert found.residual <= 1e-8
    again = ix.natural_residual(case.problem.game, case.theta, found.x)
    assert again == pytest.approx(float(found.residual), abs=1e-12)
    if case.equilibrium is not None:
        np.testing.assert_allclose(found.x, case.equilibrium(case.theta), atol=1e-7)


def test_named_methods_reach_the_same_equilibrium():
    case = BANK["planted_simplex"]()
    for method in (ix.MirrorDescent(0.1), ix.ProjectedGradient(0.1), ix.Extragradient(0.5)):
        found = ix.solve_equilibrium(case.problem.game, case.theta, method=method)
        np.testing.assert_allclose(found.x, case.equilibrium(case.theta), atol=1e-6)


def test_mahalanobis_play_solves_an_ill_conditioned_game_fast():
    curvature = jnp.diag(jnp.array([1.0, 1000.0]))
    game = ix.Game(lambda theta, x: curvature @ x - theta, ix.Reals((2,)))
    theta = jnp.array([1.0, 1000.0])
    fast = ix.solve_equilibrium(
        game, theta, method=ix.MirrorDescent(0.5, ix.Mahalanobis(curvature))
    )
    np.testing.assert_allclose(fast.x, [1.0, 1.0], atol=1e-8)
    assert fast.steps < 50


def test_plain_play_cycles_on_matching_pennies_and_extragradient_does_not():
    payoff = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    game = ix.Game(
        lambda theta, x: jnp.concatenate([payoff @ x[2:], -payoff.T @ x[:2]]), ix.Simplex([2, 2])
    )
    start = jnp.array([0.9, 0.1, 0.3, 0.7])
    cycling = ix.solve_equilibrium(
        game, None, start, method=ix.MirrorDescent(0.1), max_steps=2000, throw=False
    )
    assert cycling.result == ix.RESULTS.cycling
    assert cycling.residual > 0.1
    with pytest.raises(RuntimeError, match=r"It cycles(.|\n)*Extragradient"):
        ix.solve_equilibrium(game, None, start, method=ix.MirrorDescent(0.1), max_steps=2000)
    found = ix.solve_equilibrium(game, None, start)
    np.testing.assert_allclose(found.x, 0.5, atol=1e-7)


def test_one_status_a_lane():
    game = ix.Game(lambda theta, x: x - theta, ix.Reals((1,)))
    thetas = jnp.array([[1.0], [1e6]])

    def solve(theta):
        method = ix.ProjectedGradient(0.5)
        return ix.solve_equilibrium(game, theta, method=method, max_steps=40, throw=False)

    lanes = jax.vmap(solve)(thetas)
    np.testing.assert_array_equal(lanes.result == ix.RESULTS.successful, [True, False])


def test_failures_are_told():
    game = ix.Game(lambda theta, x: -3 * x + theta, ix.Reals((1,)))
    theta = jnp.ones(1)
    with pytest.raises(RuntimeError, match="max_steps"):
        ix.solve_equilibrium(game, theta, method=ix.Extragradient(), max_steps=3)
    diverged = ix.solve_equilibrium(
        game, theta, method=ix.ProjectedGradient(1e3), max_steps=1000, throw=False
    )
    assert diverged.result == ix.RESULTS.nonfinite_play
    assert jnp.isfinite(diverged.x).all()
    late = ix.Game(
        lambda theta, x: jnp.where(x[0] < 0.3, jnp.nan, 1.0) * jnp.array([2.0, 1.0, 1.0]),
        ix.Simplex(3),
    )
    assert ix.solve_equilibrium(late, None, throw=False).result == ix.RESULTS.nonfinite_play
    with pytest.raises(ValueError, match=r"theta(.|\n)*finite(.|\n)*nan"):
        ix.solve_equilibrium(game, jnp.array([jnp.nan]))
    nan = ix.Game(lambda theta, x: x * jnp.nan, ix.Reals((1,)))
    assert ix.solve_equilibrium(nan, None, throw=False).result == ix.RESULTS.nonfinite_start
    told = jax.jit(lambda t: ix.solve_equilibrium(nan, t))(theta)
    assert told.result == ix.RESULTS.nonfinite_start
    assert jnp.isnan(told.x).all()

    @jax.jit
    def raising(theta):
        with ix.compiled_errors():
            return ix.solve_equilibrium(nan, theta).x

    with pytest.raises(RuntimeError, match="not finite at the start"):
        raising(theta)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: ix.solve_equilibrium(g, jnp.ones(2), tol=0.0), "finite tol > 0"),
        (lambda g: ix.solve_equilibrium(g, jnp.ones(2), max_steps=0), "max_steps >= 1, got 0"),
        (lambda g: ix.solve_equilibrium(g, jnp.ones(2), jnp.ones(3)), r"x0=(.|\n)*\(2,\)"),
        (lambda g: ix.solve_equilibrium(g, jnp.ones(2), jnp.array([jnp.nan, 0.0])), "nan"),
        (
            lambda g: ix.solve_equilibrium(
                g, jnp.ones(2), method=ix.MirrorDescent(0.1, feedback=lambda k, f: f)
            ),
            "exact feedback",
        ),
        (lambda g: ix.MirrorDescent(-0.1), r"step_size >= 0, got -0\.1"),
        (lambda g: ix.MirrorDescent(0.1, mixing=1.5), r"mixing(.|\n)*\[0, 1\], got 1\.5"),
        (lambda g: ix.Extragradient(0.0), r"step_size > 0"),
    ],
)
def test_refusals(call, words):
    game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.zeros(2), 1.0))
    with pytest.raises(ValueError, match=words):
        call(game)


def test_shape_of_strategy_is_asked_of_the_operator():
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative())
    assert ix.solve_equilibrium(game, jnp.array([1.0, -1.0, 2.0])).x.shape == (3,)
    unknown = ix.Game(lambda theta, x: x, ix.NonNegative())
    assert ix.solve_equilibrium(unknown, None).x.shape == ()
    atomic = ix.AtomicGame(lambda theta, x: x**2, ix.NonNegative())
    with pytest.raises(ValueError, match=r"x0=(.|\n)*got None"):
        ix.solve_equilibrium(atomic, None)


@pytest.mark.parametrize("name", BANK)
def test_single_precision_is_solved_to_its_rounding(name):
    with jax.enable_x64(False):
        case = BANK[name]()
        found = ix.solve_equilibrium(case.problem.game, case.theta, case.x0)
        assert found.x.dtype == jnp.float32
        assert found.result == ix.RESULTS.successful
    exact = BANK[name]()
    expected = ix.solve_equilibrium(exact.problem.game, exact.theta, exact.x0).x
    # float32, and shares of trips that differ by a factor of 600
    np.testing.assert_allclose(found.x, expected, atol=2e-3 if name == "routing" else 1e-3)


def test_small_units_do_not_pass_for_an_equilibrium():
    game = ix.Game(lambda theta, x: 1e-12 * (x - theta), ix.Box(0.0, jnp.array([1.0])))
    found = ix.solve_equilibrium(game, jnp.array([0.9]))
    np.testing.assert_allclose(found.x, [0.9], rtol=1e-6)


def test_the_bound_on_steps_holds_for_the_default_too():
    game = ix.Game(lambda theta, x: x**3 + x - theta, ix.Reals((2,)))
    found = ix.solve_equilibrium(game, jnp.array([3.0, 500.0]), max_steps=1, throw=False)
    assert found.result == ix.RESULTS.max_steps_reached
    assert found.steps <= 2  # one linear system and one step of play
    assert found.residual <= 500  # the best point so far


def test_an_empty_set_is_told_as_one():
    def strategies(level):
        return ix.Polyhedron(inequality=(jnp.ones((1, 2)), level[None]), lower=0.0)

    game = ix.Game(lambda theta, x: x - 1.0, strategies)
    found = jax.jit(lambda t: ix.solve_equilibrium(game, t, throw=False))(jnp.array(-1.0))
    assert found.result == ix.RESULTS.empty_set
    with pytest.raises(RuntimeError, match="The strategy set has no points"):
        ix.solve_equilibrium(game, jnp.array(-1.0))
    with pytest.raises(ValueError, match="empty set"):
        strategies(jnp.array(-1.0))


def test_equilibrium_between_equalities_alone():
    """A steep operator on a plane: no complementary pair to steer by."""
    plane = ix.Polyhedron(equality=(jnp.ones((1, 3)), jnp.ones(1)))
    game = ix.Game(lambda theta, x: jnp.tanh(5 * (x - theta)) + 1e-3 * x, plane)
    found = ix.solve_equilibrium(game, jnp.array([3.0, -2.0, 0.5]))
    assert found.residual < 1e-8
    assert float(found.x.sum()) == pytest.approx(1.0)


def test_lanes_of_large_systems_do_not_wait_for_one_another():
    """Batched factorisations of jaxlib may stop for good: in a process that can be ended."""
    program = """if True:
        import jax, jax.numpy as jnp
        jax.config.update("jax_enable_x64", True)
        import incentax as ix
        n = 120
        matrix = jnp.eye(n) + jnp.tri(n) / n
        game = ix.Game(lambda theta, x: matrix @ x - theta, ix.Box(jnp.zeros(n), 1.0))
        solve = jax.jit(jax.vmap(lambda theta: ix.solve_equilibrium(game, theta, throw=False).x))
        lanes = jnp.linspace(-1.0, 2.0, 6)[:, None] * jnp.linspace(0.5, 1.0, n)
        for k in range(10):
            jax.block_until_ready(solve(lanes + 0.01 * k))
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=200)
