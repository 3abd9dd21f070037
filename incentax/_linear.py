"""Dense linear algebra whose lanes under `vmap` run one after another on CPU."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def one_after_another(function: Callable) -> Callable:
    """`function` of arrays; under `vmap` on CPU its lanes run in turn, elsewhere side by side.

    jaxlib's batched LAPACK kernels wait on the thread pool that they run on. Two at once on two
    cores, as the two branches of a `cond` under `vmap`, wait forever (jaxlib 0.10, from about 100
    unknowns). LAPACK threads within a lane anyway.
    """

    @jax.custom_batching.custom_vmap
    def wrapped(*args: Array) -> Any:
        return function(*args)

    @wrapped.def_vmap
    def rule(axis_size: int, in_batched: list[bool], *args: Array) -> Any:
        del axis_size

        def in_turn(*args: Array) -> Any:
            lanes = [arg for arg, batched in zip(args, in_batched) if batched]

            def one(lane: list[Array]) -> Any:
                rest = iter(lane)
                filled = (next(rest) if b else arg for arg, b in zip(args, in_batched))
                return wrapped(*filled)

            return jax.lax.map(one, lanes)

        side_by_side = jax.vmap(function, in_axes=[0 if b else None for b in in_batched])
        found = jax.lax.platform_dependent(*args, cpu=in_turn, default=side_by_side)
        return found, jax.tree.map(lambda _: True, found)

    return wrapped


def _solve_lane(matrix: Array, right_side: Array) -> Array:
    def left_by(found: Array) -> Array:
        return jnp.linalg.norm(matrix @ found - right_side)

    def least() -> Array:
        """The least of the solutions, or what comes nearest to one; in a system that is not
        singular but nearly so rounding may leave more of it."""
        found_by_svd = jnp.linalg.lstsq(matrix, right_side)[0]
        return jnp.where(left <= left_by(found_by_svd), found, found_by_svd)

    found = jnp.linalg.solve(matrix, right_side)
    left = left_by(found)
    good = left <= float(jnp.finfo(left.dtype).eps) ** 0.6 * jnp.linalg.norm(right_side)
    return jax.lax.cond(good, lambda: found, least)


_solve = one_after_another(_solve_lane)
_factor = one_after_another(jax.scipy.linalg.lu_factor)
_solve_factored = one_after_another(lambda lu, p, b: jax.scipy.linalg.lu_solve((lu, p), b))
_solve_transposed = one_after_another(
    lambda lu, p, b: jax.scipy.linalg.lu_solve((lu, p), b, trans=1)
)
_inverse = one_after_another(jnp.linalg.inv)
_eigh = one_after_another(lambda matrix: tuple(jnp.linalg.eigh(matrix)))


class Factors(eqx.Module):
    """LU factors of a square matrix."""

    _factors: tuple[Array, Array]

    def __init__(self, matrix: Float[Array, "n n"]):
        self._factors = _factor(matrix)

    def solve(self, right_side: Array) -> Array:
        """`A^-1 b`, for a vector or for columns."""
        return _solve_factored(*self._factors, right_side)

    def solve_transposed(self, right_side: Array) -> Array:
        """`A^-T b`, for a vector or for columns."""
        return _solve_transposed(*self._factors, right_side)


def solve(matrix: Float[Array, "n n"], right_side: Float[Array, " n"]) -> Float[Array, " n"]:
    """`A^-1 b`, or the least solution of a singular system; differentiable in every mode."""
    return jax.lax.custom_linear_solve(
        lambda x: matrix @ x,
        right_side,
        solve=lambda _, b: _solve(matrix, b),
        transpose_solve=lambda _, b: _solve(matrix.T, b),
    )


@jax.custom_jvp
def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a square matrix."""
    return _inverse(matrix)


@inverse.defjvp
def _inverse_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    found = inverse(*primals)
    return found, -found @ tangents[0] @ found


def eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Eigenvalues and eigenvectors of a symmetric matrix, which are not differentiated."""
    return _eigh(jax.lax.stop_gradient(matrix))
