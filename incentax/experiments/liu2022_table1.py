"""The experiment `incentax reproduce table1`: one loop against two, on the emission tax."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import plots
from .._checks import require_count, require_positive
from .._results import RESULTS
from ..design import (
    AbstractScheme,
    design,
    DesignAndPlay,
    DesignProblem,
    DesignSolution,
    DoubleLoop,
    Record,
)
from ..diagnostics import certify
from ..equilibrium import solve_equilibrium
from ..problems import emission_tax, Instance
from ..sensitivity import Implicit, Unrolled
from ._protocol import Experiment, Report, Table

# Milliseconds an iteration in table 1 of Liu et al. (2022), on a laptop of 2017.
PAPER = {"double loop, AD": 137.89, "double loop, ID": 18.04, "design-and-play": 2.57}
SINGLE = "design-and-play"


@dataclass(frozen=True)
class Options:
    """One loop against two on the emission tax."""

    firms: int = 100
    """number of firms"""
    sizes: tuple[int, ...] = (10, 100, 1000, 10_000)
    """numbers of firms over which an iteration is timed"""
    gap: float = 1e-8
    """true gap to which every method solves"""
    steps: int = 3000
    """iterations of a method at most"""

    def __post_init__(self):
        for name, counts in (
            ("firms", (self.firms,)),
            ("sizes", self.sizes),
            ("steps", (self.steps,)),
        ):
            for count in counts:
                require_count("table1", name, count)
        require_positive("table1", "gap", self.gap)


class Table1(NamedTuple):
    """`rows` at one size, `growth` over sizes, what was held fixed, and the optimum's evidence."""

    rows: list[dict[str, Any]]
    growth: list[dict[str, Any]]
    settings: dict[str, Any]
    certificate: dict[str, float | str]

    @property
    def summary(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return self._asdict()


# Stopping rule of the inner loops, and step size of the designer.
INNER_TOL, DESIGN_STEP = 1e-6, 1e-3


def schemes(n: int) -> dict[str, AbstractScheme]:
    """The methods of the table, with the same step sizes and tolerances."""
    # A loop that starts cold needs about 7 n steps at this length.
    longest = 20 * n + 200
    optimizer, play_step = optax.sgd(DESIGN_STEP), 1.9 / (n + 1)

    def double(sensitivity: Implicit | Unrolled, warm: bool) -> DoubleLoop:
        return DoubleLoop(
            optimizer,
            play_step=play_step,
            sensitivity=sensitivity,
            inner_tol=INNER_TOL,
            inner_steps=longest,
            warm=warm,
        )

    return {
        "double loop, AD": double(Unrolled(longest), False),
        "double loop, ID": double(Implicit(), False),
        "double loop, AD, last 50 steps, warm starts": double(Unrolled(50), True),
        "double loop, ID, warm starts": double(Implicit(), True),
        SINGLE: DesignAndPlay(optimizer, play_step=play_step),
    }


def reproduce(options: Options, report: Report) -> Table1:
    """Runs every method to the same true gap, `||theta - theta*||^2 + ||x - x*||^2`.

    The optimum `theta*` and its equilibrium `x*` are the accurate designer's. Iterations are
    counted first; then a run of just that length is compiled ahead and timed.
    """
    n, gap = options.firms, options.gap
    instance = emission_tax(n)
    problem = instance.problem
    best = design(problem, instance.theta0, starts=1)
    methods = schemes(n)
    rows = []
    for number, (name, scheme) in enumerate(methods.items()):
        report(name, number / (len(methods) + 1))
        gaps = _gaps(problem, instance, scheme, best, options.steps)
        reached = np.flatnonzero(gaps <= gap)
        iterations = int(reached[0]) + 1 if len(reached) else options.steps
        timed = _timed(problem, instance, scheme, iterations)
        rows.append(
            {
                "method": name,
                "iterations": iterations,
                "reached": bool(len(reached)),
                "milliseconds_per_iteration": 1e3 * timed["seconds"] / iterations,
                "seconds": timed["seconds"],
                "compile_seconds": timed["compile_seconds"],
                "objective": timed["objective"],
                "gap": float(gaps[iterations - 1]),
                "inner_steps_of_last_iteration": timed["inner_steps"],
                "paper_milliseconds_per_iteration": PAPER.get(name),
            }
        )
    single = rows[-1]["milliseconds_per_iteration"]
    for row in rows:
        row["times_design_and_play"] = row["milliseconds_per_iteration"] / single
        paper = row["paper_milliseconds_per_iteration"]
        row["paper_times_design_and_play"] = paper and paper / PAPER[SINGLE]
    growth = _growth(options.sizes, report)
    settings = {
        "problem": instance.description,
        "gap": gap,
        "inner_tolerance": INNER_TOL,
        "play_step": f"1.9 / (n + 1) = {1.9 / (n + 1):.6g}",
        "design_step": DESIGN_STEP,
        "objective_at_optimum": float(best.objective),
    }
    certificate = certify(problem, best.theta, best.x).as_dict()
    return Table1(rows, growth, settings, certificate)


def _gaps(
    problem: DesignProblem,
    instance: Instance,
    scheme: AbstractScheme,
    best: DesignSolution,
    steps: int,
) -> np.ndarray:
    def observe(theta, x):
        return jnp.sum((theta - best.theta) ** 2) + jnp.sum((x - best.x) ** 2)

    record = Record(1, observe=observe)
    run = design(
        problem, instance.theta0, scheme, x0=instance.x0, steps=steps, record=record, throw=False
    )
    return np.asarray(run.history.observed)


def _timed(
    problem: DesignProblem, instance: Instance, scheme: AbstractScheme, steps: int
) -> dict[str, Any]:
    """Seconds of a compiled run of so many steps, the least of three, and where it ends.

    The objective is that at the equilibrium of the last tax, not where play stands.
    """

    def run(theta, x):
        return design(problem, theta, scheme, x0=x, steps=steps, record=steps, throw=False)

    clock = time.perf_counter()
    program = jax.jit(run).lower(instance.theta0, instance.x0).compile()
    compile_seconds = time.perf_counter() - clock
    solution = program(instance.theta0, instance.x0)
    seconds = []
    for _ in range(3):
        clock = time.perf_counter()
        jax.block_until_ready(program(instance.theta0, instance.x0))
        seconds.append(time.perf_counter() - clock)
    assert solution.result == RESULTS.successful
    settled = solve_equilibrium(problem.game, solution.theta, solution.x)
    return {
        "seconds": min(seconds),
        "compile_seconds": compile_seconds,
        "objective": float(problem.objective(solution.theta, settled.x)),
        "inner_steps": float(solution.history.info.inner_steps[-1]),
    }


def _growth(sizes: tuple[int, ...], report: Report) -> list[dict[str, Any]]:
    """Milliseconds an iteration at each size; a few iterations suffice to time one."""
    growth = []
    for number, size in enumerate(sizes):
        report(f"n = {size}", 0.8 + 0.2 * number / len(sizes))
        instance = emission_tax(size)
        for name, scheme in schemes(size).items():
            cold = name in ("double loop, AD", "double loop, ID")
            # The points of an inner loop: 8 n (20 n + 200) bytes.
            if name == "double loop, AD" and size > 2000:
                growth.append({"method": name, "n": size, "milliseconds_per_iteration": None})
                continue
            steps = 100 if name == SINGLE else 20
            if size > 2000 and name != SINGLE:
                steps = 2 if cold else 5
            timed = _timed(instance.problem, instance, scheme, steps)
            growth.append(
                {
                    "method": name,
                    "n": size,
                    "milliseconds_per_iteration": 1e3 * timed["seconds"] / steps,
                }
            )
    return growth


def tables(table: Table1) -> list[Table]:
    """The rows, beside the source's figures."""
    columns = (
        "method",
        "iterations",
        "ms / iteration",
        "times the single loop (paper)",
        "seconds",
        "compile seconds",
        "objective",
        "gap",
    )
    rows = []
    for row in table.rows:
        paper = row["paper_times_design_and_play"]
        beside = f" ({paper:.1f})" if paper else ""
        rows.append(
            (
                row["method"],
                f"{row['iterations']:,}" if row["reached"] else f"> {row['iterations']:,}",
                f"{row['milliseconds_per_iteration']:.4g}",
                f"{row['times_design_and_play']:.1f}{beside}",
                f"{row['seconds']:.3g}",
                f"{row['compile_seconds']:.2g}",
                f"{row['objective']:.8g}",
                f"{row['gap']:.1e}",
            )
        )
    return [Table("Table 1", columns, rows)]


def words(table: Table1) -> list[str]:
    """Which methods did not reach the gap."""
    late = [row["method"] for row in table.rows if not row["reached"]]
    gap = table.settings["gap"]
    if not late:
        return [f"Every method reaches a true gap of {gap:.0e}."]
    return [f"A true gap of {gap:.0e} is not reached by: {', '.join(late)}."]


def draw(table: Table1) -> Any:
    """Time an iteration of each method on the left, its growth with the number of firms right."""
    figure = plots.new_figure(12, 4.5)
    left, right = figure.subplots(1, 2)
    names = [row["method"] for row in table.rows]
    times = [row["milliseconds_per_iteration"] for row in table.rows]
    bars = left.barh(names, times, color=[f"C{k}" for k in range(len(names))])
    left.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    left.set(
        xscale="log", xlabel="milliseconds an iteration", xlim=(min(times) / 2, 5 * max(times))
    )
    left.invert_yaxis()
    for number, name in enumerate(names):
        own = [row for row in table.growth if row["method"] == name]
        shown = [row for row in own if row["milliseconds_per_iteration"] is not None]
        right.loglog(
            [row["n"] for row in shown],
            [row["milliseconds_per_iteration"] for row in shown],
            marker="o",
            color=f"C{number}",
            label=name,
        )
    right.set(xlabel="number of firms", ylabel="milliseconds an iteration")
    right.legend(fontsize=7)
    return figure


EXPERIMENT = Experiment(
    "Liu et al. (2022), table 1: one loop against two on the emission tax",
    Options,
    reproduce,
    draw,
    tables,
    words,
)
