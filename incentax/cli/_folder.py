"""The folder of a run: what was written there, and by what."""

import importlib.metadata
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._files import writable_folder


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


def environment() -> dict[str, Any]:
    """Versions and device."""
    packages = ("incentax", "jax", "jaxlib", "optax", "equinox", "numpy", "scipy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"device": str(jax.devices()[0]), "dtype": "float64", "versions": versions}
