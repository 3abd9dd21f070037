"""Weights `lambda` of the agents, by cutting planes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Weights within this of the best are good enough.
_ACCURACY = 0.02


def negligible(dtype: np.dtype) -> float:
    """What counts as 0, relative to the size of the rows: rounding, and the programs' accuracy."""
    return max(1e-10, 30 * float(np.finfo(dtype).eps))


class Weights(NamedTuple):
    """Weights that sum to the number of agents, what they reach, and what none can exceed."""

    weights: np.ndarray
    value: float
    most: float


def search_weights(
    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]],
    agents: int,
    rows: np.ndarray | None = None,
    *,
    zero: float = 1e-10,
    rounds: int = 60,
) -> Weights:
    """`max over lambda >= 0 of min over rows r of r' lambda`, rows being found as they are needed.

    `evaluate(lambda)` gives the true minimum and rows that attain it or come near. By linear
    programming duality a `most` of 0 or less proves that no weights have a positive minimum: some
    mean of the rows is nowhere positive. J. E. Kelley, *SIAM Journal* 8 (1960).
    """
    from scipy.optimize import linprog  # noqa: PLC0415  # heavy

    rows = np.zeros((0, agents)) if rows is None else rows
    weights = best = np.ones(agents)
    value, most = -np.inf, np.inf
    for _ in range(rounds):
        reached, found = evaluate(weights)
        if reached > value:
            value, best = reached, weights
        rows = np.concatenate([rows, found])
        size = max(1e-300, float(np.abs(rows).max(initial=0.0)))
        if agents == 1:
            return Weights(best, value, min(value, float(rows.min(initial=np.inf))))
        program = linprog(
            np.append(np.zeros(agents), -1.0),
            A_ub=np.column_stack([-rows / size, np.ones(len(rows))]),
            b_ub=np.zeros(len(rows)),
            A_eq=np.append(np.ones(agents), 0.0)[None],
            b_eq=[agents],
            bounds=[(0, None)] * agents + [(None, None)],
        )
        if program.x is None:
            break
        most = min(most, size * program.x[-1])
        if most <= zero * size or value >= (1 - _ACCURACY) * most:
            break
        # Halfway to the best so far: the program's own vertices swing from side to side.
        weights = 0.5 * best + 0.5 * np.maximum(program.x[:-1], 0)
    return Weights(best, value, most)


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
