"""Networks, inverse problems and kinks of our own; best values by methods of another kind.
kind.

- `toll_network`: arc flows of several commodities, unique in total alone; best of many starts of
  L-BFGS-B on path flows, confirmed by differential evolution or by a second multistart.
- `capacity_network`: five links whose capacities are designed; a grid and Nelder-Mead.
- `inverse`: the nearest monotone or convex sequence to theta is to match data. Best values are
  proved: theta may be taken in the cone (C1 to C5), a planted optimum of a convex relaxation (C6 to
  C10), or branch and bound over the pairs (C11 to C13).
- `kink`: small problems with a degenerate point; every active set enumerated.
"""

import jax.numpy as jnp
import numpy as np

import incentax as ix

BEST = {
    "A1": 529.1848509815, "A2": 706.4439119310, "A3": 500.4834106486, "A4": 528.4011306626,
    "A5": 641.6904741248, "A6": 432.9599682756, "A7": 1029.8245584791, "A8": 501.8214491093,
    "B1": 44.0, "B2": 79.1494555963, "B3": 95.7237852743, "B4": 86.0442265225, "B5": 81.0768475284,
    "B6": 550.2020832590, "C1": 4.4469185397, "C2": 10.1230863788, "C3": 26.5331461855,
    "C4": 6.6475753731, "C5": 18.5581720992, "C6": 5.2437624272, "C7": 1002.0858988292,
    "C8": 6.9853133942, "C9": 18.5486504998, "C10": 52.1943367721, "C11": 2.5992367745,
    "C12": 8.0746025466, "C13": 14.7495606452, "D1": -0.5, "D2": -0.5, "D3": -0.00125,
    "D4": -1.6015714437, "D5": 0.76, "D6": 0.684375, "D7": -1.0004166667, "D8": -1.041875,
    "D9": 7.5499991758, "D10": 16.4297847129, "D11": -1.3,
}  # fmt: skip

# name: seed, nodes, arcs, commodities, cost kind, tolled arcs, tmax, weight of sum(theta),
# share of the revenue
A_SPECS = {
    "A1": (365, 6, 12, 3, "linear", 3, 20.0, 0.0, 0.0),
    "A2": (449, 7, 15, 4, "bpr", 5, 15.0, 0.05, 0.0),
    "A3": (278, 8, 20, 4, "bpr", 8, 3.0, 0.0, 0.0),
    "A4": (391, 9, 24, 4, "linear", 12, 20.0, 0.05, 0.0),
    "A5": (383, 10, 24, 4, "mixed", 10, 10.0, 0.0, 0.1),
    "A6": (230, 12, 30, 3, "bpr", 25, 15.0, 0.05, 0.0),
    "A7": (426, 9, 24, 4, "mixed", 24, 6.0, 0.1, 0.0),
    "A8": (315, 8, 16, 3, "bpr", 6, 12.0, 0.0, 0.3),
}


