"""A ready problem, or a user's own, by one scheme from several seeds: `incentax run`.

Whatever the scheme, the answer is examined in the same way: the equilibrium of the incentives is
solved anew, and a certificate is made; the best of the seeds is shown.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from .. import plots, traffic
from .._results import RESULTS
from .._tree import tree_norm
from ..design import AbstractScheme, design, DesignProblem, DesignSolution, hypergradient
from ..diagnostics import certify
from ..equilibrium import solve_equilibrium
from ..problems import Instance
from ._protocol import Report, Table
from ._seeds import begun_from_seeds, Kept, rows_every, run_seeds
from .network import draw_network, network_figures, network_rows, network_table

ACCURATE = "accurate"
# A share of the objective that is worth going on for.
_MUCH = 1e-3
# Incentives that a table shows.
_SHOWN = 20


class Outcome(NamedTuple):
    """Everything that is shown of a run: `summary` is JSON, `arrays` the archive."""

    summary: dict[str, Any]
    arrays: dict[str, Any]


def scheme_named(instance: Instance, name: str) -> AbstractScheme | None:
    """A scheme of the instance, `None` for the accurate designer, `ValueError` for another name."""
    if name == ACCURATE:
        return None
    if name not in instance.schemes:
        known = ", ".join([ACCURATE, *instance.schemes])
        raise ValueError(f"`--scheme` needs one of {known}, got {name}")
    return instance.schemes[name]


def run(
    instance: Instance,
    scheme: str,
    *,
    steps: int,
    seeds: int,
    starts: int | None,
    report: Report,
    kept: Kept | None = None,
) -> Outcome:
    """Designs from `seeds` keys side by side, and examines the best of them.

    An interrupt ends the steps; what there is by then is examined all the same.
    """
    problem = instance.problem
    named = scheme_named(instance, scheme)
    report("equilibrium before", 0.0)
    before = _settled(problem, instance.theta0, instance.x0)
    if named is None:
        report("accurate designer", 0.0)
        found, first, seconds = _accurately(instance, steps, starts)
        histories = jax.tree.map(lambda leaf: leaf[None], found[0].history)
    else:
        every = (kept and kept.every) or rows_every(steps)
        kept = (kept or Kept())._replace(every=every)
        runs = begun_from_seeds(instance, named, seeds, every)
        found, histories, first, seconds = run_seeds(runs, steps, report, kept)
    report("certificate", 1.0)
    settled = [_settled(problem, one.theta, one.x) for one in found]
    results = [_outcome(one, row, steps, named) for one, row in zip(found, settled)]
    # A seed that broke off is examined at its last finite incentive, and comes last.
    order = [(result != "successful", row["objective"]) for result, row in zip(results, settled)]
    best = order.index(min(order))
    certificate = certify(problem, found[best].theta, settled[best]["x"])
    flat = np.stack([np.asarray(ravel_pytree(one.theta)[0]) for one in found])
    summary = {
        "problem": instance.description,
        "scheme": scheme,
        "steps": steps,
        "starts": starts,
        "record": kept and kept.every,
        "seeds": len(found),
        "objective": {
            "at_start": before["objective"],
            "reached": settled[best]["objective"],
            "by_seed": [row["objective"] for row in settled],
        },
        "incentive": flat[best],
        "seed": best,
        "largest_spread_over_seeds": float(np.ptp(flat, axis=0).max()),
        "certificate": certificate.as_dict(),
        "slope": _public(settled[best]),
        "slope_at_start": _public(before),
        "residual_of_play": float(found[best].residual),
        "seconds_to_first_steps": first,
        "seconds_to_run": seconds,
        "result": results[best],
        "result_by_seed": results,
    }
    if named is not None:
        report("what is left to gain", 1.0)
        summary["left_to_gain"] = _left_to_gain(
            problem, found[best].theta, found[best].x, before["objective"]
        )
    if isinstance(problem.game, traffic.RoutingGame):
        report("system optimum", 1.0)
        summary |= network_figures(problem.game, flat[best], before["x"], settled[best]["x"])
    return Outcome(summary, _arrays(histories, found[best], best))


def _public(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "x"}


def _accurately(
    instance: Instance, steps: int, starts: int | None
) -> tuple[list[DesignSolution], float, float]:
    clock = time.perf_counter()
    problem, theta0 = instance.problem, instance.theta0
    found = design(problem, theta0, x0=instance.x0, steps=steps, starts=starts, throw=False)
    jax.block_until_ready(found.theta)
    seconds = time.perf_counter() - clock
    return [found], seconds, seconds


def _settled(problem: DesignProblem, theta: PyTree, x: Array) -> dict[str, Any]:
    """The equilibrium of an incentive solved anew, and how stationary the incentive is there."""
    found = solve_equilibrium(problem.game, theta, x, throw=False)
    gradient = hypergradient(problem, theta, found.x)
    # The projected step of a length so small that it measures the slope, not the set.
    step = 1e-6 / jnp.maximum(tree_norm(gradient.value), 1e-30)
    moved = problem.incentive_set.project(
        jax.tree.map(lambda at, slope: at - step * slope, theta, gradient.value)
    )
    left = jax.tree.map(jnp.subtract, theta, moved)
    return {
        "objective": float(problem.objective(theta, found.x)),
        "equilibrium_reached": bool(found.result == RESULTS.successful),
        "equilibrium_residual": float(found.residual),
        "hypergradient_norm": float(tree_norm(gradient.value)),
        "projected_hypergradient_norm": float(tree_norm(left) / step),
        "x": found.x,
    }


def _left_to_gain(problem: DesignProblem, theta: PyTree, x: Array, before: float) -> float:
    """What quasi-Newton steps on exact gradients still gain from here, as a share of the objective.

    Of its size here or before, whichever is larger: at an optimum it may be 0.

    NaN where the incentive set has other constraints than bounds, or the problem has some.
    """
    import scipy.optimize  # noqa: PLC0415 (half a second, for this figure alone)

    flat, unravel = ravel_pytree(theta)
    limits = problem.incentive_set.constraints(theta)
    if problem.constraints or len(limits.inequality) or len(limits.equality_level):
        return float("nan")

    def exact(point: np.ndarray) -> tuple[float, np.ndarray]:
        incentive = unravel(jnp.asarray(point, flat.dtype))
        found = solve_equilibrium(problem.game, incentive, x, throw=False)
        slope = hypergradient(problem, incentive, found.x)
        return float(slope.objective), np.asarray(ravel_pytree(slope.value)[0], float)

    bounds = list(zip(np.asarray(limits.lower, float), np.asarray(limits.upper, float)))
    start, _ = exact(np.asarray(flat))
    limit: Any = {"maxiter": 20, "maxfun": 25}
    found = scipy.optimize.minimize(
        exact, np.asarray(flat, float), jac=True, method="L-BFGS-B", bounds=bounds, options=limit
    )
    return max(start - float(found.fun), 0.0) / max(abs(start), abs(before), 1e-300)


def _outcome(
    solution: DesignSolution, settled: dict[str, Any], steps: int, scheme: AbstractScheme | None
) -> str:
    """In words, "successful" where nothing is to be said."""
    done = int(solution.steps)
    if solution.result != RESULTS.successful:
        return f"{RESULTS[solution.result]} (ended after step {done})"
    if scheme is not None and done < steps:
        return f"interrupted after step {done} of {steps}"
    if not settled["equilibrium_reached"]:
        return "the equilibrium of the incentives was not reached"
    return "successful"


def _arrays(histories: Any, solution: DesignSolution, best: int) -> dict[str, Any]:
    """Seeds by rows; a scheme has figures of its own."""
    info = {name: getattr(histories.info, name, None) for name in ("gradient", "design_step")}
    return {
        "theta": np.asarray(ravel_pytree(solution.theta)[0]),
        "x": solution.x,
        "step": histories.step[best],
        "objective": histories.objective,
        "residual": histories.residual,
        **{name: value for name, value in info.items() if value is not None},
    }


def tables(outcome: Outcome) -> list[Table]:
    """What is shown of a run: figures, and on a network its tolls; else the first incentives."""
    summary = outcome.summary
    on_network = "tolls_by_link" in summary
    rows = _rows(summary) + (network_rows(summary) if on_network else [])
    shown = [Table("Result", ("what", "value"), rows)]
    if on_network:
        return [*shown, network_table(summary)]
    flat = np.asarray(summary["incentive"])
    entries = [(str(entry), f"{value:.6g}") for entry, value in enumerate(flat[:_SHOWN])]
    title = "Incentive" + (f", the first {_SHOWN} of {flat.size}" if flat.size > _SHOWN else "")
    return [*shown, Table(title, ("entry", "value"), entries)]


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    certificate, slope, objective = (
        summary[name] for name in ("certificate", "slope", "objective")
    )
    rows = [
        ("objective at the start, at its equilibrium", f"{objective['at_start']:,.6g}"),
        ("objective reached, at its equilibrium", f"{objective['reached']:,.10g}"),
    ]
    if "left_to_gain" in summary and np.isfinite(summary["left_to_gain"]):
        left = f"{100 * summary['left_to_gain']:.1e} %"
        rows.append(("left to gain by quasi-Newton steps on exact gradients", left))
    prices = [name for name in certificate if name.startswith("multiplier, ")]
    rows += [(name, f"{certificate[name]:.6g}") for name in prices]
    if prices:  # where the objective's own gradient says nothing
        rows.append(("largest violation of a constraint", f"{certificate['violation']:.1e}"))
    else:
        rows += _slope_rows(slope, summary["slope_at_start"])
    rows += [
        ("residual of equilibrium", f"{certificate['equilibrium_residual']:.1e}"),
    ]
    if summary["scheme"] != ACCURATE:
        rows.append(
            ("distance of the agents from equilibrium", f"{summary['residual_of_play']:.1e}")
        )
    return [
        *rows,
        ("derivative error, against central differences", f"{certificate['derivative_error']:.1e}"),
        ("seconds to the first steps (compiling)", f"{summary['seconds_to_first_steps']:.1f}"),
        ("seconds in all steps", f"{summary['seconds_to_run']:.1f}"),
        ("result", _as_told(summary)),
    ]


def _slope_rows(slope: dict[str, Any], before: dict[str, Any]) -> list[tuple[str, str]]:
    now, then = (row["projected_hypergradient_norm"] for row in (slope, before))
    return [("gradient, less what bounds stop (at the start)", f"{now:.2g} ({then:.4g})")]


def _as_told(summary: dict[str, Any]) -> str:
    done = summary["scheme"] != ACCURATE and summary["result"] == "successful"
    return f"all {summary['steps']} steps done" if done else summary["result"]


def words(outcome: Outcome) -> list[str]:
    """What is known of the answer, and which of several seeds is shown.

    A scheme ends near an optimum and not on it: how near says more than its gradient does.
    """
    summary = outcome.summary
    left = summary.get("left_to_gain", float("nan"))
    residual = summary["certificate"]["equilibrium_residual"]
    if not np.isfinite(left):
        words = [summary["certificate"]["verdict"]]
    elif residual < 1e-6:
        words = [
            f"The equilibrium is exact. The objective is within {100 * left:.1e} % of the best "
            "that quasi-Newton steps reach from these incentives."
        ]
        if left > _MUCH:
            words.append(
                "More steps would lower it, and so would `--scheme accurate`: "
                + summary["certificate"]["verdict"]
            )
    else:
        words = [f"The equilibrium was not reached ({residual:.1e})."]
    if summary["seeds"] > 1:
        words.append(
            f"Shown is seed {summary['seed']}, the best of {summary['seeds']}; an incentive "
            f"differs by {summary['largest_spread_over_seeds']:.2g} at most between seeds."
        )
    return words


def draw(instance: Instance, outcome: Outcome) -> Any:
    """Convergence on the left; on the right the network, or incentive and strategy."""
    figure = plots.new_figure(12, 6.5)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _draw_convergence(*_split(left), outcome)
    network = instance.network
    if "tolls_by_link" in outcome.summary and network is not None and network.position is not None:
        draw_network(right, network, outcome.summary)
    else:
        upper, lower = _split(right, sharex=False)
        _draw_entries(upper, outcome.arrays["theta"], "incentive")
        _draw_entries(lower, outcome.arrays["x"], "strategy")
    figure.suptitle(f"{instance.description}: {outcome.summary['scheme']}", fontsize=10)
    return figure


def _split(axes: Any, sharex: bool = True) -> tuple[Any, Any]:
    upper, lower = axes.get_subplotspec().subgridspec(2, 1).subplots(sharex=sharex)
    axes.remove()
    return upper, lower


def _draw_convergence(upper: Any, lower: Any, outcome: Outcome) -> None:
    summary, arrays = outcome.summary, outcome.arrays
    step = np.asarray(arrays["step"])
    for objective, residual in zip(np.asarray(arrays["objective"]), np.asarray(arrays["residual"])):
        upper.semilogx(step, objective, color="C0", lw=1)
        if np.isfinite(residual).any():
            lower.loglog(step, np.maximum(residual, 1e-17), color="C0", lw=1)
    levels = {
        "at the start": (summary["objective"]["at_start"], "C3", "--"),
        "reached": (summary["objective"]["reached"], "C2", "--"),
    }
    if "total_travel_time" in summary:
        ideal = summary["total_travel_time"]["system_optimum_on_these_paths"]
        levels["system optimum"] = (ideal, "0.5", ":")
    for name, (height, colour, style) in levels.items():
        upper.axhline(height, color=colour, ls=style, lw=1, label=name)
    heights = [height for height, _, _ in levels.values()]
    span = max(max(heights) - min(heights), 1e-3 * max(map(abs, heights)), 1e-12)
    upper.set(
        ylim=(min(heights) - 0.1 * span, max(heights) + 0.5 * span),
        ylabel="objective",
        title="where play stands" if summary["scheme"] != ACCURATE else "steps of the designer",
    )
    upper.legend(fontsize=8)
    if lower.lines:
        lower.set(xlabel="step", ylabel="residual of play")
    else:  # every step of the accurate designer ends at an equilibrium
        lower.set_axis_off()
        upper.set(xlabel="step")


def _draw_entries(axes: Any, values: Any, name: str) -> None:
    flat = np.asarray(values).ravel()
    axes.plot(np.arange(flat.size), flat, "o", ms=max(1.0, min(5.0, 200 / flat.size)))
    axes.set(xlabel=f"entry of the {name}", ylabel=name)
    axes.margins(0.05)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if flat.size < 10:
        axes.set(xlim=(-0.5, flat.size - 0.5), xticks=np.arange(flat.size))
