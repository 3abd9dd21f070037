"""Whether any direction descends from a kink: a linear program with complementarity constraints.

At a kink pairs `0 <= slack ⊥ multiplier >= 0` of the lower level have both sides zero (B). The
point is B-stationary if and only if the optimum of

    min ∇f d  s.t.  linearised equilibrium;  d slack = 0 where multiplier > 0;
                    d multiplier = 0 where slack > 0;  0 <= d slack ⊥ d multiplier >= 0 on B;
                    linearised incentive set;  |d theta| <= 1 in the unit of each entry

is zero. Luo, Pang, Ralph, *Mathematical Programs with Equilibrium Constraints* (1996), chapter 3;
Kirches, Larson, Leyffer, Manns, *SIAM Journal on Optimization* 32 (2022). Solved by branching over
B, with HiGHS for the linear programs.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from ..._compile import compiled
from ...sets import LinearConstraints, Rows
from ._lower_level import LowerLevel, size_of, ZERO

# Relative decrease that counts as none, and linear programs at most.
_NONE, _PROGRAMS = 1e-5, 60
# Of the integer program that follows, where these do not decide.
_SECONDS = 10.0
# Of an answer to a unit of the incentive.
_LONGEST = 100.0


class Linearised(eqx.Module):
    """A design at an equilibrium, to first order in `u = (theta, x, y, z)`.

    `slack`, `multiplier`: both sides of every pair, `active` and `idle` where they are zero.
    `fixed`: held for ever; `two_sided`: pairs that can change sides. `unit`: of every entry of `u`.
    `eps`: of the precision that all was computed in. `moves`: whether constraints follow theta.
    """

    objective: Float[Array, ""]
    slope: Float[Array, " u"]
    slack: Float[Array, " pairs"]
    multiplier: Float[Array, " pairs"]
    slack_slopes: Float[Array, "pairs u"]
    multiplier_slopes: Float[Array, "pairs u"]
    missed_slopes: Float[Array, "rows u"]
    active: Bool[Array, " pairs"]
    idle: Bool[Array, " pairs"]
    fixed: Bool[Array, " pairs"]
    two_sided: Bool[Array, " pairs"]
    sign: Float[Array, " d"]
    unit: Float[Array, " u"]
    eps: Float[Array, ""]
    moves: Bool[Array, ""]

    @property
    def degenerate(self) -> Bool[Array, " pairs"]:
        """Pairs with both sides zero."""
        return self.active & self.idle & self.two_sided & ~self.fixed


def linearise(level: LowerLevel, theta: Float[Array, " p"], packed: Array) -> Linearised:
    """The conditions and the objective at an equilibrium."""
    point = level.unpack(packed)
    sign, fixed, two_sided = level.signs(theta, point)
    pairs, p = len(fixed), theta.size

    def sides(both: Array) -> Array:
        at = level.pairs(both[:p], both[p:], sign)
        return jnp.concatenate([at.slack, at.multiplier, at.missed])

    both = jnp.concatenate([theta, packed])
    values, slopes = sides(both), jax.jacfwd(sides)(both)
    objective, slope = jax.value_and_grad(lambda both: level.value(both[:p], both[p:]))(both)
    slack, multiplier = values[:pairs], values[pairs : 2 * pairs]
    sizes = size_of(point.x), size_of(level.operator(theta, point.x))
    incentives = level.problem.incentive_set.constraints(level.like)
    unit = jnp.concatenate(
        [
            unit_of(incentives, theta),
            jnp.full(point.x.size, sizes[0], both.dtype),
            jnp.full(len(packed) - point.x.size, sizes[1], both.dtype),
        ]
    )
    close = max(10 * ZERO, float(jnp.finfo(theta.dtype).eps) ** 0.5)
    return Linearised(
        objective,
        slope,
        slack,
        multiplier,
        slopes[:pairs],
        slopes[pairs : 2 * pairs],
        slopes[2 * pairs :],
        slack <= close * sizes[0],
        multiplier <= close * sizes[1],
        fixed,
        two_sided,
        sign,
        unit,
        jnp.asarray(jnp.finfo(theta.dtype).eps, theta.dtype),
        jnp.asarray(level.problem.game.moves),
    )


def unit_of(incentives: LinearConstraints, theta: Float[Array, " p"]) -> Float[Array, " p"]:
    """What counts as a long way for every entry of the incentive: its box, or its size."""
    width = incentives.upper - incentives.lower
    size = jnp.maximum(1.0, jnp.max(jnp.abs(theta)))
    return jnp.where(jnp.isfinite(width) & (width > 0), width, size)


def incentives_of(level: LowerLevel) -> tuple[LinearConstraints, np.ndarray]:
    """The constraints of the incentive set, their arrays numpy's, and [`unit_of`][] at `like`."""
    return jax.tree.map(np.asarray, _incentives(level))


