"""Differentiation through the iterations of play."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from .._checks import require_count
from .._tree import tree_norm
from ..dynamics import AbstractDynamics, Extragradient
from ..games import AbstractGame
from ._base import AbstractSensitivity, Memory, Pullback

# Steps between two points that are stored; the others are run again on the way back.
_CHUNK = 50


class Unrolled(AbstractSensitivity):
    """Differentiation through `steps` steps of play that start at the equilibrium found.

    `dx*/dtheta ≈ sum_{j < steps} (∂h/∂x)^j ∂h/∂theta` for one step of play `h`; Li, Yu, Nie, Wang
    (2020). Memory is kept small by checkpoints: every 50th point is stored and the steps between
    are run again.

    **Arguments:**

    - `steps`: number of steps, at least 1; what they leave out shrinks as fast as play converges.
    - `method`: the dynamics; [`Extragradient`][] when left out.

    !!! example

        >>> import incentax as ix, jax, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: 2 * x - theta, ix.NonNegative())
        >>> method = ix.ProjectedGradient(0.4)
        >>> def answer(theta):
        ...     unrolled = ix.Unrolled(20, method)
        ...     return ix.solve_equilibrium(game, theta, sensitivity=unrolled).x.sum()
        >>> print(jax.grad(answer)(jnp.array([1.0, -1.0])).round(4))
        [0.5 0. ]
    """

    steps: int = eqx.field(static=True)
    method: AbstractDynamics

    def __init__(self, steps: int, method: AbstractDynamics | None = None):
        self.steps = require_count("Unrolled", "steps", steps)
        self.method = Extragradient() if method is None else method
        if not isinstance(self.method, AbstractDynamics):
            raise TypeError(f"`Unrolled(method=...)` needs dynamics, got {method!r}")

    def memory(self, game: AbstractGame, theta: PyTree, x: Array) -> Memory:
        del game, theta
        return Memory(jnp.zeros(0, x.dtype), None)

    def attach(self, game: AbstractGame, theta: PyTree, x: Array) -> Array:
        # The derivative of play; the value is the equilibrium that was found.
        played = self._play(game, theta, jax.lax.stop_gradient(x))
        return jax.lax.stop_gradient(x) + (played - jax.lax.stop_gradient(played))

    def pullback(
        self,
        game: AbstractGame,
        theta: PyTree,
        x: Array,
        cotangent: Array,
        *,
        step_size: Array | float = 1.0,
        memory: PyTree | None = None,
        refresh: Bool[Array, ""] | bool = True,
        operator_value: Array | None = None,
    ) -> Pullback:
        del refresh
        memory = self.memory(game, theta, x) if memory is None else memory
        _, pull = jax.vjp(lambda theta, x: self._play(game, theta, x), theta, x)
        theta_cotangent, left = pull(cotangent)
        value = game.operator(theta, x) if operator_value is None else operator_value
        face = game.strategies(theta).face(x, value, step_size)
        # What the series leaves out starts with the cotangent that came back to the start.
        size = tree_norm(cotangent)
        residual = tree_norm(left) / jnp.where(size > 0, size, 1)
        return Pullback(theta_cotangent, residual, face.degenerate, memory)

    def _play(self, game: AbstractGame, theta: PyTree, x: Array) -> Array:
        method = self.method
        state = method.init(game, theta, x)

        def step(state, count):
            return method.step(game, theta, state, count), None

        @jax.checkpoint  # pyright: ignore[reportPrivateImportUsage]
        def chunk(state, counts):
            return jax.lax.scan(step, state, counts)

        whole = self.steps // _CHUNK * _CHUNK
        counts = jnp.arange(self.steps, dtype=jnp.int32)
        state, _ = jax.lax.scan(chunk, state, counts[:whole].reshape(-1, _CHUNK))
        state, _ = chunk(state, counts[whole:])
        return method.strategy(game, theta, state)
