"""A judge of random designs that knows the optimum, written in numpy and scipy alone.

Without `eta` the equilibrium is affine in `theta` on every choice of active constraints and the
objective is quadratic there: all stationary points, edges and corners of all pieces are enumerated.
With `eta`: a grid of equilibria by Newton's method, and descent from its low points.
"""

import functools
import itertools
from typing import TYPE_CHECKING

import numpy as np
import scipy.optimize

if TYPE_CHECKING:
    from _random_families import Data


def judge_of(data: "Data") -> "Judge":
    """The judge for an instance in double precision."""
    return QuantalJudge(data) if data.eta > 0 else PieceJudge(data)


class Judge:
    """What judges share. Incentives are in units of their box: `theta = low + (high - low) u`."""

    def __init__(self, data: "Data"):
        self.n, self.p = data.effect.shape
        width = data.high - data.low
        unit = np.abs(data.matrix).max()
        self.matrix, self.eta = data.matrix / unit, data.eta / unit
        self.force = np.column_stack([data.constant + data.effect @ data.low, data.effect * width])
        self.force /= unit
        blocks = np.repeat(np.arange(len(data.sizes)), data.sizes)
        self.equal = np.eye(len(data.sizes))[:, blocks] if data.sizes else np.zeros((0, self.n))
        self.total = data.total
        self.theta = np.column_stack([data.low, np.diag(width)])
        self.hessian, self.slope = data.hessian, data.slope

    def objective(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        """At rows of `u` and `x`."""
        z = np.concatenate([self.theta[:, 0] + u @ self.theta[:, 1:].T, x], axis=-1)
        return ((z @ self.hessian) * z).sum(-1) / 2 + z @ self.slope

    def value(self, u: np.ndarray) -> np.ndarray:
        """The objective at the equilibria of rows of `u`."""
        return self.objective(u, self.respond(u))

    def grid(self, low: np.ndarray, high: np.ndarray, number: int) -> np.ndarray:
        """Points of a box, `number` a side."""
        sides = [np.linspace(a, b, number) for a, b in zip(low, high)]
        return np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, self.p)


@functools.cache
def _active_sets(bounded: tuple[tuple[int, int], ...], rows: int, most: int) -> np.ndarray:
    """Choices of at most `most` of `rows` inequalities, without both bounds of one strategy."""
    sets = [s for k in range(most + 1) for s in itertools.combinations(range(rows), k)]
    sets = [s for s in sets if not any(set(pair) <= set(s) for pair in bounded)]
    return np.array([[i in s for i in range(rows)] for s in sets])


def _solve(systems: np.ndarray, right: np.ndarray, least: float) -> np.ndarray:
    """Solutions of many small systems, NaN where the matrix is singular."""
    singular = ~(np.abs(np.linalg.det(systems)) > least)
    systems = np.where(singular[..., None, None], np.eye(systems.shape[-1]), systems)
    return np.where(singular[..., None, None], np.nan, np.linalg.solve(systems, right))


class PieceJudge(Judge):
    """Knows every piece of the affine game: `x = X (1, u)` where `violation (1, u) <= 0`."""

    def __init__(self, data: "Data"):
        super().__init__(data)
        n, p, eye = self.n, self.p, np.eye(self.n)
        capped = np.isfinite(data.upper)
        rows = np.concatenate([-eye, eye[capped], data.rows])
        level = np.concatenate([-data.lower, data.upper[capped], data.level])
        moved = np.concatenate([np.zeros((n, p)), data.upper_effect[capped], data.level_effect])
        level = np.column_stack([level, np.zeros((len(level), p))]) + moved @ self.theta
        pairs = tuple((int(i), n + k) for k, i in enumerate(np.flatnonzero(capped)))
        e, m = len(self.equal), len(rows)
        active = _active_sets(pairs, m, n - e)
        systems = np.zeros((len(active), n + e + m, n + e + m))
        systems[:, :n, :n] = self.matrix
        systems[:, :n, n : n + e], systems[:, n : n + e, :n] = self.equal.T, self.equal
        systems[:, :n, n + e :] = rows.T
        systems[:, n + e :, :n] = active[:, :, None] * rows
        systems[:, n + e :, n + e :] = np.eye(m) * ~active[:, None, :]
        right = np.zeros((len(active), n + e + m, 1 + p))
        right[:, :n], right[:, n : n + e, 0] = -self.force, self.total
        right[:, n + e :] = active[:, :, None] * level
        found = _solve(systems, right, 1e-10)
        regular = np.isfinite(found).all((1, 2))
        found, active = found[regular], active[regular, :, None]
        self.x = found[:, :n]
        self.violation = np.where(active, -found[:, n + e :], rows @ self.x - level)
        z = np.concatenate([np.broadcast_to(self.theta, (len(found), p, 1 + p)), self.x], axis=1)
        self.quadratic = z.transpose(0, 2, 1) @ self.hessian @ z
        self.quadratic[:, 0] += self.slope @ z
        self.quadratic[:, 1:, 0] = self.quadratic[:, 0, 1:]

    def respond(self, u: np.ndarray) -> np.ndarray:
        """Equilibria, each from the piece whose conditions hold best."""
        one = np.column_stack([np.ones(len(u)), u])
        piece = (self.violation @ one.T).max(1).argmin(0)
        return (self.x[piece] @ one[:, :, None])[:, :, 0]

    def minimum(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, float]:
        """The best incentive of a box, from all stationary points, edges and corners of pieces."""
        eye, k = np.eye(self.p), len(self.x)
        box = np.concatenate([np.column_stack([low, -eye]), np.column_stack([-high, eye])])
        rows = np.concatenate([self.violation, np.broadcast_to(box, (k, *box.shape))], axis=1)
        size = np.linalg.norm(rows[:, :, 1:], axis=2, keepdims=True)
        rows = rows / np.where(size > 1e-12, size, np.inf)
        steepest = np.abs(self.quadratic[:, 1:]).max((1, 2), keepdims=True)
        bend = self.quadratic / np.where(steepest > 1e-300, steepest, np.inf)
        points = [self.grid(low, high, 21)]
        for held in range(self.p + 1):
            chosen = np.array(list(itertools.combinations(range(rows.shape[1]), held)), int)
            a = rows[:, chosen]
            systems = np.zeros((k, len(chosen), self.p + held, self.p + held))
            systems[..., : self.p, : self.p] = bend[:, None, 1:, 1:]
            systems[..., : self.p, self.p :] = a[..., 1:].swapaxes(-1, -2)
            systems[..., self.p :, : self.p] = a[..., 1:]
            right = np.zeros((*systems.shape[:-1], 1))
            right[..., : self.p, 0] = -bend[:, None, 1:, 0]
            right[..., self.p :, 0] = -a[..., 0]
            u = _solve(systems, right, 1e-10)[..., : self.p, 0]
            broken = (rows[:, None, :, 1:] @ u[..., None])[..., 0] + rows[:, None, :, 0]
            points.append(u[(broken <= 1e-7).all(-1)])
        u = np.clip(np.concatenate(points), low, high)
        values = self.value(u)
        best = int(np.argmin(values))
        return u[best], float(values[best])


