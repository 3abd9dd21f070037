"""Strong stability of an equilibrium, with weights of the agents."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from .._checks import require_count
from .._compile import compiled
from ..design import DesignProblem
from ..equilibrium import other_equilibria, solve_equilibrium
from ..games import AbstractGame
from ..geometry import AbstractMirrorMap, Mahalanobis, natural_mirror_map
from ..sets import Simplex
from ._asked import is_free, NOT_FINITE, region, share_of, Stability, Verdict
from ._curvature import largest_curvature
from ._estimate import Estimate, exact, UNKNOWN
from ._matrices import weigh_matrices
from ._points import weigh_points
from ._sampled import Agents, agents_of, DENSE, sample, Sampled
from ._spectrum import lowest_slope, potential_weights


def strong_stability(
    problem: DesignProblem,
    theta: PyTree = None,
    *,
    mirror_map: AbstractMirrorMap | None = None,
    mixing: ArrayLike = 0.0,
    sizes: Sequence[int] | None = None,
    samples: int = 256,
    key: PRNGKeyArray | None = None,
) -> Stability:
    """Whether `sum_i lambda^i <F^i(x), x^i - x*^i> >= D(x*, x)` for all `x`, for some weights.

    Liu et al. (2022), Assumption 5.1 (4), in costs, at one `theta`. It makes `x*` the only
    equilibrium. It is decided by, in this order: the sufficient condition
    `(Lambda ∂F + ∂F^T Lambda) / 2 >= H_psi / 2` (for an entropic term `eta log x` on a monotone
    game `lambda^i >= 1 / eta^i`); motions on the face of `x*`, and another equilibrium, which
    refute it; and a linear program over strategies of the set, which finds weights that satisfy
    all of them, or proves by duality that there are none, or does not end. With more than 600
    unknowns only the sufficient condition is tried.

    In the entropic geometry `D(x*, x)` grows without bound towards the boundary, so that it fails
    for every operator that does not; `mixing` looks at what mixing leaves.

    **Arguments:**

    - `problem`, `theta`: the game, and the incentive (the set's centre when left out).
    - `mirror_map`: whose divergence `D` is; entropic on simplices and Euclidean elsewhere when left
      out.
    - `mixing`: `nu` in [0, 1): only strategies `(1 - nu) x + nu uniform` count.
    - `sizes`: see [`strong_monotonicity`][].
    - `samples`: number of strategies drawn; `key` draws them (a fixed one when left out).

    !!! example

        >>> import incentax as ix
        >>> print(ix.assumptions.strong_stability(ix.problems.coordination().problem).verdict)
        fails
        >>> tax = ix.problems.emission_tax(5)
        >>> found = ix.assumptions.strong_stability(tax.problem)
        >>> print(found.verdict, found.weights)
        holds [0.5 0.5 0.5 0.5 0.5]
    """
    owner = "strong_stability"
    samples = require_count(owner, "samples", samples)
    theta, x = region(owner, problem, theta)
    share = share_of(owner, mixing)
    key = jax.random.key(0) if key is None else key
    key_sample, key_points = jax.random.split(key)
    seen = sample(problem.game, None, theta, x, 16, key=key_sample)
    agents = agents_of(problem.game.strategies(theta), x, sizes)
    return stability(
        problem.game,
        theta,
        x,
        seen,
        agents,
        mirror_map=mirror_map,
        mixing=share,
        samples=samples,
        key=key_points,
    )


def stability(
    game: AbstractGame,
    theta: PyTree,
    x: Array,
    seen: Sampled,
    agents: Agents,
    *,
    mirror_map: AbstractMirrorMap | None,
    mixing: float,
    samples: int,
    key: PRNGKeyArray,
) -> Stability:
    """[`strong_stability`][] with samples of the game at hand."""
    strategies = game.strategies(theta)
    mirror_map = natural_mirror_map(strategies) if mirror_map is None else mirror_map
    mirror_map.check(strategies)
    entropic = not bool(jnp.isfinite(mirror_map.smoothness))
    ones = np.ones(agents.number)
    if entropic and not seen.entropic and mixing == 0:
        if _unbounded(game, theta, x):
            reason = "costs grow towards the boundary, and not by an entropy that is known"
            return Stability("not decidable", ones, UNKNOWN, reason)
        reason = "D(x*, x) grows without bound towards the boundary, and costs do not"
        return Stability("fails", ones, exact(0.0), reason)
    metric = None if entropic and seen.entropic else _metric(game, theta, mirror_map, mixing)
    sufficient = _sufficient(game, seen, agents, metric, is_free(strategies, x))
    if isinstance(sufficient, Stability):
        return sufficient
    if x.size > DENSE:
        return Stability("not decidable", ones, UNKNOWN, sufficient)
    found = solve_equilibrium(game, theta, throw=False)
    size = jnp.minimum(jnp.max(jnp.abs(found.x)), 1e3)  # where x runs away nothing is small
    if not bool(found.residual <= 1e-5 * (1 + size)):
        reason = f"no equilibrium was reached (residual {float(found.residual):.1e})"
        return Stability("not decidable", ones, UNKNOWN, reason)
    key_others, key_points = jax.random.split(key)
    around: Verdict = "holds"
    if mixing == 0:  # else what refutes may lie outside of what mixing leaves
        around = _around_equilibrium(game, theta, found.x, agents, mirror_map)
        if around == "fails":
            reason = "no weights make it hold around x*: proved by duality"
            return Stability("fails", ones, Estimate(-np.inf, 0.0), reason)
        if len(other_equilibria(game, theta, found.x, key_others, 32)):
            reason = "another equilibrium was found, and it would make x* the only one"
            return Stability("fails", ones, Estimate(-np.inf, 0.0), reason)
    found = weigh_points(
        game, theta, found.x, agents, mirror_map, mixing=mixing, samples=samples, key=key_points
    )
    if found.least == np.inf:
        reason = "no weights satisfy all strategies that were looked at: proved by duality"
        return Stability("fails", ones, Estimate(-np.inf, 0.0), reason)
    if not found.holds or around != "holds":
        reason = "rounding decides, or the search for weights did not end"
        return Stability("not decidable", ones, UNKNOWN, reason)
    reason = f"at {samples} strategies and at the worst found from them"
    return Stability("holds", found.weights, Estimate(-np.inf, 1.0), reason)


def _unbounded(game: AbstractGame, theta: PyTree, x: Array) -> bool:
    """Whether the operator still grows where strategies of a simplex are all but unused."""
    strategies = game.strategies(theta)
    assert isinstance(strategies, Simplex)
    ids = np.asarray(strategies.blocks.ids)
    order = np.arange(len(ids))
    sizes = np.bincount(ids)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    # At the k-th strategy of every block, as far as it has one.
    vertices = [order - first[ids] == k % sizes[ids] for k in range(sizes.max())]
    totals = np.asarray(strategies.blocks.transpose(strategies.total))
    heights = []
    for share in (1e-15, 1e-30):
        points = [np.where(vertex, totals, share * totals) for vertex in vertices]
        values = _values(game, theta, jnp.asarray(np.stack(points), x.dtype))
        heights.append(float(jnp.max(jnp.abs(values))))
    return not np.isfinite(heights).all() or heights[1] > 1.01 * heights[0]


@compiled
def _values(game: AbstractGame, theta: PyTree, points: Array) -> Array:
    return jax.lax.map(lambda x: game.operator(theta, x), points)


def _metric(
    game: AbstractGame, theta: PyTree, mirror_map: AbstractMirrorMap, mixing: float
) -> np.ndarray:
    """`H` with `D(x*, x) <= (x - x*)' H (x - x*)` on what mixing leaves."""
    strategies = game.strategies(theta)
    if isinstance(mirror_map, Mahalanobis):
        return np.asarray(mirror_map.matrix, float) / 2
    if bool(jnp.isfinite(mirror_map.smoothness)):
        return np.asarray(0.5)
    assert isinstance(strategies, Simplex)
    found = solve_equilibrium(game, theta, throw=False)
    near = bool(found.residual <= 1e-8 * (1 + jnp.max(jnp.abs(found.x))))
    curvature = largest_curvature(strategies, np.asarray(found.x) if near else None, mixing)
    return (1 + 1e-6) * curvature  # for what x* is off


def _sufficient(
    game: AbstractGame, seen: Sampled, agents: Agents, metric: np.ndarray | None, free: bool
) -> Stability | str:
    """That it holds, from Jacobians alone, or why they do not tell.

    An affine game without bounds (`free`) has nothing else that could tell.
    """
    if metric is None:
        return _entropic(game, seen, agents)
    if seen.by_x is None:
        return f"with more than {DENSE} unknowns only sufficient conditions are tried"
    assert seen.tangent is not None
    matrices = seen.jacobians()
    if not np.isfinite(matrices).all():
        return NOT_FINITE
    constant = seen.affine_in_x and not seen.eta.any()
    matrices = matrices[:1] if constant else matrices
    if metric.ndim < 2:
        metric = np.diag(np.broadcast_to(metric, matrices.shape[1]))
    eps = float(np.finfo(seen.x.dtype).eps)
    found = weigh_matrices(matrices, metric, seen.tangent, agents, eps=eps)
    if free and constant and found.least == np.inf:
        ones, reason = np.ones(agents.number), "no weights: proved by duality"
        return Stability("fails", ones, Estimate(-np.inf, 0.0), reason)
    if not found.holds:
        return "no weights make the game strongly monotone"
    reason = "in these weights ∂F exceeds half the curvature of psi"
    if agents.number > 1:
        reason += f"; it does in none whose norm is below {found.least:.4g}"
    return _held(found.weights, reason, constant)


def _held(weights: np.ndarray, reason: str, sure: bool) -> Stability:
    value = exact(1.0) if sure else Estimate(-np.inf, 1.0)
    return Stability("holds", weights, value, reason if sure else f"{reason}, at all samples")


def _entropic(game: AbstractGame, seen: Sampled, agents: Agents) -> Stability | str:
    """Of an entropic game: `lambda >= 1 / eta` where the game without its entropy is monotone."""
    eta = np.asarray([seen.eta[agents.owner == i].min() for i in range(agents.number)])
    assert game.rational is not None
    potential = potential_weights(game.rational.game, seen.incentive(0), seen.x[0], agents)
    best, left, monotone = 1 / eta, -np.inf, False
    for candidate in (1 / eta, potential):
        weights = candidate / (candidate * eta).min()
        lowest = lowest_slope(game, seen, weights[agents.owner])
        # -kappa ||v||^2 >= -(kappa / 2) total (D(x, x*) + D(x*, x)), by Pinsker's inequality.
        kept = 1 + min(0.0, lowest) * float(seen.total.max()) / 2
        if kept > left:
            best, left, monotone = weights, kept, lowest >= 0
        if monotone:
            break
    if left <= seen.zero:
        return "the game without its entropy is too far from monotone"
    reason = f"lambda >= 1 / eta suffices on a {'' if monotone else 'nearly '}monotone game"
    return _held(best / left, reason, seen.affine_in_x)


def _around_equilibrium(
    game: AbstractGame, theta: PyTree, x: Array, agents: Agents, mirror_map: AbstractMirrorMap
) -> Verdict:
    """Whether some weights make it hold for motions on the face of `x*`, to second order."""
    matrix, metric, moves = (
        np.asarray(part, float) for part in _around(game, theta, x, mirror_map)
    )
    left, values, _ = np.linalg.svd(moves)
    basis = left[:, values > 1e-8 * values.max(initial=1e-300)]
    if not basis.size or not np.isfinite(matrix).all():
        return "holds"
    # Where a strategy is not used the metric is infinite, and no motion goes there.
    metric = np.where(np.isfinite(metric), metric, 0.0)
    eps = float(np.finfo(x.dtype).eps)
    found = weigh_matrices(matrix[None], metric / 2, basis, agents, eps=eps)
    return "holds" if found.holds else "fails" if found.least == np.inf else "not decidable"


@compiled
def _around(
    game: AbstractGame, theta: PyTree, x: Array, mirror_map: AbstractMirrorMap
) -> tuple[Array, Array, Array]:
    """Jacobian, curvature of the divergence, and all motions of the face, as columns."""
    size = x.size
    matrix = jax.jacfwd(lambda x: game.operator(theta, x))(x).reshape(size, size)
    metric = jax.hessian(lambda y: mirror_map.divergence(x, y))(x).reshape(size, size)
    face = game.strategies(theta).face(x, game.operator(theta, x), 1.0)
    unit = jnp.eye(size, dtype=x.dtype).reshape(-1, *x.shape)
    moves = jax.vmap(lambda w: face.scale * face.project(w))(unit).reshape(size, size)
    return matrix, metric, moves.T
