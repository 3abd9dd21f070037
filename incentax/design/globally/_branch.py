"""Branch and bound over who is at a bound: linear programs under a convex quadratic objective."""

import heapq
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ._structure import NoBound, QuadraticDesign

# Rounds of tangents that a node's program may be given.
_ROUNDS = 60
# The smaller of slack and multiplier, each relative to its scale, up to which it counts as zero.
_COMPLEMENTARY = 1e-8


class Bound(NamedTuple):
    """What was proved: no equilibrium is better than `value`; `nodes`: programs that were branched.

    `theta`: the best incentive met on the way, by its objective at the equilibrium; `finished`:
    whether nothing is left to branch on.
    """

    value: float
    nodes: int
    theta: np.ndarray | None
    objective: float
    finished: bool


class _Program:
    """`min` of tangents below `q` over `(theta, x, y, z, slacks, pulls, tau)`, pairs left open.

    The agents' conditions are `F + C^T y + A^T z - w + s = 0` with a slack for each of `z, w, s`;
    `slack` and `pull` say where a pair's two numbers, neither negative, stand.
    """

    def __init__(self, design: QuadraticDesign):
        from scipy import sparse  # noqa: PLC0415  # heavy

        self.design = design
        d, u = design.slope.shape
        p, agents, inside = u - d, design.agents, design.incentives
        borne, levels = design.limits
        e, pairs, self.u = len(agents["equality"]), len(levels), u
        self.slack = u + e + np.arange(pairs)
        self.pull = self.slack + pairs
        self.tau = u + e + 2 * pairs + np.arange(len(design.curvature))
        n = u + e + 2 * pairs + len(self.tau)
        nothing = np.zeros
        # The agents' conditions, their equalities, and the slacks of their limits.
        conditions = [design.slope, agents["equality"].T, nothing((d, pairs)), borne]
        before, after = nothing((e, p)), nothing((e, e + 2 * pairs))
        spare = nothing((pairs, p)), nothing((pairs, e)), np.eye(pairs), nothing((pairs, pairs))
        rows = [
            np.hstack(conditions),
            np.hstack([before, agents["equality"], after]),
            np.hstack([spare[0], borne.T, *spare[1:]]),
        ]
        right = [-design.force, agents["equality_level"], levels]
        more = nothing((len(inside["equality"]), u + e + 2 * pairs))
        more[:, :p] = inside["equality"]
        rows.append(more)
        right.append(inside["equality_level"])
        matrix = np.vstack(rows)
        tail = nothing((len(matrix), len(self.tau)))
        self.equalities = sparse.csr_array(np.hstack([matrix, tail])), np.concatenate(right)
        kept = nothing((len(inside["inequality"]), n))
        kept[:, :p] = inside["inequality"]
        self.kept = kept, inside["inequality_level"]
        self.lower = np.full(n, -np.inf)
        self.upper = np.full(n, np.inf)
        self.lower[:p], self.upper[:p] = inside["lower"], inside["upper"]
        self.lower[u + e :] = 0.0
        self.cost = np.zeros(n)
        self.cost[:u], self.cost[self.tau] = design.linear, 1.0
        self.cuts: list[tuple[int, float]] = []
        self._sparse = sparse

    def touch(self, u: np.ndarray, spread: tuple[float, ...] = (0.0,)) -> None:
        """Adds the tangents at a point, and at some to both sides of it."""
        for k, along in enumerate(self.design.direction @ u):
            self.cuts += [(k, float(along + one)) for one in spread]

    def solve(
        self, closed: dict[int, bool], enough: float, close: float
    ) -> tuple[float, np.ndarray] | None:
        """The least value with some pairs closed (`True`: the slack is 0), `close` to it or proved
        to be more than `enough`; `None` where there is no point."""
        from scipy.optimize import linprog  # noqa: PLC0415  # heavy

        upper = self.upper.copy()
        for pair, tight in closed.items():
            upper[self.slack[pair] if tight else self.pull[pair]] = 0.0
        bounds = np.stack([self.lower, upper], axis=1)
        value, point = -np.inf, np.zeros(len(upper))
        for _ in range(_ROUNDS):
            matrix, level = self._below()
            found = linprog(
                self.cost,
                A_ub=matrix,
                b_ub=level,
                A_eq=self.equalities[0],
                b_eq=self.equalities[1],
                bounds=bounds,
                method="highs",
                options={"dual_feasibility_tolerance": 1e-9},
            )
            if found.status == 2:
                return None
            if found.status != 0:
                raise NoBound(f"a linear program has no answer: {found.message}")
            value, point = float(found.fun) + self.design.constant, found.x
            reached = self.design.value(point[: self.u])
            if value > enough or reached - value <= close:
                break
            self.touch(point[: self.u])
        return value, point

    def _below(self) -> tuple[object, np.ndarray]:
        """Rows `tau_k >= curvature_k / 2 (2 s (direction_k u) - s^2)`, and the incentives' own."""
        if not self.cuts:
            return self._sparse.csr_array(self.kept[0]), self.kept[1]
        which, at = (np.array(part) for part in zip(*self.cuts))
        half = self.design.curvature[which] / 2
        rows = np.zeros((len(which), len(self.upper)))
        rows[:, : self.u] = (2 * half * at)[:, None] * self.design.direction[which]
        rows[np.arange(len(which)), self.tau[which]] = -1.0
        matrix = self._sparse.csr_array(np.vstack([self.kept[0], rows]))
        return matrix, np.concatenate([self.kept[1], half * at**2])


