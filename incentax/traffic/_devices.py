"""The pairs of a routing game over several devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..design import automatic, over_devices
from ._incidence import DenseIncidence
from ._routing import RoutingGame


def share_pairs(tree: Any, game: RoutingGame, mesh: Mesh) -> Any:
    """`tree` with the paths of every pair on one device, and all else on every device.

    What it leads to is computed where it lies, along the last axis of the mesh: a step of play sums
    link flows by one all-reduce, and tolls, times and the linear system of the links are the same
    everywhere. Verbs and schemes serve as they are, derivatives included.

    **Arguments:**

    - `tree`: a [`DesignProblem`][], a [`RoutingGame`][], strategies, or a pytree of them. An array
      is shared out along its last axis if that has an entry a path, or a pair.
    - `game`: whose paths they are.
    - `mesh`: the last axis takes the pairs; the first one may take the lanes of [`ensemble`][].

    **Raises** `ValueError` where the devices do not divide the pairs, where pairs differ in their
    number of paths (generated ones do), and where the network is so large that the game does not
    hold its incidence as a matrix.

    !!! example

        >>> import incentax as ix, jax, numpy as np
        >>> instance = ix.problems.second_best_tolls(paths=2)
        >>> mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("pairs",))
        >>> game = instance.problem.game
        >>> problem, x0 = ix.traffic.share_pairs((instance.problem, instance.x0), game, mesh)
        >>> tuple(x0.sharding.spec)
        ('pairs',)
    """
    if not isinstance(game, RoutingGame):
        raise TypeError(f"`share_pairs(game)` needs a `RoutingGame`, got {type(game).__name__}")
    if not isinstance(mesh, Mesh):
        raise TypeError(f"`share_pairs(mesh)` needs a `jax.sharding.Mesh`, got {mesh!r}")
    axis, blocks = mesh.axis_names[-1], game.simplex.blocks
    paths, pairs, devices = len(blocks.ids), blocks.count, mesh.shape[axis]
    if pairs % devices:
        raise ValueError(
            f"`share_pairs(mesh)` needs devices that divide the pairs, got {devices} along "
            f"{axis!r} for {pairs} pairs"
        )
    if blocks.equal_size is None or not isinstance(game.flows.incidence, DenseIncidence):
        raise ValueError(
            "`share_pairs(game)` needs as many paths for every pair, and links times paths of at "
            f"most a million, got {paths} paths of {pairs} pairs, {game.flows.incidence}"
        )
    mesh = automatic(mesh)

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        along = leaf.ndim > 0 and leaf.shape[-1] in (paths, pairs)
        spec = PartitionSpec(*(None,) * (leaf.ndim - 1), axis) if along else PartitionSpec()
        return over_devices(jnp.asarray(leaf), NamedSharding(mesh, spec))

    return jax.tree.map(place, tree)
