"""Many runs as one call: seeds, starts and parameters, side by side in blocks of lanes."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._checkpoint import as_checkpoint, Checkpoint, opened, own_share, Store, terminable
from .._checks import is_inside, require_count, require_rows, warn
from .._compile import compiled, is_preparing, shape_of
from .._description import described
from .._devices import automatic, of_all, over_devices
from .._tree import as_pytree_function
from ._design import design
from ._lanes import Ensemble
from ._problem import DesignProblem
from ._record import Record
from ._scheme import AbstractScheme
from ._solution import DesignSolution

# Lanes side by side where nothing else is said: more are no faster on a CPU, and need their memory.
_BLOCK = 64
# Rows of a lane's history where nothing else is said.
_ROWS = 100


def ensemble(
    run: DesignProblem | Callable[..., PyTree],
    *,
    keys: PRNGKeyArray | None = None,
    theta0: PyTree | None = None,
    parameters: PyTree | None = None,
    scheme: AbstractScheme | None = None,
    x0: Array | None = None,
    steps: int | None = None,
    record: int | Record | None = None,
    block: int | None = None,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | str | os.PathLike | None = None,
    resume: bool = False,
    report: Callable[[int, int], Any] | None = None,
) -> Ensemble:
    """Runs side by side, a lane for each row of `keys`, `theta0` and `parameters`.

    All lanes are one compiled program, `jax.vmap` over a block of them at a time: memory on the
    device grows with `block` and not with the number of lanes. A lane that fails is kept, with its
    reason, and left out of the statistics.

    **Arguments:**

    - `run`: a [`DesignProblem`][], which is designed by `scheme`; or a function that is called with
      those of `key`, `theta0` and `parameters` that are given, a row of each, and returns any
      pytree of arrays, such as `ix.design(..., throw=False)`.
    - `keys`, `theta0`, `parameters`: arrays, or pytrees of them, with the lanes along the leading
      axis; all of one length. `theta0` of a problem is the centre of its incentive set when left
      out.
    - `scheme`, `x0`, `steps`, `record`: of a problem, as for [`design`][]; the history has some 100
      rows a lane when `record` is left out.
    - `block`: lanes at a time, at most 64 when left out, in equal blocks. The last one is padded
      with copies of a lane, which are thrown away.
    - `mesh`: devices to share the lanes of a block among, along the first axis of the mesh; each
      runs its share without waiting for the others. Works across processes (`jax.distributed`),
      each of which keeps its own share of the lanes.
    - `checkpoint`, `resume`: a folder in which finished blocks are kept, to go on after them.
    - `report`: called with the number of lanes done and of all after each block.

    **Raises** `ValueError` for a wrong argument, and whatever the function raises.

    !!! example

        >>> import incentax as ix, jax, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals(shape=(1,)))
        >>> problem = ix.DesignProblem(game, lambda t, x: jnp.sum((x - 3) ** 2), ix.Box(0.0, 9.0))
        >>> scheme = ix.DesignAndPlay(
        ...     optax.sgd(0.1), play_step=0.5, feedback=ix.noise.Gaussian(0.01))
        >>> keys = jax.random.split(jax.random.key(0), 16)
        >>> starts = jnp.linspace(0.0, 9.0, 16)
        >>> many = ix.ensemble(problem, keys=keys, theta0=starts, scheme=scheme, steps=200)
        >>> many.lanes.theta.shape, many.failed.size, bool(abs(many.mean.theta - 3) < 0.1)
        ((16,), 0, True)
    """
    if is_inside():
        raise ValueError("`ensemble` is many programs: call it outside of `jit` and `vmap`")
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(f"`ensemble(mesh=...)` needs a `jax.sharding.Mesh`, got {mesh!r}")
    if keys is not None and not hasattr(keys, "dtype"):
        raise TypeError(
            "`ensemble(keys=...)` needs keys, such as `jax.random.split(jax.random.key(0), 16)`, "
            f"got {keys!r}"
        )
    checkpoint = as_checkpoint("ensemble", checkpoint, resume)
    given = {"key": keys, "theta0": theta0, "parameters": parameters}
    inputs, count = _lanes_of({name: tree for name, tree in given.items() if tree is not None})
    one = _lane(run, {"scheme": scheme, "x0": x0, "steps": steps, "record": record})
    size = _block_of(count, block, mesh)
    if mesh is None:
        program = partial(_side_by_side, one)
    else:
        mesh = automatic(mesh)
        program = partial(_spread, one, mesh=mesh)
    blocks = _Blocks(program, inputs, count, size, mesh)
    if checkpoint is None or is_preparing():
        done = blocks.run((), None if is_preparing() else report)
    else:
        what = described(run=one, inputs=inputs, block=size)
        folder = own_share(checkpoint, "ensemble")
        with opened(folder, "ensemble", what, resume=resume) as store, terminable():
            kept = blocks.kept(store)
            if jax.process_count() > 1:  # those that all have: they go on side by side
                kept = kept[: int(of_all(len(kept)).min())]
            done = blocks.run(kept, report, store)
    return Ensemble(done, inputs, count, blocks.rows())


def _lanes_of(given: dict[str, PyTree]) -> tuple[dict[str, PyTree], int]:
    """All inputs with their lanes along the leading axis, and how many lanes there are."""
    if not given:
        raise ValueError("`ensemble` needs one of keys, theta0 and parameters, got none")
    counts = {}
    for name, tree in given.items():
        argument = "keys" if name == "key" else name
        given[name], counts[argument] = require_rows("ensemble", f"{argument}=...", tree, "lane")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{rows} of {name}" for name, rows in counts.items())
        raise ValueError(f"`ensemble` needs as many rows of each, a lane a row, got {told}")
    return given, next(iter(counts.values()))


def _lane(run: Any, how: dict[str, Any]) -> Callable[..., PyTree]:
    """What a lane does, as a function of its own key, start and parameters."""
    if isinstance(run, DesignProblem):
        steps = require_count("ensemble", "steps", 1000 if how["steps"] is None else how["steps"])
        record = how["record"]
        if record is None and how["scheme"] is not None:
            record = max(1, steps // _ROWS)
        return jtu.Partial(_designed, run, how["scheme"], how["x0"], steps=steps, record=record)
    left = [name for name, value in how.items() if value is not None]
    if left:
        raise ValueError(f"`ensemble({left[0]}=...)` is for a `DesignProblem`, got a function")
    if isinstance(run, partial):  # whose arrays are data, and no constants of the program
        return jtu.Partial(run.func, *run.args, **run.keywords)
    return as_pytree_function(run)


def _designed(
    problem: DesignProblem,
    scheme: AbstractScheme | None,
    x0: Array | None,
    *,
    steps: int,
    record: Any,
    key: PRNGKeyArray | None = None,
    theta0: PyTree | None = None,
    parameters: None = None,
) -> DesignSolution:
    if parameters is not None:
        raise ValueError(
            "`ensemble(parameters=...)` needs a function of them, such as one that makes a problem "
            "and designs it, got a `DesignProblem`"
        )
    start = problem.incentive_set.centre() if theta0 is None else theta0
    return design(problem, start, scheme, x0=x0, steps=steps, key=key, record=record, throw=False)


def _block_of(count: int, block: int | None, mesh: Mesh | None) -> int:
    """Lanes of a block: a multiple of the devices, told where it leaves lanes to be padded."""
    devices = 1 if mesh is None else mesh.shape[mesh.axis_names[0]]
    if block is None:
        blocks = -(-count // (_BLOCK * devices))
        return devices * -(-count // (blocks * devices))
    least = min(require_count("ensemble", "block", block), count)
    size = devices * -(-least // devices)
    blocks = -(-count // size)
    if size != least or blocks * size != count:
        warn(
            f"`ensemble(block={block})`: {count} lanes are run as {blocks} "
            f"{'block' if blocks == 1 else 'blocks'} of {size}, "
            f"{blocks * size - count} of them copies that are thrown away"
            + (f"; a block is a multiple of the {devices} devices" if size != least else "")
        )
    return size


class _Blocks:
    """The lanes, a block at a time."""

    def __init__(
        self,
        program: Callable[[PyTree], PyTree],
        inputs: PyTree,
        count: int,
        size: int,
        mesh: Mesh | None,
    ):
        self.program, self.inputs, self.count, self.size = program, inputs, count, size
        self.sharding = None
        if mesh is not None:
            self.sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))

    def number(self) -> int:
        return -(-self.count // self.size)

    def block(self, index: int) -> PyTree:
        rows = np.minimum(np.arange(index * self.size, (index + 1) * self.size), self.count - 1)
        own = jax.tree.map(lambda leaf: leaf[rows], self.inputs)
        sharding = self.sharding
        return own if sharding is None else jax.tree.map(lambda a: over_devices(a, sharding), own)

    def rows(self) -> np.ndarray:
        """Lanes that this process keeps, of all blocks."""
        every = np.arange(self.number() * self.size).reshape(self.number(), self.size)
        own = every[:, self._own()].ravel()
        return own[own < self.count]

    def _own(self) -> np.ndarray:
        """Rows of a block that are computed here."""
        if self.sharding is None:
            return np.arange(self.size)
        parts = self.sharding.addressable_devices_indices_map((self.size,)).values()
        return np.unique(np.concatenate([np.arange(self.size)[part] for part in parts]))

    def answers(self, index: int) -> PyTree:
        """What the lanes of a block return, of this process, on the host."""
        found = self.program(self.block(index))
        fine = index * self.size + self._own() < self.count
        return jax.tree.map(lambda leaf: _on_host(leaf)[fine], found)

    def run(self, done: tuple[PyTree, ...], report: Any, store: Store | None = None) -> PyTree:
        """The answers of all blocks, of which some are `done`."""
        try:
            for index in range(len(done), self.number()):
                done = (*done, self.answers(index))
                if store is not None and store.due():
                    _save(store, done)
                if report is not None:
                    report(min((index + 1) * self.size, self.count), self.count)
            if store is not None:
                _save(store, done)
        except BaseException as error:
            if store is not None:
                _save(store, done)
                store.tell(error, "block", "the same call with `resume=True` goes on from there")
            raise
        return jax.tree.map(lambda *parts: np.concatenate(parts), *done)

    def kept(self, store: Store) -> tuple[PyTree, ...]:
        """Answers that are there already."""
        saved = store.load()
        if saved is None:
            return ()
        shape = shape_of(self.program, self.block(0))
        done = []
        for index in range(saved.about["blocks"]):
            fine = int(np.sum(index * self.size + self._own() < self.count))
            done.append(jax.tree.map(lambda leaf, fine=fine: _rows_like(leaf, fine), shape))
        return saved.restored(tuple(done), on_host=True)


def _rows_like(leaf: Any, rows: int) -> jax.ShapeDtypeStruct:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype)


def _save(store: Store, done: tuple[PyTree, ...]) -> None:
    if len(done) > store.count:
        store.save(done, len(done), {"blocks": len(done)})


def _on_host(leaf: Array) -> np.ndarray:
    """The rows that are on this process's devices, in order; keys as what they consist of."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.is_fully_addressable:
        return np.asarray(leaf)
    shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


@partial(compiled, lasting=True)
def _side_by_side(one: Callable[..., PyTree], inputs: dict[str, PyTree]) -> PyTree:
    return jax.vmap(lambda lane: one(**lane))(inputs)


@partial(compiled, lasting=True)
def _spread(one: Callable[..., PyTree], inputs: dict[str, PyTree], *, mesh: Mesh) -> PyTree:
    """Each device has its own lanes, and its own loops."""
    first = mesh.axis_names[0]
    lanes, arrays = PartitionSpec(first), eqx.partition(one, eqx.is_array)

    def share(arrays_of_one: PyTree, inputs: dict[str, PyTree]) -> PyTree:
        return _side_by_side(eqx.combine(arrays_of_one, arrays[1]), inputs)

    spread = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(PartitionSpec(), lanes),
        out_specs=lanes,
        axis_names={first},  # along others the compiler follows where arrays lie
        check_vma=False,
    )
    # Along other axes every device has the whole answer of its lanes.
    whole = NamedSharding(mesh, lanes)
    return jax.lax.with_sharding_constraint(spread(arrays[0], inputs), whole)