@compiled
def _incentives(level: LowerLevel) -> tuple[LinearConstraints, Array]:
    limits = level.problem.incentive_set.constraints(level.like)
    dense = Rows(limits.equality.dense(limits.lower.dtype))
    unit = unit_of(limits, ravel_pytree(level.like)[0])
    return eqx.tree_at(lambda c: c.equality, limits, dense), unit


@dataclass
class Descent:
    """What the program says: `verdict` "yes" where no direction descends, "no", or "undecided".

    `bound`: least change of the objective over all directions of unit length, to first order,
    relative to the objective and the sum of the change's parts. `ambiguous`: the objective asks for
    more than an equilibrium determines. `direction` of `u` and the `active` pairs of its
    piece where one descends.
    """

    verdict: Literal["yes", "no", "undecided"]
    bound: float
    direction: np.ndarray | None = None
    active: np.ndarray | None = None
    ambiguous: bool = False


def decide(at: Any, incentives: LinearConstraints, theta: np.ndarray) -> Descent:
    """Whether a direction descends, by branching over the degenerate pairs.

    `at` is a [`Linearised`][] whose arrays are numpy's.
    """
    program = _Program(at, incentives, theta)
    pairs = np.flatnonzero(at.degenerate)
    slack_rows = at.slack_slopes[pairs] * at.unit
    multiplier_rows = at.multiplier_slopes[pairs] * at.unit
    undecided = Descent("undecided", np.nan)
    if at.moves and _share_multipliers(at, len(theta)):
        return undecided

    def descent(sides: np.ndarray, d: np.ndarray, bound: float) -> Descent:
        slack, multiplier = slack_rows @ d, multiplier_rows @ d
        active = np.where(at.degenerate, False, at.active) | at.fixed
        active[pairs] = np.where(sides == 0, slack <= multiplier, sides > 0)
        return Descent("no", bound, d * at.unit, active)

    # Of every node: which side is zero, 1 the slack, -1 the multiplier, 0 either.
    nodes = [np.zeros(len(pairs), int)]
    least, solved, ambiguous, whole = 0.0, 0, False, 0.0
    none = max(_NONE, float(at.eps) ** 0.5)
    while nodes and solved < _PROGRAMS:
        sides = nodes.pop()
        answer = program.solve(slack_rows, multiplier_rows, sides)
        solved += 1
        if answer is None:
            continue
        d, change, parts = answer
        whole = max(whole, parts)
        bound = change / max(parts + abs(float(at.objective)), 1e-300)
        if change >= -none * parts:
            least = min(least, bound)
            continue
        slack, multiplier = slack_rows @ d, multiplier_rows @ d
        both = np.where(sides == 0, np.minimum(slack, multiplier), 0)
        if not np.any(both > 1e-7):
            if np.abs(d[: program.p]).max(initial=0.0) < 1e-9:
                ambiguous = True  # the objective asks for more than an equilibrium determines
                continue
            return descent(sides, d, bound)
        worst = int(np.argmax(both))
        first = 1 if slack[worst] < multiplier[worst] else -1
        for side in (-first, first):
            child = sides.copy()
            child[worst] = side
            nodes.append(child)
    if ambiguous or program.failed:
        return replace(undecided, ambiguous=ambiguous)
    if not nodes:
        return Descent("yes", least)
    own = np.abs(program.slope[: program.p]).sum()
    sides, change = program.choose(slack_rows, multiplier_rows, -none * own - 1e-9 * whole)
    if sides is None:
        bound = change / max(whole + abs(float(at.objective)), 1e-300)
        return Descent("yes", min(bound, 0.0)) if np.isfinite(change) else undecided
    answer = program.solve(slack_rows, multiplier_rows, sides)
    if answer is None or answer[1] >= -none * answer[2]:
        return undecided
    d, change, parts = answer
    return descent(sides, d, change / max(parts + abs(float(at.objective)), 1e-300))


