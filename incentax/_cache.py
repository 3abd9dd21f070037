"""Programs on disk."""

import os
import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from ._checks import warn
from ._files import writable_folder


def enable_cache(folder: str | os.PathLike | None = None) -> Path | None:
    """Keeps compiled programs on disk, so that another process need not compile them again.

    Switches JAX's persistent compilation cache on for this process, for programs of every size.
    The command line does so by itself. Entries of other versions and damaged ones are ignored.

    **Arguments:**

    - `folder`: where; `incentax` in the user's cache folder when left out.

    **Returns** the folder, or `None`, with a warning, when files cannot be written there or when
    this processor does not load its own programs (then all is compiled, as without the call).

    !!! example

        >>> import incentax as ix, tempfile
        >>> folder = ix.enable_cache(tempfile.mkdtemp())
    """
    if folder is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "incentax"
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"`enable_cache(folder)` needs a path, got {folder!r}")
    try:
        folder = writable_folder(folder, "enable_cache(folder)").absolute()
    except ValueError as error:
        warn(f"{error}; programs are not kept")
        return None
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    with tempfile.TemporaryDirectory(dir=folder) as trial:
        _keep_in(trial)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(2):  # written, then read
                jax.jit(lambda x: x + 1).lower(jnp.zeros(())).compile()
    refused = [str(entry.message) for entry in told if "compilation cache" in str(entry.message)]
    if refused:
        _keep_in(None)
        warn(f"`enable_cache(folder)`: this processor rejects stored programs: {refused[0]}")
        return None
    _keep_in(str(folder))
    return folder


def _keep_in(folder: str | None) -> None:
    jax.config.update("jax_compilation_cache_dir", folder)
    reset_cache()  # of a process that has compiled something before
