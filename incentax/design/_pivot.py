"""Sequential quadratic steps on pieces: a designer that ends on kinks exactly.

The constraints of the agents are pairs `0 <= slack ⊥ multiplier >= 0`. Once it is chosen which side
of each pair is zero (a *piece*), the equilibrium is a smooth function of `theta`, as long as the
other side stays `>= 0`. A sequential quadratic step on a piece keeps to where the piece is valid.
Where both sides of a pair are zero there is a kink, and the multiplier of the step's own
constraint tells whether the neighbouring piece descends. In the end pieces that are not neighbours
are tried too: one pair is forced to its other side, and the step that this takes is kept where the
objective is less. Luo, Pang, Ralph, *Mathematical Programs
with Equilibrium Constraints* (1996), chapters 5 and 6.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._tree import tree_where
from ..sets import KKTPoint
from ._lower_level import LowerLevel, size_of, ZERO
from ._problem import DesignProblem
from ._quadratic import quadratic_step, with_inequalities
from ._reduced import made_convex, Surface

# Up to this many incentives, strategies and constraints in all.
_MOST = 1200
_STEPS = 100
_LENGTHS = 6
# Every pair is forced at most so often, and all together at most so often a pair.
_ROUNDS, _FORCED = 4, 30_000


class Pivoting(eqx.Module):
    """Where a run stands.

    - `active`: the piece, pairs whose slack is zero; `base`: the piece before others were tried.
    - `weights`: multipliers of the last step's constraints.
    - `tried`: pairs whose neighbouring piece was of no use from here; `together`: whether all that
      promised something were entered at once.
    - `far`: the pair that is forced to its other side, or -1; `forced`: pairs that were; `gained`:
      whether one was of use since all were forced last; `budget`: how many more may be.
    - `rows`: objective, norm of its gradient and length of every step.
    """

    theta: Float[Array, " p"]
    objective: Float[Array, ""]
    point: KKTPoint
    active: Bool[Array, " pairs"]
    base: Bool[Array, " pairs"]
    weights: Float[Array, " pairs"]
    tried: Bool[Array, " pairs"]
    together: Bool[Array, ""]
    far: Int[Array, ""]
    forced: Bool[Array, " pairs"]
    gained: Bool[Array, ""]
    budget: Int[Array, ""]
    rows: Float[Array, "steps 3"]
    steps: Int[Array, ""]
    done: Bool[Array, ""]


def is_pivotable(problem: DesignProblem, theta: PyTree, x: Array) -> bool:
    """Whether the matrices of a piece are affordable."""
    return unknowns(problem, theta, x) <= _MOST


def unknowns(problem: DesignProblem, theta: PyTree, x: Array) -> int:
    """Incentives, strategies and constraints in all."""
    agents = problem.game.strategies(theta).constraints(x)
    incentives = problem.incentive_set.constraints(theta)
    size = incentives.lower.size + agents.lower.size
    for constraints in (agents, incentives):
        size += constraints.equality_level.size + constraints.inequality_level.size
    return size


def pivot(
    problem: DesignProblem,
    like: PyTree,
    flat: Float[Array, " p"],
    x: Array,
    rows: Float[Array, "steps 3"],
    steps: Int[Array, ""],
) -> Pivoting:
    """The best of what is reached from the incentive `flat` and an `x` near its equilibrium."""
    level = LowerLevel(problem, like, x)
    dtype = flat.dtype
    incentives = problem.incentive_set.constraints(like)
    blank = level.constraints(flat)
    size, pairs = x.size, x.size + blank.inequality_level.size
    rows_between = blank.equality_level.size

    def seen(theta: Array, point: KKTPoint, before: Array) -> Array:
        """The piece of an equilibrium; where both sides of a pair are zero, the one before."""
        sign, fixed, _ = level.signs(theta, point)
        found = level.pairs(theta, ravel_pytree(point)[0], sign)
        slack = found.slack / size_of(point.x)
        multiplier = found.multiplier / size_of(level.operator(theta, point.x))
        both = (jnp.abs(slack) <= ZERO) & (jnp.abs(multiplier) <= ZERO)
        return jnp.where(both, before, slack < multiplier) | fixed

    def advance(now: Pivoting) -> Pivoting:
        theta, packed = now.theta, ravel_pytree(now.point)[0]
        sign, fixed, two_sided = level.signs(theta, now.point)
        forcing = now.far >= 0
        active = now.active ^ ((jnp.arange(pairs, dtype=now.far.dtype) == now.far) & forcing)
        turn = jnp.concatenate([sign, jnp.ones(pairs - size, dtype)])
        both = ravel_pytree((theta, packed))[0]
        _, split = ravel_pytree((theta, packed))

        def sides(both: Array) -> tuple[Array, Array]:
            """What is zero on the piece, and what has to stay positive."""
            at_theta, at_packed = split(both)
            at = level.pairs(at_theta, at_packed, sign)
            zero = turn * jnp.where(active, at.slack, at.multiplier)
            rest = jnp.where(active, at.multiplier, at.slack)
            # In the order of the unknowns: strategies, equalities, inequalities.
            zero = jnp.concatenate([zero[:size], at.missed, zero[size:]])
            return zero, jnp.where(fixed, 1, rest)

        def value_of(both: Array) -> Array:
            at_theta, at_packed = split(both)
            return level.value(at_theta, at_packed)

        p = theta.size
        rest_slopes = jax.jacfwd(lambda both: sides(both)[1])(both)
        surface = Surface(lambda both: sides(both)[0], both, p)
        # A pair that is forced is not on its other side yet; elsewhere nothing moves here.
        onto = both.at[p:].add(-surface.factors.solve(surface.zero(both)))
        _, rest = sides(onto)
        value_slope = jax.grad(value_of)(onto)
        tangent = surface.tangent
        gradient, slopes = value_slope @ tangent, rest_slopes @ tangent
        curvature = surface.curvature(lambda both: value_of(both) - now.weights @ sides(both)[1])
        parts = jnp.linalg.norm(value_slope[:p]) + jnp.linalg.norm(gradient - value_slope[:p])
        unit = jnp.where(parts > 0, parts, 1)
        wide = jnp.maximum(1, jnp.max(jnp.abs(theta)))
        room = jnp.where(forcing, rest, jnp.maximum(rest, 0))
        valid = with_inequalities(incentives, -slopes, room - slopes @ theta)
        step, weights, promised = quadratic_step(
            gradient, made_convex(curvature, gradient, theta), valid, theta
        )
        weights = weights[len(incentives.inequality) :]

        def moved_by(length: Array) -> Array:
            return jnp.clip(theta + length * step, incentives.lower, incentives.upper)

        def shorter(carry):
            length, _, _, _, tries = carry
            length = jnp.where(tries == 0, 1.0, length / 4).astype(dtype)
            reached = moved_by(length)
            near = onto[p : p + size] + length * (tangent @ step)[p : p + size]
            point, value = level.settle(reached, near.reshape(x.shape))
            fine = value < now.objective - jnp.where(forcing, 10 * least, 1e-3 * length * promised)
            return length, point, value, fine, tries + 1

        def searching(carry):
            _, _, _, fine, tries = carry
            return ~fine & (tries < jnp.where(forcing, 1, _LENGTHS))

        least = 10 * jnp.finfo(dtype).eps * jnp.maximum(jnp.abs(now.objective), 1e-2 * unit * wide)
        hopeful = jnp.isfinite(promised) & ((promised > least) | forcing)
        carry = (jnp.ones((), dtype), now.point, now.objective, ~hopeful, jnp.int32(0))
        length, point, value, fine, tries = jax.lax.while_loop(searching, shorter, carry)
        moved = fine & (tries > 0)
        length = jnp.where(moved, length, 0)
        reached = moved_by(length)
        # What the neighbouring piece of a pair would gain: the gradient's jump across it.
        equation = jnp.arange(pairs) + jnp.where(jnp.arange(pairs) < size, 0, rows_between)
        columns = jnp.eye(len(packed), dtype=dtype)[:, equation] * turn[None, :]
        response = rest_slopes[:, p:] @ surface.factors.solve(columns)
        own = jnp.diagonal(response)
        rise = turn * surface.multipliers(value_slope)[equation] + weights @ response
        rise = rise / jnp.where(own > 0, own, 1)
        gain = jnp.where(own > 0, rise * jnp.linalg.norm(slopes, axis=1), 0)
        value_size = size_of(level.operator(theta, now.point.x))
        close = rest <= 10 * ZERO * jnp.where(active, value_size, size_of(now.point.x))
        wanted = close & two_sided & (gain > 1e-6 * unit) & ~now.tried & ~forcing
        worst = jnp.argmax(jnp.where(wanted, gain, -jnp.inf))
        alone = jnp.zeros(pairs, bool).at[worst].set(True)
        entered = jnp.where(now.together, wanted & alone, wanted)
        away = jnp.any(now.active != now.base)
        # From a piece that was of no use back to the base; there another one, or the end.
        piece = jnp.where(away, now.base, now.active ^ entered)
        # Nothing is left to do nearby: a pair is forced, the one nearest to its other side first.
        idle = ~moved & ~away & ~jnp.any(wanted)
        again = now.gained & jnp.all(now.forced | ~two_sided)
        forced = jnp.where(again, False, now.forced)
        unforced = two_sided & ~forced
        nearest = jnp.argmin(jnp.where(unforced, rest / value_size, jnp.inf)).astype(now.far.dtype)
        force = idle & (now.budget > 0) & jnp.any(unforced)
        forced = jnp.where(force, forced.at[nearest].set(True), now.forced)
        gained = jnp.where(force & again, False, now.gained) | (moved & forcing)
        tried = now.tried | jnp.where(away & now.together, now.active ^ now.base, False)
        same_side = jnp.concatenate(
            [level.signs(reached, point)[0] == sign, jnp.ones(pairs - size, bool)]
        )
        settled = seen(reached, point, active & same_side)
        row = jnp.stack([value, jnp.linalg.norm(gradient), jnp.linalg.norm(length * step)])
        return Pivoting(
            theta=jnp.where(moved, reached, theta),
            objective=jnp.where(moved, value, now.objective),
            point=tree_where(moved, point, now.point),
            active=jnp.where(moved, settled, piece),
            base=jnp.where(moved, settled, now.base),
            weights=jnp.where(moved & same_side & (settled == active), weights, 0),
            tried=jnp.where(moved, False, tried),
            together=jnp.where(moved, False, now.together | away | (jnp.sum(wanted) == 1)),
            rows=now.rows.at[now.steps].set(jnp.where(moved, row, now.rows[now.steps])),
            steps=now.steps + moved.astype(now.steps.dtype),
            far=jnp.where(force, nearest, -1),
            forced=forced,
            gained=gained,
            budget=now.budget - force.astype(now.budget.dtype),
            done=idle & ~force,
        )

    point, value = level.settle(flat, x)
    nothing = jnp.zeros(pairs, bool)
    piece = seen(flat, point, nothing)
    start = Pivoting(
        theta=flat,
        objective=value,
        point=point,
        active=piece,
        base=piece,
        weights=jnp.zeros(pairs, dtype),
        tried=nothing,
        together=jnp.asarray(False),
        rows=rows,
        steps=steps,
        far=jnp.int32(-1),
        forced=nothing,
        gained=jnp.asarray(False),
        budget=jnp.int32(min(_ROUNDS * pairs, _FORCED // pairs)),
        done=~jnp.isfinite(value),
    )
    most = 10 * _STEPS + _FORCED // pairs
    counted = jax.lax.while_loop(
        lambda carry: ~carry[0].done & (carry[1] < most) & (carry[0].steps < len(rows)),
        lambda carry: (advance(carry[0]), carry[1] + 1),
        (start, jnp.int32(0)),
    )
    return counted[0]
