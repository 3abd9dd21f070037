"""A game's Jacobians all over its sets, and who its agents are."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._compile import compiled
from ..equilibrium import draw_corners, draw_incentives, draw_strategies
from ..games import AbstractGame
from ..sets import AbstractSet, AbstractStrategySet, Polyhedron, Simplex
from ._weights import negligible

# Up to this many unknowns Jacobians are made explicit.
DENSE = 600


class Agents(NamedTuple):
    """`owner[k]` is the agent whose entry `k` of the flat `x` is."""

    owner: np.ndarray
    number: int

    def sums(self, terms: np.ndarray) -> np.ndarray:
        """Terms of shape `(rows, d)` summed over each agent's entries."""
        spread = np.eye(self.number)[self.owner]
        return terms @ spread


def agents_of(strategies: AbstractStrategySet, x: Array, sizes: Sequence[int] | None) -> Agents:
    """Blocks of simplices, rows of `x`, or as many entries each as `sizes` says."""
    if sizes is not None:
        counts = np.asarray(sizes)
        whole = counts.ndim == 1 and np.issubdtype(counts.dtype, np.integer)
        if not whole or (counts < 1).any() or counts.sum() != x.size:
            raise ValueError(
                f"`sizes` needs whole numbers >= 1 that sum to the {x.size} entries of x, "
                f"got {sizes!r}"
            )
        owner = np.repeat(np.arange(len(counts)), counts)
    elif isinstance(strategies, Simplex):
        owner = np.asarray(strategies.blocks.ids)
    else:
        number = x.shape[0] if x.ndim else 1
        owner = np.repeat(np.arange(number), x.size // max(number, 1))
    coupled = False
    if isinstance(strategies, Polyhedron):
        rows = np.concatenate([strategies.equality[0], strategies.inequality[0]])
        coupled = any(len(set(owner[row != 0].tolist())) > 1 for row in rows)
    if isinstance(strategies, Simplex):
        ids = np.asarray(strategies.blocks.ids)
        coupled = any(len(set(owner[ids == block].tolist())) > 1 for block in set(ids.tolist()))
    if coupled:  # the variational equilibrium of a shared constraint is that of equal weights
        owner = np.zeros(x.size, int)
    return Agents(owner, int(owner.max(initial=0)) + 1)


class Sampled(NamedTuple):
    """Points all over the sets, and Jacobians there of the game without its entropy.

    - `theta`, `x`: incentives and strategies along a leading axis.
    - `by_x`, `by_theta`: Jacobians, `None` with more than 600 unknowns.
    - `affine_in_x`, `affine_in_theta`: whether they are the same at all points.
    - `tangent`: an orthonormal basis of the motions that equalities and bounds that meet allow.
    - `bad`: the points at which the operator or its Jacobian is not finite; they are left out.
    - `eta`, `epsilon`: of the entropy, zero without one; `total`: mass of the block of each entry.
    """

    theta: PyTree
    x: np.ndarray
    by_x: np.ndarray | None
    by_theta: np.ndarray | None
    affine_in_x: bool
    affine_in_theta: bool
    tangent: np.ndarray | None
    bad: list[tuple[PyTree, np.ndarray]]
    eta: np.ndarray
    epsilon: np.ndarray
    total: np.ndarray

    @property
    def entropic(self) -> bool:
        """Whether costs rise without bound where a strategy is not used."""
        return bool((self.eta > 0).all() and (self.epsilon == 0).all())

    @property
    def zero(self) -> float:
        """What counts as 0, relative to the size of what it is compared with."""
        return negligible(self.x.dtype)

    def incentive(self, row: int) -> PyTree:
        """The incentive of one point."""
        return jax.tree.map(lambda leaf: leaf[row], self.theta)

    def points(self, number: int | None) -> tuple[PyTree, Array]:
        """The first incentives and strategies, for compiled functions."""
        few = slice(number)
        return jax.tree.map(lambda leaf: leaf[few], self.theta), jnp.asarray(self.x[few])

    def jacobians(self) -> np.ndarray:
        """Of the whole operator in `x`, entropy included."""
        assert self.by_x is not None
        flat = self.x.reshape(len(self.x), -1)
        steep = self.eta / np.maximum(flat + self.epsilon, np.finfo(flat.dtype).tiny)
        return self.by_x + steep[:, :, None] * np.eye(flat.shape[1])


def sample(
    game: AbstractGame,
    incentive_set: AbstractSet | None,
    theta: PyTree,
    x: Array,
    samples: int,
    *,
    key: PRNGKeyArray,
) -> Sampled:
    """Draws points and takes Jacobians; the first point is `(theta, x)` itself.

    As many more strategies are corners of their set, and as many lie on its edges.

    Without an incentive set all are at `theta`.
    """
    key_drawn, key_inner = jax.random.split(key)
    thetas, xs = _drawn(game, incentive_set, (theta, x), samples, key_drawn)
    rational = game.rational
    base = game if rational is None else rational.game
    rounding = float(jnp.finfo(x.dtype).eps)
    if x.size > DENSE:
        by_x = by_theta = tangent = None
        fine = np.asarray(_finite(base, thetas, xs))
    else:
        by_x, by_theta = (np.asarray(part, float) for part in _jacobians(base, thetas, xs))
        fine = np.isfinite(by_x).all(axis=(1, 2)) & np.isfinite(by_theta).all(axis=(1, 2))
        fine &= np.asarray(_finite(base, thetas, xs))
        by_x, by_theta = by_x[fine], by_theta[fine]
        limits = game.strategies(theta).constraints(x)
        fixed = np.eye(x.size)[np.asarray(limits.lower == limits.upper)]
        rows = np.asarray(limits.equality.dense(x.dtype), float)
        tangent = tangent_basis(np.concatenate([rows, fixed]))
    if not fine.any():
        raise ValueError(
            "`operator(theta, x)` needs to be finite with its derivatives somewhere on the sets, "
            f"got none at {len(fine)} samples, theta={theta} and x={x} among them"
        )
    bad = [
        (jax.tree.map(lambda leaf, k=k: leaf[k], thetas), np.asarray(xs[k]))
        for k in np.flatnonzero(~fine)
    ]
    thetas, xs = jax.tree.map(lambda leaf: leaf[fine], (thetas, xs))
    sets = game.strategies(theta)
    total = np.ones(x.size)
    if isinstance(sets, Simplex):
        total = np.asarray(sets.blocks.transpose(sets.total)).astype(float)
    return Sampled(
        theta=thetas,
        x=np.asarray(xs),
        by_x=by_x,
        by_theta=by_theta,
        affine_in_x=by_x is not None and _same(by_x, rounding),
        affine_in_theta=_affine_in_theta(base, thetas, xs, key_inner)
        if by_theta is None
        else _same(by_theta, rounding),
        tangent=tangent,
        bad=bad,
        eta=np.zeros(x.size) if rational is None else _spread(rational.eta, x),
        epsilon=np.zeros(x.size) if rational is None else _spread(rational.epsilon, x),
        total=total,
    )


def _drawn(
    game: AbstractGame,
    incentive_set: AbstractSet | None,
    at: tuple[PyTree, Array],
    samples: int,
    key: PRNGKeyArray,
) -> tuple[PyTree, Array]:
    """Incentives and strategies along a leading axis, `at` first."""
    theta, x = at
    key_theta, key_x = jax.random.split(key)
    leaves = [*jax.tree.leaves(theta), x]
    width = max([1.0, *(float(jnp.max(jnp.abs(leaf), initial=0.0)) for leaf in leaves)])
    if incentive_set is None:
        drawn = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (samples, *leaf.shape)), theta)
    else:
        keys = jax.random.split(key_theta, samples)
        drawn = draw_incentives(incentive_set, theta, keys, width)
    if game.moves:
        keys = jax.random.split(key_x, samples)
        strategies = _draw_each(game, drawn, x, keys, width)
    else:
        strategies = draw_strategies(game, theta, x, jax.random.split(key_x, samples), width)
    if not game.moves:  # where bounds are on one side of a curved operator it is at its steepest
        strategies = jnp.concatenate([strategies, draw_corners(game, theta, strategies)])
    repeats = len(strategies) // samples
    thetas = jax.tree.map(
        lambda one, all_: jnp.concatenate([one[None], *([all_] * repeats)]), theta, drawn
    )
    return thetas, jnp.concatenate([x[None], strategies])


