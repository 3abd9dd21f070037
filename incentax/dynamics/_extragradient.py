"""Extragradient steps of a length that finds itself."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from .._checks import require_positive
from .._tree import tree_where
from ..games import AbstractGame
from ..geometry import AbstractMirrorMap
from ._base import AbstractMirrorPlay, DynamicsState, require_mirror_map


class Extragradient(AbstractMirrorPlay):
    """A trial step along `F(x)`, then the step from `x` along `F` at the trial (mirror-prox).

        y  = argmin_p <F(x), p> + D(p, x) / beta ,     x+ = argmin_p <F(y), p> + D(p, x) / beta

    G. M. Korpelevich, *Ekonomika i Matematicheskie Metody* 12 (1976); A. Nemirovski, *SIAM
    Journal on Optimization* 15 (2004). Converges for monotone games on which plain play cycles.
    The step size needs no Lipschitz constant: a step is taken when `beta L <= 0.9` for the
    constant `L` seen between `x` and `y`, else tried again shorter; `beta` aims at `0.7 / L`.

    **Arguments:**

    - `step_size`: the first `beta` to try, positive.
    - `mirror_map`: as for [`MirrorDescent`][].

    !!! example

        Matching pennies, where projected gradient play spirals outwards:

        >>> import incentax as ix, jax.numpy as jnp
        >>> payoff = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
        >>> def operator(theta, x):
        ...     return jnp.concatenate([payoff @ x[2:], -payoff.T @ x[:2]])
        >>> game = ix.Game(operator, ix.Simplex([2, 2]))
        >>> start = jnp.array([0.9, 0.1, 0.3, 0.7])
        >>> ix.solve_equilibrium(game, None, start, tol=1e-4).x.round(3).tolist()
        [0.5, 0.5, 0.5, 0.5]
    """

    step_size: Array
    mirror_map: AbstractMirrorMap | None

    def __init__(self, step_size: ArrayLike = 1.0, mirror_map: AbstractMirrorMap | None = None):
        self.step_size = require_positive("Extragradient", "step_size", step_size)
        self.mirror_map = require_mirror_map("Extragradient", mirror_map)

    def init(self, game: AbstractGame, theta: PyTree, x: Array) -> DynamicsState:
        mirror_map = self.geometry(game, theta)
        point = mirror_map.state(x)
        operator_value = mirror_map.operator(game, theta, point)
        return DynamicsState(point, operator_value, self.step_size.astype(x.dtype))

    def step(
        self, game: AbstractGame, theta: PyTree, state: DynamicsState, count: Array
    ) -> DynamicsState:
        del count
        mirror_map, strategies = self.geometry(game, theta), game.strategies(theta)
        point, value, step_size = state.point, state.operator_value, state.step_size
        trial = mirror_map.step(strategies, point, value, step_size)
        trial_value = mirror_map.operator(game, theta, trial)
        lipschitz = mirror_map.local_lipschitz(strategies, (point, trial), (value, trial_value))
        # A trial so long that the operator overflowed says only that it was too long.
        overflowed = ~jnp.isfinite(lipschitz)
        lipschitz = jnp.where(overflowed, 10 / step_size, lipschitz)
        # ... unless it was not long at all: then the step is taken, and the loop sees what comes.
        hopeless = overflowed & (step_size < 1e-12)
        accepted = (step_size * lipschitz <= 0.9) | hopeless
        reached = mirror_map.step(strategies, point, trial_value, step_size)
        aim = jnp.where(lipschitz > 0, 0.7 / jnp.where(lipschitz > 0, lipschitz, 1), jnp.inf)
        taken = DynamicsState(
            reached, mirror_map.operator(game, theta, reached), jnp.minimum(2 * step_size, aim)
        )
        refused = DynamicsState(point, value, jnp.maximum(aim, step_size / 16))
        return tree_where(accepted, taken, refused)
