"""Lipschitz constants of an operator, in the norms of a mirror map."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree
from scipy.sparse.linalg import LinearOperator, svds

from .._compile import compiled
from ..games import AbstractGame
from ..geometry import relative_entropy
from ..sets import Simplex
from ._estimate import Estimate, exact, largest
from ._sampled import Agents, Sampled


def operator_lipschitz(
    game: AbstractGame, seen: Sampled, agents: Agents, entropic: bool, mixing: float
) -> Estimate:
    """`H_u`: the largest `||F^i(x) - F^i(y)||_* / sqrt(D(x, y))` over agents and strategies.

    In the Euclidean geometry `sqrt(2) max_i ||∂F^i||`. In the entropic one, by Pinsker's
    inequality, which is attained, `sqrt(sum over blocks of total * range^2 / 2)` of the worst row
    of `∂F`; an entropy adds at most `eta sqrt(2 / m)` where no strategy is below `m`.
    """
    if not entropic:
        matrices = seen.jacobians() if seen.by_x is not None else None
        if matrices is None:
            return Estimate(_ratios(game, seen, 0.0, False), math.inf)
        # Along the motions that equalities allow.
        matrices = matrices @ seen.tangent
        blocks = [matrices[:, agents.owner == i] for i in range(agents.number)]
        norms = [np.linalg.norm(block, 2, axis=(1, 2)).max() for block in blocks]
        return largest(math.sqrt(2) * np.asarray(norms), seen.affine_in_x and not seen.eta.any())
    strategies = game.strategies(seen.incentive(0))
    assert isinstance(strategies, Simplex)
    least = mixing * np.asarray(strategies.centre(), float)
    if mixing == 0 and ((seen.eta > 0) & (seen.epsilon == 0)).any():
        return exact(math.inf)
    # Of one strategy: (log x - log y)^2 <= (2 / m) D(x, y).
    floor = np.maximum(np.maximum(least, seen.epsilon), 1e-300)
    added = float((seen.eta * np.sqrt(2 / floor)).max()) if seen.eta.any() else 0.0
    if seen.by_x is None:
        return Estimate(_ratios(game, seen, mixing, True), math.inf)
    ids, number = np.asarray(strategies.blocks.ids), strategies.blocks.count
    totals = np.asarray(strategies.total, float)
    worst = []
    for matrix in seen.by_x[:1] if seen.affine_in_x else seen.by_x:
        spans = [matrix[:, ids == block] for block in range(number)]
        ranges = np.stack([span.max(axis=1) - span.min(axis=1) for span in spans], axis=1)
        worst.append(np.sqrt((totals * ranges**2).sum(axis=1) / 2).max())
    base = float(max(worst))
    if not seen.eta.any():
        if mixing > 0:
            most = base if seen.affine_in_x else math.inf
            return Estimate(_ratios(game, seen, mixing, True), most)
        # At a strategy on two entries alone the bound is attained; elsewhere it is not.
        return (
            exact(base) if seen.affine_in_x else Estimate(_ratios(game, seen, 0.0, True), math.inf)
        )
    low = _ratios(game, seen, mixing, True)
    return Estimate(low, base + added if seen.affine_in_x else math.inf)


def _ratios(game: AbstractGame, seen: Sampled, mixing: float, entropic: bool) -> float:
    xs = jnp.asarray(seen.x)
    return float(_largest_ratio(game, seen.theta, xs, jnp.asarray(mixing, xs.dtype), entropic))


@compiled
def _largest_ratio(
    game: AbstractGame, thetas: PyTree, xs: Array, mixing: Array, entropic: bool
) -> Array:
    """Over consecutive samples and points between them, entry by entry of the operator."""
    nearer = xs + 0.01 * (jnp.roll(xs, 1, axis=0) - xs)

    def one(lane):
        theta, a, b, c = lane
        strategies = game.strategies(theta)

        def kept(x: Array) -> Array:
            if isinstance(strategies, Simplex):
                return (1 - mixing) * x + mixing * strategies.centre().astype(x.dtype)
            return x

        def ratio(a: Array, b: Array) -> Array:
            differ = game.operator(theta, a) - game.operator(theta, b)
            divergence = relative_entropy(a, b) if entropic else jnp.sum((a - b) ** 2) / 2
            return jnp.max(jnp.abs(differ)) / jnp.sqrt(divergence)

        a, b, c = kept(a), kept(b), kept(c)
        both = jnp.stack([ratio(a, b), ratio(a, c)])
        return jnp.max(jnp.where(jnp.isfinite(both), both, 0))

    return jnp.max(jax.lax.map(one, (thetas, xs, jnp.roll(xs, 1, axis=0), nearer)))


def spectral_norm(game: AbstractGame, theta: PyTree, x: np.ndarray) -> float:
    """`||∂F/∂theta||`, by Lanczos' method on products with it and its transpose."""
    flat, _ = ravel_pytree(theta)
    point = jnp.asarray(x)
    if min(flat.size, x.size) < 2:
        unit = jnp.ones(flat.size, flat.dtype)
        if flat.size == 1:
            return float(jnp.linalg.norm(_push(game, theta, point, unit)))
        return float(jnp.linalg.norm(_pull(game, theta, point, jnp.ones(1, point.dtype))))
    operator = linear_operator(
        (x.size, flat.size),
        lambda v: np.asarray(_push(game, theta, point, jnp.asarray(v.ravel()))),
        lambda v: np.asarray(_pull(game, theta, point, jnp.asarray(v.ravel()))),
    )
    begin = np.random.default_rng(0).normal(size=min(operator.shape))
    return float(np.asarray(svds(operator, k=1, v0=begin, return_singular_vectors=False))[0])


def linear_operator(
    shape: tuple[int, int],
    product: Callable[[np.ndarray], np.ndarray],
    transposed: Callable[[np.ndarray], np.ndarray],
) -> Any:
    """A matrix that is known by its products, for scipy."""
    make: Any = LinearOperator  # its stub knows none of these arguments
    return make(shape, matvec=product, rmatvec=transposed, dtype=float)


@compiled
def _push(game: AbstractGame, theta: PyTree, x: Array, v: Array) -> Array:
    flat, unravel = ravel_pytree(theta)
    return jax.jvp(lambda t: game.operator(unravel(t), x), (flat,), (v,))[1].ravel()


@compiled
def _pull(game: AbstractGame, theta: PyTree, x: Array, v: Array) -> Array:
    flat, unravel = ravel_pytree(theta)
    return jax.vjp(lambda t: game.operator(unravel(t), x), flat)[1](v.reshape(x.shape))[0]
