"""The experiment `incentax reproduce laws`: what each law must know, and how far it comes.

Laws by which a regulator moves the incentive, on one interface and four problems: how often agents
are asked to move, how far the objective at the settled equilibrium stays from the optimum, and what
each law needs to know.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from .. import plots, traffic
from .._checks import require_count
from .._compile import compiled
from ..design import (
    AbstractScheme,
    design,
    DesignAndPlay,
    DesignProblem,
    DoubleLoop,
    ExternalityPricing,
    Record,
    ZerothOrderRegulator,
)
from ..dynamics import MirrorDescent
from ..equilibrium import solve_equilibrium
from ..games import Game
from ..problems import emission_tax, ev_charging, network_tolls, second_best_tolls
from ..sensitivity import AdjointStep, EstimatedResponse, Implicit, Penalty, SocialGradient
from ..sets import Box, Reals
from ._protocol import Experiment, Report, Table

# Rows of a history; loops of play inside a step of the regulator end here.
_ROWS, _TOL, _INNER = 50, 1e-3, 100

# Laws that wait for agents to settle take so many times fewer steps.
_FEWER = 5


@dataclass(frozen=True)
class Options:
    """Laws side by side: what each must know, and how far it comes."""

    steps: int = 2000
    """steps of each law"""

    def __post_init__(self):
        require_count("laws", "steps", self.steps)


class Case(NamedTuple):
    """A problem: agents' step size, Adam's rate, smoothing and step of the regulator who sees costs
    alone, and the rate of externality pricing, where it applies."""

    problem: DesignProblem
    theta0: PyTree
    x0: Array
    play_step: float
    rate: float
    smoothing: float
    costs_step: float
    externality: float | None = None


class Law(NamedTuple):
    """`make(case, steps)`: the scheme, or `None` where the law does not apply."""

    knows: str
    source: str
    make: Callable[[Case, int], AbstractScheme | None]


def _adam(case: Case, steps: int) -> optax.GradientTransformation:
    """One optimizer for all: laws differ in the direction alone."""
    return optax.adam(optax.cosine_decay_schedule(case.rate, steps))


def _single(sensitivity: Any) -> Callable[[Case, int], AbstractScheme]:
    def make(case: Case, steps: int) -> AbstractScheme:
        return DesignAndPlay(
            _adam(case, steps), play_step=case.play_step, sensitivity=sensitivity()
        )

    return make


def _externality(case: Case, steps: int) -> AbstractScheme | None:
    del steps
    if case.externality is None:
        return None
    return ExternalityPricing(case.externality, play_step=case.play_step)


def _estimated(case: Case, steps: int) -> AbstractScheme:
    noise = optax.add_noise((case.rate / 3) ** 2, 1.0, key=0)
    probing = optax.chain(_adam(case, steps), noise)
    return DoubleLoop(
        probing,
        play_step=case.play_step,
        sensitivity=EstimatedResponse(),
        inner_tol=_TOL,
        inner_steps=_INNER,
    )


def _costs_alone(case: Case, steps: int) -> AbstractScheme:
    def sizes(count):
        left = (1 + jnp.cos(jnp.pi * jnp.asarray(count, float) / steps)) / 2
        return case.costs_step * left

    return ZerothOrderRegulator(
        smoothing=case.smoothing,
        step_size=sizes,
        seeking=MirrorDescent(case.play_step),
        inner_steps=_INNER,
        inner_tol=_TOL,
    )


LAWS = {
    "hypergradient": Law(
        "all derivatives; a linear solve a step", "Liu et al. (2022)", _single(Implicit)
    ),
    "adjoint step": Law(
        "all derivatives; one product a step", "Dagréou et al. (2022)", _single(AdjointStep)
    ),
    "penalty": Law(
        "∇f, ∂F/∂theta; a second population",
        "Niu, Wang, Ziani (2025), derived for potential games",
        _single(Penalty),
    ),
    "social gradient": Law(
        "∇f, ∂F/∂theta", "Vasileiou, Zhang, Zhang (2026)", _single(SocialGradient)
    ),
    "externality": Law("marginal costs", "Maheshwari et al. (2024)", _externality),
    "estimated response": Law(
        "∇f; sees what agents do", "after Vasileiou, Zhang, Zhang (2026), RAID", _estimated
    ),
    "costs alone": Law("f", "Du, Meng, Hu (2025)", _costs_alone),
}


class _Perceived:
    """Total time and what drivers' dispersion is worth to them: least where every link carries its
    marginal external cost (the entropy of logit choice counts as a cost of its own)."""

    def __init__(self, game: traffic.RoutingGame):
        self.game = game

    def __call__(self, theta: Array, x: Array) -> Array:
        entropy = jnp.sum(jax.scipy.special.xlogy(x, x) * self.game.flows.trips)
        return self.game.total_travel_time(theta, x) + self.game.eta * entropy


class _Firms(eqx.Module):
    """Marginal costs of firms that feel one another as they like, and a price for each."""

    matrix: Array

    def __call__(self, theta: Array, x: Array) -> Array:
        return self.matrix @ x - 1 + theta


def _away(theta: Array, x: Array) -> Array:
    del theta
    return jnp.sum((x - jnp.arange(x.size) / x.size) ** 2) / 2


def _prices(n: int) -> Case:
    """One price a strategy, an objective of strategies alone, a game without a potential."""
    matrix = 2 * np.eye(n) + 0.3 * np.random.default_rng(0).normal(size=(n, n))
    game = Game(_Firms(jnp.asarray(matrix)), Reals((n,)))
    prices = Box(jnp.full(n, -10.0), 10.0)
    start = jnp.zeros(n), jnp.zeros(n)
    return Case(DesignProblem(game, _away, prices), *start, 0.2, 0.05, 0.05, 0.08, 0.02)


def _cases() -> dict[str, Case]:
    tax, charging = emission_tax(n=10), ev_charging()
    some = second_best_tolls(eta=1.0)
    network, demand = traffic.sioux_falls()
    paths = traffic.k_shortest_paths(network, demand, 10)
    every = network_tolls(network, demand, paths=paths, eta=1.0, max_toll=200.0)
    game = every.problem.game
    assert isinstance(game, traffic.RoutingGame)
    social = DesignProblem(game, _Perceived(game), every.problem.incentive_set)
    return {
        "ten firms, a price each": _prices(10),
        "emission tax, 10 firms": Case(tax.problem, tax.theta0, tax.x0, 1.9 / 11, 0.05, 0.05, 1e-4),
        "Sioux Falls, 20 links": Case(some.problem, some.theta0, some.x0, 0.02, 0.1, 0.2, 1e-5),
        "Sioux Falls, all links, perceived time": Case(
            social, every.theta0, every.x0, 0.02, 0.3, 0.5, 1e-5, 0.01
        ),
        "charging": Case(
            charging.problem, charging.theta0, charging.x0, 0.5 / 5.5, 0.05, 0.1, 0.05
        ),
    }


class Laws(NamedTuple):
    """`summary` is JSON; `curves`: by problem and law, calls to agents and gaps."""

    summary: dict[str, Any]
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]


@compiled
def _settled(problem: DesignProblem, thetas: PyTree, x: Array) -> Array:
    """The objective at the equilibrium of every incentive, NaN where there is none."""

    def one(theta: PyTree) -> Array:
        return problem.objective(theta, solve_equilibrium(problem.game, theta, x).x)

    return jax.lax.map(one, thetas)


def _calls(history: Any) -> np.ndarray:
    """How often agents moved, from the start; by as many steps as a row stands for."""
    info = history.info
    lanes = 3 if hasattr(info, "oracle_calls") else 1  # at theta, and on both sides of it
    steps = np.diff(np.asarray(history.step, float), prepend=0.0)
    return np.cumsum(np.asarray(info.inner_steps, float) * lanes * steps)


def _one(case: Case, scheme: AbstractScheme, steps: int, best: float) -> dict[str, Any]:
    if not isinstance(scheme, DesignAndPlay | ExternalityPricing):
        steps = -(-steps // _FEWER)
    every = max(1, steps // _ROWS)
    record = Record(every, observe=lambda theta, x: theta)
    key = jax.random.key(0) if scheme.needs_key else None
    start = {"x0": case.x0, "steps": steps, "record": record, "key": key, "throw": False}
    began = time.perf_counter()
    found = jax.block_until_ready(design(case.problem, case.theta0, scheme, **start))
    seconds = time.perf_counter() - began
    settled = np.asarray(_settled(case.problem, found.history.observed, case.x0))
    calls = _calls(found.history)
    if isinstance(scheme, DesignAndPlay) and isinstance(scheme.sensitivity, Penalty):
        calls = 2 * calls
    return {"objective": settled, "calls": calls, "seconds": seconds, "gap": settled - best}


def run(options: Options, report: Report) -> Laws:
    """Every law on every problem, from the same start."""
    cases, summary, curves = _cases(), {}, {}
    for number, (name, case) in enumerate(cases.items()):
        report(f"{name}: optimum", number / len(cases))
        exact = design(case.problem, case.theta0, x0=case.x0, throw=False)
        start = float(_settled(case.problem, case.theta0[None], case.x0)[0])
        rows: dict[str, Any] = {}
        for at, (law, entry) in enumerate(LAWS.items()):
            report(f"{name}: {law}", (number + (at + 1) / (len(LAWS) + 1)) / len(cases))
            scheme = entry.make(case, options.steps)
            if scheme is not None:
                rows[law] = _one(case, scheme, options.steps, float(exact.objective))
        # A law may end below what the accurate designer found; the best of all is the reference.
        lowest = min(np.nanmin(row["objective"]) for row in rows.values())
        best = min(float(exact.objective), float(lowest))
        for row in rows.values():
            row["gap"] = (row["objective"] - best) / (start - best)
        curves[name] = {law: (row["calls"], row["gap"]) for law, row in rows.items()}
        summary[name] = {
            "objective at the start": start,
            "objective of the accurate designer": float(exact.objective),
            "lowest objective of a law": float(lowest),
            "laws": {
                law: {
                    "gap": float(row["gap"][-1]),
                    "objective": float(row["objective"][-1]),
                    "calls": float(row["calls"][-1]),
                    "calls_to_one_per_cent": _first(row, 1e-2),
                    "seconds": row["seconds"],
                }
                for law, row in rows.items()
            },
        }
    known = {law: {"knows": entry.knows, "source": entry.source} for law, entry in LAWS.items()}
    return Laws({"steps": options.steps, "laws": known, "problems": summary}, curves)


def _first(row: dict[str, Any], level: float) -> float | None:
    """Calls after which the gap stays below a level."""
    above = np.flatnonzero(~(row["gap"] <= level))
    after = int(above[-1]) + 1 if len(above) else 0
    return float(row["calls"][after]) if after < len(row["calls"]) else None


def draw(laws: Laws) -> Any:
    """A panel a problem: the gap that is left against calls to agents."""
    figure = plots.new_figure(14, 8)
    panels = figure.subplots(2, 3).ravel()
    panels[-1].axis("off")
    for panel, (name, by_law) in zip(panels, laws.curves.items(), strict=False):
        for law, (calls, gap) in by_law.items():
            colour = f"C{list(LAWS).index(law)}"
            panel.loglog(calls, np.maximum(gap, 1e-9), colour, label=law)
        panel.set(xlabel="moves of the agents", ylabel="gap, of that at the start", title=name)
        panel.set_ylim(5e-10, 20)
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False)
    return figure


def tables(laws: Laws) -> list[Table]:
    """What each law must know, then a table a problem."""
    known = [(law, row["knows"], row["source"]) for law, row in laws.summary["laws"].items()]
    found = [Table("Laws", ("law", "must know", "source"), known)]
    for name, problem in laws.summary["problems"].items():
        rows = []
        for law in LAWS:
            row = problem["laws"].get(law)
            if row is None:
                rows.append((law, "does not apply", "", "", ""))
                continue
            first = row["calls_to_one_per_cent"]
            rows.append(
                (
                    law,
                    f"{row['gap']:.1e}",
                    "never" if first is None else f"{first:,.0f}",
                    f"{row['calls']:,.0f}",
                    f"{row['seconds']:.1f}",
                )
            )
        columns = ("law", "gap left", "moves to 1 %", "moves", "s, with compilation")
        found.append(Table(name, columns, rows))
    return found


def words(laws: Laws) -> list[str]:
    """Which laws came to the optimum, problem by problem."""
    lines = []
    for name, problem in laws.summary["problems"].items():
        reached = [law for law, row in problem["laws"].items() if row["gap"] <= 1e-2]
        lines.append(f"{name}: within 1 % of the optimum are {', '.join(reached) or 'none'}.")
    return lines


EXPERIMENT = Experiment(
    "laws side by side: what each must know, and how far it comes",
    Options,
    run,
    draw,
    tables,
    words,
)
