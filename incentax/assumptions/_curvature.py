"""How far the entropic divergence exceeds the Euclidean one on what mixing leaves."""

import numpy as np

from ..sets import Simplex


def largest_curvature(strategies: Simplex, x: np.ndarray | None, mixing: float) -> np.ndarray:
    """`c` with `D(x*, y) <= sum_k c_k (y_k - x*_k)^2` wherever no `y_k` is below its mixed share.

    `D` is a sum of `x* log(x* / y) - x* + y`, which over `(y - x*)^2` falls in `y`: each `c_k` is
    its value at the least `y_k`. In a block of two strategies both differences are the same, and
    the sum is convex along the block: the larger of its ends is attained. Without an `x*` the
    largest over all of them, `1 / y_k`.
    """
    least = mixing * np.asarray(strategies.centre(), float)
    if x is None:
        return 1 / least
    ids = np.asarray(strategies.blocks.ids)
    totals = np.asarray(strategies.blocks.transpose(strategies.total), float)
    most = _slopes(x, least)
    for block in np.unique(ids):
        pair = np.flatnonzero(ids == block)
        if len(pair) == 2:
            low, high = least[pair], totals[pair] - least[pair]
            ends = [np.asarray([low[0], high[0]]), np.asarray([high[1], low[1]])]
            most[pair] = max(_slopes(x[pair], end).mean() for end in ends)
    return most


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`(x log(x / y) - x + y) / (y - x)^2`, `1 / (2 x)` where they meet."""
    t = x / y - 1
    near = np.abs(t) < 1e-3
    safe = np.where(near, 1.0, t)
    far = ((1 + safe) * np.log(np.maximum(1 + safe, 1e-300)) - safe) / safe**2
    return np.where(near, 0.5 - t / 6 + t**2 / 12, far) / y
