"""What linear equations leave free, and their multipliers, in numpy.

Most equations of a large equilibrium hold one unknown at rest. They are taken out first; the rest
is factored with its rank. Where it is large and determines its last unknowns by the first ones, as
an equilibrium is by its incentive, it is factored as it stands: that takes a sixth of the time.
"""

from typing import Any

import numpy as np
import scipy.linalg

# Least reciprocal condition number at which the last square of the rows is used as it is.
_FAR = 1e-5
# Rows from which on that is worth the digits that it costs.
_MANY = 200


class Equations:
    """`rows @ u = 0`: a basis of the motions that remain, and multipliers of the rows."""

    def __init__(self, rows: np.ndarray, eps: float):
        rows = np.asarray(rows, float)
        if not np.isfinite(rows).all():
            raise ValueError("`Equations(rows)` needs finite numbers")
        # Less than that is rounding of the precision that the rows were computed in.
        least = max(1e-10, 30 * eps * max(rows.shape, default=1))
        size = np.abs(rows).max(axis=1, initial=0.0)
        self.size = np.where(size > 0, size, 1)
        rows = rows / self.size[:, None]
        filled = rows != 0
        alone = filled.sum(axis=1) == 1
        self.shape = rows.shape
        # One row for every unknown that is held; a second one says the same again.
        self.held, first = np.unique(np.argmax(filled[alone], axis=1), return_index=True)
        self.holding = np.flatnonzero(alone)[first]
        self.kept = np.flatnonzero(~alone)
        self.free = np.setdiff1d(np.arange(self.shape[1]), self.held)
        self.rows = rows
        rest = rows[np.ix_(self.kept, self.free)]
        self.factors = _factored(rest, least)

    def basis(self) -> np.ndarray:
        """Orthonormal columns, one a direction in which `u` may move."""
        basis = np.zeros((self.shape[1], self.factors.basis.shape[1]))
        basis[self.free] = self.factors.basis
        return basis

    def onto(self, level: np.ndarray) -> np.ndarray:
        """The shortest motion with `rows @ u = level`, where there is one."""
        moved, level = np.zeros(self.shape[1]), level / self.size
        moved[self.held] = level[self.holding] / self.rows[self.holding, self.held]
        left = level[self.kept] - self.rows[np.ix_(self.kept, self.held)] @ moved[self.held]
        moved[self.free] = self.factors.onto(left)
        return moved

    def multipliers(self, slope: np.ndarray) -> np.ndarray:
        """`y` with `slope + rows' y = 0`, or what comes nearest to it."""
        found = np.zeros(self.shape[0])
        found[self.kept] = self.factors.multipliers(-slope[self.free])
        left = -slope[self.held] - self.rows[:, self.held].T @ found
        found[self.holding] = left / self.rows[self.holding, self.held]
        return found / self.size


class _Square:
    """Rows whose last columns are a square system that is far from singular."""

    def __init__(self, rows: np.ndarray, factors: Any):
        first = rows.shape[1] - len(rows)
        self.factors = factors
        moves = -self._solved(rows[:, :first])
        self.basis = np.linalg.qr(np.concatenate([np.eye(first), moves]))[0]

    def _solved(self, level: np.ndarray, transposed: int = 0) -> np.ndarray:
        return scipy.linalg.lu_solve(self.factors, level, trans=transposed, check_finite=False)

    def onto(self, level: np.ndarray) -> np.ndarray:
        some = np.zeros(len(self.basis))
        some[len(some) - len(level) :] = self._solved(level)
        return some - self.basis @ (self.basis.T @ some)

    def multipliers(self, slope: np.ndarray) -> np.ndarray:
        across = slope - self.basis @ (self.basis.T @ slope)
        return self._solved(across[self.basis.shape[1] :], 1)


class _Ranked:
    """Any rows, those apart that others imply."""

    def __init__(self, rows: np.ndarray, least: float):
        factors: Any = scipy.linalg.qr(rows.T, pivoting=True)
        q, r, order = factors
        diagonal = np.abs(np.diagonal(r))
        rank = int(np.sum(diagonal > least * max(diagonal.max(initial=0.0), 1e-300)))
        self.rows, self.order, self.r = len(rows), order[:rank], r[:rank, :rank]
        self.across, self.basis = q[:, :rank], q[:, rank:]

    def onto(self, level: np.ndarray) -> np.ndarray:
        solved = scipy.linalg.solve_triangular(self.r, level[self.order], trans=1)
        return self.across @ solved

    def multipliers(self, slope: np.ndarray) -> np.ndarray:
        found = np.zeros(self.rows)
        found[self.order] = scipy.linalg.solve_triangular(self.r, self.across.T @ slope)
        return found


def _factored(rows: np.ndarray, least: float) -> "_Square | _Ranked":
    size, first = len(rows), rows.shape[1] - len(rows)
    if size >= _MANY and first >= 0:
        lapack: Any = scipy.linalg.lapack
        lu, pivots, singular = lapack.dgetrf(rows[:, first:])
        norm = np.abs(rows[:, first:]).sum(axis=0).max()
        if not singular and lapack.dgecon(lu, norm)[0] > max(least, _FAR):
            return _Square(rows, (lu, pivots))
    return _Ranked(rows, least)