def _spread(value: Array, x: Array) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, float), x.shape).ravel()


def _same(matrices: np.ndarray, rounding: float) -> bool:
    """Whether all matrices are the first, to rounding, in the units of each row."""
    axes = (0, *range(2, matrices.ndim))
    size = np.abs(matrices).max(axes, initial=0.0)
    spread = np.abs(matrices - matrices[:1]).max(axes, initial=0.0)
    return bool(np.isfinite(size).all()) and bool((spread <= 1e3 * rounding * size).all())


def tangent_basis(rows: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the null space of the equalities."""
    if not len(rows):
        return np.eye(rows.shape[1])
    size = np.abs(rows).max(axis=1, keepdims=True)  # units of the rows do not matter
    _, values, directions = np.linalg.svd(rows / np.where(size > 0, size, 1.0))
    rank = int((values > 1e-10 * values.max(initial=0.0)).sum())
    return directions[rank:].T


@compiled
def _draw_each(
    game: AbstractGame, thetas: PyTree, x: Array, keys: PRNGKeyArray, width: float
) -> Array:
    """A strategy of the set of each incentive."""

    def one(lane: tuple[PyTree, PRNGKeyArray]) -> Array:
        theta, key = lane
        return draw_strategies(game, theta, x, key[None], width)[0]

    return jax.lax.map(one, (thetas, keys))


@compiled
def _jacobians(game: AbstractGame, thetas: PyTree, xs: Array) -> tuple[Array, Array]:
    def at(point):
        theta, x = point
        flat, unravel = ravel_pytree(theta)
        by_x = jax.jacfwd(lambda x: game.operator(theta, x))(x).reshape(x.size, x.size)
        by_theta = jax.jacfwd(lambda flat: game.operator(unravel(flat), x))(flat)
        return by_x, by_theta.reshape(x.size, flat.size)

    return jax.lax.map(at, (thetas, xs))


@compiled
def _finite(game: AbstractGame, thetas: PyTree, xs: Array) -> Array:
    def at(point):
        return jnp.all(jnp.isfinite(game.operator(*point)))

    return jax.lax.map(at, (thetas, xs))


@compiled
def _pushed(game: AbstractGame, thetas: PyTree, xs: Array, direction: PyTree) -> Array:
    def at(point):
        theta, x = point
        return jax.jvp(lambda theta: game.operator(theta, x), (theta,), (direction,))[1].ravel()

    return jax.lax.map(at, (thetas, xs))


def _affine_in_theta(game: AbstractGame, thetas: PyTree, xs: Array, key: PRNGKeyArray) -> bool:
    """Whether the operator's derivative along a random direction of `theta` is everywhere one."""
    one = jax.tree.map(lambda leaf: leaf[0], thetas)
    flat, unravel = ravel_pytree(one)
    direction = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    rounding = float(jnp.finfo(xs.dtype).eps)
    return _same(np.asarray(_pushed(game, thetas, xs, direction)), rounding)