def bound_by_branching(
    design: QuadraticDesign,
    objective: Callable[[Float[np.ndarray, " theta"]], float],
    start: tuple[np.ndarray, float],
    *,
    margin: float,
    max_nodes: int,
    until: float = np.inf,
) -> Bound:
    """The least value of the design's relaxations, where no pair is left open that matters.

    A node closes some pairs (a slack or its multiplier is 0) and leaves others open: its program is
    a bound on all equilibria with those closed so. Best first; ends within `margin` of the best
    incentive known, after so many nodes, or when [`time.monotonic`][] says `until`. `start`: a
    point `(theta, x)` and the objective there.
    """
    if not design.is_convex:
        raise NoBound("the objective is not convex in incentives and strategies together")
    program = _Program(design)
    program.touch(start[0], (0.0, *(s * 10.0**k for k in range(0, 7, 2) for s in (-1, 1))))
    p = program.u - len(design.slope)
    best, theta = start[1], None
    order = itertools.count()
    heap: list[tuple[float, int, dict[int, bool], np.ndarray]] = []
    proved = np.inf  # the least value of what is done with

    def open_node(closed: dict[int, bool], below: float) -> None:
        nonlocal best, theta, proved
        found = program.solve(closed, best, 0.1 * margin)
        if found is None:
            return
        value = max(found[0], below)
        if value >= best - margin:
            proved = min(proved, value)
            return
        reached = objective(found[1][:p])
        if np.isfinite(reached) and reached < best:
            best, theta = reached, found[1][:p]
        heapq.heappush(heap, (value, next(order), closed, found[1]))

    open_node({}, -np.inf)
    nodes = 0
    while heap and nodes < max_nodes and time.monotonic() < until:
        value, _, closed, point = heap[0]
        if value >= best - margin:
            break
        heapq.heappop(heap)
        slack, pull = point[program.slack], point[program.pull]
        apart = np.minimum(slack / (1 + np.abs(slack).max(initial=0.0)),
                           pull / (1 + np.abs(pull).max(initial=0.0)))  # fmt: skip
        apart[list(closed)] = 0.0
        if apart.max(initial=0.0) <= _COMPLEMENTARY:
            # An equilibrium: its own value is the node's, and cannot be lowered by branching.
            proved = min(proved, value)
            continue
        nodes += 1
        pair = int(np.argmax(apart))
        for tight in (True, False):
            open_node({**closed, pair: tight}, value)
    left = heap[0][0] if heap else np.inf
    return Bound(min(proved, left, best), nodes, theta, best, left >= best - margin)
