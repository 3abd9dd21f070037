"""The equilibria followed along one incentive, from piece to piece: each is a parabola."""

import time
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from ._branch import Bound
from ._structure import NoBound, QuadraticDesign

# Below this part of what it is made of, a number counts as zero.
_ZERO = 1e-9
# Below this part of its terms a slope or a curvature of the objective does.
_NOTHING = 1e-14
# ... and a rate of a slack or a multiplier.
_NOISE = 1e-12
# Pivots after which a tableau is computed anew, and what rounding it may show then.
_PIVOTS, _ROUNDING = 64, 1e-6


class _Tableau:
    """`level + rate t + matrix (the numbers held at zero)`, a row for each pair.

    A pair is the slack of a limit and its multiplier, neither of them negative: at an equilibrium
    one is zero, the slack where the limit is `tight`, and the row tells the other.
    """

    def __init__(self, level: np.ndarray, rate: np.ndarray, matrix: np.ndarray):
        self._given, self.n = np.column_stack([matrix, level, rate]), len(level)
        self.hold(np.zeros(len(level), bool))

    def hold(self, tight: Bool[np.ndarray, " pairs"]) -> None:
        """Computes the rows with these limits tight."""
        table = self._given.copy()
        rows, rest = np.flatnonzero(tight), np.flatnonzero(~tight)
        block = table[np.ix_(rows, rows)]
        try:
            inverse = np.linalg.inv(block)
        except np.linalg.LinAlgError:
            raise NoBound("limits that bind at once depend on each other") from None
        if np.abs(block @ inverse - np.eye(rows.size)).max(initial=0.0) > _ROUNDING:
            raise NoBound("limits that bind at once depend on each other")
        solved = -inverse @ table[rows]
        solved[:, rows] = inverse
        columns = table[np.ix_(rest, rows)]
        table[np.ix_(rest, rows)] = 0.0
        table[rest] += columns @ solved
        table[rows] = solved
        self.table, self.tight, self.pivots = table, tight.copy(), 0

    def at(self, t: float) -> Float[np.ndarray, " pairs"]:
        """The numbers that are not held at zero."""
        return self.table[:, -2] + self.table[:, -1] * t

    def _size(self, t: float) -> Float[np.ndarray, " pairs"]:
        return np.abs(self.table[:, -2]) + np.abs(self.table[:, -1] * t)

    def zeros(self, t: float) -> Bool[np.ndarray, " pairs"]:
        """Which of them are rounding, or less."""
        return self.at(t) <= _ZERO * self._size(t)

    def pivot(self, k: int) -> None:
        """The limit `k` becomes tight, or is so no longer."""
        table, centre = self.table, self.table[k, k]
        if not centre > _ZERO * np.abs(table[k, : self.n]).max():
            raise NoBound("limits that bind at once depend on each other")
        column, row = table[:, k] / centre, table[k].copy()
        column[k] = row[k] = 0.0
        table -= np.outer(column, row)
        table[:, k], table[k], table[k, k] = column, -row / centre, 1.0 / centre
        self.tight[k] = not self.tight[k]
        self.pivots += 1

    def settle(self, t: float, sign: float) -> None:
        """Pivots until no number is negative at `t`, or on the side of `sign` from it.

        The least index first: this ends where principal minors of the matrix are positive (Murty,
        Mathematical Programming 7, 1974); others are refused by `pivot`.
        """
        for _ in range(10 * self.n + 10):
            below = self.zeros(t) & self._falls(sign)
            rows = np.flatnonzero(self.at(t) < -_ROUNDING * self._size(t))
            below[rows] |= self.at(t)[rows] < -_ZERO * (self._terms(rows) @ [1, abs(t)])
            if not below.any():
                return
            self.pivot(int(np.argmax(below)))
        raise NoBound("limits that bind at once were not told apart")

    def pieces(self, t: float, end: float) -> Iterator[tuple[float, float]]:
        """From where to where limits that are tight stay so, one after the other from `t`."""
        sign = 1.0 if end > t else -1.0
        while t != end:
            if self.pivots >= _PIVOTS:
                before = self.at(t)
                self.hold(self.tight)
                size = self._terms(np.arange(self.n)) @ [1, abs(t)]
                if (np.abs(self.at(t) - before) > _ROUNDING * size).any():
                    raise NoBound("rounding grew while equilibria were followed")
            self.settle(t, sign)
            falls = self._falls(sign) & ~self.zeros(t)
            reach = -self.table[falls, -2] / self.table[falls, -1]
            to = sign * min(sign * end, (sign * reach).min(initial=np.inf))
            self._check(t, to if np.isfinite(to) else t + sign * (1 + abs(t)))
            yield t, to
            t = to

    def _falls(self, sign: float) -> Bool[np.ndarray, " pairs"]:
        """Which numbers fall by more than the rounding of what their own rate is made of."""
        rates = sign * self.table[:, -1]
        falls = rates < 0
        rows = np.flatnonzero(falls)
        falls[rows] = -rates[rows] > _NOISE * self._terms(rows)[:, 1]
        return falls

    def _terms(self, rows: np.ndarray) -> Float[np.ndarray, "rows 2"]:
        """Sizes of what level and rate of some rows are computed from."""
        given, tight = np.abs(self._given[:, -2:]), self.tight
        through = np.abs(self.table[np.ix_(rows, np.flatnonzero(tight))])
        return through @ given[tight] + given[rows] * ~tight[rows, None]

    def _check(self, t: float, to: float) -> None:
        """No number may fall below zero on a piece by more than what it is made of lets it."""
        below = self.at(to) < -_ROUNDING * self._size(max(abs(t), abs(to)))
        if (below & self._falls(1.0 if to > t else -1.0)).any():
            raise NoBound("rounding leads equilibria out of the agents' set")


