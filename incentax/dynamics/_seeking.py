"""What is known of equilibrium seeking with partial information: bounds from constants."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from .._checks import require_count, require_key, require_positive
from ..games import AbstractGame
from ..graphs import Graph


class SeekingConstants(eqx.Module):
    """Constants of a game, and what they say of [`ConsensusSeeking`][].

    - `strong_monotonicity`: `mu` with `<F(a) - F(b), a - b> >= mu ||a - b||^2`.
    - `lipschitz`: `L` of `F`.
    - `extended_lipschitz`: `L~` of the map from everyone's estimates to everyone's own slope.
    - `affine`: whether `F` showed one Jacobian only: then the constants are exact, else `mu` is an
      upper and the others are lower bounds.
    """

    strong_monotonicity: Float[Array, ""]
    lipschitz: Float[Array, ""]
    extended_lipschitz: Float[Array, ""]
    affine: Array

    def contraction_factor(self, graph: Graph, step_size: ArrayLike) -> Float[Array, ""]:
        """`rho` with `||Y^t - 1⊗x*||^2 <= rho^t ||Y^0 - 1⊗x*||^2`: the larger eigenvalue of

            [[1 - 2 a mu / N + a^2 L^2 / N,  s], [s,  (1 + 2 a L~ + a^2 L~^2) sigma^2]] ,
            s = sigma (a (L + L~) + a^2 L L~) / sqrt(N) .

        Below 1 for small steps of a strongly monotone game; after Bianchi and Grammatico (2021).
        """
        mu, smooth = self.strong_monotonicity, self.lipschitz
        extended, players = self.extended_lipschitz, graph.players
        sigma = graph.second_singular_value.astype(mu.dtype)
        step = jnp.asarray(step_size, mu.dtype)
        first = 1 - 2 * step * mu / players + step**2 * smooth**2 / players
        last = (1 + 2 * step * extended + step**2 * extended**2) * sigma**2
        cross = sigma * (step * (smooth + extended) + step**2 * smooth * extended)
        cross = cross / jnp.sqrt(jnp.asarray(players, mu.dtype))
        return (first + last) / 2 + jnp.sqrt(((first - last) / 2) ** 2 + cross**2)

    def step_bound(self, graph: Graph) -> Float[Array, ""]:
        """A step size that is known to converge; far below what works in practice.

        `min(mu / L^2, (1 - sigma) / (2 sigma L), mu (1 - sigma) / (12 sigma^2 L^2))`.
        """
        mu, smooth = self.strong_monotonicity, self.lipschitz
        # On a complete graph one round settles all disagreement.
        sigma = jnp.maximum(graph.second_singular_value.astype(mu.dtype), jnp.finfo(mu.dtype).eps)
        bounds = (
            mu / smooth**2,
            (1 - sigma) / (2 * sigma * smooth),
            mu * (1 - sigma) / (12 * sigma**2 * smooth**2),
        )
        return jnp.min(jnp.stack(bounds))

    def inner_steps(
        self, graph: Graph, step_size: ArrayLike, start: ArrayLike, error: ArrayLike
    ) -> Int[Array, ""]:
        """`T = ceil(ln(R_0 / epsilon) / ln(1 / rho))`, from a squared error `start` to `error`.

        The largest whole number where the bound does not contract.
        """
        rho = self.contraction_factor(graph, step_size)
        start, error = jnp.asarray(start, rho.dtype), jnp.asarray(error, rho.dtype)
        steps = jnp.ceil(jnp.log(start / error) / jnp.log(1 / jnp.where(rho < 1, rho, 0.5)))
        most = jnp.iinfo(jnp.int32).max
        steps = jnp.where(rho < 1, jnp.clip(steps, 0, 2e9), 2e9).astype(jnp.int32)
        return jnp.where(rho < 1, steps, most)


def seeking_constants(
    game: AbstractGame,
    theta: PyTree,
    x: Array,
    *,
    width: ArrayLike = 1.0,
    samples: int = 16,
    key: PRNGKeyArray | None = None,
) -> SeekingConstants:
    """The constants of a game around `x`, from its Jacobian there and at sampled strategies.

    **Arguments:**

    - `game`, `theta`, `x`: one entry of `x` a player, or rows of it.
    - `width`: standard deviation of the samples around `x`, projected on the strategy set.
    - `samples`: their number; `key` draws them (a fixed one when left out).

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.AtomicGame(lambda theta, x: x * (x.sum() - 16), ix.Box(-10.0, 10.0))
        >>> constants = ix.seeking_constants(game, None, jnp.zeros(3))
        >>> print(constants.strong_monotonicity.round(3), constants.lipschitz.round(3))
        1.0 4.0
    """
    samples = require_count("seeking_constants", "samples", samples)
    width = require_positive("seeking_constants", "width", width).astype(x.dtype)
    key = jax.random.key(0) if key is None else key
    require_key("seeking_constants", key)
    draws = jax.random.normal(key, (samples, *x.shape), x.dtype)
    project = game.strategies(theta).project
    points = jnp.concatenate([x[None], jax.vmap(project)(x[None] + width * draws)])
    players = x.shape[0] if x.ndim else 1

    def at(point: Array) -> tuple[Array, Array, Array, Array]:
        matrix = jax.jacfwd(lambda x: game.operator(theta, x))(point).reshape(x.size, x.size)
        rows = matrix.reshape(players, -1, x.size)
        own = jax.lax.map(lambda block: jnp.linalg.norm(block, 2), rows)
        least = jnp.linalg.eigvalsh((matrix + matrix.T) / 2)[0]
        return least, jnp.linalg.norm(matrix, 2), jnp.max(own), matrix

    least, largest, extended, matrices = jax.lax.map(at, points)
    spread = jnp.max(jnp.abs(matrices - matrices[:1]))
    affine = spread <= 1e3 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(matrices))
    return SeekingConstants(jnp.min(least), jnp.max(largest), jnp.max(extended), affine)
