"""What the regulator keeps to at the equilibrium, whatever it minimises."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import Jaxpr
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._checks import as_float, require
from .._compile import traced_once
from .._tree import as_pytree_function


class Constraint(eqx.Module):
    """`lower <= c(theta, x*(theta)) <= upper`: a budget, a cap, a floor, neutrality.

    **Arguments:**

    - `c`: pure function `(theta, x) -> number or array`.
    - `lower`, `upper`: numbers, or arrays that broadcast to the value of `c`; equal ones make an
      equality. At least one is needed. They are arrays of the problem: others of the same shape
      compile nothing anew.
    - `name`: under which `DesignSolution.multipliers` has it; the name of `c` when left out, or its
      place among the problem's constraints.

    **Raises** `TypeError` when `c` is no function, `ValueError` without a bound or for bounds in
    the wrong order.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda tax, x: x + tax - 4, ix.NonNegative())
        >>> floor = ix.Constraint(lambda tax, x: (tax * x).sum(), lower=3.0, name="revenue")
        >>> problem = ix.DesignProblem(
        ...     game, lambda tax, x: (tax**2).sum(), ix.Reals(), constraints=[floor]
        ... )
        >>> solution = ix.design(problem, jnp.zeros(1))
        >>> print(solution.theta.round(4), solution.multipliers["revenue"].round(4))
        [1.] -1.0
    """

    _c: Callable[[PyTree, Array], Array]
    lower: Float[Array, "..."]
    upper: Float[Array, "..."]
    name: str | None = eqx.field(static=True)
    has_lower: bool = eqx.field(static=True)
    has_upper: bool = eqx.field(static=True)

    def __init__(
        self,
        c: Callable,
        *,
        lower: ArrayLike = -math.inf,
        upper: ArrayLike = math.inf,
        name: str | None = None,
    ):
        if not callable(c):
            raise TypeError(f"`Constraint(c)` needs a function of (theta, x), got {c!r}")
        if not isinstance(name, str | None):
            raise TypeError(f"`Constraint(name=...)` needs words, got {name!r}")
        self.has_lower, self.has_upper = (not _is(lower, -math.inf), not _is(upper, math.inf))
        if not (self.has_lower or self.has_upper):
            raise ValueError("`Constraint(lower=..., upper=...)` needs a bound, got none")
        low, high = as_float(lower), as_float(upper)
        try:
            wide = jnp.broadcast_arrays(low, high)
        except ValueError:
            raise ValueError(
                "`Constraint(lower=..., upper=...)` needs bounds that broadcast together, got "
                f"shapes {low.shape} and {high.shape}"
            ) from None
        rule = "`Constraint(lower=..., upper=...)` needs lower <= upper, lower < inf, upper > -inf"
        received: dict[str, ArrayLike] = {"lower": wide[0], "upper": wide[1]}
        holds = (wide[0] <= wide[1]) & (wide[0] < math.inf) & (wide[1] > -math.inf)
        self.lower, self.upper = require((low, high), holds, rule, received)
        own = getattr(c, "__name__", None)
        self.name = name if name is not None or own == "<lambda>" else own
        self._c = as_pytree_function(c)

    def value(self, theta: PyTree, x: Array) -> Float[Array, "..."]:
        """`c(theta, x)`."""
        return jnp.asarray(traced_once(self._c, theta, x))

    def bounds(self, value: Array) -> tuple[Array, Array]:
        """Lower and upper ones of the shape of the value."""
        return tuple(
            jnp.broadcast_to(side.astype(value.dtype), value.shape)
            for side in (self.lower, self.upper)
        )  # pyright: ignore[reportReturnType]


def _is(bound: ArrayLike, value: float) -> bool:
    return isinstance(bound, float) and bound == value


class Limits(eqx.Module):
    """All constraints of a problem as one vector: `lower <= value <= upper`."""

    value: Float[Array, " rows"]
    lower: Float[Array, " rows"]
    upper: Float[Array, " rows"]

    @property
    def violation(self) -> Float[Array, " rows"]:
        """How far each is outside of its bounds."""
        return jnp.maximum(jnp.maximum(self.value - self.upper, self.lower - self.value), 0)


def limits_of(constraints: tuple[Constraint, ...], theta: PyTree, x: Array) -> Limits:
    """The constraints at an equilibrium, in one precision."""
    values = [constraint.value(theta, x) for constraint in constraints]
    bounds = [c.bounds(value) for c, value in zip(constraints, values, strict=True)]
    parts = [(value, *both) for value, both in zip(values, bounds, strict=True)]
    dtype = jnp.result_type(x, *values)
    joined = [jnp.concatenate([part[k].ravel().astype(dtype) for part in parts]) for k in range(3)]
    return Limits(*joined)


def named(constraints: tuple[Constraint, ...], like: list, flat: Array) -> dict[str, Array]:
    """A flat vector taken apart into the constraints' shapes, by their names."""
    sizes = [math.prod(jnp.shape(value)) for value in like]
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return {
        str(constraint.name): flat[..., end - size : end].reshape(
            *flat.shape[:-1], *jnp.shape(value)
        )
        for constraint, value, size, end in zip(constraints, like, sizes, ends, strict=True)
    }


