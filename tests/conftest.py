from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Of the 65,530 memory maps that Linux gives a process. The package bounds what its own programs
# hold; hundreds of tests compile as many of their own, which JAX keeps.
_MAPS = 35_000


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_text().count("\n") > _MAPS:
        jax.clear_caches()
