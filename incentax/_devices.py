"""Arrays over the devices of one process or of several."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, PyTree


def automatic(mesh: Mesh) -> Mesh:
    """Of shardings that the compiler works out for itself, whatever the mesh was made for."""
    return Mesh(mesh.devices, mesh.axis_names)


def over_devices(leaf: Array | np.ndarray, sharding: NamedSharding) -> Array:
    """An array that all processes have, shared out over their devices."""
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        spread = over_devices(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(spread, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def on_host(leaf: Array | np.ndarray | np.generic) -> np.ndarray:
    """The whole of an array; of one that lies in several processes all have to ask for it."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def spans_processes(tree: PyTree) -> bool:
    """Whether an array of it lies in several processes, which have to do the same then."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return not all(leaf.is_fully_addressable for leaf in leaves)


def of_all(*numbers: int) -> np.ndarray:
    """The numbers of every process, a row each; all have to ask for them."""
    return np.reshape(multihost_utils.process_allgather(np.asarray(numbers)), (-1, len(numbers)))
