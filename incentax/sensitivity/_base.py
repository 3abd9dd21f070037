"""What a way to differentiate the equilibrium offers."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..games import AbstractGame, Lanes


class Memory(eqx.Module):
    """What one solve leaves to the next.

    - `solution`: its unknowns, where the next iteration starts.
    - `inverse`: of the system's matrix when it was last made explicit, the preconditioner of the
      solves since; `None` where it never is.
    """

    solution: Float[Array, " unknowns"]
    inverse: Float[Array, "unknowns unknowns"] | None


class Pullback(eqx.Module):
    """Cotangent of `theta`, and how well its linear system was solved.

    - `theta`: like the incentive.
    - `residual`: true relative residual `||A^T w - b|| / ||b||` of the system on the face (where
      the face takes nothing of the cotangent but rounding, relative to `sqrt(eps)` of that).
    - `degenerate`: number of active constraints without a multiplier, see `AbstractFace`.
    - `memory`: for the next solve.
    """

    theta: PyTree
    residual: Float[Array, ""]
    degenerate: Int[Array, ""]
    memory: PyTree


class AbstractSensitivity(eqx.Module):
    """A way to differentiate `x*(theta)`."""

    @abc.abstractmethod
    def memory(self, game: AbstractGame, theta: PyTree, x: Array) -> PyTree:
        """What `pullback` may be given as its first memory."""

    @abc.abstractmethod
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
        """The cotangent of `theta` for a cotangent of `x*(theta)`, evaluated at `x`.

        `step_size` is that of the step whose face counts: see `AbstractStrategySet.face`.
        `refresh` says whether an explicit matrix is made anew, where one is remembered.
        `operator_value` may be given where it is known, as from `log x`.
        """

    @abc.abstractmethod
    def attach(self, game: AbstractGame, theta: PyTree, x: Array) -> Array:
        """An equilibrium `x`, as a function of `theta` and the game that JAX can differentiate."""


def pullback_in_lanes(
    sensitivity: AbstractSensitivity,
    lanes: Lanes,
    theta: PyTree,
    at: tuple[Array, Array, Array | None],
    how: dict[str, Any],
) -> Pullback:
    """Of games that are played apart: a system each, and the sum of what they give.

    `at`: strategy, cotangent and, where it is known, operator value.
    """
    memory = how.pop("memory")
    split = [None if leaf is None else lanes.split(leaf) for leaf in at]

    def alone(datum: PyTree, parts: list, memory: PyTree) -> Pullback:
        game, (x, cotangent, value) = lanes.game_of(datum), parts
        return sensitivity.pullback(
            game, theta, x, cotangent, memory=memory, operator_value=value, **how
        )

    found = jax.vmap(alone)(lanes.data, split, memory)
    return Pullback(
        theta=jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), found.theta),
        residual=jnp.max(found.residual),
        degenerate=jnp.sum(found.degenerate, dtype=jnp.int32),
        memory=found.memory,
    )
