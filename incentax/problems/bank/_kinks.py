"""Small affine games with a degenerate point."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box, Polyhedron
from ._entry import design


def _BOX(k, hi):
    return (np.vstack([-np.eye(k), np.eye(k)]), np.r_[np.zeros(k), np.full(k, hi)])


def _rotation(n, seed):
    return np.linalg.qr(np.round(np.random.RandomState(seed).randn(n, n), 3))[0]


def _valley(n, k, steep, slope, seed, *, coupling=0.0) -> dict[str, Any]:
    """f_* = steep * sum_j |n_j theta| (for coupling 0) - slope * d theta + |theta|^2 / 2: a
    valley of k kinks around d."""
    R = _rotation(n, seed)
    N, d = R[:k], R[k]
    S = np.triu(np.ones((k, k)), 1)
    C, e = _BOX(k, 10.0)
    g = np.r_[-steep * N.sum(0) - slope * d, 2 * steep * np.ones(k)]
    H = np.diag(np.r_[np.ones(n), np.zeros(k)])
    return dict(
        M=np.eye(k) + coupling * (S - S.T),
        N=-N,
        q=np.zeros(k),
        C=C,
        e=e,
        H=H,
        g=g,
        const=0.0,
        lo=-2 * np.ones(n),
        hi=2 * np.ones(n),
        point=np.zeros(n),
    )


def _split(k, target, cost, point) -> dict[str, Any]:
    """One simplex of k strategies, F = M y + theta; f = |theta - target|^2 / 2 + cost y."""
    return dict(
        M=np.eye(k),
        N=np.eye(k),
        q=np.zeros(k),
        C=-np.eye(k),
        e=np.zeros(k),
        Ceq=np.ones((1, k)),
        eeq=np.ones(1),
        H=np.diag(np.r_[np.ones(k), np.zeros(k)]),
        g=np.r_[-target, cost],
        const=0.5 * float(target @ target),
        lo=-3 * np.ones(k),
        hi=3 * np.ones(k),
        point=point,
    )


def _firms(name) -> dict[str, Any]:
    """Cournot, four firms with caps, five or four incentives (taxes mix the firms)."""
    k, n = 4, 5 if name == "D9" else 4
    rng = np.random.RandomState(9 if name == "D9" else 10)
    T = np.round(rng.randn(k, n), 2)
    M = np.diag(np.round(1 + rng.rand(k), 2)) + np.round(0.2 + 0.5 * rng.rand(k, k), 2)
    C, e = _BOX(k, 1.5)
    q = -np.round(1 + 3 * rng.rand(k), 2)
    A, b = np.round(rng.randn(k, k), 2), np.round(2 * rng.randn(k), 2)
    return dict(
        M=M,
        N=T,
        q=q,
        C=C,
        e=e,
        H=np.block([[0.3 * np.eye(n), np.zeros((n, k))], [np.zeros((k, n)), A.T @ A]]),
        g=np.r_[np.zeros(n), A.T @ b],
        const=0.5 * float(b @ b),
        lo=-2 * np.ones(n),
        hi=2 * np.ones(n),
        point=None,
    )


def kink(name) -> dict[str, Any]:
    """Lower level: F = M y + N theta + q over {C y <= e, Ceq y = eeq} (a VI, y unique); theta in
    [lo, hi].
    Upper: w H w / 2 + g w + const with w = (theta, y). "point" is the degenerate point to be
    judged."""
    case: dict[str, Any] = {}
    if name == "D1":  # narrow cone in the plane: 1.4 degrees to each side
        case = _valley(2, 1, 40.0, 1.0, 1)
    elif name == "D2":  # four incentives, three kinks, lower level not symmetric
        case = _valley(4, 3, 8.0, 1.0, 2, coupling=0.4)
    elif name == "D3":  # six incentives, five kinks, descent slope 0.05
        case = _valley(6, 5, 1.0, 0.05, 3)
    elif (
        name == "D4"
        # concave kink along n (Clarke-stationary, the mean of the two gradients is 0), valley
        # across
    ):
        R = _rotation(2, 4)
        case = _valley(2, 1, 1.0, 0.0, 4)
        case.update(
            M=np.eye(2),
            N=-R,
            q=np.zeros(2),
            H=np.diag([0.2, 0.2, 0, 0]),
            g=np.r_[-30 * R[0] + R[1], 60.0, -2.0],
        )
        case["C"], case["e"] = _BOX(2, 10.0)
    elif (
        name == "D5"
    ):  # degenerate vertex of a simplex: B-stationary, gradient of the vertex piece not zero
        case = _split(
            3, np.array([1.0, 0.6, 0.4]), np.array([0.0, 2.5, 3.0]), point=np.array([0.0, 1.0, 1.0])
        )
        case["g"][:3] = -(case["point"] + np.array([1.0, -0.4, -0.6]))
        case["const"] = 0.5 * float(case["g"][:3] @ case["g"][:3])
    elif name == "D6":  # the same vertex, cheaper second strategy: one piece descends
        case = kink("D5")
        case["g"] = np.r_[case["g"][:3], 0.0, 0.85, 3.0]
    elif (
        name == "D7"
    ):  # pyramid: four facets meet at an apex in R^3 (LICQ fails); a narrow cone descends
        C = np.array([[1.0, 0, 1], [-1, 0, 1], [0, 1, 1], [0, -1, 1], [0, 0, -1]])
        case = dict(
            M=np.eye(3),
            N=-np.eye(3),
            q=np.zeros(3),
            C=C,
            e=np.array([1.0, 1, 1, 1, 1]),
            const=0.0,
            H=np.diag([1.0, 1, 1, 0, 0, 0]),
            g=np.r_[0.1, -0.05, -0.5, 0.3, 0.2, -1.0],
            lo=-2 * np.ones(3),
            hi=2 * np.ones(3),
            point=np.array([0.0, 0, 1]),
        )
    elif name == "D8":  # the pyramid, cost of y tilted: only a thin wedge of pieces descends
        case = kink("D7")
        case["g"] = np.r_[0.1, -0.05, -0.5, 0.75, 0.2, -1.0]
    elif name == "D11":  # the pyramid once more: B-stationary, LICQ fails, no piece has gradient 0
        case = kink("D7")
        case["g"] = np.r_[0.1, -0.05, -0.8, 0.3, 0.2, -1.0]
    elif name in ("D9", "D10"):
        case = _firms(name)
    case.setdefault("Ceq", np.zeros((0, len(case["q"]))))
    case.setdefault("eeq", np.zeros(0))
    case["name"] = name
    return case


def kink_design(name):
    """A small affine game; its start is the degenerate point, where there is one."""
    d = kink(name)
    m, n, q, h, g = (jnp.asarray(d[part]) for part in ("M", "N", "q", "H", "g"))
    equality = (d["Ceq"], d["eeq"]) if len(d["eeq"]) else None
    strategies = Polyhedron(inequality=(d["C"], d["e"]), equality=equality)

    def objective(theta, y):
        both = jnp.concatenate([theta, y])
        return both @ h @ both / 2 + g @ both + d["const"]

    game = Game(lambda theta, y: m @ y + n @ theta + q, strategies)
    start = np.zeros(len(d["lo"])) if d["point"] is None else d["point"]
    return DesignProblem(game, objective, Box(d["lo"], d["hi"])), jnp.asarray(start)


# Every active set enumerated.
_BEST = {
    "D1": -0.5,
    "D2": -0.5,
    "D3": -0.00125,
    "D4": -1.6015714437,
    "D5": 0.76,
    "D6": 0.684375,
    "D7": -1.0004166667,
    "D8": -1.041875,
    "D9": 7.5499991758,
    "D10": 16.4297847129,
    "D11": -1.3,
}
for _name, _best in _BEST.items():
    design(f"kink {_name}", _best)(partial(kink_design, _name))
