"""What every dynamics offers to the loop that runs it to equilibrium."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from ..games import AbstractGame
from ..geometry import AbstractMirrorMap, natural_mirror_map


class DynamicsState(eqx.Module):
    """The agents' strategy as the dynamics carry it, the operator there, the step size."""

    point: PyTree
    operator_value: Array
    step_size: Array


class AbstractDynamics(eqx.Module):
    """A way for agents to move, one step at a time; the state is any pytree."""

    def check(self, game: AbstractGame, theta: PyTree, x: Array) -> None:
        """Raises `ValueError` for a game that these agents cannot play; before compilation, where
        all is known."""
        del game, theta, x

    @abc.abstractmethod
    def init(self, game: AbstractGame, theta: PyTree, x: Array) -> PyTree:
        """The state at the strategy `x`."""

    @abc.abstractmethod
    def resume(self, game: AbstractGame, theta: PyTree, state: PyTree) -> PyTree:
        """The state in which play goes on when the incentive has become `theta`."""

    @abc.abstractmethod
    def step(self, game: AbstractGame, theta: PyTree, state: PyTree, count: Array) -> PyTree:
        """The state after step number `count`."""

    @abc.abstractmethod
    def strategy(self, game: AbstractGame, theta: PyTree, state: PyTree) -> Array:
        """What the agents play in a state."""

    @abc.abstractmethod
    def operator_value(self, game: AbstractGame, theta: PyTree, state: PyTree) -> Array:
        """The game's operator at the strategy of a state."""

    @property
    @abc.abstractmethod
    def messages(self) -> Int[Array, ""]:
        """Messages between agents in one step."""


class AbstractMirrorPlay(AbstractDynamics):
    """Play in the geometry of a mirror map, which carries the strategy."""

    mirror_map: eqx.AbstractVar[AbstractMirrorMap | None]

    def resume(self, game: AbstractGame, theta: PyTree, state: DynamicsState) -> DynamicsState:
        value = self.geometry(game, theta).operator(game, theta, state.point)
        return DynamicsState(state.point, value, state.step_size)

    def operator_value(self, game: AbstractGame, theta: PyTree, state: DynamicsState) -> Array:
        del game, theta
        return state.operator_value

    @property
    def messages(self) -> Int[Array, ""]:
        return jnp.int32(0)  # everyone sees everyone

    def strategy(self, game: AbstractGame, theta: PyTree, state: DynamicsState) -> Array:
        return self.geometry(game, theta).strategy(state.point)

    def geometry(self, game: AbstractGame, theta: PyTree) -> AbstractMirrorMap:
        """The mirror map in which the agents of this game step, the natural one when not given."""
        mirror_map, strategies = self.mirror_map, game.strategies(theta)
        if mirror_map is None:
            mirror_map = natural_mirror_map(strategies)
        mirror_map.check(strategies)
        return mirror_map


def require_mirror_map(
    owner: str, mirror_map: AbstractMirrorMap | None
) -> AbstractMirrorMap | None:
    """The mirror map, or `None`; `TypeError` for anything else."""
    if mirror_map is not None and not isinstance(mirror_map, AbstractMirrorMap):
        raise TypeError(f"`{owner}(mirror_map=...)` needs a mirror map, got {mirror_map!r}")
    return mirror_map
