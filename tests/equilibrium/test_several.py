"""Games with several equilibria: all of them, their basins, and what selects among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def _mixed(costs):
    """The game of `problems.coordination` with other costs, so that programs are shared."""
    game = ix.problems.coordination().problem.game
    first, second = (jnp.asarray(part) for part in costs)
    operator = type(game._operator)(first, second)
    return ix.Game(operator, game.strategy_set)


@pytest.mark.slow
def test_coordination_and_chicken_have_three_equilibria_each():
    meet = ix.problems.coordination().problem.game
    found = ix.equilibria(meet, jnp.zeros(1))
    np.testing.assert_allclose(found.x[0], [1, 0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(found.x[1], [0, 1, 0, 1], atol=1e-9)
    np.testing.assert_allclose(found.x[2], [1 / 3, 2 / 3, 1 / 3, 2 / 3], atol=1e-9)
    assert found.stable.tolist() == [True, True, False]
    assert found.isolated.all()
    assert (found.residual < 1e-10).all()
    assert float(found.share[:2].sum()) == pytest.approx(1.0)
    # The basin of the better place: more than half, since the mixed equilibrium leans to it.
    assert 0.6 < found.share[0] < 1
    again = ix.equilibria(meet, jnp.ones(1))
    np.testing.assert_allclose(again.x[2], [2 / 3, 1 / 3, 2 / 3, 1 / 3], atol=1e-9)
    assert len(ix.equilibria(meet, jnp.full(1, 3.0)).x) == 1
    certificate = ix.certify(ix.problems.coordination().problem, jnp.zeros(1))
    assert certificate.others == 2
    assert "2 other equilibria were found" in certificate.verdict

    found = ix.equilibria(ix.problems.chicken().problem.game, jnp.zeros(1))
    assert found.stable.tolist() == [True, True, False]
    np.testing.assert_allclose(found.x[2], [0.1, 0.9, 0.1, 0.9], atol=1e-9)
    assert {tuple(np.round(x).astype(int).tolist()) for x in found.x[:2]} == {
        (1, 0, 0, 1),
        (0, 1, 1, 0),
    }
    np.testing.assert_allclose(found.share[:2], 0.5, atol=0.2)


def test_matching_pennies_cycle_and_say_so():
    pennies = _mixed(([[1.0, -1.0], [-1.0, 1.0]], [[-1.0, 1.0], [1.0, -1.0]]))
    found = ix.equilibria(pennies, jnp.zeros(1))
    np.testing.assert_allclose(found.x, jnp.full((1, 4), 0.5), atol=1e-9)
    assert not found.stable[0]
    assert found.unsettled == 1
    assert "extragradient" in str(found).lower()
    settled = ix.equilibria(pennies, jnp.zeros(1), method=ix.Extragradient())
    assert settled.unsettled < 0.1
    assert settled.stable[0]


def test_a_continuum_of_path_flows_is_one_answer_and_entropy_selects():
    instance = ix.problems.three_routes()
    game = instance.problem.game
    found = ix.equilibria(game, jnp.zeros(1))
    assert found.isolated.tolist() == [False]
    assert found.share[0] == 1
    np.testing.assert_allclose(found.x[0, 2], 1 / 3, atol=1e-9)
    toll, largest_entropy = jnp.array([0.5]), jnp.array([0.25, 0.25, 0.5])
    path = ix.quantal_path(game, toll, jnp.geomspace(1.0, 1e-4, 9))
    np.testing.assert_allclose(path.x[-1], largest_entropy, atol=1e-3)
    assert (jnp.diff(path.limit_residual) < 0).all()
    assert (path.residual < 1e-8).all()
    floored = ix.quantal_path(game, toll, jnp.geomspace(1.0, 1e-4, 9), epsilon=1e-3)
    np.testing.assert_allclose(floored.x[-1], largest_entropy, atol=1e-3)


@pytest.mark.slow
def test_an_unstable_equilibrium_on_a_single_bound_is_told_from_a_stable_one():
    game = ix.Game(lambda theta, x: x**3 - x, ix.Box(jnp.zeros(1), jnp.inf))
    for seed in range(8):
        found = ix.equilibria(game, None, starts=8, key=jax.random.key(seed), width=1.0)
        np.testing.assert_allclose(found.x[:, 0], [1, 0], atol=1e-9)
        assert found.stable.tolist() == [True, False]


def test_a_game_without_equilibrium_is_told():
    game = ix.Game(lambda theta, x: -jnp.ones(2), ix.NonNegative())
    with pytest.raises(ValueError, match=r"none from 4 starts(.|\n)*fall without end"):
        ix.equilibria(game, None, starts=4)


def test_refusals():
    routes = ix.problems.three_routes().problem.game
    with pytest.raises(ValueError, match="etas > 0"):
        ix.quantal_path(routes, jnp.zeros(1), jnp.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="Simplex"):
        ix.quantal_path(ix.Game(lambda t, x: x, ix.NonNegative()), None, jnp.ones(1))
    with pytest.raises(ValueError, match="starts >= 1"):
        ix.equilibria(routes, jnp.zeros(1), starts=0)


def test_basins_say_whose_they_are_and_how_sure():
    """`x^2 (1 - x)`: 0 draws from above and repels below, 1 repels on both sides."""
    game = ix.Game(lambda t, x: x**2 * (1 - x), ix.Box(-jnp.full(1, 2.0), 2.0))
    found = ix.equilibria(game, None)
    stable = {round(float(x[0])): bool(s) for x, s in zip(found.x, found.stable)}
    assert stable == {-2: True, 0: False, 1: False, 2: True}
    for share, error in zip(found.share, found.share_error):
        likely = (64 * float(share) + 1) / 66
        assert error == pytest.approx(np.sqrt(likely * (1 - likely) / 66))
    assert "play by MirrorDescent, step 0.0" in str(found)
    arriving = ix.equilibria(game, None, starts=4, method=ix.Extragradient(0.5))
    assert "play by Extragradient, step 0.5" in str(arriving)
