"""What to hand in so that its nearest monotone, or convex, sequence is the data."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box, Polyhedron
from ._entry import design

# name: kind, n, seed, rho, box r (inf: none), planted
C_SPECS = {
    "C1": ("monotone", 50, 1, 0.0, 1.0, False),
    "C2": ("monotone", 100, 2, 0.1, np.inf, False),
    "C3": ("monotone", 200, 3, 0.05, 0.8, False),
    "C4": ("convex", 50, 4, 0.2, np.inf, False),
    "C5": ("convex", 200, 5, 0.05, np.inf, False),
    "C6": ("monotone", 50, 6, 0.5, np.inf, True),
    "C7": ("monotone", 200, 7, 0.1, np.inf, True),
    "C8": ("convex", 50, 8, 0.5, np.inf, True),
    "C9": ("convex", 100, 9, 0.2, np.inf, True),
    "C10": ("convex", 200, 10, 0.1, 1.0, True),
    "C11": ("convex", 50, 11, 0.0, 1.0, False),
    "C12": ("convex", 100, 12, 0.0, 1.0, False),
    "C13": ("convex", 200, 13, 0.0, 1.0, False),
}


def inverse(name) -> dict[str, Any]:
    """Lower level: y = argmin |y - theta|^2 over A @ y >= 0 (A: first differences, or second y[i]
    - 2 y[i+1] + y[i+2]).
    Upper: |y - data|^2 + rho |theta - centre|^2 over |theta| <= r.
    Planted ones carry the certified global optimum: theta, y, value, and the multipliers of A y
    >= 0 ("mu")."""
    kind, n, seed, rho, r, planted = C_SPECS[name]
    rng = np.random.RandomState(seed)
    A = np.diff(np.eye(n), 1 if kind == "monotone" else 2, axis=0)
    s = np.linspace(-1, 1, n)
    out: dict[str, Any] = dict(name=name, kind=kind, n=n, A=A, rho=rho, r=r, centre=np.zeros(n))
    if not planted:
        trend = (
            1.3 * s**3 + 0.4 * s
            if kind == "monotone"
            else 1.6 * s**2 + 0.5 * s - 0.6 - 0.3 * np.cos(9 * s)
        )
        out["data"] = np.round(trend + 0.25 * rng.randn(n), 3)
        return out
    # Moreau: theta = y + z, y in C, z = -A' mu in the polar cone, <y, z> = 0. Dropping <y,
    # z> = 0 leaves a convex problem in
    # (y, z); data and centre are chosen so that its optimum is complementary, hence global
    # for the bilevel problem.
    m = len(A)
    role = np.array([0, 1, 1, 2, 2])[
        rng.randint(5, size=m)
    ]  # 0: A y > 0, 1: mu > 0, 2: both zero (a kink)
    if np.isfinite(r):  # a flat bottom with spikes of theta that reach r
        role = np.where(np.abs(s[1:-1]) > 0.7, 0, np.where(np.arange(m) % 4 == 0, 1, 2))
    scale = 1.0 if kind == "monotone" else 1.0 / n
    curv = np.where(
        role == 0, scale * (0.2 + rng.rand(m)) * (2.0 / n if np.isfinite(r) else 0.1), 0.0
    )
    mu = np.where(role == 1, r / 2 if np.isfinite(r) else 0.2 + rng.rand(m), 0.0)
    both = (role == 2) & (rng.rand(m) < 0.6)  # kinks held by both multipliers
    qcurv = np.where((role == 0) | both, 0.1 * scale * rng.rand(m), 0.0)
    nu = np.where((role == 1) | both, rng.rand(m), 0.0)

    def build(c, flat=False):  # a sequence with A @ seq = c
        if kind == "monotone":
            y = np.concatenate([[0.0], np.cumsum(c)])
            return y - y.mean()
        if flat:  # zero on the middle, convex outward
            mid = m // 2
            right, left = (
                np.where(np.arange(m) >= mid, c, 0),
                np.where(np.arange(m) < mid, c, 0)[::-1],
            )

            def ramp(w):
                return np.concatenate([[0.0, 0.0], np.cumsum(np.cumsum(w))])

            return ramp(right) + ramp(left)[::-1]
        y = np.concatenate([[0.0, 0.0], np.cumsum(np.cumsum(c))])
        return y - np.polyval(np.polyfit(s, y, 1), s) + 0.2 * s

    y, q, p = build(curv, np.isfinite(r)), build(qcurv), -A.T @ nu
    theta = y - A.T @ mu
    bound = np.where(
        np.abs(theta - r) < 1e-9, 0.05 + 0.2 * rng.rand(n), 0.0
    )  # multipliers of theta <= r
    out["centre"] = theta + (q + bound) / (2 * rho)
    out["data"] = y + (p - q) / 2
    value = np.sum((y - out["data"]) ** 2) + rho * np.sum((theta - out["centre"]) ** 2)
    out.update(
        theta=theta,
        y=y,
        mu=mu,
        value=value,
        kinks=int(np.sum(role == 2)),
        certificate=dict(p=p, q=q, bound=bound),
    )
    return out


def inverse_design(name):
    """What to hand in so that its nearest monotone, or convex, sequence is the data."""
    d = inverse(name)
    n, rho, data, centre = d["n"], d["rho"], jnp.asarray(d["data"]), jnp.asarray(d["centre"])
    free = jnp.full(n, jnp.inf)
    cone = Polyhedron(inequality=(-d["A"], np.zeros(len(d["A"]))), lower=-free)
    incentives = Box(-d["r"] * jnp.ones(n), d["r"])

    def objective(theta, y):
        return jnp.sum((y - data) ** 2) + rho * jnp.sum((theta - centre) ** 2)

    game = Game(lambda theta, y: y - theta, cone)
    return DesignProblem(game, objective, incentives), jnp.zeros(n)


# Proved: theta may be taken in the cone (C1 to C5), a planted optimum of a convex relaxation (C6
# to C10), or branch and bound over the pairs (C11 to C13).
_BEST = {
    "C1": 4.4469185397,
    "C2": 10.1230863788,
    "C3": 26.5331461855,
    "C4": 6.6475753731,
    "C5": 18.5581720992,
    "C6": 5.2437624272,
    "C7": 1002.0858988292,
    "C8": 6.9853133942,
    "C9": 18.5486504998,
    "C10": 52.1943367721,
    "C11": 2.5992367745,
    "C12": 8.0746025466,
    "C13": 14.7495606452,
}
for _name, _best in _BEST.items():
    design(f"inverse problem {_name}", _best)(partial(inverse_design, _name))
