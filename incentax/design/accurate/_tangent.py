"""What linear equations leave free, and their multipliers, in numpy.

Most equations of a large equilibrium hold one unknown at rest. They are taken out first; the rest
is factored once, with its rank.
"""

from typing import Any

import numpy as np
import scipy.linalg


class Equations:
    """`rows @ u = 0`: a basis of the motions that remain, and multipliers of the rows."""

    def __init__(self, rows: np.ndarray, eps: float):
        rows = np.asarray(rows, float)
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
        if rest.size:
            factors: Any = scipy.linalg.qr(rest.T, pivoting=True)
            self.q, self.r, self.order = factors
            diagonal = np.abs(np.diagonal(self.r))
            self.rank = int(np.sum(diagonal > least * max(diagonal.max(initial=0.0), 1e-300)))
        else:
            self.q, self.r = np.eye(len(self.free)), np.zeros((0, 0))
            self.order, self.rank = np.zeros(0, int), 0

    def basis(self) -> np.ndarray:
        """Orthonormal columns, one a direction in which `u` may move."""
        basis = np.zeros((self.shape[1], len(self.free) - self.rank))
        basis[self.free] = self.q[:, self.rank :]
        return basis

    def onto(self, level: np.ndarray) -> np.ndarray:
        """The shortest motion with `rows @ u = level`, where there is one."""
        moved, level, rank = np.zeros(self.shape[1]), level / self.size, self.rank
        moved[self.held] = level[self.holding] / self.rows[self.holding, self.held]
        if rank:
            left = (level - self.rows[:, self.held] @ moved[self.held])[
                self.kept[self.order[:rank]]
            ]
            solved = scipy.linalg.solve_triangular(self.r[:rank, :rank], left, trans=1)
            moved[self.free] = self.q[:, :rank] @ solved
        return moved

    def multipliers(self, slope: np.ndarray) -> np.ndarray:
        """`y` with `slope + rows' y = 0`, or what comes nearest to it."""
        found, rank = np.zeros(self.shape[0]), self.rank
        if rank:
            onto = self.q[:, :rank].T @ -slope[self.free]
            solved = scipy.linalg.solve_triangular(self.r[:rank, :rank], onto)
            found[self.kept[self.order[:rank]]] = solved
        left = -slope[self.held] - self.rows[:, self.held].T @ found
        found[self.holding] = left / self.rows[self.holding, self.held]
        return found / self.size
