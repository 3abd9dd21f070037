"""What an ensemble has found: all lanes, what is common to them, and files."""

import os
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._environment import environment
from .._files import writable_folder, write_json, write_npz
from .._results import as_table, in_words, RESULTS

_QUANTILES = (0.05, 0.5, 0.95)


class Ensemble:
    """Answer of [`ensemble`][].

    - `lanes`: what every lane returned, along a leading axis, as numpy arrays; `index`: the
      numbers of these lanes, all of them unless several processes share the work.
    - `results`: how each lane ended, in words; `failed`: which of `lanes` failed, by row: an answer
      with a `.result` that is no success, and else one that is not finite.
    - `inputs`: `key`, `theta0`, `parameters` of every lane. `count`: number of all lanes.
    - `mean`, `std`, `quantile(q)`: over the lanes that did not fail, of every floating array that a
      lane returns, in the same structure (`None` for others).
    - `save(folder)`: `ensemble.npz` and `ensemble.json`; `to_xarray()`: a `DataTree`.
    """

    lanes: Any

    def __init__(self, lanes: PyTree, inputs: PyTree, count: int, index: np.ndarray):
        self.lanes, self.inputs, self.count, self.index = lanes, inputs, count, index

    @cached_property
    def results(self) -> list[str]:
        """How each lane ended; "successful" where nothing is to be said."""
        nodes = jax.tree.leaves(self.lanes, is_leaf=_is_result)
        told = [in_words(RESULTS, node) for node in nodes if _is_result(node)]
        if told:  # of several answers the first that is no success
            return [next(filter(None, words), "successful") for words in zip(*told)]
        fine = np.ones(len(self.index), bool)
        for leaf in jax.tree.leaves(self.lanes):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                fine &= np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
        return np.where(fine, "successful", "not finite").tolist()

    @cached_property
    def failed(self) -> np.ndarray:
        """Rows of `lanes` that failed."""
        return np.flatnonzero(np.asarray(self.results) != "successful")

    @property
    def _fine(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.index)), self.failed)

    def _of_the_fine(self, statistic: Any) -> Any:
        fine = self._fine

        def one(leaf: np.ndarray) -> np.ndarray | None:
            floating = jnp.issubdtype(leaf.dtype, jnp.floating)
            return statistic(leaf[fine]) if floating and fine.size else None

        return jax.tree.map(one, self.lanes)

    @cached_property
    def mean(self) -> Any:
        """Over the lanes that did not fail."""
        return self._of_the_fine(lambda leaf: leaf.mean(axis=0))

    @cached_property
    def std(self) -> Any:
        """Over the lanes that did not fail, of the sample."""
        return self._of_the_fine(lambda leaf: leaf.std(axis=0, ddof=min(1, len(leaf) - 1)))

    def quantile(self, q: Any) -> Any:
        """Over the lanes that did not fail; of several `q` along a leading axis."""
        return self._of_the_fine(lambda leaf: np.quantile(leaf, q, axis=0))

    def summary(self) -> dict[str, Any]:
        """Number of lanes, failures with their reasons, and the spread of what is one number."""
        reasons, counts = np.unique(np.asarray(self.results), return_counts=True)
        numbers = {
            name: leaf
            for name, leaf in _named(self.lanes).items()
            if leaf.ndim == 1 and jnp.issubdtype(leaf.dtype, jnp.floating)
        }
        spread = {}
        for name, leaf in numbers.items():
            kept = leaf[self._fine]
            if kept.size and np.isfinite(kept).any():
                low, middle, high = np.quantile(kept, _QUANTILES)
                spread[name] = {
                    "mean": kept.mean(),
                    "std": kept.std(ddof=min(1, kept.size - 1)),
                    **{"5 %": low, "50 %": middle, "95 %": high},
                }
        return {
            "lanes": self.count,
            "lanes_here": len(self.index),
            "failed": self.index[self.failed],
            "results": dict(zip(reasons.tolist(), counts.tolist())),
            "spread": spread,
        }

    def __str__(self) -> str:
        told = self.summary()
        rows = [(name, str(count)) for name, count in told["results"].items()]
        for name, numbers in told["spread"].items():
            row = [f"{label} {value:.6g}" for label, value in numbers.items()]
            rows.append((name, ", ".join(row)))
        return as_table([("lanes", str(self.count)), *rows])

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `ensemble.npz`, all lanes by name, and `ensemble.json`, the summary.

        Of several processes each writes its share, `ensemble-P-of-N.npz`, and the first the summary
        of its own.
        """
        path = writable_folder(folder, "Ensemble.save(folder)")
        share, shares = jax.process_index(), jax.process_count()
        name = "ensemble.npz" if shares == 1 else f"ensemble-{share}-of-{shares}.npz"
        arrays = {f"lanes{key}": leaf for key, leaf in _named(self.lanes).items()}
        arrays |= {f"inputs{key}": leaf for key, leaf in _named(self.inputs).items()}
        write_npz(path / name, {**arrays, "index": self.index, "result": np.asarray(self.results)})
        if share == 0:
            write_json(path / "ensemble.json", {**self.summary(), "environment": environment()})

    def to_xarray(self) -> Any:
        """A `xarray.DataTree` with the groups `history`, `certificate` and `settings`.

        `history`: by lane and step; `certificate`: what is known of every answer (objective,
        residuals, multipliers, result); `settings`: the inputs of every lane; incentive and
        strategies are at the root. `ImportError` without the extra "xarray".
        """
        try:
            import xarray  # noqa: PLC0415
        except ImportError as error:
            raise ImportError(
                '`Ensemble.to_xarray` needs an extra: pip install "incentax[xarray]"'
            ) from error
        groups: dict[str, dict[str, Any]] = {
            "/": {}, "history": {}, "certificate": {}, "settings": {}
        }  # fmt: skip
        steps = None
        for key, leaf in _named(self.lanes).items():
            name = key.strip(".").replace(".", "_").replace("/", "_")
            if name == "history_step":
                steps = leaf.max(axis=0)  # a lane that broke off repeats its last one
            elif name.startswith("history_"):
                short = name.removeprefix("history_")
                groups["history"][short] = (("lane", "step", *_axes(short, leaf, 2)), leaf)
            elif name in ("theta", "x") or name.startswith(("theta_", "theta[")):
                groups["/"][name] = (("lane", *_axes(name, leaf, 1)), leaf)
            elif not name.endswith("_value"):
                groups["certificate"][name] = (("lane", *_axes(name, leaf, 1)), leaf)
        groups["certificate"]["result"] = (("lane",), np.asarray(self.results))
        for key, leaf in _named(self.inputs).items():
            name = key.strip("[]'").replace("']['", "_")
            own = leaf[self.index]
            groups["settings"][name] = (("lane", *_axes(name, own, 1)), own)
        sets = {}
        for group, variables in groups.items():
            coordinates = {"lane": self.index}
            if group == "history" and steps is not None:
                coordinates["step"] = steps
            sets[group] = xarray.Dataset(variables, coordinates)
        return xarray.DataTree.from_dict(sets)


def _is_result(node: Any) -> bool:
    return isinstance(node, RESULTS)


def _axes(name: str, leaf: np.ndarray, used: int) -> list[str]:
    return [f"{name}_axis_{axis}" for axis in range(leaf.ndim - used)]


def _named(tree: PyTree) -> dict[str, np.ndarray]:
    """Every array by its path; keys as what they consist of."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): _plain(leaf) for path, leaf in leaves}


def _plain(leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
