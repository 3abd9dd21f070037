"""The constants of the theorems of Liu et al. (2022), and the step sizes that they allow."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from .._checks import require_count
from .._compile import compiled
from ..design import DesignProblem, evaluate_hypergradient
from ..equilibrium import draw_strategies, find_equilibrium, known_entropic, natural_residual
from ..geometry import AbstractMirrorMap, natural_mirror_map
from ..sensitivity import Implicit
from ..sets import AbstractSet, Box, Reals, Simplex
from ._estimate import Estimate, exact, largest, least, UNKNOWN
from ._lipschitz import operator_lipschitz, spectral_norm
from ._matrices import inverse_norm
from ._sampled import Agents, agents_of, sample, Sampled, tangent_basis
from ._stability import is_free, region, share_of, Stability, stability

_PAIRS = 64


class Steps(NamedTuple):
    """What a theorem allows: `beta` of play, `alpha` of the designer, at step 0."""

    beta: Estimate
    alpha: Estimate


class DesignConstants(NamedTuple):
    """Answer of [`design_constants`][]; each an [`Estimate`][].

    - `players`, `unknowns`: `N` and `d`.
    - `stability`: strong stability, with the weights `lambda`, at the incentive looked at.
    - `operator_lipschitz`: `H_u`, `||F^i(x) - F^i(y)||_*^2 <= H_u^2 D(x, y)` for every agent.
    - `mirror_smoothness`: `H_psi`.
    - `incentive_effect`, `inverse_jacobian`: `rho_theta >= ||∂F/∂theta||` and
      `1 / rho_x >= ||(∂F/∂x)^-1||`.
    - `answer_lipschitz`: `H_* = rho_theta / rho_x`.
    - `surrogate_lipschitz`: `H~`, of the surrogate gradient in `x`, squared against `D`.
    - `strong_convexity`, `objective_lipschitz`: `mu` and `M >= ||∇f_*||` of
      `f_*(theta) = f(theta, x*(theta))`.
    """

    players: int
    unknowns: int
    stability: Stability
    operator_lipschitz: Estimate
    mirror_smoothness: Estimate
    incentive_effect: Estimate
    inverse_jacobian: Estimate
    answer_lipschitz: Estimate
    surrogate_lipschitz: Estimate
    strong_convexity: Estimate
    objective_lipschitz: Estimate

    def theorem_5_4(self) -> Steps:
        """`beta <= 1 / (N H_u^2 ||lambda||^2)`, `alpha <= beta^(3/2) / (12 H_psi H~ H_*)`."""
        largest_answer = _times(self.mirror_smoothness, self.answer_lipschitz)
        return self._steps(1.0, 12.0, largest_answer)

    def theorem_5_5(self) -> Steps:
        """`beta <= 1 / (6 N H_u^2 ||lambda||^2)`, `alpha <= beta^(3/2) / (7 H~ (1 + d) H_*)`."""
        return self._steps(6.0, 7.0, self.answer_lipschitz.scaled(1.0 + self.unknowns))

    def _steps(self, share: float, factor: float, answer: Estimate) -> Steps:
        if self.stability.verdict != "holds":
            return Steps(UNKNOWN, UNKNOWN)
        weights = float(np.sum(self.stability.weights**2))
        steep = _times(self.operator_lipschitz, self.operator_lipschitz)
        beta = _inverse(steep.scaled(share * self.players * weights))
        slope = _times(self.surrogate_lipschitz, answer).scaled(factor)
        bound = _inverse(slope)
        alpha = Estimate(_product(beta.low**1.5, bound.low), _product(beta.high**1.5, bound.high))
        return Steps(beta, alpha)


def _product(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _times(a: Estimate, b: Estimate) -> Estimate:
    """Of two constants that are not negative."""
    return Estimate(
        _product(max(a.low, 0.0), max(b.low, 0.0)),
        _product(max(a.high, 0.0), max(b.high, 0.0)),
    )


def _inverse(a: Estimate) -> Estimate:
    def one(value: float) -> float:
        return math.inf if value <= 0 else 1 / value

    return Estimate(one(a.high), one(a.low))


def design_constants(
    problem: DesignProblem,
    theta: PyTree = None,
    *,
    mixing: ArrayLike = 0.0,
    sizes: Sequence[int] | None = None,
    samples: int = 16,
    key: PRNGKeyArray | None = None,
) -> DesignConstants:
    """The constants of Assumptions 5.1 and 5.2 of Liu et al. (2022), in the natural mirror map.

    Norms: Euclidean on `R^d` and in boxes, where `D = ||x - y||^2 / 2`; on simplices the entropy,
    whose norm is the sum of absolute values and whose dual norm the largest. A constant is exact
    where operator and objective are affine and quadratic (they have one Jacobian, one Hessian, at
    all samples) and where its formula is attained; else what was met at samples is a lower bound of
    a largest value and an upper bound of a least one.

    **Arguments:**

    - `problem`, `theta`: the problem, and an incentive (the set's centre when left out) for strong
      stability and around which unbounded sets are sampled.
    - `mixing`: `nu`: on simplices only strategies `(1 - nu) x + nu uniform` count, without which an
      entropic game has no `H_u`.
    - `sizes`: entries of a flat `x` that belong to each agent; when left out agents are blocks of
      simplices or rows of `x`.
    - `samples`: number of points in the sets; `key` draws them (a fixed one when left out).

    **Raises** `ValueError` under `jit`, and when operator or objective is not finite at a sample.

    !!! example

        Cournot: `H_u = sqrt(2 (n + 3))`, for `F_i` has the slope `e_i + 1`.

        >>> import incentax as ix
        >>> constants = ix.assumptions.design_constants(ix.problems.emission_tax(100).problem)
        >>> print(constants.operator_lipschitz, "and", constants.strong_convexity)
        14.35 (exact) and 100 (exact)
        >>> print(f"{constants.theorem_5_4().beta.high:.3g}")
        1.94e-06
    """
    owner = "design_constants"
    samples = require_count(owner, "samples", samples)
    theta, x = region(owner, problem, theta)
    share = share_of(owner, mixing)
    key = jax.random.key(0) if key is None else key
    key_sample, key_rest = jax.random.split(key)
    seen = sample(problem.game, problem.incentive_set, theta, x, samples, key_sample)
    agents = agents_of(problem.game.strategies(theta), x, sizes)
    return constants_of(problem, theta, x, seen, agents, share, key_rest)


def constants_of(
    problem: DesignProblem,
    theta: PyTree,
    x: Array,
    seen: Sampled,
    agents: Agents,
    mixing: float,
    key: PRNGKeyArray,
) -> DesignConstants:
    """[`design_constants`][] of what was sampled."""
    game = problem.game
    mirror_map = natural_mirror_map(game.strategies(theta))
    key_stable, key_pairs = jax.random.split(key)
    stable = stability(game, theta, x, seen, agents, mirror_map, mixing, 256, key_stable)
    effect = incentive_effect(problem, seen)
    inverse = _inverse_jacobian(seen)
    quadratic = _quadratic(problem, seen)
    curves = _reduced(problem, seen, x, quadratic)
    entropic = not bool(jnp.isfinite(mirror_map.smoothness))
    if quadratic is not None and not entropic and _all_of_space(problem, theta, x):
        surrogate = exact(math.sqrt(2) * float(np.linalg.norm(quadratic.surrogate, 2)))
    else:
        ratios = _surrogate_ratios(problem, seen, mirror_map, mixing, key_pairs)
        surrogate = largest(ratios, False) if len(ratios) else UNKNOWN
    return DesignConstants(
        players=agents.number,
        unknowns=int(x.size),
        stability=stable,
        operator_lipschitz=operator_lipschitz(game, seen, agents, entropic, mixing),
        mirror_smoothness=exact(float(mirror_map.smoothness)),
        incentive_effect=effect,
        inverse_jacobian=inverse,
        answer_lipschitz=_times(effect, inverse),
        surrogate_lipschitz=surrogate,
        strong_convexity=curves[0],
        objective_lipschitz=curves[1],
    )


def incentive_effect(problem: DesignProblem, seen: Sampled) -> Estimate:
    """`rho_theta`, which is also `l`: the largest `||∂F/∂theta||`."""
    if seen.by_theta is not None:
        norms = np.linalg.norm(seen.by_theta, 2, axis=(1, 2))
    else:
        rational = problem.game.rational
        game = problem.game if rational is None else rational.game
        rows = range(1 if seen.affine_in_theta else min(3, len(seen.x)))
        norms = [spectral_norm(game, seen.incentive(k), seen.x[k]) for k in rows]
    # A set that moves takes x* along, whatever the operator does.
    return largest(norms, seen.affine_in_theta and not problem.game.moves)


def _inverse_jacobian(seen: Sampled) -> Estimate:
    if seen.by_x is None:
        return Estimate(0.0, math.inf)
    eps = float(np.finfo(seen.x.dtype).eps)
    if seen.affine_in_x and not seen.eta.any():
        return inverse_norm(seen.jacobians()[0], eps)
    return Estimate(max(inverse_norm(one, eps).low for one in seen.jacobians()), math.inf)


class _Quadratic(NamedTuple):
    """An affine game and a quadratic objective, without bounds on what they do.

    - `hessian`: of `f_*`; `surrogate`: derivative of the surrogate gradient in `x`.
    """

    hessian: np.ndarray
    surrogate: np.ndarray


def _quadratic(problem: DesignProblem, seen: Sampled) -> _Quadratic | None:
    """The derivatives of an affine quadratic problem, `None` for any other."""
    if seen.by_x is None or seen.by_theta is None or seen.eta.any():
        return None
    if not (seen.affine_in_x and seen.affine_in_theta):
        return None
    if seen.by_theta[0].size + seen.by_x[0].size > DENSE_HESSIAN:
        return None
    hessians = [
        np.asarray(_hessian(problem, seen.incentive(k), jnp.asarray(seen.x[k])))
        for k in range(min(4, len(seen.x)))
    ]
    size = max(np.abs(h).max() for h in hessians)
    if (
        not all(np.isfinite(h).all() for h in hessians)
        or max(np.abs(h - hessians[0]).max() for h in hessians) > 1e-9 * size
    ):
        return None
    d, whole = seen.by_x.shape[1], hessians[0]
    f_xx, f_tx, f_tt = whole[:d, :d], whole[d:, :d], whole[d:, d:]
    tangent = seen.tangent
    assert tangent is not None
    a, b = tangent.T @ seen.by_x[0] @ tangent, tangent.T @ seen.by_theta[0]
    if np.linalg.cond(a) > 1e12:
        return None
    answer = -tangent @ np.linalg.solve(a, b)
    surrogate = (f_tx + answer.T @ f_xx) @ tangent
    cross = f_tx @ answer
    return _Quadratic(f_tt + cross + cross.T + answer.T @ f_xx @ answer, surrogate)


# Up to this many entries of Jacobians an objective's Hessian is made explicit.
DENSE_HESSIAN = 300_000


@compiled
def _hessian(problem: DesignProblem, theta: PyTree, x: Array) -> Array:
    flat, unravel = ravel_pytree(theta)

    def value(both: Array) -> Array:
        return problem.objective(unravel(both[x.size :]), both[: x.size].reshape(x.shape))

    return jax.hessian(value)(jnp.concatenate([x.ravel(), flat]))


def _all_of_space(problem: DesignProblem, theta: PyTree, x: Array) -> bool:
    """Whether strategies have no bounds and no inequalities."""
    return is_free(problem.game.strategies(theta), x) and not problem.game.moves


def _reduced(
    problem: DesignProblem, seen: Sampled, x: Array, quadratic: _Quadratic | None
) -> tuple[Estimate, Estimate]:
    """`mu` and `M` of `f_*`, from its gradient at the sampled incentives."""
    some, _ = seen.points(None if seen.by_x is not None else 6)
    thetas, gradients, fine = (
        np.asarray(part) for part in _gradients(problem, some, x, known_entropic(problem.game))
    )
    thetas, gradients = thetas[fine], gradients[fine]
    exactly = quadratic is not None and _all_of_space(problem, seen.incentive(0), x)
    if exactly and quadratic is not None and len(thetas):
        return _of_quadratic(problem, seen, quadratic, thetas, gradients)
    apart = thetas[:, None] - thetas[None]
    slopes = gradients[:, None] - gradients[None]
    square = (apart**2).sum(-1)
    far = square > 0
    if not far.any():
        return UNKNOWN, UNKNOWN
    ratios = (apart * slopes).sum(-1)[far] / square[far]
    steep = largest(np.linalg.norm(gradients, axis=1), False)
    return least(ratios, False), steep


def _of_quadratic(
    problem: DesignProblem,
    seen: Sampled,
    quadratic: _Quadratic,
    thetas: np.ndarray,
    gradients: np.ndarray,
) -> tuple[Estimate, Estimate]:
    """`mu` along the motions that equalities of the incentives allow, and `M` by intervals."""
    theta, hessian = seen.incentive(0), quadratic.hessian
    limits = problem.incentive_set.constraints(theta)
    lower, upper = np.asarray(limits.lower, float), np.asarray(limits.upper, float)
    fixed = np.eye(len(lower))[lower == upper]
    rows = np.asarray(limits.equality.dense(limits.lower.dtype), float)
    tangent = tangent_basis(np.concatenate([rows, fixed]))
    curves = np.linalg.eigvalsh(tangent.T @ hessian @ tangent)
    mu = exact(curves[0]) if len(curves) else UNKNOWN
    bounded = np.isfinite(lower) & np.isfinite(upper)
    lower, upper = np.where(bounded, lower, thetas[0]), np.where(bounded, upper, thetas[0])
    middle = gradients[0] + hessian @ ((lower + upper) / 2 - thetas[0])
    reach = np.where(bounded, (upper - lower) / 2, math.inf)
    with np.errstate(invalid="ignore"):  # 0 inf, where the gradient does not depend on an entry
        wide = np.where(hessian == 0, 0.0, np.abs(hessian) * reach).sum(axis=1)
    high = float(np.linalg.norm(np.abs(middle) + wide))
    alone = isinstance(problem.incentive_set, Box | Reals)
    if math.isinf(high) and alone:
        return mu, exact(math.inf)
    # Corners of the box, projected: the set may be smaller.
    _, unravel = ravel_pytree(theta)
    met = [np.linalg.norm(gradient) for gradient in gradients]
    _, vectors = np.linalg.eigh(hessian)
    for sign in np.where(vectors[:, -8:].T >= 0, 1.0, -1.0):
        for corner in (sign, -sign):
            point = np.where(corner > 0, upper, lower)
            inside = _projected(problem.incentive_set, unravel(jnp.asarray(point, thetas.dtype)))
            flat = np.asarray(ravel_pytree(inside)[0])
            met.append(np.linalg.norm(gradients[0] + hessian @ (flat - thetas[0])))
    return mu, Estimate(float(max(met)), max(high, float(max(met))))


@compiled
def _projected(incentive_set: AbstractSet, point: PyTree) -> PyTree:
    return incentive_set.project(point)


@compiled
def _gradients(
    problem: DesignProblem, thetas: PyTree, x: Array, entropic: bool | None
) -> tuple[Array, Array, Array]:
    def one(theta: PyTree) -> tuple[Array, Array, Array]:
        found, _, _ = find_equilibrium(problem.game, theta, x, None, None, 20_000, entropic)
        answer = evaluate_hypergradient(problem, theta, found, Implicit())
        gradient = ravel_pytree(answer.value)[0]
        residual = natural_residual(problem.game, theta, found)
        settled = residual <= 1e-5 * (1 + jnp.max(jnp.abs(found)))
        fine = settled & jnp.all(jnp.isfinite(gradient)) & (answer.residual < 1e-2)
        return ravel_pytree(theta)[0], gradient, fine

    return jax.lax.map(one, thetas)


def _surrogate_ratios(
    problem: DesignProblem,
    seen: Sampled,
    mirror_map: AbstractMirrorMap,
    mixing: float,
    key: PRNGKeyArray,
) -> np.ndarray:
    """`||g(theta, a) - g(theta, b)|| / sqrt(D(a, b))` of sampled pairs."""
    theta, x = seen.incentive(0), jnp.asarray(seen.x[0])
    number = _PAIRS if seen.by_x is not None else 4
    drawn = draw_strategies(problem.game, theta, x, jax.random.split(key, 2 * number), 1.0)
    first, second = drawn[:number], drawn[number:]
    near = first + 0.01 * (second - first)
    share = jnp.asarray(mixing, x.dtype)
    first, second = jnp.concatenate([first, first]), jnp.concatenate([second, near])
    ratios = np.asarray(_pair_ratios(problem, theta, mirror_map, share, first, second))
    return ratios[np.isfinite(ratios)]


@compiled
def _pair_ratios(
    problem: DesignProblem,
    theta: PyTree,
    mirror_map: AbstractMirrorMap,
    mixing: Array,
    first: Array,
    second: Array,
) -> Float[Array, " pairs"]:
    strategies = problem.game.strategies(theta)
    mixes = isinstance(strategies, Simplex)

    def one(pair: tuple[Array, Array]) -> Array:
        a, b = pair
        if mixes:
            uniform = strategies.centre().astype(a.dtype)
            a, b = ((1 - mixing) * x + mixing * uniform for x in (a, b))
        slopes = [evaluate_hypergradient(problem, theta, x, Implicit()).value for x in (a, b)]
        flat = [ravel_pytree(slope)[0] for slope in slopes]
        apart = jnp.sqrt(mirror_map.divergence(a, b))
        return jnp.linalg.norm(flat[0] - flat[1]) / apart

    return jax.lax.map(one, (first, second))
