"""The regulator's problem and its derivative."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._tree import as_pytree_function
from ..equilibrium import inside, strategy_at_door
from ..games import AbstractGame
from ..sensitivity import Implicit, Memory
from ..sets import AbstractSet


class DesignProblem(eqx.Module):
    """Minimise `objective(theta, x*(theta))` over the incentive set.

    **Arguments:**

    - `game`: the agents' game; its equilibrium is `x*(theta)`.
    - `objective`: pure function `(theta, x) -> scalar` (a welfare enters with a minus sign).
    - `incentive_set`: where `theta` may lie.

    **Raises** `TypeError` when an argument is of another kind.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.NonNegative())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 1) ** 2), ix.Reals())
        >>> problem.objective(jnp.zeros(2), jnp.zeros(2)).item()
        2.0
    """

    game: AbstractGame
    _objective: Callable[[PyTree, Array], Array]
    incentive_set: AbstractSet

    def __init__(self, game: AbstractGame, objective: Callable, incentive_set: AbstractSet):
        if not isinstance(game, AbstractGame):
            raise TypeError(f"`DesignProblem(game=...)` needs a game, got {game!r}")
        if not isinstance(incentive_set, AbstractSet):
            raise TypeError(
                f"`DesignProblem(incentive_set=...)` needs a set, got {incentive_set!r}"
            )
        self.game = game
        self._objective = as_pytree_function(objective)
        self.incentive_set = incentive_set

    def objective(self, theta: PyTree, x: Array) -> Float[Array, ""]:
        """The regulator's cost of the incentive `theta` when agents play `x`."""
        value = self._objective(theta, x)
        if jnp.shape(value) != ():
            raise ValueError(
                f"`objective(theta, x)` needs to return one number, got shape {jnp.shape(value)}"
            )
        return value

    def at_door(
        self, owner: str, names: tuple[str, str], theta: PyTree, x: Array | None
    ) -> tuple[PyTree, Array]:
        """`(theta, x)`, which the caller knows by `names`, refused unless they fit the problem."""
        theta = inside(owner, names[0], theta, self.incentive_set)
        x = strategy_at_door(owner, names[1], self.game, theta, x)
        jax.eval_shape(self.objective, theta, x)  # refuses an objective that is no number
        return theta, x


class Hypergradient(eqx.Module):
    """Answer of [`hypergradient`][].

    - `value`: like `theta`.
    - `residual`: true relative residual of the linear system behind it.
    - `objective`: the objective at the same point.
    - `memory`: what the linear solve leaves to the next one.
    """

    value: PyTree
    residual: Float[Array, ""]
    objective: Float[Array, ""]
    memory: Memory


def hypergradient(
    problem: DesignProblem, theta: PyTree, x: Array, *, sensitivity: Implicit | None = None
) -> Hypergradient:
    """Derivative of `objective(theta, x*(theta))`, evaluated at `(theta, x)`.

        ∇_theta f + (∂x*/∂theta)^T ∇_x f

    At `x = x*(theta)` it is the gradient of the design problem; elsewhere it is the surrogate of
    Liu et al. (2022), (4.3) and (4.5), that the single loop follows. Nothing moves on an active
    bound or for a strategy that is not used.

    **Arguments:**

    - `problem`, `theta`, `x`: the problem, an incentive of its set and a strategy of its game.
    - `sensitivity`: [`Implicit`][] with the solver chosen by the game when left out.

    **Raises** `ValueError` when `theta` or `x` has the wrong shape or lies outside its set.

    Deviations from the source: the sign in (4.5) is plus and its inverse is transposed.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.NonNegative())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 1) ** 2), ix.Reals())
        >>> theta, x = jnp.array([3.0, -1.0]), jnp.array([3.0, 0.0])
        >>> print(abs(ix.hypergradient(problem, theta, x).value))
        [4. 0.]
    """
    if x is None:
        raise ValueError("`hypergradient(x)` needs a strategy, got None")
    theta, x = problem.at_door("hypergradient", ("theta", "x"), theta, x)
    return _hypergradient(problem, theta, x, Implicit() if sensitivity is None else sensitivity)


def evaluate_hypergradient(
    problem: DesignProblem,
    theta: PyTree,
    x: Array,
    sensitivity: Implicit,
    *,
    step_size: Array | float = 1.0,
    memory: Memory | None = None,
    refresh: Bool[Array, ""] | bool = True,
) -> Hypergradient:
    """[`hypergradient`][] without checks, for the inside of a loop."""
    objective, (direct, through) = jax.value_and_grad(problem.objective, (0, 1))(theta, x)
    pulled = sensitivity.pullback(
        problem.game, theta, x, through, step_size=step_size, memory=memory, refresh=refresh
    )
    value = jax.tree.map(jnp.add, direct, pulled.theta)
    return Hypergradient(value, pulled.residual, objective, pulled.memory)


_hypergradient = eqx.filter_jit(evaluate_hypergradient)
