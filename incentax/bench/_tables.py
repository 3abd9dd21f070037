"""What the rows say: tables, and performance profiles."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import plots
from ..experiments import Table
from ..problems import bank
from ._methods import METHODS

_SOLVED = ("solved", "better than the best known")
_FALSE = "elsewhere, called a success"
CLOCKS = ("seconds from start", "seconds after compilation")

Rows = Sequence[dict[str, Any]]


def is_solved(row: dict[str, Any]) -> bool:
    """Whether the best known value was reached, at an equilibrium."""
    return row["status"] in _SOLVED


def tables(rows: Rows) -> list[Table]:
    """By method, by kind twice, and by problem twice."""
    by_problem = [_by_problem(rows, clock) for clock in reversed(CLOCKS)]
    return [_by_method(rows), _by_kind(rows), _fastest(rows), *by_problem]


def page(content: dict[str, Any], picture: str = "bench.png") -> str:
    """All of it in Markdown, from what `bench.json` holds, with the picture of its profiles."""
    rows, about = content["rows"], content["environment"]
    used = {name: one for row in rows for name, one in row.get("packages", {}).items()}
    versions = ", ".join(f"{name} {one}" for name, one in (about["versions"] | used).items())
    device = [about["device"]] if about["device"] != "cpu" else []
    device = [*device, about["processor"]] if about.get("processor") else device or ["cpu"]
    parts = [
        "# Methods side by side",
        f"Written by `incentax bench` from the rows of its runs. {versions}; Python "
        f"{about['python']}, {about['dtype']}, {', '.join(device)}.",
        " ".join(words(rows)),
        f"![the share of problems solved within so many times the least seconds]({picture})",
    ]
    for table in tables(rows):
        name, _, more = table.title.partition(". ")
        parts += [f"## {name}", *[f"{more}."] * bool(more), table.as_markdown().rstrip()]
    return "\n\n".join(parts) + "\n"


def words(rows: Rows) -> list[str]:
    """What they come to."""
    methods, problems = _names(rows, "method"), _names(rows, "problem")
    told = [f"{len(problems)} problems, {len(methods)} methods."]
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        solved, false = sum(map(is_solved, own)), sum(row["status"] == _FALSE for row in own)
        told.append(
            f"{method} solves {solved} of {len(own)}"
            + (f"; successes that it claims at other values: {false}." if false else ".")
        )
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        better = [row["problem"] for row in own if row["status"] == _SOLVED[1]]
        if better:
            told.append(f"{method} is better than the best known value on {', '.join(better)}.")
    return told


def ratios(rows: Rows, clock: str) -> dict[str, np.ndarray]:
    """Of every method, over problems that any solved: its time to the least; infinite unsolved, NaN
    where it was not run.

    E. D. Dolan, J. J. Moré, *Mathematical Programming* 91 (2002) 201-213, equation 2.1.
    """
    time = {
        (row["method"], row["problem"]): (is_solved(row) and row.get(clock)) or np.inf
        for row in rows
    }
    methods, problems = _names(rows, "method"), _names(rows, "problem")
    table = np.array([[time.get((m, p), np.nan) for p in problems] for m in methods])
    table = table[:, np.isfinite(table).any(axis=0)]
    return dict(zip(methods, table / np.fmin.reduce(table, axis=0, initial=np.inf)))


def draw(rows: Rows) -> Any:
    """Performance profiles: the share of problems, out of those it was run on, that a method solved
    within so many times the least time."""
    figure = plots.new_figure(10, 3.6)
    for axes, clock in zip(figure.subplots(1, 2, sharey=True), CLOCKS):
        for number, (method, own) in enumerate(ratios(rows, clock).items()):
            if np.isfinite(own).any():
                at, tried = np.sort(own[np.isfinite(own)]), int((~np.isnan(own)).sum())
                share = np.arange(1, at.size + 1) / tried
                label = f"{method} ({tried})"
                style = {"color": f"C{number}", "linestyle": "-" if number < 10 else "--"}
                ends = [1, *at, 1e4], [0, *share, share[-1]]
                axes.step(*ends, where="post", label=label, **style)
        axes.set(xscale="log", xlim=(0.95, 1e4), ylim=(0, 1.02), title=clock)
        axes.set_xlabel("times the least")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share of problems solved")
    lines = figure.axes[1].lines
    if lines:
        figure.legend(handles=lines, fontsize="small", loc="outside right center")
    return figure


def _by_method(rows: Rows) -> Table:
    columns = ("method", "solved", "claimed", "elsewhere", "refused", "failed", "from start",
               "compiled", "ratio", "MB", "lines")  # fmt: skip
    examined = any("B-stationary" in row for row in rows)
    absent = any(row["status"] == "not installed" for row in rows)
    columns = (*columns, *["B-stationary"] * examined, *["not installed"] * absent)
    kinds = (_FALSE, "elsewhere", "refused", "not installed")
    after = ratios(rows, CLOCKS[1])
    lines = []
    for method in _names(rows, "method"):
        own = [row for row in rows if row["method"] == method]
        *counts, missing = (sum(row["status"] == status for row in own) for status in kinds)
        solved = [row for row in own if is_solved(row)]
        failed = len(own) - len(solved) - sum(counts) - missing
        clocks = [_median([row.get(clock) for row in solved]) for clock in CLOCKS]
        reached = after[method][np.isfinite(after[method])]
        ratio = f"{np.exp(np.log(reached).mean()):.1f}" if reached.size else ""
        ends = _median([row.get("megabytes") for row in solved]), _lines(method)
        proved = [row["B-stationary"] == "yes" for row in own if "B-stationary" in row]
        proof = [f"{sum(proved)} of {len(proved)}" if proved else ""] if examined else []
        counted = map(str, (len(solved), *counts, failed))
        lines.append((method, *counted, *clocks, ratio, *ends, *proof, *[str(missing)] * absent))
    title = (
        "Methods. Claimed: called a success at another value than the best known; elsewhere: at "
        "such a value without that claim; refused: not taken on; failed: no answer, or a limit "
        "passed; seconds and megabytes are medians over what each solved, the ratio to the fastest "
        "is a geometric mean, lines are those of its adapter"
    )
    title += "; B-stationary: proved by `ix.certify`" * examined
    return Table(title, columns, lines)


def _lines(method: str) -> str:
    return str(METHODS[method].lines) if method in METHODS else ""


def _fastest(rows: Rows) -> Table:
    """Who is ahead, and how far behind `design` is."""
    lines = []
    for kind in sorted({row["kind"] for row in rows}):
        after = ratios([row for row in rows if row["kind"] == kind], CLOCKS[1])
        first = {method: int((own == 1).sum()) for method, own in after.items() if own.size}
        ahead = sorted(first, key=lambda method: -first[method])
        told = ", ".join(f"{method} on {first[method]}" for method in ahead if first[method])
        ours = after.get("design", np.zeros(0))
        ours = ours[np.isfinite(ours)]
        lines.append((kind, told, f"{np.median(ours):.3g}" if ours.size else ""))
    title = (
        "The first after compilation, by kind. The last column is how many times the seconds of "
        "the first `design` takes, on what it solved"
    )
    return Table(title, ("kind", "first", "design, median"), lines)


def _by_kind(rows: Rows) -> Table:
    methods, kinds = _names(rows, "method"), sorted({row["kind"] for row in rows})
    lines = []
    for kind in kinds:
        own = [row for row in rows if row["kind"] == kind]
        count = len(_names(own, "problem"))
        each = [[is_solved(row) for row in own if row["method"] == one] for one in methods]
        lines.append((f"{kind} ({count})", *[_share(solved, count) for solved in each]))
    return Table("Solved, by kind", ("kind", *methods), lines)


def _share(solved: list[bool], count: int) -> str:
    """Of those that were tried, where these are not all."""
    if len(solved) == count:
        return str(sum(solved))
    return f"{sum(solved)} of {len(solved)}" if solved else ""


def _by_problem(rows: Rows, clock: str) -> Table:
    methods = _names(rows, "method")
    found = {(row["method"], row["problem"]): row for row in rows}
    lines = []
    for problem in _names(rows, "problem"):
        own = [found.get((method, problem)) for method in methods]
        known = bank.designs[problem].best if problem in bank.designs else None
        best = next((row["best"] for row in own if row and "best" in row), known)
        value = "" if best is None else f"{best:.8g}"
        lines.append((problem, value, *[_cell(row, clock) for row in own]))
    title = (
        f"{clock.capitalize()}. Of what was not solved what became of it, and how far above the "
        "best value it is, relative"
    )
    return Table(title, ("problem", "best", *methods), lines)


def _cell(row: dict[str, Any] | None, clock: str) -> str:
    if row is None:
        return ""
    if row["status"] == "solved":
        return f"{row[clock]:.3g}" if clock in row else "solved, not again in time"
    status = "claimed" if row["status"] == _FALSE else row["status"]
    if row.get("B-stationary") == "yes":
        status = f"{status}, B-stationary"
    return status if row.get("gap") is None else f"{status} ({row['gap']:+.1e})"


def _median(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.median(known):.3g}" if known else ""


def _names(rows: Rows, key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))
