"""What a result was computed with and on."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

_PACKAGES = ("incentax", "jax", "jaxlib", "optax", "equinox", "numpy", "scipy")


def environment(folder: Path | None = None) -> dict[str, Any]:
    """Versions, default dtype, devices, machine, and the git state of a folder, where it has one.

    The git state is that of the working folder when left out.
    """
    devices = jax.devices()
    return {
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "dtype": str(jnp.zeros(()).dtype),
        "device": str(devices[0].device_kind),
        "processor": _processor(),
        "devices": len(devices),
        "processes": jax.process_count(),
        "machine": f"{platform.node()}, {platform.system()} {platform.machine()}",
        "git": _git_state(folder or Path.cwd()),
    }


def _processor() -> str | None:
    """Its model, where the system tells."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (models[0] if models else platform.processor()) or None


def _git_state(folder: Path) -> str | None:
    """The commit, and whether files differ from it; `None` without git or a repository."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + (", with changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return told.stdout.strip()
