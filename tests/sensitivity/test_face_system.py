"""Solvers on faces: what their lanes do under `vmap`."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incentax.sensitivity._face_system import solve_explicitly, unless_solved


@pytest.mark.slow  # by the clock
def test_lanes_do_not_wait_for_a_solver_that_none_needs():
    """What depends on nothing in a loop is computed before it, unless something forbids that."""
    size, lanes = 1500, 3
    matrix = 2 * jnp.eye(size) + jnp.ones((size, size)) / size
    right_sides = jnp.asarray(np.random.default_rng(0).normal(size=(lanes, size)))
    known = jnp.linalg.solve(matrix, right_sides.T).T

    def seconds(function, *arguments):
        program = jax.jit(jax.vmap(function))
        jax.block_until_ready(program(*arguments))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            times.append(time.perf_counter() - start)
        return min(times)

    def system(w):
        return matrix @ w

    whole = seconds(lambda b: solve_explicitly(system, b), right_sides)
    none = seconds(lambda b, w: unless_solved(system, b, w, 1e-6), right_sides, known)
    assert none < 0.2 * whole
    wrong = known.at[1].set(0.0)
    found = jax.vmap(lambda b, w: unless_solved(system, b, w, 1e-6))(right_sides, wrong)
    np.testing.assert_allclose(found, known, atol=1e-9)
