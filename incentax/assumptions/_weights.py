"""Least weights `lambda` of the agents, by cutting planes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# The search ends at weights within this of the least.
ACCURACY = 0.02


def negligible(dtype: np.dtype) -> float:
    """What counts as 0, relative to the size of the terms: rounding, and how exact `x*` is."""
    return max(1e-10, 30 * float(np.finfo(dtype).eps))


class Weights(NamedTuple):
    """Weights, and what is known of all others.

    - `weights`: of nearly the least size among those with `r' lambda >= 1` for all rows; ones where
      none were found.
    - `holds`: whether they were found.
    - `least`: no weights of a smaller size will do; infinite where none at all will.
    """

    weights: np.ndarray
    holds: bool
    least: float


class Cuts(NamedTuple):
    """Rows `r` with `r' lambda >= h`, `h > 0`, and how much rounding may have moved each entry."""

    rows: np.ndarray
    heights: np.ndarray
    errors: np.ndarray

    def join(self, others: "Cuts") -> "Cuts":
        """Both."""
        return Cuts(*(np.concatenate(both) for both in zip(self, others)))


def search_weights(
    evaluate: Callable[[np.ndarray], tuple[float, Cuts]],
    cuts: Cuts,
    *,
    straight: bool,
    rounds: int = 100,
) -> Weights:
    """`min |lambda|` over `lambda >= 0` with `r' lambda >= h` for all rows, found as needed.

    `evaluate(lambda)` gives the least `r' lambda / h` of all rows (0 where none is surely positive)
    and rows that attain it or come near. The size is the sum where `straight`, else the Euclidean
    norm. Until some weights will do only the signs of rows count, and agents are measured in the
    last weights tried: then no unit of an agent's costs matters. That none will do is proved by
    duality: some mean of the rows is nowhere positive, whatever rounding did. J. E. Kelley,
    *SIAM Journal* 8 (1960).
    """
    agents = cuts.rows.shape[1]
    weights, best, least = np.ones(agents), None, 0.0
    for _ in range(rounds):
        ratio, found = evaluate(weights)
        cuts = cuts.join(found)
        if ratio > 0 and (best is None or _size(weights / ratio, straight) < _size(best, straight)):
            best = weights / ratio
        if best is None:
            scaled = cuts.rows * weights
            heights = np.abs(scaled).max(axis=1)
            moved, means = _shortest(scaled, np.where(heights > 0, heights, 1.0))
            if _refuted(cuts, weights, means):
                return Weights(np.ones(agents), False, np.inf)
            if moved is None:
                break
            weights = weights * np.maximum(moved, 1e-9)
            weights /= weights.max()
            continue
        size = _size(best, straight)
        moved = _fewest(cuts, best) if straight else _shortest(cuts.rows * size, cuts.heights)[0]
        if moved is None:
            break
        moved = np.maximum(moved * (1.0 if straight else size), 0)
        least = max(least, _size(moved, straight))
        if size <= (1 + ACCURACY) * least:
            break
        # Halfway to the best so far: the program's own answers swing from side to side.
        weights = 0.5 * best + 0.5 * moved
    if best is None:
        return Weights(np.ones(agents), False, 0.0)
    return Weights(best, True, min(least, _size(best, straight)))


def _refuted(cuts: Cuts, weights: np.ndarray, means: np.ndarray) -> bool:
    """Whether a row, or one of two means of the rows, is nowhere positive whatever rounding did."""
    from scipy.optimize import linprog  # noqa: PLC0415  # heavy

    most = cuts.rows + cuts.errors
    if (most <= 0).all(axis=1).any() or (means.any() and (means @ most <= 0).all()):
        return True
    # The mean whose largest entry is least.
    scaled = most * weights
    scaled /= np.maximum(np.abs(scaled).max(axis=1, keepdims=True), 1e-300)
    number, agents = scaled.shape
    program = linprog(
        np.append(np.zeros(number), 1.0),
        A_ub=np.column_stack([scaled.T, -np.ones(agents)]),
        b_ub=np.zeros(agents),
        A_eq=np.append(np.ones(number), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * number + [(None, None)],
    )
    return program.x is not None and bool((np.maximum(program.x[:-1], 0) @ scaled <= 0).all())


def _size(weights: np.ndarray, straight: bool) -> float:
    return float(weights.sum() if straight else np.linalg.norm(weights))


def _shortest(rows: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """`argmin ||w||` over `w >= 0` with `rows w >= heights`, or means of the rows that refute it.

    As least squares with multipliers that are not negative: C. L. Lawson and R. J. Hanson, *Solving
    Least Squares Problems* (1974), chapter 23.
    """
    from scipy.optimize import nnls  # noqa: PLC0415  # heavy

    number, agents = rows.shape
    scale = np.maximum(np.abs(rows).max(axis=1, initial=0.0), heights)
    given = np.column_stack([rows, heights]) / scale[:, None]
    columns = np.concatenate([given, np.eye(agents, agents + 1)])
    try:
        means, left = nnls(columns.T, np.append(np.zeros(agents), 1.0), maxiter=30 * len(columns))
    except RuntimeError:
        return None, np.zeros(number)
    shares = means[:number] / scale
    # The residual is as long as one over the answer.
    return (None if left <= 1e-12 else columns[:, :-1].T @ means / left**2), shares


def _fewest(cuts: Cuts, best: np.ndarray) -> np.ndarray | None:
    """The weights of least sum that satisfy the rows, in units of the best so far."""
    from scipy.optimize import linprog  # noqa: PLC0415  # heavy

    rows = cuts.rows * best
    scale = np.maximum(np.abs(rows).max(axis=1, initial=0.0), cuts.heights)
    program = linprog(best / best.sum(), -rows / scale[:, None], -cuts.heights / scale)
    return None if program.x is None else program.x * best


def symmetriser(
    push: Callable[[np.ndarray], np.ndarray],
    pull: Callable[[np.ndarray], np.ndarray],
    owner: np.ndarray,
) -> np.ndarray:
    """Weights under which `Lambda A` is symmetric, where there are such: a weighted potential.

    `push(v) = A v` and `pull(v) = A^T v`. For a `v` of agent `i` alone symmetry means
    `lambda_j (A v)_j = lambda_i (A^T v)_j`: from agent to agent along those who affect one another.
    D. Monderer and L. S. Shapley, *Games and Economic Behavior* 14 (1996).
    """
    number = int(owner.max(initial=0)) + 1
    weights, asked = np.zeros(number), np.zeros(number, bool)
    draw = np.random.default_rng(0)
    while not asked.all():
        ready = np.flatnonzero((weights > 0) & ~asked)
        agent = int(ready[0]) if len(ready) else int(np.flatnonzero(~asked)[0])
        if not len(ready):  # apart from all before: on a scale of its own
            weights[agent] = 1.0
        asked[agent] = True
        if (weights > 0).all():
            break
        v = np.where(owner == agent, draw.normal(size=owner.size), 0.0)
        ahead, back = push(v), pull(v)
        size = np.bincount(owner, ahead**2, number)
        ratio = np.bincount(owner, ahead * back, number) / np.where(size > 0, size, 1.0)
        reached = (weights == 0) & (size > 0) & (ratio > 0)
        weights[reached] = weights[agent] * ratio[reached]
    return weights
