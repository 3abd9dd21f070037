"""Eigenvalues and weights of games too large for a matrix."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from scipy.sparse.linalg import eigsh

from .._compile import compiled
from ..games import AbstractGame
from ..sets import Simplex
from ._lipschitz import linear_operator
from ._sampled import Agents, Sampled
from ._weights import symmetriser


def potential_weights(
    game: AbstractGame, theta: PyTree, x: np.ndarray, agents: Agents
) -> np.ndarray:
    """Weights under which the Jacobian is symmetric, where there are such."""
    point = jnp.asarray(x)
    return symmetriser(
        lambda v: np.asarray(_product(game, theta, point, jnp.asarray(v))),
        lambda v: np.asarray(_transposed(game, theta, point, jnp.asarray(v))),
        agents.owner,
    )


@compiled
def _product(game: AbstractGame, theta: PyTree, x: Array, v: Array) -> Array:
    return jax.jvp(lambda x: game.operator(theta, x), (x,), (v.reshape(x.shape),))[1].ravel()


@compiled
def _transposed(game: AbstractGame, theta: PyTree, x: Array, v: Array) -> Array:
    return jax.vjp(lambda x: game.operator(theta, x), x)[1](v.reshape(x.shape))[0].ravel()


def lowest_slope(game: AbstractGame, seen: Sampled, weights: np.ndarray) -> float:
    """The least eigenvalue of `(Lambda ∂F + ∂F^T Lambda) / 2` of the game without its entropy."""
    if seen.by_x is not None:
        assert seen.tangent is not None
        matrices = seen.tangent.T @ (weights[:, None] * seen.by_x) @ seen.tangent
        values = np.linalg.eigvalsh((matrices + np.swapaxes(matrices, 1, 2)) / 2)[:, 0]
        size = np.abs(matrices).max()
    else:
        assert game.rational is not None
        base, few = game.rational.game, range(min(3, len(seen.x)))
        spectra = [_extremes(base, seen.incentive(k), seen.x[k], weights) for k in few]
        values = np.asarray([spectrum[0] for spectrum in spectra])
        size = max(spectrum[1] for spectrum in spectra)
    lowest = float(values.min())
    return 0.0 if -seen.zero * size <= lowest <= 0 else lowest


def _extremes(
    game: AbstractGame, theta: PyTree, x: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Least and largest eigenvalue, by Lanczos' method."""
    scale = jnp.asarray(weights.reshape(x.shape))

    def weighed(v: np.ndarray) -> np.ndarray:
        return np.asarray(_symmetric(game, theta, jnp.asarray(x), scale, jnp.asarray(v)))

    def largest_of(function: Callable[[np.ndarray], np.ndarray]) -> float:
        operator = linear_operator((x.size, x.size), function, function)
        begin = np.random.default_rng(0).normal(size=x.size)
        return float(eigsh(operator, 1, which="LA", v0=begin, tol=1e-9)[0][0])  # pyright: ignore[reportArgumentType]

    if not weighed(np.random.default_rng(0).normal(size=x.size)).any():
        return 0.0, 0.0  # Lanczos' method cannot start
    high = largest_of(weighed)
    # The least by a shift: near 0 a relative tolerance would never be met.
    size = max(abs(high), 1e-300)
    return size - largest_of(lambda v: size * v - weighed(v)), high


@compiled
def _symmetric(game: AbstractGame, theta: PyTree, x: Array, scale: Array, v: Array) -> Array:
    """`(Lambda ∂F + ∂F^T Lambda) v / 2`, of motions that keep the totals of simplices."""
    strategies = game.strategies(theta)

    def within(w: Array) -> Array:
        if isinstance(strategies, Simplex):
            ones = strategies.blocks(jnp.ones_like(w))
            return w - strategies.blocks.transpose(strategies.blocks(w) / ones)
        return w

    def function(x: Array) -> Array:
        return game.operator(theta, x)

    v = within(v.reshape(x.shape))
    pushed = jax.jvp(function, (x,), (v,))[1]
    pulled = jax.vjp(function, x)[1](scale * v)[0]
    return within((scale * pushed + pulled) / 2).ravel()