class _Curve:
    """The strategies `x(t)` and the objective while the same limits are tight."""

    def __init__(self, design: QuadraticDesign, rounding: float):
        agents, d = design.agents, len(design.slope)
        force, slope = design.slope[:, :1], design.slope[:, 1:]
        least = max(rounding, 1e-10) * np.abs(slope).max()
        if np.linalg.eigvalsh((slope + slope.T) / 2).min() <= least:
            raise NoBound("equilibria are followed in games that are strongly monotone")
        borne, levels = design.limits
        e = len(agents["equality"])
        edges = agents["equality"], agents["equality_level"][:, None]
        system = np.block([[slope, edges[0].T], [edges[0], np.zeros((e, e))]])
        right = np.block(
            [
                [-design.force[:, None], -force, -borne],
                [edges[1], np.zeros((e, 1 + borne.shape[1]))],
            ]
        )
        try:
            solved = np.linalg.solve(system, right)[:d]
        except np.linalg.LinAlgError:
            raise NoBound("equalities of the agents depend on each other") from None
        slack = -borne.T @ solved
        slack[:, 0] += levels
        # A slack and its multiplier in one unit: the diagonal of their matrix is 1.
        diagonal, terms = np.diagonal(slack[:, 2:]), (np.abs(borne) * np.abs(solved[:, 2:])).sum(0)
        moves = diagonal > _ZERO * terms  # or equalities hold it
        own = 1 / np.sqrt(np.where(moves, diagonal, 1))
        self.design, self.free, self.pushed = design, solved[:, :2], solved[:, 2:] * own
        self.pairs = own * slack[:, 0], own * slack[:, 1], own[:, None] * slack[:, 2:] * own

    def least(self, table: _Tableau, begin: float, end: float) -> tuple[float, float]:
        """The least objective from `begin` to `end`, and where it is."""
        held, pushed = table.table[table.tight, -2:], self.pushed[:, table.tight]
        moving = self.free + pushed @ held
        # What agents at their limits leave of each other is rounding, over however long a way.
        moving[np.abs(moving) <= _NOISE * (np.abs(self.free) + np.abs(pushed) @ np.abs(held))] = 0
        x, along = moving.T
        u, du = np.append(begin, x + along * begin), np.append(1.0, along)
        far, sign = abs(end - begin), np.sign(end - begin)
        terms = self.design.linear * du, (self.design.hessian @ u) * du
        bends = du * (self.design.hessian @ du)
        first, second = sign * sum(part.sum() for part in terms), bends.sum()
        if abs(first) <= _NOTHING * sum(np.abs(part).sum() for part in terms):
            first = 0.0
        if abs(second) <= _NOTHING * np.abs(bends).sum():
            second = 0.0
        if not np.isfinite(far) and (second < 0 or (second == 0 and first < 0)):
            raise NoBound("the objective falls without end along the incentive")
        stops = [0.0, far] if np.isfinite(far) else [0.0]
        if second > 0:
            stops.append(float(np.clip(-first / second, 0.0, far)))
        values = [self.design.value(u + sign * s * du) for s in stops]
        k = int(np.argmin(values))
        return values[k], float(begin + sign * stops[k])


def _interval(limits: dict[str, np.ndarray]) -> tuple[float, float]:
    """Where one incentive may lie."""
    lower, upper = [limits["lower"][0]], [limits["upper"][0]]
    for slope, level in zip(limits["inequality"][:, 0], limits["inequality_level"]):
        (upper if slope > 0 else lower).append(level / slope if slope else -np.inf)
    return float(max(lower)), float(min(upper))


def bound_by_following(
    design: QuadraticDesign,
    start: tuple[np.ndarray, float],
    *,
    margin: float,
    rounding: float = 0.0,
    max_pieces: int,
    until: float = np.inf,
) -> Bound:
    """The least value of all, along one incentive: equilibria are piecewise affine in it.

    From `start`, a point `(theta, x)` and the objective there, to both ends of the incentive's set,
    by principal pivots of the agents' conditions (Cottle, Pang, Stone, The Linear Complementarity
    Problem, section 4.5). Needs a strongly monotone game, whose equilibrium is one; the objective
    need not be convex. `rounding`: of the slopes given, relative. [`NoBound`][] where that is not
    so, or limits end the way before its end.
    """
    if len(design.linear) - len(design.slope) != 1 or len(design.incentives["equality"]):
        raise NoBound("equilibria are followed along one incentive")
    curve, (low, high) = _Curve(design, rounding), _interval(design.incentives)
    table = _Tableau(*curve.pairs)
    t = float(np.clip(start[0][0], low, high))
    table.settle(t, 1.0)
    begun, pieces = table.tight.copy(), 0
    best, theta = start[1], None
    for end in (low, high):
        table.hold(begun)
        for begin, to in table.pieces(t, end):
            pieces += 1
            if pieces > max_pieces or time.monotonic() > until:
                raise NoBound("not all pieces were followed")
            value, place = curve.least(table, begin, to)
            if value < start[1] - margin and value < best:
                theta = np.array([place])
            best = min(best, value)
    return Bound(best, pieces, theta, best, True)
