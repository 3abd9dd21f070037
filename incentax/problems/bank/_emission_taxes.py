"""The emission tax, with outputs and taxes that are free or not."""

from functools import partial
from typing import Any

import numpy as np

from .._emission_tax import emission_tax
from ._entry import design

# The emission tax: closed forms and an active set enumeration, to the digits given.
_TAXES = {
    ("free", "unit interval", None): 127.503065,
    ("free", "free", None): 637.599413,
    ("non-negative", "free", None): -2584.126380,
    ("non-negative", "non-negative", None): -2542.961002,
    ("non-negative", "per damage", None): -2364.102714,
}


def _tax(output, tax, penalty, n=100):
    instance = emission_tax(n, output=output, tax=tax, penalty=penalty)
    return instance.problem, instance.theta0


for (_output, _kind, _penalty), _best in _TAXES.items():
    design(f"emission tax, output {_output}, tax {_kind}", _best, "Liu et al. (2022), section 7")(
        partial(_tax, _output, _kind, _penalty)
    )


def _market(n):
    """Demand at no price, unit costs, and what a unit of each firm's output harms."""
    cost = np.linspace(1.0, 2.0, n)
    return 100.0, cost, 10 * (10 - np.exp(cost))


def _lost(n, output):
    p0, cost, harm = _market(n)
    total = output.sum()
    return float((cost + harm) @ output - p0 * total + total**2 / 2)


def _least_free(n):
    """With outputs `a = p - c - theta`, `p = (100 + sum (c + theta)) / (n + 1)`: where the gradient
    of `50 ||theta||^2 - W` is zero, an equation for the sum of the taxes."""
    p0, cost, harm = _market(n)
    wish, output0 = p0 - cost - harm, (n * p0 - cost.sum()) / (n + 1)
    spread = wish.sum() / (n + 1) - wish
    total = (spread.sum() + n * output0 / (n + 1)) / (100 + n / (n + 1) ** 2)
    theta = (spread + (output0 - total / (n + 1)) / (n + 1)) / 100
    price = (p0 + (cost + theta).sum()) / (n + 1)
    return 50 * float(theta @ theta) + _lost(n, price - cost - theta)


for _n in (10, 50, 300, 1000):
    design(f"emission tax, {_n} firms, output free, tax free", _least_free(_n))(
        partial(_tax, "free", "free", None, _n)
    )


def least_per_damage(n):
    """Over one price of damage: outputs `(p - c - t d)+`, their price by bisection."""
    import scipy.optimize  # noqa: PLC0415 (a quarter of a second)

    p0, cost, harm = _market(n)

    def lost(t):
        own, low, high = cost + t * harm / 10, 0.0, p0
        for _ in range(100):
            p = (low + high) / 2
            low, high = (low, p) if np.maximum(p - own, 0).sum() > p0 - p else (p, high)
        return _lost(n, np.maximum(low - own, 0))

    grid = np.linspace(0, 30, 301)
    near = grid[np.argmin([lost(t) for t in grid])]
    found: Any = scipy.optimize.minimize_scalar(
        lost, bounds=(near - 0.1, near + 0.1), method="bounded", options={"xatol": 1e-13}
    )
    return found.fun


# Firms: [`least_per_damage`][] (10 firms: at a kink, by the designer).
PER_DAMAGE = {10: -2042.560374710, 50: -2287.070656698, 1000: -2509.150015018}
for _n, _best in PER_DAMAGE.items():
    design(f"emission tax, {_n} firms, output non-negative, tax per damage", _best)(
        partial(_tax, "non-negative", "per damage", None, _n)
    )  # fmt: skip
