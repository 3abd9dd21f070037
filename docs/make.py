"""Writes `api.md`, the reference of every public name, from the docstrings.

Run `python docs/make.py`.
"""

import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np

import incentax as ix
import incentax.plots  # imported by those who draw alone

PAGE = Path(__file__).parent / "api.md"
SECTIONS = {
    "incentax": ix,
    "incentax.assumptions": ix.assumptions,
    "incentax.diagnostics": ix.diagnostics,
    "incentax.graphs": ix.graphs,
    "incentax.noise": ix.noise,
    "incentax.plots": incentax.plots,
    "incentax.problems": ix.problems,
    "incentax.schedules": ix.schedules,
    "incentax.smoothing": ix.smoothing,
    "incentax.traffic": ix.traffic,
}


def page() -> str:
    """The whole page."""
    names = {title: _names(module) for title, module in SECTIONS.items()}
    known = {name for rows in names.values() for name in rows}
    lines = [
        "# API reference",
        "",
        "Every public name, from its docstring; `python docs/make.py` writes this page, and the",
        "tests check that it is up to date and that every example runs as printed.",
        "",
    ]
    shown: set[str] = set()
    for title, rows in names.items():
        links = ", ".join(f"[{name}](#{_anchor(name)})" for name in rows)
        lines += [f"- **{title}**: {links}"]
    for title, rows in names.items():
        lines += ["", f"## {title}"]
        for name, value in rows.items():
            if name in shown:  # under two paths: shown once
                continue
            shown.add(name)
            lines += [
                "",
                f'### <a id="{_anchor(name)}"></a>{name}',
                "",
                *_entry(title, name, value, known),
            ]
    return "\n".join(lines).rstrip() + "\n"


def _anchor(name: str) -> str:
    return f"api-{name}"  # explicit: `Equilibria` and `equilibria` would share a heading's own


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


def _methods(name: str, value: object, known: set[str]) -> list[str]:
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


def _entry(title: str, name: str, value: object, known: set[str]) -> list[str]:
    if _is_constant(name, value):
        shown = textwrap.fill(f"{title.replace('incentax', 'ix', 1)}.{name} = {value!r}", 96)
        return ["```text", shown, "```"]
    source = inspect.getsourcefile(inspect.unwrap(value))
    place = Path(source).relative_to(PAGE.parents[1]) if source else None
    lines = ["```text", _signature(title, name, value), "```", ""]
    text = inspect.getdoc(value) or ""
    if not isinstance(value, type) or value.__doc__ is not None:
        lines += _markdown(text, known)
    return [*lines, *_methods(name, value, known), "", f"[source](../{place})"]


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


def _markdown(text: str, known: set[str]) -> list[str]:
    """Links between names, examples as blocks of code, formulas as blocks of text."""

    def link(match: re.Match) -> str:
        name = match[1]
        return f"[`{name}`](#{_anchor(name)})" if name in known else f"`{name}`"

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


if __name__ == "__main__":
    PAGE.write_text(page())
