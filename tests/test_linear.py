"""Dense systems: near singular ones are solved as well as rounding allows."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incentax._linear import inverse, solve


def rotated(values, seed):
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    return jnp.asarray(rotation @ np.diag(values) @ rotation.T), jnp.asarray(random.normal(size=3))


@pytest.mark.parametrize("weak", [1e-7, 5e-8, 1e-9])
def test_a_nearly_singular_system_leaves_rounding_alone(weak):
    matrices, sides = (
        jnp.stack(parts) for parts in zip(*(rotated([1.0, 0.5, weak], seed) for seed in range(64)))
    )
    found = jax.jit(jax.vmap(solve))(matrices, sides)
    left = jnp.linalg.norm(jnp.einsum("kij,kj->ki", matrices, found) - sides, axis=1)
    size = jnp.linalg.norm(found, axis=1)
    assert (left <= 10 * np.finfo(float).eps * size).all()


def test_of_several_solutions_it_is_the_least():
    found = solve(jnp.ones((2, 2)), jnp.ones(2))
    np.testing.assert_allclose(found, [0.5, 0.5], atol=1e-12)


def test_the_inverse_and_its_derivatives():
    matrix, turn = rotated([3.0, 2.0, 1.0], 0)[0], rotated([1.0, 2.0, -1.0], 1)[0]
    for found, expected in zip(
        jax.jvp(lambda s: jnp.sin(inverse(matrix + s * turn)), (0.1,), (1.0,)),
        jax.jvp(lambda s: jnp.sin(jnp.linalg.inv(matrix + s * turn)), (0.1,), (1.0,)),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    curves = [
        jax.hessian(lambda s, inv=inv: jnp.sum(inv(matrix + s * turn) ** 3))(0.1)
        for inv in (inverse, jnp.linalg.inv)
    ]
    np.testing.assert_allclose(*curves, rtol=1e-10)


def test_the_inverses_of_a_batch_are_taken_in_turn():
    """Batches of them in two threads at once wait for one another, without an end."""

    matrices = jnp.eye(5)[None] + 0.01 * jax.random.normal(jax.random.key(0), (4, 5, 5))
    text = jax.jit(jax.vmap(inverse)).lower(matrices).compile().as_text()
    assert len(re.findall(r"f64\[5,5\].* custom-call\(.*getrf", text)) == 1
    assert not re.findall(r"f64\[4,.* custom-call\(", text)
    found = jax.jit(jax.vmap(inverse))(matrices)
    np.testing.assert_allclose(found @ matrices, jnp.tile(jnp.eye(5), (4, 1, 1)), atol=1e-9)
