"""The lower level as pairs `0 <= slack ⊥ multiplier >= 0`, functions of one flat vector.

The unknowns are `u = (theta, x, y, z)`: the incentive, the strategy, the multipliers of its
equalities and of its inequalities. Pairs stand in the order bounds, inequalities; a strategy is
paired with its nearer bound (`sign` 1 for a lower one, -1 for an upper one).
"""

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ...equilibrium import Newton
from ...sets import Bounds, KKTPoint, LinearConstraints, reduced
from .._problem import DesignProblem

# Slack and multiplier below this, relative to the sizes of x and F, are zero.
ZERO = 1e-8


class Pairs(eqx.Module):
    """Slacks and multipliers of the bounds, then of the inequalities; and what equalities miss."""

    slack: Float[Array, " pairs"]
    multiplier: Float[Array, " pairs"]
    missed: Float[Array, " rows"]


class LowerLevel(eqx.Module):
    """The agents' equilibrium conditions at a flat incentive and a packed KKT point.

    `like` and `x` give the shapes of incentive and strategy.
    """

    problem: DesignProblem
    like: PyTree
    x: Array
    rows: int = eqx.field(static=True)

    def __init__(self, problem: DesignProblem, like: PyTree, x: Array):
        self.problem, self.like, self.x = problem, like, x
        self.rows = problem.game.strategies(like).constraints(x).equality_level.size

    def unravel(self, theta: Float[Array, " p"]) -> PyTree:
        """The incentive as the user's functions take it."""
        return ravel_pytree(self.like)[1](theta)

    def constraints(self, theta: Float[Array, " p"]) -> LinearConstraints:
        """Those of the agents."""
        return self.problem.game.strategies(self.unravel(theta)).constraints(self.x)

    def unpack(self, packed: Float[Array, " unknowns"]) -> KKTPoint:
        """Strategy and multipliers, from one vector in this order."""
        parts = jnp.split(packed, [self.x.size, self.x.size + self.rows])
        return KKTPoint(*parts)

    def operator(self, theta: Float[Array, " p"], x: Float[Array, " d"]) -> Float[Array, " d"]:
        """`F` of flat arguments."""
        return self.problem.game.operator(self.unravel(theta), x.reshape(self.x.shape)).ravel()

    def value(self, theta: Float[Array, " p"], packed: Float[Array, " unknowns"]) -> Array:
        """The designer's objective."""
        x = self.unpack(packed).x.reshape(self.x.shape)
        return self.problem.objective(self.unravel(theta), x)

    def pairs(self, theta: Float[Array, " p"], packed: Array, sign: Float[Array, " d"]) -> Pairs:
        """Both sides of every pair; a strategy without bounds has slack 1."""
        point, constraints = self.unpack(packed), self.constraints(theta)
        box = Bounds(constraints)
        force = reduced(constraints, point, self.operator(theta, point.x))
        room = constraints.inequality_level - constraints.inequality @ point.x
        from_bound = point.x - jnp.where(sign > 0, box.low, box.high)
        bounded = jnp.where(sign > 0, box.has_low, box.has_high)
        return Pairs(
            jnp.concatenate([jnp.where(bounded, sign * from_bound, 1), room]),
            jnp.concatenate([sign * force, point.inequality]),
            constraints.equality(point.x) - constraints.equality_level,
        )

    def signs(
        self, theta: Float[Array, " p"], point: KKTPoint
    ) -> tuple[Float[Array, " d"], Bool[Array, " pairs"], Bool[Array, " pairs"]]:
        """The nearer bound, pairs that are held for ever, and pairs that have two sides."""
        constraints = self.constraints(theta)
        box = Bounds(constraints)
        above = jnp.where(box.has_low, point.x - box.low, jnp.inf)
        below = jnp.where(box.has_high, box.high - point.x, jnp.inf)
        rows = jnp.ones(constraints.inequality_level.size, bool)
        two_sided = (box.has_low | box.has_high) & ~box.fixed
        sign = jnp.where(below < above, -1, 1).astype(point.x.dtype)
        return sign, jnp.concatenate([box.fixed, ~rows]), jnp.concatenate([two_sided, rows])

    def settle(self, theta: Float[Array, " p"], near: Array) -> tuple[KKTPoint, Array]:
        """The exact equilibrium and its objective, infinite where there is none."""
        game, incentive = self.problem.game, self.unravel(theta)
        point, residual, _ = Newton(80).solve_kkt(game, incentive, near, 1e-10)
        value = self.value(theta, ravel_pytree(point)[0])
        force = self.operator(theta, point.x)
        scale = jnp.maximum(size_of(point.x), 1e-4 * size_of(force))
        eps = float(jnp.finfo(point.x.dtype).eps)
        # ... up to a point: where x runs away, no residual is small for that.
        least = jnp.minimum(max(1e-8, 100 * eps) * scale, eps**0.25)
        good = (residual <= least) & jnp.isfinite(value)
        return point, jnp.where(good, value, jnp.inf)


def size_of(value: Array) -> Float[Array, ""]:
    """`1 + max |value|`."""
    return 1 + jnp.max(jnp.abs(value))