def toll_network(name):
    """Arc travel time t_a(v) = alpha_a + beta_a v^power_a of the TOTAL arc flow v = x.sum(0), x
    of shape (K, A), x >= 0,
    node_arc @ x[k] == balance[k] (one redundant row, node K-destination, removed per commodity:
    node_arc[k] is (N-1, A)).
    Lower operator: F[k, a] = t_a(v) + toll_a, toll = zeros(A); toll[toll_arcs] = theta, theta in
    [0, tmax].
    Upper: v @ t(v) + toll_weight * theta.sum() - revenue_share * (theta * v[toll_arcs]).sum()."""
    seed, n, m, K, kind, ntoll, tmax, w, share = A_SPECS[name]
    rng = np.random.RandomState(seed)
    pos = np.round(rng.rand(n, 2), 2)
    order = np.argsort(np.arctan2(pos[:, 1] - 0.5, pos[:, 0] - 0.5), kind="stable")
    arcs = [
        (int(order[i]), int(order[(i + 1) % n])) for i in range(n)
    ]  # a directed ring: strongly connected
    cand = [(i, j) for i in range(n) for j in range(n) if i != j and (i, j) not in arcs]
    score = np.array([np.hypot(*(pos[i] - pos[j])) for i, j in cand]) + 0.35 * rng.rand(len(cand))
    arcs += [cand[k] for k in np.argsort(score, kind="stable")[: m - n]]
    tail, head = np.array(arcs).T
    length = np.round(2 + 10 * np.hypot(*(pos[tail] - pos[head]).T), 2)
    cap = np.round(3 + 9 * rng.rand(m) * (length / length.max()), 2)  # short arcs are narrow
    bpr = np.full(m, kind == "bpr") if kind != "mixed" else rng.rand(m) < 0.5
    alpha = length
    power = np.where(bpr, 4.0, 1.0)
    beta = np.where(bpr, 0.15 * length / cap**4, np.round(0.8 * length / cap, 3))
    far = [(i, j) for i in range(n) for j in range(n) if i != j and (i, j) not in arcs]
    od = np.array([far[k] for k in rng.permutation(len(far))[:K]])
    demand = np.round(5 + 4 * rng.rand(K), 1)
    toll_arcs = np.sort(rng.permutation(m)[:ntoll])
    inc = np.zeros((n, m))
    inc[tail, np.arange(m)] = 1.0
    inc[head, np.arange(m)] = -1.0
    keep = [np.delete(np.arange(n), d) for _, d in od]
    balance = np.zeros((K, n))
    balance[np.arange(K), od[:, 0]] = demand
    return dict(
        name=name,
        tail=tail,
        head=head,
        nodes=n,
        od=od,
        demand=demand,
        alpha=alpha,
        beta=beta,
        power=power,
        toll_arcs=toll_arcs,
        tmax=tmax,
        toll_weight=w,
        revenue_share=share,
        node_arc=np.stack([inc[k] for k in keep]),
        balance=np.stack([b[k] for b, k in zip(balance, keep)]),
    )


_BRAESS = np.array(
    [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [1, 0, 1, 0, 1.0]]
)  # links s-u, s-v, u-v, u-t, v-t -> paths
_BRAESS2 = np.array(
    [[1, 0, 0, 1, 0], [0, 1, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 1.0]]
)
_PAR2 = np.array(
    [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1.0],
    ]
)
# paths, pair of each path, demand, t0, b, capacity, power, u, cost per unit
B_SPECS = {
    "B1": (
        _BRAESS,
        [0, 0, 0],
        [6.0],
        [1, 5, 1, 5, 1.0],
        1.0,
        [3, 6, 4, 6, 3.0],
        1,
        4.0,
        [1, 1, 1, 1, 1.0],
    ),
    "B2": (
        _BRAESS,
        [0, 0, 0],
        [10.0],
        [2, 8, 1, 8, 2.0],
        0.15,
        [4, 5, 3, 5, 4.0],
        4,
        6.0,
        [1.5, 1, 0.5, 1, 1.5],
    ),
    "B3": (
        _PAR2,
        [0, 0, 0, 1, 1, 1],
        [8.0, 6.0],
        [4, 6, 5, 7, 4.0],
        0.5,
        [3, 4, 3, 4, 2.0],
        2,
        5.0,
        [2, 1, 3, 1, 2.0],
    ),
    "B4": (
        _BRAESS2,
        [0, 0, 0, 1, 1],
        [7.0, 4.0],
        [2, 6, 1, 7, 2.0],
        0.15,
        [3, 4, 2, 4, 3.0],
        4,
        8.0,
        [2, 1, 1, 1, 2.0],
    ),
    "B5": (
        _PAR2,
        [0, 0, 0, 1, 1, 1],
        [10.0, 9.0],
        [3, 4, 2, 4, 3.0],
        0.15,
        [3, 3, 2, 3, 3.0],
        4,
        3.0,
        [1, 1, 4, 1, 1.0],
    ),
    "B6": (
        _BRAESS,
        [0, 0, 0],
        [6.0],
        [0.1, 50, 10, 50, 0.1],
        [100, 0.02, 0.1, 0.02, 100.0],
        [1, 1, 1, 1, 1.0],
        1,
        1.0,
        [60, 5, 5, 5, 60.0],
    ),
}


