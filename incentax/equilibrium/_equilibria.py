"""All the equilibria that can be found, and which of them play leads to."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from .._checks import as_float, is_inside, require_count, require_key, require_positive
from .._compile import compiled
from ..dynamics import AbstractDynamics, MirrorDescent, ProjectedGradient
from ..games import AbstractGame
from ._door import strategy_at_door
from ._draw import draw_around, draw_strategies
from ._face import is_isolated
from ._newton import Newton
from ._residual import natural_residual
from ._solve import find_equilibrium

# Equilibria closer than this, relative to the size of x, are one.
_SAME = 1e-5
# Plays from around each equilibrium, and how far around it.
_NUDGES, _NUDGE = 4, 1e-2
_PLAY = 20_000


class Equilibria(eqx.Module):
    """Answer of [`equilibria`][]: a row an equilibrium, the largest basin first.

    - `x`, `residual`: strategies, and their distances from equilibrium, recomputed.
    - `share`: of the starts, those from which play ends there: its basin.
    - `stable`: whether play from close by stays close by.
    - `isolated`: whether there is certainly no other equilibrium arbitrarily near, by the linear
      system on its face; where it is not, it stands for all of the kind with the same costs.
    - `extent`: how far the equilibria of a row lie apart, the largest over the entries of `x`: of a
      continuum, which is one row. 0 where it is isolated.
    - `share_error`: standard error of `share`, as of one more start on either side.
    - `method`: the play whose basins and stability these are; another step has others.
    - `unsettled`: share of the starts from which play was at no equilibrium when it was stopped:
      it cycles, diverges, or is slow.
    """

    x: Float[Array, "found *x"]
    residual: Float[Array, " found"]
    share: Float[Array, " found"]
    stable: Bool[Array, " found"]
    isolated: Bool[Array, " found"]
    unsettled: Float[Array, ""]
    extent: Float[Array, " found"]
    share_error: Float[Array, " found"]
    method: AbstractDynamics

    def __str__(self) -> str:
        lines = [f"{'share':>15} {'residual':>9}  stable isolated   extent  x"]
        for row in range(len(self.residual)):
            lines.append(
                f"{float(self.share[row]):6.3f} ± {float(self.share_error[row]):.3f} "
                f"{float(self.residual[row]):9.1e}  "
                f"{'yes' if self.stable[row] else 'no':<6} "
                f"{'yes' if self.isolated[row] else 'no':<8} {float(self.extent[row]):8.3g}  "
                f"{np.round(self.x[row], 4)}"
            )
        if self.unsettled > 0:
            lines.append(
                f"Play had not settled from {100 * float(self.unsettled):.0f} % of the starts. "
                "Where it cycles, extragradient play (`method=ix.Extragradient()`) may converge."
            )
        lines.append(f"Shares and stability are those of play by {_named(self.method)}.")
        return "\n".join(lines)


def _named(method: AbstractDynamics) -> str:
    """The class, and the step at the start."""
    step = getattr(method, "step_size", None)
    step = step(0) if callable(step) else step
    name = type(method).__name__
    return (
        name if step is None else f"{name}, step {np.array2string(np.asarray(step), precision=3)}"
    )


def equilibria(
    game: AbstractGame,
    theta: PyTree,
    *,
    starts: int = 64,
    key: PRNGKeyArray | None = None,
    method: AbstractDynamics | None = None,
    width: float = 10.0,
) -> Equilibria:
    """The equilibria that Newton's method and play find from random starts.

    Newton's method ([`Newton`][]) finds stable and unstable ones alike; play from the same starts,
    all side by side, tells their basins; play from close by tells which are stable. What is found
    is a lower bound of what there is. Costs should be of a size near 1: residuals count in their
    unit. Liu et al. (2022), section 6, Case I.

    **Arguments:**

    - `game`, `theta`: the game and the incentive.
    - `starts`: number of starts: uniform in blocks of a simplex and between finite bounds, normal
      elsewhere (inwards from a single bound), with the standard deviation `width`, projected on the
      strategy set.
    - `key`: draws them; a fixed one when left out.
    - `method`: how agents play; when left out projected gradient steps, in a quantal response
      mirror descent, of half the inverse of the largest slope met at the starts.

    **Raises** `ValueError` when no start leads to an equilibrium. Not for use under `jit`: how many
    equilibria there are is known only when it has run.

    !!! example

        Who meets whom where: two places, three equilibria, one of them unstable.

        >>> import incentax as ix, jax.numpy as jnp
        >>> meet = jnp.array([[0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.0],
        ...                   [2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
        >>> game = ix.Game(lambda theta, x: -meet @ x, ix.Simplex([2, 2]))
        >>> found = ix.equilibria(game, None)
        >>> found.stable.tolist(), found.x.round(3).tolist()[2]
        ([True, True, False], [0.333, 0.667, 0.333, 0.667])
    """
    starts = require_count("equilibria", "starts", starts)
    require_positive("equilibria", "width", width)
    if is_inside(theta, game):
        raise ValueError(
            "`equilibria(game, theta)` needs known values: it returns as many equilibria as it "
            "finds, which `jit` and `vmap` cannot; call it outside of them"
        )
    theta = jax.tree.map(as_float, theta)
    centre = strategy_at_door("equilibria", None, game, theta, None)
    key = jax.random.key(0) if key is None else key
    require_key("equilibria", key)
    key_starts, key_nudges = jax.random.split(key)
    begun = draw_strategies(game, theta, centre, jax.random.split(key_starts, starts), width)
    values = jax.lax.map(lambda x: game.operator(theta, x), begun)
    finite = jnp.isfinite(values.reshape(starts, -1)).all(axis=1)
    if not bool(finite.any()):
        raise ValueError(
            "`equilibria(game, theta)` needs an operator that is finite somewhere, got none at "
            f"{starts} starts, x = {begun[0]} among them"
        )
    method = natural_play(game, theta, begun) if method is None else method
    ends, left = _play(game, theta, begun, method)
    known = _distinct(game, theta, jnp.concatenate([ends, begun]))
    points, residuals, row_of, chosen = known.points, known.residuals, known.row_of, known.chosen
    isolated, size = known.isolated, known.sizes[:starts]
    if not chosen:
        raise ValueError(
            "`equilibria(game, theta)` needs a game with an equilibrium that can be found, got "
            f"none from {starts} starts (least residual {np.nanmin([*residuals, np.inf]):.2g}): on "
            "an unbounded set costs that fall without end have none; else raise `starts`"
        )
    found = points[chosen]
    away = np.abs(np.asarray(ends) - points[:starts]).reshape(starts, -1).max(axis=1)
    # Within a continuum Newton's method may move a point that is at rest already.
    at_rest = (away <= _NUDGE * size) | ((np.asarray(left) <= 1e-6 * size) & ~isolated[:starts])
    arrived = (row_of[:starts] >= 0) & at_rest
    share = np.bincount(row_of[:starts][arrived], minlength=len(found)) / starts
    stable = np.asarray(_stable(game, theta, jnp.asarray(found), method, key_nudges))
    rows = [points[row_of == row] for row in range(len(chosen))]
    extent = np.array([np.ptp(members, axis=0).max(initial=0.0) for members in rows])
    extent = np.where(isolated[chosen], 0, extent)
    likely = (share * starts + 1) / (starts + 2)
    pick = np.lexsort((~stable, -share))
    return Equilibria(
        x=jnp.asarray(found[pick]),
        residual=jnp.asarray(residuals[chosen][pick]),
        share=jnp.asarray(share[pick], centre.dtype),
        stable=jnp.asarray(stable[pick]),
        isolated=jnp.asarray(isolated[chosen][pick]),
        unsettled=jnp.asarray(1 - np.mean(arrived), centre.dtype),
        extent=jnp.asarray(extent[pick], centre.dtype),
        share_error=jnp.asarray(np.sqrt(likely * (1 - likely) / (starts + 2))[pick], centre.dtype),
        method=method,
    )


def natural_play(game: AbstractGame, theta: PyTree, points: Array) -> MirrorDescent:
    """Projected gradient steps, in a quantal response mirror descent, of half the inverse of the
    largest slope met at the points."""
    steep = _steepest(game, theta, points)
    step = 0.5 / jnp.where(steep > 0, steep, 1)
    entropic = game.entropic is not None and bool(jnp.all(jnp.asarray(game.entropic)))
    return MirrorDescent(step) if entropic else ProjectedGradient(step)


class _Distinct(NamedTuple):
    """Where Newton's method ends from each start, and the row of the equilibrium that this is."""

    points: np.ndarray
    residuals: np.ndarray
    isolated: np.ndarray
    row_of: np.ndarray
    chosen: list[int]
    sizes: np.ndarray


def _distinct(game: AbstractGame, theta: PyTree, starts: Array) -> _Distinct:
    points, residuals, values, isolated = (np.asarray(p) for p in _settle(game, theta, starts))
    flat = np.abs(points).reshape(len(points), -1), np.abs(values).reshape(len(points), -1)
    sizes, steeps = (1 + part.max(axis=1) for part in flat)  # NaN where a point is
    least = max(1e-8, 100 * float(np.finfo(points.dtype).eps))
    chosen: list[int] = []
    row_of = np.full(len(points), -1)
    for index in np.argsort(residuals, kind="stable"):
        size, steep = sizes[index], steeps[index]
        if not residuals[index] <= least * max(size, steep):
            continue
        for row, other in enumerate(chosen):
            same = np.abs(points[index] - points[other]).max() <= _SAME * size
            # Throughout a continuum of equilibria of a monotone game costs are the same.
            loose = not (isolated[index] or isolated[other])
            if same or (loose and np.abs(values[index] - values[other]).max() <= _SAME * steep):
                row_of[index] = row
                break
        else:
            row_of[index] = len(chosen)
            chosen.append(int(index))
    return _Distinct(points, residuals, isolated, row_of, chosen, sizes)


def other_equilibria(
    game: AbstractGame, theta: PyTree, x: Array, key: PRNGKeyArray, starts: int = 16
) -> np.ndarray:
    """Equilibria that Newton's method finds from random starts, and from where play leads from
    these, but for the one at `x`."""
    begun = draw_strategies(game, theta, x, jax.random.split(key, starts), 10.0)
    played, _ = _play(game, theta, begun, natural_play(game, theta, begun))
    known = _distinct(game, theta, jnp.concatenate([x[None], played, begun]))
    others = [index for index in known.chosen if known.row_of[index] != known.row_of[0]]
    away = np.abs(known.points[others] - np.asarray(x)).reshape(len(others), x.size).max(axis=1)
    return known.points[others][away > _SAME * known.sizes[others]]


@compiled
def _steepest(game: AbstractGame, theta: PyTree, points: Array) -> Array:
    """The largest slope of the operator at the points, in log x where it has an entropy."""

    def at(x: Array) -> Array:
        matrix = jax.jacfwd(lambda x: game.operator(theta, x))(x).reshape(x.size, x.size)
        if game.entropic is not None:
            matrix = jnp.where(game.entropic, matrix * x.ravel()[None, :], matrix)
        return jnp.max(jnp.sum(jnp.abs(matrix), axis=1))

    return jnp.max(jax.lax.map(at, points))


@compiled
def _play(
    game: AbstractGame, theta: PyTree, starts: Array, method: AbstractDynamics
) -> tuple[Array, Array]:
    """Where play ends from each start, and how far that is from equilibrium."""

    def one(x: Array) -> tuple[Array, Array]:
        end, _, _ = find_equilibrium(game, theta, x, method, 1e-7, max_steps=_PLAY)
        return end, natural_residual(game, theta, end)

    return jax.vmap(one)(starts)


@compiled
def _settle(game: AbstractGame, theta: PyTree, points: Array) -> tuple[Array, Array, Array, Array]:
    """What Newton's method reaches: strategies, residuals, operators, and which are isolated."""

    def one(x: Array) -> tuple[Array, Array, Array, Array]:
        end, _, _ = find_equilibrium(game, theta, x, Newton(), 1e-10, max_steps=200)
        value = game.operator(theta, end)
        residual = natural_residual(game, theta, end)
        return end, residual, value, is_isolated(game, theta, end)

    return jax.lax.map(one, points)


@compiled
def _stable(
    game: AbstractGame,
    theta: PyTree,
    found: Array,
    method: AbstractDynamics,
    key: PRNGKeyArray,
) -> Array:
    """Whether play from around each equilibrium ends no farther away than it began."""

    def one(x: Array, key: PRNGKeyArray) -> Array:
        # To both sides: from one side alone play may come back where from the other it does not.
        starts = draw_around(game, theta, x, jax.random.split(key, _NUDGES // 2), _NUDGE)

        def stays(start: Array) -> Array:
            end, _, _ = find_equilibrium(game, theta, start, method, 1e-7, max_steps=_PLAY)
            away = jnp.max(jnp.abs(end - x))
            return away <= 2 * jnp.maximum(jnp.max(jnp.abs(start - x)), 1e-6)

        return jnp.all(jax.vmap(stays)(starts))

    return jax.vmap(one)(found, jax.random.split(key, len(found)))
