"""Values that a user's functions have captured become arrays of the game."""

import functools
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array, PyTree

from ._aggregative import AggregativeGame
from ._atomic import AtomicGame
from ._base import AbstractGame, Game
from ._quantal_response import QuantalResponse
from ._scenarios import ThroughGame
from ._tikhonov import Tikhonov


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

    def held(function: Callable, *arguments: PyTree) -> Any:
        # All that is captured, also what is not differentiated itself: a lane of a `vmap` within a
        # `grad`, which `jax.closure_convert` leaves where it is.
        traced, shape = jax.make_jaxpr(_unhashed(function), return_shape=True)(*arguments)
        structure = jax.tree.structure(shape)

        def plain(*given: PyTree) -> Any:
            known, captured = given[: len(arguments)], given[len(arguments) :]
            flat = jax.tree.leaves(known)
            found = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr, captured))(*flat)
            return jax.tree.unflatten(structure, found)

        return _Held(plain, [jnp.asarray(value) for value in traced.consts])

    if isinstance(game, Tikhonov):
        return Tikhonov(hold_captured(game.game, theta, x), game.target, game.weight)
    if isinstance(game, ThroughGame):
        own = hold_captured(game.game, game.part(theta), x)
        return ThroughGame(own, held(game.part, theta))
    sets: Any = game.strategy_set
    if game.moves:
        sets = held(sets, theta)
    if isinstance(game, QuantalResponse):
        return QuantalResponse(hold_captured(game.game, theta, x), game.eta, epsilon=game.epsilon)
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


def _unhashed(function: Callable) -> Callable:
    """A pytree of arrays has no hash, which JAX asks for; a plain function has."""

    def plain(*given: PyTree) -> Any:
        return function(*given)

    return plain


def _captures_tracers(node: object, depth: int) -> bool:
    """Whether a function somewhere inside has a traced value in its closure."""
    if depth > 6:
        return False
    if isinstance(node, Tracer):
        return True
    return any(_captures_tracers(part, depth + 1) for part in _inside(node))


def _inside(node: Any) -> list[Any]:
    """What a function, or what it holds, may know beside its arguments."""
    if isinstance(node, eqx.Module):
        # Arrays that the module holds are known; its functions may know more.
        return [
            value
            for value in vars(node).values()
            if callable(value) or isinstance(value, AbstractGame)
        ]
    if isinstance(node, jax.tree_util.Partial):
        return [node.func]
    if isinstance(node, functools.partial):
        return [node.func, *node.args, *node.keywords.values()]
    if isinstance(node, list | tuple):
        return list(node)
    if isinstance(node, dict):
        return list(node.values())
    if isinstance(node, types.MethodType):
        held = getattr(node.__self__, "__dict__", {})  # of an object that is no function itself
        return [node.__func__, node.__self__, *held.values()]
    if isinstance(node, types.FunctionType):
        cells = [cell.cell_contents for cell in node.__closure__ or ()]
        return [*cells, *(node.__defaults__ or ()), *(node.__kwdefaults__ or {}).values()]
    if hasattr(node, "__wrapped__"):  # `jax.jit`
        return [node.__wrapped__]
    plain = callable(node) and hasattr(node, "__dict__") and not isinstance(node, type)
    return list(vars(node).values()) if plain else []
