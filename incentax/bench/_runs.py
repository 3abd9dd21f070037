"""Every method on every problem, each in a process of its own with a limit of time and memory."""

import contextlib
import difflib
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._files import write_json
from ..problems import bank
from ._answer import Method
from ._methods import METHODS

# Small ones of several kinds, on which methods differ.
QUICK = ("Pigou toll", "Outrata 1e", "kink D1")
_POLL = 0.05
# What every row has.
ROW = ("method", "problem", "kind", "status")


class Limits(NamedTuple):
    """Of one process: seconds, and megabytes of memory (watched where /proc tells them)."""

    seconds: float = 300.0
    megabytes: float = 4000.0


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))  # some have commas


def _got(name: str, known: Iterable[str]) -> str:
    """A name that is not known, and what it may have been meant to be."""
    plain = {one.lower(): one for one in known}
    near = [plain[one] for one in difflib.get_close_matches(name.lower(), plain, cutoff=0.5)]
    return f"got {name!r}" + f" (near it: {_listed(near)})" * bool(near)


def problems_named(names: Sequence[str]) -> list[str]:
    """Names of designs in the bank: `quick`, `all`, a kind, a name, or how names begin."""
    found: list[str] = []
    for name in names:
        kinds = {entry.kind for entry in bank.designs.values()}
        if name == "all":
            found += bank.designs
        elif name == "quick":
            found += QUICK
        elif name in bank.designs:
            found.append(name)
        elif name in kinds:
            found += [one for one, entry in bank.designs.items() if entry.kind == name]
        elif any(one.startswith(name) for one in bank.designs):
            found += [one for one in bank.designs if one.startswith(name)]
        else:
            known = {"all", "quick", *bank.designs, *kinds}
            raise ValueError(
                f"`--problems` needs names of the bank, {_got(name, known)}; "
                f"there are the sets 'quick' and 'all', the kinds {_listed(sorted(kinds))}, and "
                f"the problems {_listed(bank.designs)}"
            )
    return list(dict.fromkeys(found))


def methods_named(names: Sequence[str]) -> list[str]:
    """Names of methods: `all`, `installed` or a name."""
    found: list[str] = []
    installed = [name for name, method in METHODS.items() if _is_here(method)]
    for name in names:
        known = ("all", "installed", *METHODS)
        if name not in known:
            raise ValueError(
                f"`--methods` needs names of methods, {_got(name, known)}; there are 'all', "
                f"'installed', {_listed(METHODS)}"
            )
        found += {"all": METHODS, "installed": installed}.get(name, [name])
    return list(dict.fromkeys(found))


def run(
    problems: Sequence[str],
    methods: Sequence[str],
    out: Path,
    *,
    report: Callable[[str, float], None],
    begun: Callable[[], Any] = bool,
    repeat: int = 1,
    limits: Limits = Limits(),  # noqa: B008  # cannot be changed
    install: bool = False,
    resume: bool = False,
    certified: bool = False,
) -> list[dict[str, Any]]:
    """Rows of figures, written one by one to `out/rows`. `begun`: is called before the first one.

    **Raises** `ValueError` where rows lie in `out` already and are not to be gone on with.
    """
    folder = out / "rows"
    folder.mkdir(exist_ok=True)
    pairs = [(method, problem) for problem in problems for method in methods]
    if any(folder.glob("*.json")) and not resume:
        raise ValueError(
            f"`--out` needs a folder without rows, got {out}: --resume goes on with it; to begin "
            "anew, choose another folder or delete its files"
        )
    begun()
    pythons = {method: _python_for(METHODS[method], install, report) for method in methods}
    for done, (method, problem) in enumerate(pairs):
        path = folder / f"{_plain(method)}--{_plain(problem)}.json"
        report(f"{method}: {problem}", done / len(pairs))
        if _kept(path).get("status", "not installed") != "not installed":
            continue
        python, missing = pythons[method]
        row = {"method": method, "problem": problem, "kind": bank.designs[problem].kind}
        if python is None:
            write_json(path, {**row, "status": "not installed", "words": missing})
            continue
        asked = {"method": method, "problem": problem, "repeat": repeat, "certified": certified}
        write_json(path, {**row, **_in_a_process(python, asked, limits)})
    report("done", 1.0)
    rows = [row for row in map(_kept, sorted(folder.glob("*.json"))) if row]
    place = {pair: at for at, pair in enumerate(pairs)}
    return sorted(rows, key=lambda row: place.get((row["method"], row["problem"]), len(pairs)))


