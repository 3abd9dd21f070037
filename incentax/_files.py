"""Files that appear whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np


def writable_folder(path: str | os.PathLike, name: str = "--out") -> Path:
    """The folder, made if missing; `ValueError` when files cannot be written there."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"`{name}` needs a folder that can be written, got {path}: {error}"
        ) from None
    return folder


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a temporary neighbour of `path`, then moves it into place."""
    descriptor, name = tempfile.mkstemp(suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """JSON in which NaN and infinity are `null`."""
    text = json.dumps(plain(content), indent=2, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """A text file."""
    write_whole(path, lambda temporary: temporary.write_text(text))


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """A numpy archive of named arrays."""
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    write_whole(path, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, **plain))


def plain(node: Any) -> Any:
    """Lists, dictionaries and numbers that JSON knows; NaN and infinity are `None`."""
    if isinstance(node, dict):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    if isinstance(node, jax.Array | np.ndarray | np.generic):
        return plain(np.asarray(node).tolist())
    if isinstance(node, float) and not np.isfinite(node):
        return None
    return node
