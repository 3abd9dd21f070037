"""What every dynamics offers to the loop that runs it to equilibrium."""

import abc

import equinox as eqx
from jaxtyping import Array, PyTree

from ..games import AbstractGame
from ..geometry import AbstractMirrorMap, natural_mirror_map


class DynamicsState(eqx.Module):
    """The agents' strategy as the mirror map carries it, the operator there, the step size."""

    point: PyTree
    operator_value: Array
    step_size: Array


class AbstractDynamics(eqx.Module):
    """A way for agents to move, one step at a time."""

    mirror_map: eqx.AbstractVar[AbstractMirrorMap | None]

    def geometry(self, game: AbstractGame, theta: PyTree) -> AbstractMirrorMap:
        """The mirror map in which the agents of this game step, the natural one when not given."""
        mirror_map, strategies = self.mirror_map, game.strategies(theta)
        if mirror_map is None:
            mirror_map = natural_mirror_map(strategies)
        mirror_map.check(strategies)
        return mirror_map

    @abc.abstractmethod
    def init(self, game: AbstractGame, theta: PyTree, x: Array) -> DynamicsState:
        """The state at the strategy `x`."""

    @abc.abstractmethod
    def step(
        self, game: AbstractGame, theta: PyTree, state: DynamicsState, count: Array
    ) -> DynamicsState:
        """The state after step number `count`."""


def require_mirror_map(
    owner: str, mirror_map: AbstractMirrorMap | None
) -> AbstractMirrorMap | None:
    """The mirror map, or `None`; `TypeError` for anything else."""
    if mirror_map is not None and not isinstance(mirror_map, AbstractMirrorMap):
        raise TypeError(f"`{owner}(mirror_map=...)` needs a mirror map, got {mirror_map!r}")
    return mirror_map
