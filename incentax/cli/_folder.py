"""The folder of a run: what was written there, and by what."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .._checkpoint import cleared
from .._files import plain, writable_folder, write_json
from ..experiments import Kept, rows_every


def folder_for(path: Path, name: str, force: bool) -> Path:
    """The folder, made if missing; `ValueError` where it holds another problem's results."""
    result = path / "result.json"
    if result.is_file() and not force:
        try:
            there = json.loads(result.read_text()).get("name")
        except (json.JSONDecodeError, AttributeError):
            there = "something else"
        if there != name:
            raise ValueError(
                f"`--out` needs a folder without another problem's results: {path} holds those of "
                f"{there}. Choose another folder, or replace them with --force"
            )
    return writable_folder(path)


def read_result(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """`result.json` and the arrays of `result.npz`; `ValueError` where they are missing."""
    for name in ("result.json", "result.npz"):
        if not (path / name).is_file():
            raise ValueError(f"`DIR` needs a folder of `incentax run`, got {path}, without {name}")
    try:
        content = json.loads((path / "result.json").read_text())
        with np.load(path / "result.npz") as arrays:
            kept = dict(arrays)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`DIR` needs files as `incentax run` wrote them, got {path}: {error}"
        ) from error
    if "set" not in content:
        raise ValueError(
            f"`DIR` needs a folder of `incentax run`, got {path}, of another command: "
            f"{content.get('name', 'unknown')}"
        )
    return content, kept


def is_begun(kept: Kept) -> bool:
    """Whether steps are kept: a run that only compiled has none."""
    return kept.folder is not None and any(kept.folder.glob("run-*.ckpt"))


def run_kept(folder: Path, about: dict[str, Any], steps: int, *, resume: bool, force: bool) -> Kept:
    """Where a run is written while it goes on; `run.json` says what it is.

    `ValueError` where another run is to be resumed, or one that was not finished to be replaced.
    """
    path, state = folder / "run.json", folder / "checkpoint"
    there = json.loads(path.read_text()) if path.is_file() else None
    if resume and there is not None:
        wrong = [f"{name} {there.get(name)}" for name, is_now in about.items()
                 if there.get(name) != plain(is_now)]  # fmt: skip
        if wrong:
            raise ValueError(
                f"`--resume` needs the folder of this run, got {folder}, of one with "
                f"{', '.join(wrong)}"
            )
        every = there["record"]
    else:
        begun = is_begun(Kept(state))
        if begun and not _is_done(folder / "result.json") and not force:
            raise ValueError(
                f"`--out` needs a folder without a run that was not finished, got {folder}: "
                "--resume goes on with it, --force begins anew"
            )
        cleared(state, "--out")
        every = rows_every(steps)
    write_json(path, {**about, "record": every})
    return Kept(state, resume, every)


def _is_done(path: Path) -> bool:
    """Whether results are there, and not those of a run that was interrupted."""
    if not path.is_file():
        return False
    try:
        return not json.loads(path.read_text())["result"].startswith("interrupted")
    except (ValueError, KeyError, TypeError, AttributeError):
        return True
