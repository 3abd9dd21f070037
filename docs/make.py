"""Writes `reference/`, an entry for every public name, from the docstrings: one page a floor; and
`BENCHMARKS.md`, from the rows of `incentax bench` that are kept in `benchmarks/measured`.

Run `python docs/make.py`.
"""

import importlib
import inspect
import json
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import incentax as ix
import incentax.experiments
import incentax.plots  # imported by those who draw alone
from incentax import bench

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
# A page's title, and the concepts on it: files and folders of the package.
PAGES = {
    "sets-and-graphs": ("Sets, graphs, schedules, noise", ("sets", "graphs", "schedules", "noise")),
    "games": ("Games, mirror maps, smoothing", ("games", "geometry", "smoothing")),
    "play": ("How agents move", ("dynamics",)),
    "sensitivity": ("How an equilibrium answers", ("sensitivity",)),
    "equilibrium": ("Where agents stop", ("equilibrium",)),
    "design": ("How incentives move", ("design",)),
    "evidence": ("Certificates, rates, assumptions", ("diagnostics", "assumptions")),
    "traffic": ("Road networks", ("traffic",)),
    "problems": ("Ready problems, the bank, figures", ("problems", "plots", "experiments")),
    "running": (
        "Results, long runs, compilation, errors",
        ("_results", "callbacks", "_checkpoint", "_cache", "_compile", "_checks"),
    ),
}
MODULES = {
    "incentax": ix,
    "incentax.assumptions": ix.assumptions,
    "incentax.callbacks": ix.callbacks,
    "incentax.diagnostics": ix.diagnostics,
    "incentax.experiments": incentax.experiments,
    "incentax.graphs": ix.graphs,
    "incentax.noise": ix.noise,
    "incentax.problems": ix.problems,
    "incentax.problems.bank": ix.problems.bank,
    "incentax.schedules": ix.schedules,
    "incentax.smoothing": ix.smoothing,
    "incentax.traffic": ix.traffic,
    "incentax.plots": incentax.plots,
}


def pages() -> dict[str, str]:
    """The text of every page by its file's name."""
    entries: dict[str, list[tuple[str, str, object]]] = {page: [] for page in PAGES}
    shown: set[int] = set()
    for title, module in MODULES.items():
        for name, value in _names(module).items():
            if id(value) in shown:  # under two paths: shown once
                continue
            shown.add(id(value))
            entries[_page_of(title, value)].append((title, name, value))
    links = _links(entries)
    written = {f"{page}.md": _page(page, rows, links) for page, rows in entries.items()}
    return {**written, "bank.md": _bank(), "index.md": _index(entries, links)}


def _bank() -> str:
    """The problems of the bank, kind by kind, with what their files say of them."""
    tables = ix.problems.bank.designs, ix.problems.bank.equilibria
    lines = [
        "# The bank",
        "",
        f"The {len(tables[0])} designs of `ix.problems.bank.designs` with the least value that is "
        f"known, and the {len(tables[1])} equilibria of `ix.problems.bank.equilibria`, both by "
        "name. Where the source is incentax the best value is of no publication; where it is not "
        "derived under *about* either, it is the least that any method has found.",
    ]
    files = sorted({_file_of(entry) for table in tables for entry in table.values()})
    for file in files:
        module = importlib.import_module(f"incentax.problems.bank.{file}")
        lines += ["", f"## {file.strip('_').replace('_', ' ').capitalize()}", ""]
        lines += [inspect.getdoc(module) or "", "", "| problem | best | source | about |"]
        lines += ["| --- | --- | --- | --- |"]
        for table in tables:
            for name, entry in table.items():
                if _file_of(entry) == file:
                    best = f"{entry.best:.10g}" if table is tables[0] else "an equilibrium"
                    about = inspect.getdoc(_maker(entry)) or ""
                    about = " ".join(about.split()).replace("|", "\\|")
                    lines.append(f"| {name} | {best} | {entry.source} | {about} |")
    return "\n".join(lines) + "\n"


def _maker(entry: Any) -> Any:
    return getattr(entry.make, "func", entry.make)


def _file_of(entry: Any) -> str:
    return _maker(entry).__module__.rsplit(".", 1)[1]


def _page_of(title: str, value: object) -> str:
    place = getattr(value, "__module__", None) or title
    concept = (place if place.startswith("incentax.") else title).split(".")[1:2] or [""]
    for page, (_, concepts) in PAGES.items():
        if concept[0] in concepts:
            return page
    concept = title.split(".")[1]  # a constant
    return next(page for page, (_, concepts) in PAGES.items() if concept in concepts)


def _links(entries: dict[str, list[tuple[str, str, object]]]) -> dict[str, str]:
    """Page and heading of every name, as GitHub and MyST number them."""
    links = {}
    for page, rows in entries.items():
        seen: dict[str, int] = {}
        for _, name, _ in rows:
            slug = name.lower()
            number = seen.get(slug, 0)
            seen[slug] = number + 1
            links[name] = f"{page}.md#{slug}" + (f"-{number}" if number else "")
    return links


