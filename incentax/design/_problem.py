"""The regulator's problem and its derivative."""

from collections.abc import Callable, Sequence
from typing import get_args, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from .._checks import as_float, require, require_one_of, require_positive, warn
from .._compile import compiled, jaxpr_of, shape_of, traced_once
from .._tree import as_pytree_function
from ..equilibrium import inside, strategy_at_door, target_at_door
from ..games import AbstractGame, AtomicGame
from ..sensitivity import AbstractSensitivity, Implicit
from ..sets import AbstractSet
from ._constraint import (
    check_constraints,
    Constraint,
    constraints_with_names,
    depends_on,
    Limits,
    limits_of,
)

Selection = Literal["optimistic", "pessimistic", "play"]


class Nearest(eqx.Module):
    """A selection: of a continuum of equilibria the one nearest to a target counts.

    The regulator adds a vanishing incentive that draws agents there, [`Tikhonov`][]: of a monotone
    game it selects that equilibrium (arXiv 2604.26746).

    **Arguments:**

    - `target`: of the shape of `x`, or a number.

    !!! example

        Which of two routes over one road is taken is left open; the regulator wants the second.

        >>> import incentax as ix, jax.numpy as jnp
        >>> def times(toll, h):
        ...     shared = h[0] + h[1] + toll[0]
        ...     return jnp.stack([shared, shared, 2 * h[2]])
        >>> problem = ix.DesignProblem(
        ...     ix.Game(times, ix.Simplex(3)),
        ...     lambda toll, h: h[0] + (h[2] - 0.5) ** 2,
        ...     ix.Box(-1.0, jnp.ones(1)),
        ...     selection=ix.Nearest(jnp.array([0.0, 1.0, 0.0])),
        ... )
        >>> solution = ix.design(problem, jnp.zeros(1))
        >>> print(solution.theta.round(2), solution.x.round(2) + 0)
        [0.5] [0.  0.5 0.5]
    """

    target: Float[Array, "..."]

    def __init__(self, target: ArrayLike):
        self.target = as_float(target)


class DesignProblem(eqx.Module):
    """Minimise `objective(theta, x*(theta))` over the incentive set, within constraints.

    **Arguments:**

    - `game`: the agents' game; its equilibrium is `x*(theta)`.
    - `objective`: pure function `(theta, x) -> scalar` (a welfare enters with a minus sign); `None`
      is the social cost of an [`AtomicGame`][], the sum of all players' costs.
    - `incentive_set`: where `theta` may lie.
    - `selection`: where a game has several equilibria, which of them counts: "optimistic", the one
      with the least objective; "pessimistic", with the largest; "play", the one that play from `x0`
      leads to, and from close by: where these part, the worst of them; or [`Nearest`][], of a
      continuum the one nearest to a target. But for that one `design` enumerates
      equilibria by multistart at every incentive, without a scheme, for games of at most 600
      unknowns. When left out equilibria are followed from `x0` on, whichever they are.
    - `constraints`: a list of [`Constraint`][], which the equilibrium has to keep to.

    **Raises** `TypeError` when an argument is of another kind, `ValueError` for constraints of one
    name.

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
    selection: Selection | Literal["nearest"] | None = eqx.field(static=True)
    target: Float[Array, "..."] | None
    constraints: tuple[Constraint, ...]

    def __init__(
        self,
        game: AbstractGame,
        objective: Callable | None,
        incentive_set: AbstractSet,
        *,
        selection: Selection | Nearest | None = None,
        constraints: Sequence[Constraint] = (),
    ):
        if not isinstance(game, AbstractGame):
            raise TypeError(f"`DesignProblem(game=...)` needs a game, got {game!r}")
        if not isinstance(incentive_set, AbstractSet):
            raise TypeError(
                f"`DesignProblem(incentive_set=...)` needs a set, got {incentive_set!r}"
            )
        if objective is None:
            if not isinstance(game, AtomicGame):
                raise TypeError(
                    "`DesignProblem(objective=None)` is the sum of all players' costs and needs an "
                    f"`ix.AtomicGame`, got {type(game).__name__}"
                )
            objective = _SocialCost(game)
        self.game = game
        self._objective = as_pytree_function(objective)
        self.incentive_set = incentive_set
        self.target, self.selection = None, None
        if isinstance(selection, Nearest):
            self.selection, self.target = "nearest", selection.target
        elif selection is not None:
            require_one_of("DesignProblem", "selection", selection, get_args(Selection))
            self.selection = selection
        self.constraints = constraints_with_names("DesignProblem", constraints)
        if self.constraints and selection is not None:
            raise ValueError(
                "`DesignProblem(constraints=...)` needs a problem without a selection, got "
                f"selection={selection!r}"
            )

    @property
    def is_social_cost(self) -> bool:
        """Whether the objective is the sum of all players' costs."""
        return isinstance(self._objective, _SocialCost)

    def objective(self, theta: PyTree, x: Array) -> Float[Array, ""]:
        """The regulator's cost of the incentive `theta` when agents play `x`."""
        value = traced_once(self._objective, theta, x)
        if jnp.shape(value) != ():
            raise ValueError(
                f"`objective(theta, x)` needs to return one number, got shape {jnp.shape(value)}"
            )
        return value

    def constraint_shapes(self, theta: PyTree, x: Array) -> list[jax.ShapeDtypeStruct]:
        """Shapes of the constraints' values."""
        return [jax.eval_shape(one.value, theta, x) for one in self.constraints]

    def limits(self, theta: PyTree, x: Array) -> Limits:
        """The constraints as one vector between bounds."""
        return _limits(self.constraints, theta, x)

    def violation(self, theta: PyTree, x: Array) -> Float[Array, ""]:
        """The largest violation of a constraint, in its own unit; 0 without any."""
        if not self.constraints:
            return jnp.zeros((), x.dtype)
        return jnp.max(self.limits(theta, x).violation)

    def at_door(
        self, owner: str, names: tuple[str, str | None], theta: PyTree, x: Array | None
    ) -> tuple[PyTree, Array]:
        """`(theta, x)`, which the caller knows by `names`, refused unless they fit the problem."""
        theta = inside(owner, names[0], theta, self.incentive_set)
        x = strategy_at_door(owner, names[1], self.game, theta, x)
        if self.target is not None:
            target_at_door("Nearest", self.target, x)
        shape_of(_objective, self, theta, x)  # refuses an objective that is no number
        if self.constraints:
            check_constraints(owner, self.constraints, theta, x)
        jaxpr = jaxpr_of(_given_objective, self, theta, x) if owner == "design" else None
        if jaxpr and not depends_on(jaxpr, jaxpr.invars[-1:]) and not self.constraints:
            warn(
                "`objective(theta, x)` ignores x: what agents do plays no part in this design. "
                "Going on.",
            )
        return theta, x


