"""Values that a user's functions have captured become arrays of the game."""

from collections.abc import Callable

import equinox as eqx
import jax
from jax.core import Tracer
from jaxtyping import Array, PyTree

from ._aggregative import AggregativeGame
from ._atomic import AtomicGame
from ._base import AbstractGame, Game


class _Held(eqx.Module):
    """A function whose captured values are arrays that the game holds."""

    function: Callable = eqx.field(static=True)
    captured: list[Array]

    def __call__(self, *arguments: PyTree) -> Array:
        return self.function(*arguments, *self.captured)


def hold_captured(game: AbstractGame, theta: PyTree, x: Array) -> AbstractGame:
    """The same game, which knows what its functions have captured and is being differentiated.

    A derivative of the answer is taken in `theta` and in the arrays of the game; in a captured
    value it would be zero without a word.
    """
    if not _captures_tracers(game, 0):
        return game

    def held(function: Callable, *arguments: PyTree) -> _Held:
        # A pytree of arrays has no hash; a plain function has.
        def plain(*arguments: PyTree) -> Array:
            return function(*arguments)

        return _Held(*jax.closure_convert(plain, *arguments))

    sets = game.strategy_set
    if isinstance(game, Game):
        return Game(held(game.unchecked_operator, theta, x), sets)
    if isinstance(game, AtomicGame):
        return AtomicGame(held(game.cost, theta, x), sets)
    if isinstance(game, AggregativeGame):
        form = game.aggregative_form
        s = form.aggregate(theta, x)
        operator = held(form.operator, theta, x, s)
        return AggregativeGame(operator, held(form.aggregate, theta, x), sets)
    return game


def _captures_tracers(node: object, depth: int) -> bool:
    """Whether a function somewhere inside has a traced value in its closure."""
    if depth > 6:
        return False
    if isinstance(node, Tracer):
        return True
    inside = [cell.cell_contents for cell in getattr(node, "__closure__", None) or ()]
    if isinstance(node, jax.tree_util.Partial):
        inside.append(node.func)
    elif isinstance(node, eqx.Module):
        # Arrays that the module holds are known; its functions may know more.
        inside.extend(value for value in vars(node).values() if callable(value))
    return any(_captures_tracers(part, depth + 1) for part in inside)