class QuantalJudge(Judge):
    """Newton's method in `log x` over a grid, and descent from the grid's low points."""

    def newton(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`log x` at equilibrium, and its derivative by `u`; `eta` comes down to its value."""
        n, e = self.n, len(self.equal)
        force = u @ self.force[:, 1:].T + self.force[:, 0]
        nu = np.zeros((len(u), e))
        log_x = np.log((self.total / self.equal.sum(1)) @ self.equal) + np.zeros((len(u), n))
        largest = max(1.0, float(np.abs(force).max() / self.eta))
        halvings = int(np.ceil(np.log2(largest)))
        for count in range(3 * halvings + 60):
            eta = self.eta * 2.0 ** max(halvings - count // 3, 0)
            x = np.exp(log_x)
            cost = x @ self.matrix.T + force + eta * log_x + nu @ self.equal
            residual = np.concatenate([cost, x @ self.equal.T - self.total], axis=1)
            system = np.zeros((len(u), n + e, n + e))
            system[:, :n, :n] = self.matrix * x[:, None, :] + eta * np.eye(n)
            system[:, :n, n:] = self.equal.T
            system[:, n:, :n] = self.equal * x[:, None, :]
            step = np.linalg.solve(system, -residual[:, :, None])[:, :, 0]
            # A long step up would overflow; a long step down leads to zero.
            step *= 1 / np.maximum(1, step[:, :n].max(1, keepdims=True))
            log_x, nu = log_x + step[:, :n], nu + step[:, n:]
            change = np.abs(step[:, :n]) / (1 + np.abs(log_x))
            if count >= 3 * halvings and change.max() < 1e-11:
                break
        else:
            raise RuntimeError("the judge's Newton iteration did not converge")
        right = np.concatenate([self.force[:, 1:], np.zeros((e, self.p))])
        slope = np.linalg.solve(system, np.broadcast_to(-right, (len(u), n + e, self.p)))
        return log_x, slope[:, :n]

    def respond(self, u: np.ndarray) -> np.ndarray:
        """Equilibria."""
        return np.exp(self.newton(u)[0])

    def with_gradient(self, u: np.ndarray, unit: float) -> tuple[float, np.ndarray]:
        """The objective at one incentive and its gradient, in a unit of its own."""
        log_x, slope = (part[0] for part in self.newton(u[None]))
        x = np.exp(log_x)
        z = np.concatenate([self.theta @ np.concatenate([[1.0], u]), x])
        moved = np.concatenate([self.theta[:, 1:], x[:, None] * slope])
        force = self.hessian @ z + self.slope
        return float((z @ self.hessian @ z / 2 + self.slope @ z) / unit), force @ moved / unit

    def minimum(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, float]:
        """The best incentive of a box."""
        number = (201, 25)[self.p - 1] if (high - low).max() > 0.5 else 7
        u = self.grid(low, high, number)
        values = self.value(u)
        around = np.pad(values.reshape((number,) * self.p), 1, constant_values=np.inf)
        window = np.lib.stride_tricks.sliding_window_view(around, (3,) * self.p)
        lows = np.flatnonzero(values <= window.reshape(len(u), -1).min(1))
        lows = lows[np.argsort(values[lows])][:6]
        unit = max(np.ptp(values), 1e-300)
        ends = [
            scipy.optimize.minimize(
                self.with_gradient, u[i], (unit,), "L-BFGS-B", True, bounds=list(zip(low, high)),
                options=dict(ftol=1e-16, gtol=1e-12, maxiter=300),
            )
            for i in lows
        ]  # fmt: skip
        end = min(ends, key=lambda end: end.fun)
        best = int(np.argmin(values))
        if end.fun * unit < values[best]:
            return end.x, float(end.fun * unit)
        return u[best], float(values[best])
