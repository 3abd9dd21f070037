"""The job `incentax run sioux-falls`: tolls, their certificate and their figure."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from . import plots, traffic
from ._results import RESULTS
from ._tree import tree_norm
from .design import (
    AbstractScheme,
    advance,
    as_record,
    DesignProblem,
    DesignSolution,
    finish,
    hypergradient,
    start,
)
from .diagnostics import certify
from .equilibrium import solve_equilibrium
from .problems import Instance


class TollRun(NamedTuple):
    """Everything that is shown of a run: `summary` is JSON, `arrays` the archive."""

    summary: dict[str, Any]
    arrays: dict[str, Any]


def run_tolls(
    instance: Instance,
    scheme: AbstractScheme,
    *,
    steps: int,
    seeds: int,
    report: Callable[[str, float], None],
) -> TollRun:
    """Designs tolls from `seeds` keys side by side and certifies the best of them.

    `report(what, share done)` is called between chunks. The total travel times are those at the
    equilibrium of the tolls, solved anew, not where play stood.
    """
    problem = instance.problem
    game = problem.game
    assert isinstance(game, traffic.RoutingGame)
    report("equilibrium without tolls", 0.0)
    without = solve_equilibrium(game, instance.theta0, throw=False)
    report("system optimum", 0.0)
    optimum = traffic.system_optimum(game)
    solutions, compile_seconds, run_seconds = _design(instance, scheme, steps, seeds, report)
    report("certificate", 1.0)

    found = [jax.tree.map(lambda leaf, s=seed: leaf[s], solutions) for seed in range(seeds)]
    results = [_outcome(solution, steps) for solution in found]
    slopes = [_slope(problem, solution.theta) for solution in found]
    results = [
        result if row["equilibrium_reached"] else f"{result}; equilibrium of the tolls not reached"
        for result, row in zip(results, slopes)
    ]
    # A seed that broke off is certified at its last finite tolls, and comes last.
    order = [
        (result != "successful", row["total_travel_time"]) for result, row in zip(results, slopes)
    ]
    best = order.index(min(order))
    solution = found[best]
    before, ideal = float(problem.objective(instance.theta0, without.x)), optimum.total_travel_time
    after = slopes[best]["total_travel_time"]
    # With one path a pair there is nothing to choose, and no gap.
    open_gap = before - float(ideal) > 1e-9 * before
    tolls = dict(zip(map(str, traffic.TOLLED_LINKS), solution.theta.tolist()))
    report("what is left to gain", 1.0)
    left = _left_to_gain(problem, solution.theta)
    spread = np.ptp(np.stack([np.asarray(one.theta) for one in found]), axis=0)
    summary = {
        "problem": instance.description,
        "steps": steps,
        "seeds": seeds,
        "total_travel_time": {
            "without_tolls": before,
            "with_tolls": after,
            "system_optimum_on_these_paths": ideal,
            "system_optimum_relative_gap": optimum.relative_gap,
            "with_tolls_by_seed": [row["total_travel_time"] for row in slopes],
        },
        "gap_captured": (before - after) / (before - float(ideal)) if open_gap else float("nan"),
        "left_to_gain": left,
        "tolls_by_link": tolls,
        "tolls_of_seed": best,
        "largest_spread_of_a_toll_over_seeds": float(spread.max()),
        "certificate": certify(problem, solution.theta).as_dict(),
        "slope": slopes[best],
        "slope_without_tolls": _slope(problem, instance.theta0),
        "equilibrium_residual_without_tolls": without.residual,
        "play_residual": solution.residual,
        "seconds_to_compile": compile_seconds,
        "seconds_to_run": run_seconds,
        "result": results[best],
        "result_by_seed": results,
    }
    return TollRun(summary, _arrays(solutions, solution, best))


def _arrays(solutions: DesignSolution, solution: DesignSolution, best: int) -> dict[str, Any]:
    history = solutions.history
    return {
        "theta": solution.theta,
        "tolled_links": np.asarray(traffic.TOLLED_LINKS),
        "x": solution.x,
        "step": history.step[best],
        "objective": history.objective,
        "residual": history.residual,
        "gradient": history.info.gradient,
        "design_step": history.info.design_step,
    }


def draw(instance: Instance, run: TollRun) -> Any:
    """Convergence of every seed on the left, the network with its tolls on the right."""
    figure = plots.new_figure(12, 6.5)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    (upper, lower) = left.get_subplotspec().subgridspec(2, 1).subplots(sharex=True)
    left.remove()
    network, _ = traffic.sioux_falls()
    times = run.summary["total_travel_time"]
    step = np.asarray(run.arrays["step"])
    for objective, residual in zip(run.arrays["objective"], run.arrays["residual"]):
        upper.semilogx(step, objective, color="C0", lw=1)
        lower.loglog(step, np.maximum(residual, 1e-17), color="C0", lw=1)
    for name, colour in (("without_tolls", "C3"), ("with_tolls", "C2")):
        upper.axhline(times[name], color=colour, ls="--", lw=1, label=name.replace("_", " "))
    ideal = float(times["system_optimum_on_these_paths"])
    upper.axhline(ideal, color="0.5", ls=":", lw=1, label="system optimum")
    span = max(times["without_tolls"] - ideal, 1e-3 * ideal)
    upper.set(
        ylim=(ideal - 0.1 * span, times["without_tolls"] + 0.5 * span),
        ylabel="total travel time [0.01 h]",
        title="where play stands",
    )
    upper.legend(fontsize=8)
    lower.set(xlabel="step", ylabel="equilibrium residual of play")
    plots.draw_tolls(
        right, network, run.arrays["tolled_links"], np.asarray(run.arrays["theta"]), "0.01 h"
    )
    captured = 100 * run.summary["gap_captured"]
    right.set_title(f"Sioux Falls: tolls capture {captured:.1f} % of the gap", fontsize=10)
    return figure


def _design(
    instance: Instance,
    scheme: AbstractScheme,
    steps: int,
    seeds: int,
    report: Callable[[str, float], None],
) -> tuple[DesignSolution, float, float]:
    """All seeds in one vmapped run, in chunks that share one compilation."""
    problem, record = instance.problem, as_record(max(1, steps // 200))
    total_rows = -(-steps // record.every)
    chunk = max(1, total_rows // 20)
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))

    def first(key: Array):
        return start(problem, instance.theta0, scheme, instance.x0, key)

    def more(progress, key: Array, begin: Array):
        span = (begin, jnp.int32(steps))
        return advance(problem, scheme, progress, key, record, chunk, span)

    progress = eqx.filter_vmap(first)(keys)
    clock = time.perf_counter()
    report("compiling", 0.0)
    compiled = jax.jit(jax.vmap(more, in_axes=(0, 0, None)))
    compiled = compiled.lower(progress, keys, jnp.int32(0)).compile()
    compile_seconds = time.perf_counter() - clock
    clock = time.perf_counter()
    histories = []
    try:
        for row in range(0, total_rows, chunk):
            progress, history = compiled(progress, keys, jnp.int32(row * record.every))
            histories.append(jax.block_until_ready(history))
            report("design-and-play", min(1.0, (row + chunk) / total_rows))
    except KeyboardInterrupt:  # what there is by now is certified and written all the same
        if not histories:
            raise
    history = jax.tree.map(
        lambda *parts: jnp.concatenate(parts, axis=1)[:, :total_rows], *histories
    )
    run_seconds = time.perf_counter() - clock
    solutions = eqx.filter_vmap(lambda p, h: finish(problem, scheme, p, h, throw=False))(
        progress, history
    )
    return solutions, compile_seconds, run_seconds


def _slope(problem: DesignProblem, theta: Array) -> dict[str, Any]:
    """The equilibrium of tolls solved anew, and how stationary they are there."""
    equilibrium = solve_equilibrium(problem.game, theta, throw=False)
    gradient = hypergradient(problem, theta, equilibrium.x)
    # The projected step of a length so small that it measures the slope, not the set.
    step = 1e-6 / jnp.maximum(tree_norm(gradient.value), 1e-30)
    moved = problem.incentive_set.project(theta - step * gradient.value)
    return {
        "total_travel_time": float(problem.objective(theta, equilibrium.x)),
        "equilibrium_reached": bool(equilibrium.result == RESULTS.successful),
        "hypergradient_norm": float(tree_norm(gradient.value)),
        "projected_hypergradient_norm": float(tree_norm(theta - moved) / step),
    }


def _left_to_gain(problem: DesignProblem, theta: Array) -> float:
    """Share of the objective that quasi-Newton steps on exact gradients still take from here."""
    import scipy.optimize  # noqa: PLC0415 (half a second, for this figure alone)

    x = solve_equilibrium(problem.game, theta, throw=False).x
    limits = problem.incentive_set.constraints(theta)

    def exact(flat: np.ndarray) -> tuple[float, np.ndarray]:
        tolls = jnp.asarray(flat, theta.dtype)
        found = solve_equilibrium(problem.game, tolls, x, throw=False)
        slope = hypergradient(problem, tolls, found.x)
        return float(slope.objective), np.asarray(slope.value, float)

    bounds = list(zip(np.asarray(limits.lower, float), np.asarray(limits.upper, float)))
    start, _ = exact(np.asarray(theta))
    found = scipy.optimize.minimize(
        exact,
        np.asarray(theta, float),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 20, "maxfun": 25},
    )
    return max(start - float(found.fun), 0.0) / abs(start)


def _outcome(solution: DesignSolution, steps: int) -> str:
    if solution.result == RESULTS.successful:
        done = int(solution.steps)
        return "successful" if done == steps else f"interrupted after step {done} of {steps}"
    return f"{RESULTS[solution.result]} (broke off after step {solution.steps})"
