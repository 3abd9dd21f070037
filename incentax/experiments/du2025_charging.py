"""The experiment `incentax reproduce charging`: a regulator who sees only costs.

Du, Meng, Hu (2025), figures 2 to 4, on a stand-in for their instance, whose constants are not
available: residual, trajectory of the price, and costs of residents and regulator, over seeds.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import plots
from .._checks import require_count
from ..design import design, Record
from ..diagnostics import certify
from ..equilibrium import solve_equilibrium
from ..problems import ev_charging
from ._protocol import Experiment, Report, Table


@dataclass(frozen=True)
class Options:
    """A regulator without derivatives over ten electric vehicles."""

    steps: int = 600
    """steps of the regulator"""
    seeds: int = 20
    """runs side by side"""

    def __post_init__(self):
        for name in ("steps", "seeds"):
            require_count("charging", name, getattr(self, name))


class Charging(NamedTuple):
    """`summary` is JSON; `curves` has a row a seed and a column a step."""

    summary: dict[str, Any]
    curves: dict[str, np.ndarray]


def reproduce(options: Options, report: Report) -> Charging:
    """Runs the regulator from `seeds` keys side by side, beside the exact optimum."""
    steps, seeds = options.steps, options.seeds
    instance = ev_charging()
    problem, scheme = instance.problem, instance.schemes["regulator"]
    report("exact optimum, by derivatives", 0.0)
    best = design(problem, instance.theta0)
    report("regulator", 0.3)
    record = Record(1, observe=lambda theta, x: theta)

    @jax.jit
    @jax.vmap
    def run(key):
        start = {"x0": instance.x0, "steps": steps, "key": key, "record": record}
        found = design(problem, instance.theta0, scheme, throw=False, **start)
        # What the regulator would see if everyone had settled.
        settled = solve_equilibrium(problem.game, found.theta, found.x, throw=False)
        return found, problem.objective(found.theta, settled.x)

    found, social = run(jax.random.split(jax.random.key(0), seeds))
    info = found.history.info
    away = jnp.abs(found.theta[:, 0] - best.theta[0])
    report("certificate", 0.9)
    curves = {
        "gradient": np.asarray(info.gradient),
        "inner_residual": np.asarray(info.inner_residual),
        "theta": np.asarray(found.history.observed)[:, :, 0],
        "objective": np.asarray(info.objective),
        "player_costs": np.asarray(info.player_costs),
    }
    findings = {
        "price at the exact optimum": float(best.theta[0]),
        "social cost at the exact optimum": float(best.objective),
        "median price found": float(jnp.median(found.theta)),
        "largest distance of a price from the optimum": float(jnp.max(away)),
        "seeds within 0.02 of the optimum": int(jnp.sum(away <= 0.02)),
        "largest social cost at the settled equilibrium": float(jnp.max(social)),
        "costs asked for, a seed": int(info.oracle_calls[0, -1]),
        "messages between residents, a seed": int(info.messages[0, -1]),
    }
    summary = {
        "source": "Du, Meng, Hu (2025), figures 2 to 4",
        "problem": instance.description,
        "stand_in": "the source's constants are not available; ours are those of ev_charging()",
        "seeds": seeds,
        "step": np.arange(1, steps + 1),
        "findings": findings,
        "theta_by_seed": found.theta[:, 0],
        "certificate": certify(problem, jnp.median(found.theta, axis=0)).as_dict(),
        **{
            f"{name}_{statistic}": getattr(np, statistic)(curve, axis=0)
            for name, curve in curves.items()
            for statistic in ("mean", "std")
        },
    }
    return Charging(summary, curves)


def draw(charging: Charging) -> Any:
    """Residuals, the trajectory of the price, and everyone's costs."""
    figure = plots.new_figure(13, 4)
    left, middle, right = figure.subplots(1, 3)
    steps, curves = charging.summary["step"], charging.curves
    plots.bands(left, steps, curves["inner_residual"], "residents, from equilibrium")
    plots.bands(left, steps, curves["gradient"], "regulator, estimated gradient")
    left.set(
        xlabel="step",
        ylabel="residual",
        title="residuals",
    )
    left.legend(fontsize=8)
    best = charging.summary["findings"]["price at the exact optimum"]
    mean, spread = curves["theta"].mean(0), curves["theta"].std(0)
    (line,) = middle.semilogx(steps, mean, label="mean over seeds")
    middle.fill_between(steps, mean - spread, mean + spread, color=line.get_color(), alpha=0.2)
    middle.axhline(best, color="0.5", ls=":", label="exact optimum")
    middle.set(xlabel="step", ylabel="price", title="trajectory of the price")
    middle.legend(fontsize=8)
    costs = curves["player_costs"]
    for resident in range(costs.shape[2]):
        mean, spread = costs[:, :, resident].mean(0), costs[:, :, resident].std(0)
        (line,) = right.semilogx(steps, mean, lw=1)
        right.fill_between(steps, mean - spread, mean + spread, color=line.get_color(), alpha=0.2)
    right.semilogx(steps, costs.mean(2).mean(0), color="k", lw=2, label="mean: social cost / N")
    right.set(xlabel="step", ylabel="cost", title="costs of residents and regulator")
    right.legend(fontsize=8)
    figure.suptitle(
        "Charging on a stand-in (the source's data are not available): mean and spread over seeds",
        fontsize=10,
    )
    return figure


def tables(charging: Charging) -> list[Table]:
    """What the seeds found."""
    findings = charging.summary["findings"]
    rows = [(name, f"{value:.6g}") for name, value in findings.items()]
    return [Table("Charging (stand-in)", ("what", "value"), rows)]


def words(charging: Charging) -> list[str]:
    """How far a regulator without derivatives may be from the optimum."""
    left = charging.summary["certificate"]["stationarity"]
    return [
        f"At the median price of the seeds the projected gradient is {left:.1e}: a regulator "
        "without derivatives settles near the optimum, within what its smoothing and its step "
        "leave, not on it."
    ]


EXPERIMENT = Experiment(
    "Du, Meng, Hu (2025), figures 2 to 4: a regulator without derivatives (stand-in)",
    Options,
    reproduce,
    draw,
    tables,
    words,
)