def constraints_with_names(owner: str, constraints: object) -> tuple[Constraint, ...]:
    """As a tuple, each with a name of its own."""
    if isinstance(constraints, Constraint):
        constraints = (constraints,)
    if not isinstance(constraints, list | tuple) or not all(
        isinstance(one, Constraint) for one in constraints
    ):
        raise TypeError(
            f"`{owner}(constraints=...)` needs a list of `ix.Constraint`, got {constraints!r}"
        )
    names = [one.name or f"constraint {k + 1}" for k, one in enumerate(constraints)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"`{owner}(constraints=...)` needs a name of its own for each, got {twice[0]!r} twice"
        )
    return tuple(_renamed(one, name) for one, name in zip(constraints, names, strict=True))


def _renamed(constraint: Constraint, name: str) -> Constraint:
    renamed = jax.tree.map(lambda leaf: leaf, constraint)
    object.__setattr__(renamed, "name", name)
    return renamed


def check_constraints(
    owner: str, constraints: tuple[Constraint, ...], theta: PyTree, x: Array
) -> None:
    """Refuses values of a shape that the bounds do not fit, that depend on nothing, or too many
    equalities."""
    equalities = 0
    for constraint in constraints:
        jaxpr, shape = jax.make_jaxpr(constraint.value, return_shape=True)(theta, x)
        rule = f"`{owner}(constraints=...)`, {constraint.name!r}: "
        if not jnp.issubdtype(shape.dtype, jnp.floating):
            raise ValueError(f"{rule}`c(theta, x)` needs to return floats, got {shape.dtype}")
        for side, bound in (("lower", constraint.lower), ("upper", constraint.upper)):
            if not _broadcasts(bound.shape, shape.shape):
                raise ValueError(
                    f"{rule}`{side}` needs a shape that broadcasts to that of `c(theta, x)`, "
                    f"{shape.shape}, got {bound.shape}"
                )
        if not depends_on(jaxpr.jaxpr, jaxpr.jaxpr.invars):
            raise ValueError(f"{rule}`c(theta, x)` depends neither on theta nor on x")
        if constraint.has_lower and constraint.has_upper:
            same = constraint.lower is constraint.upper or _equal(constraint)
            equalities += math.prod(shape.shape) if same else 0
    free = sum(leaf.size for leaf in jax.tree.leaves(theta))
    if equalities > free:
        raise ValueError(
            f"`{owner}(constraints=...)` needs at most as many equalities as incentives, {free}, "
            f"got {equalities}"
        )


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return jnp.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _equal(constraint: Constraint) -> bool:
    sides = constraint.lower, constraint.upper
    if any(isinstance(side, Tracer) for side in sides):
        return False
    return bool(jnp.all(sides[0] == sides[1]))


def depends_on(jaxpr: Jaxpr, variables: list) -> bool:
    """Whether a result comes from any of these arguments."""
    reached = {id(variable) for variable in variables}
    for equation in jaxpr.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached |= {id(variable) for variable in equation.outvars}
    return any(id(variable) in reached for variable in jaxpr.outvars)
