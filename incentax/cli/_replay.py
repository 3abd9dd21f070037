"""A run beside the same run again."""

from typing import Any

import numpy as np

# Relative to the largest entry, where versions or machines differ.
_CLOSE = {"float64": 1e-6, "float32": 1e-3}
# What has to be the same for numbers to be the same bit by bit.
_SAME = ("versions", "python", "dtype", "device", "devices", "machine")


def compared(
    there: dict[str, np.ndarray],
    here: dict[str, Any],
    then: dict[str, Any],
    now: dict[str, Any],
) -> tuple[list[tuple[str, str]], bool]:
    """How far every array is from what it was, what is different around it, and whether all agree:
    bit by bit where nothing is different."""
    rows, fine = [], True
    changed = [name for name in _SAME if then.get(name) != now.get(name)]
    for name, before in there.items():
        again = np.asarray(here[name])
        if before.shape != again.shape:
            rows.append((name, f"shape {before.shape}, and now {again.shape}"))
            fine = False
            continue
        same = np.array_equal(before, again, equal_nan=before.dtype.kind == "f")
        size = np.max(np.abs(before), initial=0.0, where=np.isfinite(before)) or 1.0
        off = np.abs(again - before) / size
        off = float(np.max(off, initial=0.0, where=np.isfinite(off)))
        holes = not np.array_equal(np.isfinite(before), np.isfinite(again))
        close = not holes and off <= _CLOSE.get(str(before.dtype), 0.0)
        fine &= same or (bool(changed) and close)
        rows.append((name, "none, bit by bit" if same else f"{off:.1e}"))
    for name in [*changed, *(["git"] if then.get("git") != now.get("git") else [])]:
        rows.append((f"{name} then", str(then.get(name))))
        rows.append((f"{name} now", str(now.get(name))))
    return rows, fine