def capacity_network(name):
    """Link times t_a(v, theta) = t0_a (1 + b (v_a / (cap_a + theta_a))^power), v = paths.T @ h,
    path flows h >= 0 with
    sums of each pair equal to its demand; deterministic user equilibrium. theta in [0, u]^5.
    Upper: v @ t(v, theta) + unit_cost @ theta. Link flows are unique."""
    paths, pair, dem, t0, b, cap, p, u, c = B_SPECS[name]
    return dict(
        name=name,
        paths=paths.copy(),
        pair=np.array(pair),
        demand=np.array(dem),
        t0=np.array(t0),
        b=np.asarray(b, float),
        cap=np.array(cap),
        power=float(p),
        u=u,
        unit_cost=np.array(c),
    )


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


def inverse(name):
    """Lower level: y = argmin |y - theta|^2 over A @ y >= 0 (A: first differences, or second y[i]
    - 2 y[i+1] + y[i+2]).
    Upper: |y - data|^2 + rho |theta - centre|^2 over |theta| <= r.
    Planted ones carry the certified global optimum: theta, y, value, and the multipliers of A y
    >= 0 ("mu")."""
    kind, n, seed, rho, r, planted = C_SPECS[name]
    rng = np.random.RandomState(seed)
    A = np.diff(np.eye(n), 1 if kind == "monotone" else 2, axis=0)
    s = np.linspace(-1, 1, n)
    out = dict(name=name, kind=kind, n=n, A=A, rho=rho, r=r, centre=np.zeros(n))
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


def _BOX(k, hi):
    return (np.vstack([-np.eye(k), np.eye(k)]), np.r_[np.zeros(k), np.full(k, hi)])


def _rotation(n, seed):
    return np.linalg.qr(np.round(np.random.RandomState(seed).randn(n, n), 3))[0]


def _valley(n, k, steep, slope, seed, coupling=0.0, hi=10.0):
    """f_* = steep * sum_j |n_j theta| (for coupling 0) - slope * d theta + |theta|^2 / 2: a
    valley of k kinks around d."""
    R = _rotation(n, seed)
    N, d = R[:k], R[k]
    S = np.triu(np.ones((k, k)), 1)
    C, e = _BOX(k, hi)
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


def _split(k, target, cost, M=None, lo=-3.0, hi=3.0, point=None):
    """One simplex of k strategies, F = M y + theta; f = |theta - target|^2 / 2 + cost y."""
    return dict(
        M=np.eye(k) if M is None else M,
        N=np.eye(k),
        q=np.zeros(k),
        C=-np.eye(k),
        e=np.zeros(k),
        Ceq=np.ones((1, k)),
        eeq=np.ones(1),
        H=np.diag(np.r_[np.ones(k), np.zeros(k)]),
        g=np.r_[-target, cost],
        const=0.5 * float(target @ target),
        lo=lo * np.ones(k),
        hi=hi * np.ones(k),
        point=point,
    )


