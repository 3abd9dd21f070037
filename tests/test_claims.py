"""The figures that README and site print are those of the runs in `benchmarks/measured`."""

import json
import re
import statistics
from pathlib import Path

import pytest

import incentax as ix
from incentax import bench
from incentax.bench._tables import is_solved

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "measured"


def measured(name):
    return json.loads((MEASURED / f"{name}.json").read_text())


def of_the_bank():
    """Sentences on the bank, by what `incentax bench` found."""
    rows = measured("bench")["rows"]
    own = {method: [row for row in rows if row["method"] == method] for method in bench.METHODS}
    solved = {method: sum(map(is_solved, several)) for method, several in own.items()}
    claimed = {
        method: sum(row["status"] == "elsewhere, called a success" for row in several)
        for method, several in own.items()
    }
    count = len(own["design"])
    assert count == len({row["problem"] for row in rows})
    rivals = ", ".join(
        f"{name} {solved[name]} of {len(own[name])}" for name in ("pympcc", "SLSQP", "NashOpt")
    )
    after = {
        (row["method"], row["problem"]): row.get("seconds after compilation")
        for row in rows
        if is_solved(row)
    }
    times = [
        ours / after["SLSQP", problem]
        for (method, problem), ours in after.items()
        if method == "design" and ours and after.get(("SLSQP", problem))
    ]

    def ahead(method):
        both = [
            (seconds, after["design", problem])
            for (one, problem), seconds in after.items()
            if one == method and seconds and after.get(("design", problem))
        ]
        return f"{sum(own < ours for own, ours in both)} of the {len(both)} that both solve"

    written = sum(row["status"] != "refused" for row in own["mpecss"])
    begun = {
        method: statistics.median(
            row["seconds from start"] for row in own[method] if is_solved(row)
        )
        for method in ("design", "SLSQP")
    }
    return {
        "benchmarks/README.md": [
            f"mpecss solves {solved['mpecss']} of the {written} that its adapter can write",
            f"on {sum(one > 1 for one in times)} of the {len(times)} that both solve, in the "
            f"median by {statistics.median(times):.0f} times",
            f"pympcc is faster than `ix.design` on {ahead('pympcc')}",
            f"mpecss is on {ahead('mpecss')}",
            f"On {claimed['SLSQP']} of {len(own['SLSQP'])} problems SLSQP ends at other values",
            f"CMA-ES solves {solved['CMA-ES']}, Nelder-Mead {solved['Nelder-Mead']} of "
            f"{len(own['CMA-ES'])}",
            f"{begun['design']:.1f} and {begun['SLSQP']:.1f} s in the median",
        ],
        "README.md": f"solves {solved['design']} of the bank's {count} designs ({rivals})",
        "docs/explanations/accurate-designer.md": (
            f"reaches the best known value to 1e-6 on {solved['design']} of {count}"
        ),
    }


def of_emission_taxes():
    """Rows of the table of emission taxes by number of firms."""
    methods = "design", "pympcc", "SLSQP", "NashOpt", "NashOpt, best penalty"
    rows = {(row["method"], row["problem"]): row for row in measured("bench")["rows"]}

    def cell(row):
        if "seconds after compilation" not in row:
            return row["status"]
        seconds = f"{row['seconds from start']:.1f} / {row['seconds after compilation']:.3f}"
        return seconds if is_solved(row) else f"{row['gap']:+.0e} in {seconds}"

    def times(method):
        ratios = [
            rows[method, name]["seconds after compilation"]
            / rows["design", name]["seconds after compilation"]
            for name in ix.problems.bank.designs
            if re.match(r"emission tax, \d.*tax free", name)
        ]
        return f"{min(ratios):.0f} to {max(ratios):.0f}"

    names = [name for name in ix.problems.bank.designs if re.match(r"emission tax, \d", name)]
    lines = [
        " | ".join([name.removeprefix("emission tax, "), *[cell(rows[m, name]) for m in methods]])
        for name in names
    ]
    told = (
        f"{times('NashOpt, best penalty')} times as fast as NashOpt with its search for the best "
        f"of eight penalties, and {times('NashOpt')} times as fast as with its default"
    )
    return {"benchmarks/README.md": [*(f"| {line} |" for line in lines), told]}


def of_networks():
    """Rows of the table of networks, by `benchmarks/network_design.py`."""
    lines = [
        f"| {row['network']} | {row['design']} | {row['links']} | {row['paths']:,} | "
        f"{row['system_optimum']:.4f} | {row['total_travel_time']:.4f} |"
        for row in measured("network_design")["rows"]
    ]
    return {"benchmarks/README.md": lines}


def of_cities():
    """Rows of the tables of cities, and the exponent, by `benchmarks/city.py`."""
    found = measured("city")
    stages = (
        "user equilibrium, gap 1e-6",
        "system optimum, gap 1e-6",
        "paths",
        "logit equilibrium to 1e-12",
        "hypergradient, all links",
    )
    lines = []
    for row in found["rows"]:
        seconds = " | ".join(f"{row['seconds'][stage]:.3g}" for stage in stages)
        sizes = f"{row['links']:,} | {row['paths']:,} | {row['entries']:,}"
        lines.append(f"| {row['network']} | {sizes} | {seconds} | {row['peak_gb']:.2f} |")
    for row in found["tolls"]:
        tolls = row["tolls"]
        name = row["network"] + (", demand doubled" if row["demand"] == 2 else "")
        lines.append(
            f"| {name} | {tolls['links']} | {tolls['without']:,.0f} | {tolls['objective']:,.1f} | "
            f"{tolls['steps']} | {tolls['seconds to 1e-4']:.3g} | {tolls['seconds to 1e-6']:.3g} |"
        )
    return {"benchmarks/README.md": [*lines, f"grow as entries to the {found['exponent']:.2f}"]}


def of_iterations():
    """A step of design-and-play, by `benchmarks/iteration.py`."""
    step = measured("iteration")["rows"][1]
    return {
        "README.md": f"takes {step['milliseconds']:.2f} ms, {step['in_units']:.1f} times as long"
    }


def of_long_runs():
    """Chunks, memory and many seeds, by `benchmarks/long_runs.py`."""
    found = measured("long_runs")
    _, chunks, files = (row["to_one_scan"] for row in found["rows"])
    shares = {row["block"]: row["share"] for row in found["ensemble"]["rows"]}
    told = ", ".join(f"{share:.2f}" for share in shares.values())
    memory = ", ".join(f"{row['peak_megabytes']:.0f}" for row in found["memory"])
    return {
        "README.md": f"in one call of `ix.ensemble` take {shares[64]:.2f} times as",
        "benchmarks/README.md": [
            f"| {chunks:.2f} (of medians of 24 runs each",
            f"; {files:.2f} with a file after every chunk |",
            f"| {told} in blocks of {', '.join(map(str, shares))} |",
            f"| {memory} MB |",
        ],
    }


@pytest.mark.parametrize(
    "claims", [of_the_bank, of_emission_taxes, of_networks, of_cities, of_iterations, of_long_runs]
)
def test_what_the_text_says_was_measured(claims):
    for file, sentences in claims().items():
        text = " ".join((ROOT / file).read_text().split())
        for sentence in [sentences] if isinstance(sentences, str) else sentences:
            assert sentence in text, file
