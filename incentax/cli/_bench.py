"""The command that sets methods side by side."""

import json
import sys
from pathlib import Path
from typing import Any

from .. import bench as benches, plots
from .._checkpoint import terminable
from .._environment import environment
from .._files import writable_folder, write_json, write_text
from ..problems import bank
from ._show import console, progress, show

# What seconds depend on.
_ABOUT = ("versions", "python", "dtype", "device")
_LIMITS = ("repeat", "seconds", "megabytes")
# Columns and rows of a terminal's table.
_WIDE, _LONG = 6, 20


def bench(
    *,
    problems: tuple[str, ...] = ("quick",),
    methods: tuple[str, ...] = ("installed",),
    repeat: int = 1,
    seconds: float = 300.0,
    megabytes: float = 4000.0,
    certified: bool = False,
    install: bool = False,
    out: Path = Path("results/bench"),
    resume: bool = False,
    read: tuple[Path, ...] = (),
) -> int:
    """Methods side by side over problems with known answers: bench.json, bench.md and bench.png.

    Every method solves every problem in a process of its own; its answer is judged at the
    equilibrium solved anew.

    Parameters
    ----------
    problems
        "quick", "all", kinds, names, or how names begin.
    methods
        "installed" (what needs no other package), "all", or names.
    repeat
        How often each problem is solved again once all is compiled; the median counts.
    seconds
        Limit of each process.
    megabytes
        The same for its memory.
    certified
        Examine every answer with `ix.certify` too.
    install
        Make an environment, in the user's cache folder, for every method that needs one.
    out
        Folder of the results.
    resume
        Go on with the rows that lie in it.
    read
        Run nothing, whatever else is asked for: join the rows of these bench.json, the later ones
        in place of the earlier, and write the tables and pictures of all.
    """
    for name, names in {"problems": problems, "methods": methods}.items():
        if not names:
            raise ValueError(f"`--{name}` needs at least one name, got none")
    if read:
        return _written(_without_rows(out), _joined(read))
    for name, number in {"repeat": repeat, "seconds": seconds, "megabytes": megabytes}.items():
        if not number > 0:
            raise ValueError(f"`--{name}` needs a number > 0, got {number}")
    chosen_problems = benches.problems_named(problems)
    chosen_methods = benches.methods_named(methods)
    folder = writable_folder(out)
    plots.new_figure(1, 1)
    about = environment(Path(__file__).parent)  # git: of the source that is measured
    kept = {name: about[name] for name in (*_ABOUT, "processor", "git")}
    settings = {"repeat": repeat, "seconds": seconds, "megabytes": megabytes}
    settings |= {"certified": certified, "environment": kept}
    if resume:
        _require_the_same(folder / "run.json", settings)
    try:
        with progress() as report, terminable():
            rows = benches.run(
                chosen_problems,
                chosen_methods,
                folder,
                report=report,
                begun=lambda: write_json(folder / "run.json", settings),
                repeat=repeat,
                limits=benches.Limits(seconds, megabytes),
                install=install,
                resume=resume,
                certified=certified,
            )
    except (KeyboardInterrupt, SystemExit) as error:
        told = f"the rows so far lie in {folder / 'rows'}; --resume goes on with them"
        error.add_note(told)
        if isinstance(error, SystemExit):  # of which Python shows nothing
            sys.stderr.write(f"incentax: ended; {told}\n")
        raise
    return _written(folder, {**settings, "rows": rows})


def _require_the_same(path: Path, settings: dict[str, Any]) -> None:
    """Rows of other limits, versions or devices are not gone on with."""
    if not path.is_file():
        return
    try:
        kept = json.loads(path.read_text())
        then, now = ({**one, **one["environment"]} for one in (kept, settings))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`--resume` needs {path} as it was written: {error}") from error
    names = [name for name in now if name not in ("environment", "git")]
    wrong = [f"{name} {then.get(name)}, now {now[name]}" for name in names
             if then.get(name) != now[name] and (name in then or name != "processor")]  # fmt: skip
    if wrong:
        raise ValueError(
            f"`--resume` needs the folder of a run with the same settings, got {path.parent}, of "
            f"one with {'; '.join(wrong)}"
        )


def _without_rows(out: Path) -> Path:
    if any((out / "rows").glob("*.json")):
        raise ValueError(f"`--out` needs a folder without rows of a run where --read is, got {out}")
    return writable_folder(out)


def _joined(files: tuple[Path, ...]) -> dict[str, Any]:
    """What the files hold, of every method and problem the last row."""
    contents, rows = [_content(file) for file in files], {}
    same = _settings_of(contents[0])
    for file, content in zip(files, contents):
        own = _settings_of(content)
        # Older files do not tell of some of these; rows of several commits may stand together.
        known = [name for name in own if name != "git" and None not in (own[name], same[name])]
        wrong = [name for name in known if own[name] != same[name]]
        if wrong:
            raise ValueError(
                "`--read` needs runs of the same versions, device and limits, got "
                f"{wrong[0]} {same[wrong[0]]} in {files[0]} and {own[wrong[0]]} in {file}"
            )
        same = {name: one if one == own[name] else None for name, one in same.items()}
        rows |= {(row["method"], row["problem"]): row for row in content["rows"]}
    places = {name: at for at, name in enumerate((*bank.designs, *benches.METHODS))}
    order = sorted(rows, key=lambda pair: [places.get(name, -1) for name in reversed(pair)])
    told = {name: one for name, one in same.items() if one is not None}
    limits = {name: told.pop(name) for name in _LIMITS if name in told}
    return {**limits, "environment": told, "rows": [rows[pair] for pair in order]}


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
        known = [[row[name] for name in benches.ROW] for row in content["rows"]]
        figures = [row.get(name) for row in content["rows"] for name in benches.CLOCKS]
        wrong = [one for one in figures if one is not None and not one > 0]
        if wrong:
            raise ValueError(f"seconds of {wrong[0]}")
        _settings_of(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"`--read` needs files that this command wrote, got {file}: {told}") from (
            error
        )
    if not known:
        raise ValueError(f"`--read` needs files with rows, got none in {file}")
    return content


def _settings_of(content: dict[str, Any]) -> dict[str, Any]:
    """What seconds depend on, `None` where that is not told."""
    about = {name: content["environment"][name] for name in _ABOUT}
    about |= {name: content["environment"].get(name) for name in ("processor", "git")}
    return about | {name: content.get(name) for name in _LIMITS}


def _written(folder: Path, content: dict[str, Any]) -> int:
    page = benches.page(content)
    plots.save(benches.draw(content["rows"]), folder / "bench.png")
    write_text(folder / "bench.md", page)
    write_json(folder / "bench.json", content)
    tables = benches.tables(content["rows"])
    large = len(tables[-1].columns) > _WIDE or len(tables[-1].rows) > _LONG
    words = ["bench.md has tables of all problems too."] if large else []
    show(tables[:3] if large else tables, [*benches.words(content["rows"]), *words])
    console().print(f"Wrote bench.json, bench.md and bench.png to {folder}")
    return 0