class _Program:
    """The linear programs, in units of every unknown."""

    def __init__(self, at: Any, incentives: LinearConstraints, theta: np.ndarray):
        p, unit = len(theta), at.unit
        self.slope, self.p, self.failed = at.slope * unit, p, False
        held = (at.active & ~at.idle) | at.fixed
        free = ~held & ~at.degenerate
        missing = np.zeros((len(incentives.equality_level), len(unit)))
        missing[:, :p] = incentives.equality.dense(np.dtype(float))
        rows = [at.slack_slopes[held], at.multiplier_slopes[free], at.missed_slopes, missing]
        self.equal = _in_rows(np.concatenate(rows) * unit)
        # The incentive set near theta: what is active only.
        own = unit[:p]
        room = incentives.inequality_level - incentives.inequality @ theta
        scale = np.maximum(np.abs(incentives.inequality) @ own, 1e-300)
        near = np.zeros((len(room), len(unit)))
        near[:, :p] = incentives.inequality
        self.least = _in_rows(-near[room <= 1e-8 * scale] * unit)
        low = np.where(theta - incentives.lower <= 1e-8 * own, 0.0, -1.0)
        high = np.where(incentives.upper - theta <= 1e-8 * own, 0.0, 1.0)
        # Directions form a cone: bounds shorten them, no more. Without them the programs in which
        # a pair may have both sides positive have no end.
        self.bounds = [*zip(low, high), *[(-_LONGEST, _LONGEST)] * (len(unit) - p)]

    def solve(
        self, slack: np.ndarray, multiplier: np.ndarray, sides: np.ndarray
    ) -> tuple[np.ndarray, float, float] | None:
        """The best direction, the change of the objective along it, and the sum of its parts."""
        direction = None if len(sides) or len(self.least) else self._without_choice()
        if direction is None:
            direction = self._by_program(slack, multiplier, sides)
        if direction is None:
            return None
        products = self.slope * direction
        return direction, float(products.sum()), float(np.abs(products).sum())

    def _without_choice(self) -> np.ndarray | None:
        """Where incentives alone decide how all else moves: each goes to its better bound."""
        p, rest = self.p, len(self.slope) - self.p
        if len(self.equal) != rest:
            return None
        try:
            moves = -np.linalg.solve(self.equal[:, p:], self.equal[:, :p])
        except np.linalg.LinAlgError:
            return None
        missed = self.equal[:, :p] + self.equal[:, p:] @ moves
        if not np.abs(missed).max(initial=0.0) <= 1e-10 * (1 + np.abs(moves).max(initial=0.0)):
            return None
        low, high = np.array(self.bounds[:p]).reshape(p, 2).T
        gradient = self.slope[:p] + self.slope[p:] @ moves
        own = np.where(gradient > 0, low, np.where(gradient < 0, high, 0.0))
        direction = np.concatenate([own, moves @ own])
        return direction if np.abs(direction).max(initial=0.0) <= _LONGEST else None

    def _by_program(
        self, slack: np.ndarray, multiplier: np.ndarray, sides: np.ndarray
    ) -> np.ndarray | None:
        import scipy.optimize  # noqa: PLC0415 (a quarter of a second, for kinks alone)

        equal = [self.equal, _in_rows(slack[sides > 0]), _in_rows(multiplier[sides < 0])]
        least = [self.least, _in_rows(slack[sides <= 0]), _in_rows(multiplier[sides >= 0])]
        equal, least = np.concatenate(equal), np.concatenate(least)
        answer = scipy.optimize.linprog(
            self.slope / max(np.abs(self.slope).max(), 1e-300),
            A_ub=-least if len(least) else None,
            b_ub=np.zeros(len(least)) if len(least) else None,
            A_eq=equal if len(equal) else None,
            b_eq=np.zeros(len(equal)) if len(equal) else None,
            bounds=self.bounds,
        )
        if answer.x is None:
            self.failed = True  # no motion at all is always possible
            return None
        return np.asarray(answer.x)

    def choose(
        self, slack: np.ndarray, multiplier: np.ndarray, none: float
    ) -> tuple[np.ndarray | None, float]:
        """The same as one integer program: the sides of a descent, or `None` and a lower bound.

        The bound is NaN where neither was found in time.
        """
        import scipy.optimize  # noqa: PLC0415 (a quarter of a second, for kinks alone)

        so: Any = scipy.optimize  # its types take numbers where arrays are meant

        number, size = len(slack), len(self.slope)
        reach = np.array([max(abs(low), high) for low, high in self.bounds])
        slack, multiplier = _in_rows(slack, keep=True), _in_rows(multiplier, keep=True)
        most = np.diag(np.abs(slack) @ reach), np.diag(np.abs(multiplier) @ reach)
        zero = np.zeros((number, number))
        scale = max(np.abs(self.slope).max(), 1e-300)
        rules = [
            so.LinearConstraint(np.hstack([self.equal, np.zeros((len(self.equal), number))]), 0, 0),
            so.LinearConstraint(np.hstack([self.least, np.zeros((len(self.least), number))]), 0),
            so.LinearConstraint(np.hstack([slack, zero]), 0),
            so.LinearConstraint(np.hstack([multiplier, zero]), 0),
            # An integer of 1 lets the slack be positive, one of 0 the multiplier.
            so.LinearConstraint(np.hstack([slack, -most[0]]), -np.inf, 0),
            so.LinearConstraint(np.hstack([multiplier, most[1]]), -np.inf, np.diag(most[1])),
        ]
        low, high = np.array(self.bounds).T
        answer = so.milp(
            np.append(self.slope / scale, np.zeros(number)),
            integrality=np.append(np.zeros(size), np.ones(number)),
            bounds=so.Bounds(np.append(low, np.zeros(number)), np.append(high, np.ones(number))),
            constraints=[rule for rule in rules if rule.A.shape[0]],
            options={"time_limit": _SECONDS, "mip_rel_gap": 0.3},
        )
        bound = getattr(answer, "mip_dual_bound", None)
        bound = np.nan if bound is None else bound * scale
        if bound >= none:
            return None, bound
        if answer.x is None or answer.fun * scale >= none:
            return None, np.nan
        return np.where(answer.x[size:] > 0.5, -1, 1), answer.fun * scale


def _share_multipliers(at: Any, p: int) -> bool:
    """Whether active constraints depend on one another: where they move with theta, the directions
    that they allow depend on how they share their multiplier, which nobody knows."""
    size = len(at.sign)
    held = at.active | at.fixed
    rows = np.concatenate([at.slack_slopes[held], at.missed_slopes])[:, p : p + size]
    return len(rows) > 0 and np.linalg.matrix_rank(_in_rows(rows, keep=True), tol=1e-8) < len(rows)


def _in_rows(rows: np.ndarray, keep: bool = False) -> np.ndarray:
    """Every row by its largest entry; none that is zero, unless they are to be kept."""
    size = np.abs(rows).max(axis=1, initial=0.0)
    if keep:
        return rows / np.where(size > 0, size, 1)[:, None]
    return rows[size > 0] / size[size > 0, None]
