"""Random problems with planted optima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import incentax as ix
from incentax.problems._random_mpec import planted


@pytest.mark.parametrize(("p", "d", "both"), [(1, 4, 4), (3, 20, 6), (2, 9, 0)])
def test_what_is_planted_is_an_equilibrium_with_so_many_degenerate_pairs(p, d, both):
    cost, bowl = planted(p, d, both, seed=5)
    force = np.asarray(cost(bowl.theta, bowl.x))
    x = np.asarray(bowl.x)
    assert (x >= 0).all()
    assert (force >= -1e-12).all()
    np.testing.assert_allclose(x * force, 0, atol=1e-12)
    assert ((x == 0) & (abs(force) < 1e-12)).sum() == both
    assert bowl(bowl.theta, bowl.x) == 1
    # Monotone: its symmetric part is positive definite; and not symmetric.
    matrix = np.asarray(cost.matrix)
    assert np.linalg.eigvalsh(matrix + matrix.T).min() > 0
    assert abs(matrix - matrix.T).max() > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_the_slope_at_the_optimum_is_made_of_what_is_zero(seed):
    """`∇f = sum mu_i ∇x_i + sum nu_i ∇F_i` with `mu, nu >= 0`: the best of all `x, F >= 0`."""
    cost, bowl = planted(3, 8, 3, seed=seed)
    x, force = np.asarray(bowl.x), np.asarray(cost(bowl.theta, bowl.x))
    slope = np.concatenate(jax.grad(bowl.__call__, (0, 1))(bowl.theta, bowl.x))
    towards = np.hstack([np.zeros((8, 3)), np.eye(8)])[x == 0]
    forces = np.hstack([np.asarray(cost.influence), np.asarray(cost.matrix)])[abs(force) < 1e-12]
    _, left = scipy.optimize.nnls(np.concatenate([towards, forces]).T, slope)
    assert np.linalg.norm(slope) > 0.1
    assert left < 1e-9


@pytest.mark.slow
def test_the_bound_of_the_global_search_is_the_planted_value():
    instance = ix.problems.random_mpec(2, 12, degenerate=4, seed=8)
    found = ix.design_globally(instance.problem, instance.theta0, starts=4)
    assert found.proved
    assert found.bound == pytest.approx(1, abs=1e-6)
    assert found.solution.objective == pytest.approx(1, abs=1e-9)


def test_seeds_and_wrong_arguments():
    one, same, other = (
        ix.problems.random_mpec(2, 6, seed=seed).problem.game.operator(jnp.ones(2), jnp.ones(6))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert abs(one - other).max() > 0.1
    with pytest.raises(ValueError, match="strategies"):
        ix.problems.random_mpec(2, 0)
    with pytest.raises(ValueError, match="needs seed >= 0, got -1"):
        ix.problems.random_mpec(2, 6, seed=-1)
    with pytest.raises(TypeError, match=r"whole number, got 1\.5"):
        ix.problems.random_mpec(2, 6, degenerate=1.5)
    with pytest.raises(ValueError, match=r"`random_mpec\(degenerate=...\)` .* to 6.* got 7"):
        ix.problems.random_mpec(2, 6, degenerate=7)
