"""What a way to differentiate the equilibrium offers."""

import abc

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..games import AbstractGame


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