def _page(page: str, rows: list[tuple[str, str, object]], links: dict[str, str]) -> str:
    lines = [f"# {PAGES[page][0]}"]
    for title, name, value in rows:
        lines += ["", f"## {name}", "", *_entry(title, name, value, links)]
    return "\n".join(lines).rstrip() + "\n"


def _index(entries: dict[str, list[tuple[str, str, object]]], links: dict[str, str]) -> str:
    lines = [
        "# Reference",
        "",
        "Every public name, from its docstring; `python docs/make.py` writes these pages, and the",
        "tests check that they are up to date and that every example runs as printed.",
        "",
    ]
    for page, rows in entries.items():
        names = ", ".join(f"[{name}]({links[name]})" for _, name, _ in rows)
        lines += [f"- **[{PAGES[page][0]}]({page}.md)**: {names}"]
    lines += ["- **[The bank](bank.md)**: every problem, its best known value and its source"]
    tree = ["", "```{toctree}", ":hidden:", "", *PAGES, "bank", "```"]
    return "\n".join([*lines, *tree]) + "\n"


def _names(module: ModuleType) -> dict[str, object]:
    return {
        name: value
        for name, value in sorted(vars(module).items(), key=lambda item: item[0].lower())
        if not name.startswith("_")
        and (_is_constant(name, value) or callable(value))
        and (_is_constant(name, value) or getattr(value, "__module__", "").startswith("incentax"))
    }


def _is_constant(name: str, value: object) -> bool:
    return name.isupper() and isinstance(value, tuple | list | np.ndarray)


def _methods(name: str, value: object, known: dict[str, str]) -> list[str]:
    """Public methods and properties of a class that its own page or a base of ours explains."""
    if not isinstance(value, type):
        return []
    lines = []
    for member in sorted(dir(value)):
        found = inspect.getattr_static(value, member)
        function = found.fget if isinstance(found, property) else found
        function = inspect.unwrap(getattr(function, "__func__", function))
        ours = getattr(function, "__module__", None) or ""
        if member.startswith("_") or not callable(function) or not ours.startswith("incentax"):
            continue
        text = inspect.getdoc(getattr(value, member, None) if callable(found) else function)
        summary = " ".join((text or "").split("\n\n")[0].split())
        if not summary:
            continue
        call = ""
        if not isinstance(found, property):
            rest = list(inspect.signature(function).parameters)[1:]
            call = f"({', '.join(rest)})"
        lines += [f"- `.{member}{call}`: {' '.join(_markdown(summary, known))}"]
    return ["", "**Methods and properties**", "", *lines] if lines else []


def _entry(title: str, name: str, value: object, known: dict[str, str]) -> list[str]:
    if _is_constant(name, value):
        shown = textwrap.fill(f"{title.replace('incentax', 'ix', 1)}.{name} = {value!r}", 96)
        return ["```text", shown, "```"]
    source = inspect.getsourcefile(inspect.unwrap(value))
    place = Path(source).relative_to(FOLDER.parents[1]) if source else None
    lines = ["```text", _signature(title, name, value), "```", ""]
    text = inspect.getdoc(value) or ""
    if not isinstance(value, type) or value.__doc__ is not None:
        lines += _markdown(text, known)
    return [*lines, *_methods(name, value, known), "", f"Source: `{place}`"]


def _signature(title: str, name: str, value: object) -> str:
    prefix = title.replace("incentax", "ix", 1)
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return f"{prefix}.{name}"
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    text = str(inspect.Signature(plain))
    # An address differs from run to run.
    return textwrap.fill(f"{prefix}.{name}{re.sub(r' at 0x[0-9a-f]+', '', text)}", 96)


def _markdown(text: str, known: dict[str, str]) -> list[str]:
    """Links between names, examples as blocks of code, formulas as blocks of text."""

    def link(match: re.Match) -> str:
        name = match[1]
        return f"[`{name}`]({known[name]})" if name in known else f"`{name}`"

    lines: list[str] = []
    block, example = "", False
    for line in re.sub(r"\[`(\w+)`\]\[\]", link, text).split("\n"):
        if line.startswith("!!! example"):
            if block:
                _close(lines)
                block = ""
            lines.append("**Example**")
            example = True
            continue
        inside = line.startswith("    ")
        if line.startswith(("    >>>", "    ...")):
            kind = "pycon"
        else:
            # An example's own text is text; other indented lines are formulas.
            kind = (block if example else block or "text") if inside else ""
        if line.strip() and kind != block:
            if block:
                _close(lines)
            if kind:
                lines += ["", f"```{kind}"]
            block = kind
        lines.append(line[4:] if inside else line)
    if block:
        _close(lines)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip().split("\n")


def _close(lines: list[str]) -> None:
    while lines and not lines[-1].strip():
        lines.pop()
    lines += ["```", ""]


def benchmarks() -> str:
    """The text of `BENCHMARKS.md`."""
    content = json.loads((ROOT / "benchmarks" / "measured" / "bench.json").read_text())
    return bench.page(content, "benchmarks/measured/bench.png")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text)
    (ROOT / "BENCHMARKS.md").write_text(benchmarks())
