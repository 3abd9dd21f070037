"""Mirror descent play, and projected gradient play as its Euclidean case."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from .._checks import is_traced, require, require_positive
from .._tree import as_pytree_function
from ..games import AbstractGame
from ..geometry import AbstractMirrorMap, Euclidean
from ..schedules import power
from ._base import AbstractMirrorPlay, DynamicsState, require_mirror_map

Schedule = Callable[[ArrayLike], Array]


class MirrorDescent(AbstractMirrorPlay):
    """`x+ = argmin_{p in X} <F^, p> + D(p, x) / beta_k`, then mixed with the uniform strategy.

    Liu et al. (2022), (4.4) and (4.6): `F^` is the feedback at `x`, and the mixed strategy
    `(1 - nu_k) x+ + nu_k uniform` is where play goes on.

    **Arguments:**

    - `step_size`: `beta_k`, a number or a schedule `k -> value` (an array of the shape of `x`
      gives agents their own, `beta^i = lambda^i beta`).
    - `mirror_map`: geometry of the step; entropic on simplices and Euclidean elsewhere when left
      out.
    - `mixing`: `nu_k` in [0, 1], a number or a schedule; none when left out.
    - `feedback`: `(key, operator_value) -> estimate`; exact when left out.

    **Raises** `ValueError` for a negative step size, and for mixing outside [0, 1].

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Simplex(2))
        >>> method = ix.MirrorDescent(0.5)
        >>> print(ix.solve_equilibrium(game, jnp.array([0.8, 0.4]), method=method).x.round(4))
        [0.7 0.3]
    """

    step_size: Schedule
    mirror_map: AbstractMirrorMap | None
    mixing: Schedule | None
    feedback: Callable[[PRNGKeyArray, Array], Array] | None

    def __init__(
        self,
        step_size: ArrayLike | Schedule,
        mirror_map: AbstractMirrorMap | None = None,
        *,
        mixing: ArrayLike | Schedule | None = None,
        feedback: Callable[[PRNGKeyArray, Array], Array] | None = None,
    ):
        self.step_size = as_schedule("MirrorDescent", "step_size", step_size)
        self.mirror_map = require_mirror_map("MirrorDescent", mirror_map)
        self.mixing = None if mixing is None else as_schedule("MirrorDescent", "mixing", mixing)
        if not is_traced(self.step_size(0), self.mixing(0) if self.mixing else None):
            self._check_first_values(())
        self.feedback = None if feedback is None else as_pytree_function(feedback)

    def _check_first_values(self, tree):
        """`tree`, refused when a schedule's first value is out of range."""
        step_size = jnp.asarray(self.step_size(0))
        rule = "a play step (`play_step`, `step_size`) needs to be >= 0"
        tree = require(tree, step_size >= 0, rule, step_size)
        if self.mixing is not None:
            mixing = jnp.asarray(self.mixing(0))
            rule = "`mixing` needs to be in [0, 1]"
            tree = require(tree, (mixing >= 0) & (mixing <= 1), rule, mixing)
        return tree

    def start(self, game: AbstractGame, theta: PyTree, x: Array) -> PyTree:
        """The point at `x`; refuses schedules whose first value is out of range."""
        return self.geometry(game, theta).state(self._check_first_values(x))

    def move(
        self,
        game: AbstractGame,
        theta: PyTree,
        point: PyTree,
        operator_value: Array,
        count: Array,
        *,
        key: PRNGKeyArray | None = None,
    ) -> PyTree:
        """The point after one step on feedback about `operator_value`; consumes `key`."""
        mirror_map, dtype = self.geometry(game, theta), operator_value.dtype
        if self.feedback is not None:
            if key is None:
                raise ValueError(
                    "feedback with noise needs a key: pass `key=jax.random.key(...)` to "
                    "`design`; `solve_equilibrium` takes dynamics with exact feedback only"
                )
            estimate = self.feedback(key, operator_value)
            if jnp.shape(estimate) != operator_value.shape:
                raise ValueError(
                    "`feedback(key, operator_value)` needs to return the shape of the operator, "
                    f"{operator_value.shape}, got {jnp.shape(estimate)}"
                )
            operator_value = estimate
        strategies = game.strategies(theta)
        step_size = jnp.asarray(self.step_size(count)).astype(dtype)
        point = mirror_map.step(strategies, point, operator_value, step_size)
        if self.mixing is not None:
            mixing = jnp.asarray(self.mixing(count)).astype(dtype)
            point = mirror_map.mix(strategies, point, mixing)
        return point

    def init(self, game: AbstractGame, theta: PyTree, x: Array) -> DynamicsState:
        point = self.start(game, theta, x)
        step_size = jnp.asarray(self.step_size(0)).astype(x.dtype)
        return DynamicsState(
            point, self.geometry(game, theta).operator(game, theta, point), step_size
        )

    def step(
        self, game: AbstractGame, theta: PyTree, state: DynamicsState, count: Array
    ) -> DynamicsState:
        point = self.move(game, theta, state.point, state.operator_value, count)
        operator_value = self.geometry(game, theta).operator(game, theta, point)
        return DynamicsState(point, operator_value, state.step_size)


def ProjectedGradient(step_size: ArrayLike | Schedule) -> MirrorDescent:
    """`x+ = project(x - beta_k F)`: [`MirrorDescent`][] in the Euclidean geometry, on any set.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Box(0.0, 1.0))
        >>> method = ix.ProjectedGradient(0.5)
        >>> ix.solve_equilibrium(game, jnp.array([0.5, 2.0]), method=method).x.round(4).tolist()
        [0.5, 1.0]
    """
    return MirrorDescent(step_size, Euclidean())


def as_schedule(owner: str, name: str, value: ArrayLike | Schedule) -> Schedule:
    """A number becomes a constant schedule."""
    if not callable(value):
        return power(require_positive(owner, name, value, strictly=False), 0.0)
    return as_pytree_function(value)