def kink(name):
    """Lower level: F = M y + N theta + q over {C y <= e, Ceq y = eeq} (a VI, y unique); theta in
    [lo, hi].
    Upper: w H w / 2 + g w + const with w = (theta, y). "point" is the degenerate point to be
    judged."""
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
    elif name in (
        "D9",
        "D10",
    ):  # Cournot, four firms with caps, five / four incentives (taxes mix the firms), not symmetric
        k, n = 4, 5 if name == "D9" else 4
        rng = np.random.RandomState(9 if name == "D9" else 10)
        T = np.round(rng.randn(k, n), 2)
        M = np.diag(np.round(1 + rng.rand(k), 2)) + np.round(0.2 + 0.5 * rng.rand(k, k), 2)
        C, e = _BOX(k, 1.5)
        q = -np.round(1 + 3 * rng.rand(k), 2)
        A, b = np.round(rng.randn(k, k), 2), np.round(2 * rng.randn(k), 2)
        case = dict(
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
    case.setdefault("Ceq", np.zeros((0, len(case["q"]))))
    case.setdefault("eeq", np.zeros(0))
    case["name"] = name
    return case


def toll_design(name):
    """Tolls on some arcs, strategies arc flows a commodity after another."""
    d = toll_network(name)
    commodities, arcs, nodes = len(d["demand"]), len(d["tail"]), d["nodes"]
    free, slope = jnp.asarray(d["alpha"]), jnp.asarray(d["beta"])
    linear, tolled = jnp.asarray(d["power"] == 1), jnp.asarray(d["toll_arcs"])
    balances = np.zeros((commodities * (nodes - 1), commodities * arcs))
    for k in range(commodities):
        rows = slice(k * (nodes - 1), (k + 1) * (nodes - 1))
        balances[rows, k * arcs : (k + 1) * arcs] = d["node_arc"][k]
    flows = ix.Polyhedron(equality=(balances, d["balance"].ravel()), lower=0.0)

    def times(v):
        return free + slope * jnp.where(linear, v, v**4)

    def operator(tolls, x):
        v = x.reshape(commodities, arcs).sum(axis=0)
        return jnp.tile(times(v).at[tolled].add(tolls), commodities)

    def objective(tolls, x):
        v = x.reshape(commodities, arcs).sum(axis=0)
        revenue = d["revenue_share"] * (tolls @ v[tolled])
        return v @ times(v) + d["toll_weight"] * tolls.sum() - revenue

    zero = jnp.zeros(len(tolled))
    return ix.DesignProblem(ix.Game(operator, flows), objective, ix.Box(zero, d["tmax"])), zero


def capacity_design(name):
    """Capacities of five links, strategies path flows."""
    d = capacity_network(name)
    paths, demand, power = jnp.asarray(d["paths"], float), d["demand"], int(d["power"])
    free, b, capacity = (jnp.asarray(d[part]) for part in ("t0", "b", "cap"))
    sizes = [int((d["pair"] == pair).sum()) for pair in range(len(demand))]

    def times(v, added):
        return free * (1 + b * (v / (capacity + added)) ** power)

    def objective(added, h):
        v = h @ paths
        return v @ times(v, added) + jnp.asarray(d["unit_cost"]) @ added

    game = ix.Game(
        lambda added, h: paths @ times(h @ paths, added), ix.Simplex(sizes, total=demand)
    )
    return ix.DesignProblem(game, objective, ix.Box(jnp.zeros(5), d["u"])), jnp.zeros(5)


def inverse_design(name):
    """What to hand in so that its nearest monotone, or convex, sequence is the data."""
    d = inverse(name)
    n, rho, data, centre = d["n"], d["rho"], jnp.asarray(d["data"]), jnp.asarray(d["centre"])
    free = jnp.full(n, jnp.inf)
    cone = ix.Polyhedron(inequality=(-d["A"], np.zeros(len(d["A"]))), lower=-free)
    incentives = ix.Box(-d["r"] * jnp.ones(n), d["r"])

    def objective(theta, y):
        return jnp.sum((y - data) ** 2) + rho * jnp.sum((theta - centre) ** 2)

    game = ix.Game(lambda theta, y: y - theta, cone)
    return ix.DesignProblem(game, objective, incentives), jnp.zeros(n)


def kink_design(name):
    """A small affine game; its start is the degenerate point, where there is one."""
    d = kink(name)
    m, n, q, h, g = (jnp.asarray(d[part]) for part in ("M", "N", "q", "H", "g"))
    equality = (d["Ceq"], d["eeq"]) if len(d["eeq"]) else None
    strategies = ix.Polyhedron(inequality=(d["C"], d["e"]), equality=equality)

    def objective(theta, y):
        both = jnp.concatenate([theta, y])
        return both @ h @ both / 2 + g @ both + d["const"]

    game = ix.Game(lambda theta, y: m @ y + n @ theta + q, strategies)
    start = np.zeros(len(d["lo"])) if d["point"] is None else d["point"]
    return ix.DesignProblem(game, objective, ix.Box(d["lo"], d["hi"])), jnp.asarray(start)


MAKERS = {"A": toll_design, "B": capacity_design, "C": inverse_design, "D": kink_design}


def make(name):
    """The problem of that name, and its start."""
    return MAKERS[name[0]](name)
