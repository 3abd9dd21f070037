"""What every dynamics offers to the loop that runs it to equilibrium."""

import abc

import equinox as eqx
from jaxtyping import Array, PyTree

from ..games import AbstractGame
from ..geometry import AbstractMirrorMap


class DynamicsState(eqx.Module):
    """The agents' strategy as the mirror map carries it, the operator there, the step size."""

    point: Array
    operator_value: Array
    step_size: Array


class AbstractDynamics(eqx.Module):
    """A way for agents to move, one step at a time."""

    @abc.abstractmethod
    def geometry(self, game: AbstractGame) -> AbstractMirrorMap:
        """The mirror map in which the agents of this game step."""

    @abc.abstractmethod
    def init(self, game: AbstractGame, theta: PyTree, x: Array) -> DynamicsState:
        """The state at the strategy `x`."""

    @abc.abstractmethod
    def step(
        self, game: AbstractGame, theta: PyTree, state: DynamicsState, count: Array
    ) -> DynamicsState:
        """The state after step number `count`."""
