"""Weights under which Jacobians exceed a metric, and proofs that there are none."""

from fractions import Fraction

import numpy as np

from ._estimate import Estimate, exact
from ._sampled import Agents
from ._weights import Cuts, search_weights, Weights

# Motions with whole numbers up to this as entries are judged in exact arithmetic, up to so many.
_WHOLE, _ENTRIES = 12, 40


def weigh_matrices(
    matrices: np.ndarray,
    metric: np.ndarray,
    tangent: np.ndarray,
    agents: Agents,
    *,
    eps: float,
    straight: bool = False,
) -> Weights:
    """The least weights with `(Lambda A + A' Lambda) / 2 >= H` on the tangents, for all matrices.

    Each weighted matrix is scaled to a diagonal of ones before its eigenvalues are compared with
    what rounding by `eps` can do, so that the units of the agents' costs do not matter.
    """
    basis = _own_basis(tangent, agents)
    inner = basis.T @ metric @ basis

    def evaluate(weights: np.ndarray) -> tuple[float, Cuts]:
        ratio, motions = np.inf, []
        for matrix in matrices:
            one, found = _worst(weights[agents.owner][:, None] * matrix, inner, basis, eps)
            ratio = min(ratio, one)
            motions.append(basis @ found)
        return ratio, _cuts(matrices, motions, metric, agents, eps)

    own = _cuts(matrices, [basis] * len(matrices), metric, agents, eps)
    return search_weights(evaluate, own, straight=straight)


def _own_basis(tangent: np.ndarray, agents: Agents) -> np.ndarray:
    """A basis of the same space, of motions of one agent each."""
    columns = []
    for agent in range(agents.number):
        own = np.flatnonzero(agents.owner == agent)
        values, vectors = np.linalg.eigh(tangent[own] @ tangent[own].T)
        spread = np.zeros((len(tangent), int((values > 0.5).sum())))
        spread[own] = vectors[:, values > 0.5]
        columns.append(spread)
    return np.concatenate(columns, axis=1)


def _worst(
    matrix: np.ndarray, metric: np.ndarray, basis: np.ndarray, eps: float
) -> tuple[float, np.ndarray]:
    """`min v' A v / v' H v`, 0 where rounding may decide its sign, and motions near it."""
    inner = basis.T @ matrix @ basis
    inner = (inner + inner.T) / 2
    spread = np.abs(basis.T) @ np.abs(matrix) @ np.abs(basis)
    diagonal = np.abs(np.diagonal(inner))
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = scale[:, None] * inner * scale
    size = (scale[:, None] * (spread + spread.T) / 2 * scale).sum(axis=1).max()
    rounding = 4 * len(matrix) * eps * size
    values, vectors = np.linalg.eigh(scaled)
    if not values[0] > rounding:
        return 0.0, scale[:, None] * vectors[:, :4]
    root = np.linalg.cholesky(scaled)
    part = np.linalg.solve(root, scale[:, None] * metric * scale)
    values, vectors = np.linalg.eigh(np.linalg.solve(root, part.T))
    return float(1 / values[-1]), scale[:, None] * np.linalg.solve(root.T, vectors[:, -4:])


def _cuts(
    matrices: np.ndarray, motions: list[np.ndarray], metric: np.ndarray, agents: Agents, eps: float
) -> Cuts:
    """What each motion asks of the weights: `sum_i lambda_i v_i (A v)_i >= v' H v`."""
    rows, heights, errors = [], [], []
    for matrix, columns in zip(matrices, motions):
        for column in columns.T:
            v, whole = _rounded(column / np.abs(column).max())
            if whole:
                rows.append(_exactly(matrix, v, agents))
                errors.append(np.zeros(agents.number))
            else:
                rows.append(agents.sums((v * (matrix @ v))[None])[0])
                spread = np.abs(v) * (np.abs(matrix) @ np.abs(v))
                errors.append(4 * len(v) * eps * agents.sums(spread[None])[0])
            heights.append(v @ metric @ v)
    return Cuts(np.stack(rows), np.asarray(heights), np.stack(errors))


def _rounded(v: np.ndarray) -> tuple[np.ndarray, bool]:
    """The motion in whole numbers, if to rounding it is one of few entries."""
    for factor in range(1, _WHOLE + 1):
        near = np.round(v * factor)
        if np.abs(v * factor - near).max() <= 1e-9:
            return near, bool(np.count_nonzero(near) <= _ENTRIES)
    return v, False


def _exactly(matrix: np.ndarray, v: np.ndarray, agents: Agents) -> np.ndarray:
    """`v_i (A v)_i`, of whole `v`, summed over each agent's entries without rounding."""
    sums = [Fraction(0)] * agents.number
    for owner, entry, slope in zip(agents.owner, v, _products(matrix, v)):
        sums[owner] += int(entry) * slope
    return np.asarray([float(one) for one in sums])


def least_slope(matrix: np.ndarray, basis: np.ndarray, eps: float) -> Estimate:
    """The least `v' A v / v' v` along the basis; between two ends where rounding matters."""
    inner = basis.T @ matrix @ basis
    inner = (inner + inner.T) / 2
    ratio, _ = _worst(matrix, np.eye(len(inner)), basis, eps)
    if ratio > 0:
        return exact(ratio)
    values, vectors = np.linalg.eigh(inner)
    error = 4 * len(inner) * eps * float(np.abs(values).max())
    if values[0] < -1e4 * error:
        return exact(float(values[0]))
    v = basis @ vectors[:, 0]
    v, whole = _rounded(v / np.abs(v).max())
    everyone = Agents(np.zeros(len(v), int), 1)
    nowhere = whole and _exactly(matrix, v, everyone)[0] <= 0
    return Estimate(float(values[0]) - error, 0.0 if nowhere else float(values[0]) + error)


def inverse_norm(matrix: np.ndarray, eps: float) -> Estimate:
    """`||A^-1||`, after rows and columns are scaled alike: units of costs do not matter.

    Infinite where a motion in whole numbers has no effect at all; where rounding decides whether
    there is one, no more than a lower bound.
    """
    rows = np.abs(matrix).max(axis=1)
    if not (rows > 0).all() or not np.abs(matrix).max(axis=0).all():
        return exact(np.inf)
    scaled = matrix / rows[:, None]
    columns = np.abs(scaled).max(axis=0)
    scaled = scaled / columns
    left, values, right = np.linalg.svd(scaled)
    error = 4 * len(matrix) * eps * values[0] / max(values[-1], 1e-300)
    if error >= 0.1:
        v = right[-1] / columns
        v, whole = _rounded(v / np.abs(v).max())
        if whole and not any(_products(matrix, v)):
            return exact(np.inf)
        effect = np.linalg.norm(np.abs(matrix @ v) + 4 * len(v) * eps * np.abs(matrix) @ np.abs(v))
        return Estimate(float(np.linalg.norm(v) / effect), np.inf)
    inverse = (right.T / columns[:, None]) @ ((left / values).T / rows)
    norm = float(np.linalg.norm(inverse, 2))
    return exact(norm) if error < 1e-6 else Estimate(norm * (1 - error), norm / (1 - error))


def _products(matrix: np.ndarray, v: np.ndarray) -> list[Fraction]:
    """`A v` of whole `v`, without rounding."""
    some = np.flatnonzero(v)
    return [sum((Fraction(float(row[j])) * int(v[j]) for j in some), Fraction(0)) for row in matrix]