_limits = compiled(limits_of)
_objective = compiled(lambda problem, theta, x: problem.objective(theta, x))
_given_objective = compiled(lambda problem, theta, x: problem._objective(theta, x))


class _SocialCost(eqx.Module):
    game: AtomicGame

    def __call__(self, theta: PyTree, x: Array) -> Array:
        return jnp.sum(self.game.cost(theta, x))


class Hypergradient(eqx.Module):
    """Answer of [`hypergradient`][].

    - `value`: like `theta`.
    - `residual`: true relative residual of the linear system behind it.
    - `objective`: the objective at the same point.
    - `degenerate`: number of active bounds or unused strategies without a multiplier (or with one
      of the wrong sign). Where it is not 0, `x*` has only one-sided derivatives and `value` is that
      of holding those at rest.
    - `memory`: what the linear solve leaves to the next one.
    """

    value: PyTree
    residual: Float[Array, ""]
    objective: Float[Array, ""]
    degenerate: Int[Array, ""]
    memory: PyTree


def hypergradient(
    problem: DesignProblem,
    theta: PyTree,
    x: Array,
    *,
    sensitivity: AbstractSensitivity | None = None,
    step_size: ArrayLike = 1.0,
) -> Hypergradient:
    """Derivative of `objective(theta, x*(theta))`, evaluated at `(theta, x)`.

        ∇_theta f + (∂x*/∂theta)^T ∇_x f

    At `x = x*(theta)` it is the gradient of the design problem; elsewhere it is the surrogate that
    the single loop follows: Liu et al. (2022), (4.3) on all of R^d. Nothing moves on an active
    bound or for a strategy that is not used.

    **Arguments:**

    - `problem`, `theta`, `x`: the problem, an incentive of its set and a strategy of its game.
    - `sensitivity`: [`Implicit`][] with the solver chosen by the game when left out.
    - `step_size`: away from equilibrium, a bound of a box counts as active when a step of this
      size would reach it; design-and-play uses the step size of play. At an equilibrium, and on
      simplices, it does not matter.

    **Raises** `ValueError` when `theta` or `x` has the wrong shape or lies outside its set.

    Deviations from the source: the sign in (4.5) is plus and its inverse is transposed. On
    simplices away from equilibrium (4.5) depends on the step size `beta`; here it is replaced by
    its form in the logarithm of `x`, which does not, with strategies that cost more than their
    block's mean held back in proportion. At an equilibrium all agree.

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
    step_size = require_positive("hypergradient", "step_size", step_size)
    sensitivity = Implicit() if sensitivity is None else sensitivity
    found = _hypergradient(problem, theta, x, sensitivity, step_size=step_size)
    rule = "`hypergradient(problem)` needs functions that are finite at (theta, x); objective"
    return require(found, jnp.isfinite(found.objective), rule, found.objective)


def evaluate_hypergradient(
    problem: DesignProblem,
    theta: PyTree,
    x: Array,
    sensitivity: AbstractSensitivity,
    *,
    step_size: Array | float = 1.0,
    memory: PyTree | None = None,
    refresh: Bool[Array, ""] | bool = True,
    operator_value: Array | None = None,
) -> Hypergradient:
    """[`hypergradient`][] without checks, for the inside of a loop."""
    objective, (direct, through) = jax.value_and_grad(problem.objective, (0, 1))(theta, x)
    pulled = sensitivity.pullback(
        problem.game,
        theta,
        x,
        through,
        step_size=step_size,
        memory=memory,
        refresh=refresh,
        operator_value=operator_value,
    )
    value = jax.tree.map(jnp.add, direct, pulled.theta)
    return Hypergradient(value, pulled.residual, objective, pulled.degenerate, pulled.memory)


_hypergradient = compiled(evaluate_hypergradient)