def _kept(path: Path) -> dict[str, Any]:
    """The row of a file, empty where it is none: such a one is run again."""
    try:
        row = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) and set(ROW) <= set(row) else {}


def _in_a_process(python: str, asked: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """The row of one process, whatever became of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        asked = {**asked, "path": str(path), "began": time.time(), "asking": os.getpid()}
        with open(Path(folder) / "error", "w+", errors="replace") as error:
            process = subprocess.Popen(
                [python, "-m", "incentax.bench", json.dumps(asked)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=error,
                env={**os.environ, "JAX_ENABLE_X64": "1"},
                start_new_session=True,  # with what it starts itself, a group to be ended
            )
            try:
                ended = _watched(process, limits)
            finally:
                _kill(process)
                process.wait()
            error.seek(0)
            told = [line for line in error.read().splitlines() if line.strip()]
        row = json.loads(path.read_text()) if path.is_file() else {}
    if ended is None and (process.returncode or not row):
        ended = "crashed", told[-1] if told else f"exit status {process.returncode}"
    if ended is None:
        return row
    # What it answered before it was ended still counts.
    return {**row, "ended": ": ".join(ended)} if row else {"status": ended[0], "words": ended[1]}


def _watched(process: subprocess.Popen, limits: Limits) -> tuple[str, str] | None:
    """Waits for its end; which limit it met, if any."""
    start = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - start > limits.seconds:
            return "out of time", f"more than {limits.seconds:g} seconds"
        if _megabytes(process.pid) > limits.megabytes:
            return "out of memory", f"more than {limits.megabytes:g} MB"
        time.sleep(_POLL)
    return None


def _kill(process: subprocess.Popen) -> None:
    """It and, where the system knows groups, what it has started."""
    if os.name != "posix":
        return process.kill()
    with contextlib.suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)


def _megabytes(process: int) -> float:
    """Of a process and those that it has started."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (OSError, IndexError):  # it has ended, or this is no Linux
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(map(_megabytes, map(int, children)))


def _python_for(
    method: Method, install: bool, report: Callable[[str, float], None]
) -> tuple[str | None, str]:
    """The interpreter that has what a method needs, or why there is none."""
    if _is_here(method):
        return sys.executable, ""
    same = [f"{name}=={importlib.metadata.version(name)}" for name in ("jax", "jaxlib")]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = "-".join([*method.needs, same[0], *_ourselves()])
    folder = cache / "incentax" / "bench" / _plain(name)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    whole = folder / "whole"
    if whole.is_file():
        return str(python), ""
    if not install:
        return None, f"{', '.join(method.needs)}: --install makes an environment for it"
    report(f"installing {', '.join(method.needs)}", 0.0)
    command = [str(python), "-m", "pip", "install", "-q", *_ourselves(), *same, *method.needs]
    try:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(command, capture_output=True, text=True, check=True, errors="replace")
    except (OSError, subprocess.CalledProcessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).splitlines()
        last = [line for line in told if line.strip()][-1:]
        return None, f"{', '.join(method.needs)} did not install: {' '.join(last)}"
    whole.touch()
    return str(python), ""


def _is_here(method: Method) -> bool:
    return all(importlib.util.find_spec(name) for name in method.modules)


def _ourselves() -> list[str]:
    """What pip takes for this very package: its folder, or its version."""
    distribution = importlib.metadata.distribution("incentax")
    source = json.loads(distribution.read_text("direct_url.json") or "{}").get("url", "")
    if source.startswith("file://"):
        return ["-e", urllib.request.url2pathname(source.removeprefix("file://"))]
    return [f"incentax=={distribution.version}"]


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
