"""Tolls on arcs that several commodities share: arc flows are unique in total alone."""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...design import DesignProblem
from ...games import Game
from ...sets import Box, Polyhedron
from ._entry import design

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


def toll_network(name) -> dict[str, Any]:
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
    flows = Polyhedron(equality=(balances, d["balance"].ravel()), lower=0.0)

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
    return DesignProblem(Game(operator, flows), objective, Box(zero, d["tmax"])), zero


# Best of many starts of L-BFGS-B on path flows, confirmed by differential evolution or by a second
# multistart.
_BEST = {
    "A1": 529.1848509815,
    "A2": 706.4439119310,
    "A3": 500.4834106486,
    "A4": 528.4011306626,
    "A5": 641.6904741248,
    "A6": 432.9599682756,
    "A7": 1029.8245584791,
    "A8": 501.8214491093,
}
for _name, _best in _BEST.items():
    design(f"multicommodity tolls {_name}", _best)(partial(toll_design, _name))
