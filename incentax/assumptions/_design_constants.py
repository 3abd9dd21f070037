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
from ..equilibrium import draw_strategies
from ..geometry import AbstractMirrorMap, natural_mirror_map
from ..sensitivity import Implicit
from ..sets import Simplex
from ._asked import region, share_of, Stability
from ._estimate import Estimate, exact, largest, UNKNOWN
from ._lipschitz import operator_lipschitz, spectral_norm
from ._matrices import inverse_norm
from ._quadratic import (
    all_of_space,
    quadratic_of,
    reduced_hessian,
)
from ._sampled import Agents, agents_of, sample, Sampled
from ._strong_stability import stability

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
    seen = sample(problem.game, problem.incentive_set, theta, x, samples, key=key_sample)
    agents = agents_of(problem.game.strategies(theta), x, sizes)
    return constants_of(problem, theta, x, seen, agents, mixing=share, key=key_rest)


def constants_of(
    problem: DesignProblem,
    theta: PyTree,
    x: Array,
    seen: Sampled,
    agents: Agents,
    *,
    mixing: float,
    key: PRNGKeyArray,
) -> DesignConstants:
    """[`design_constants`][] of what was sampled."""
    game = problem.game
    mirror_map = natural_mirror_map(game.strategies(theta))
    key_stable, key_pairs = jax.random.split(key)
    stable = stability(
        game,
        theta,
        x,
        seen,
        agents,
        mirror_map=mirror_map,
        mixing=mixing,
        samples=256,
        key=key_stable,
    )
    effect = incentive_effect(problem, seen)
    inverse = _inverse_jacobian(seen)
    quadratic = quadratic_of(problem, seen)
    curves = reduced_hessian(problem, seen, x, quadratic)
    entropic = not bool(jnp.isfinite(mirror_map.smoothness))
    if quadratic is not None and not entropic and all_of_space(problem, theta, x):
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
    ratios = np.asarray(_pair_ratios(problem, theta, mirror_map, share, first, second=second))
    return ratios[np.isfinite(ratios)]


@compiled
def _pair_ratios(
    problem: DesignProblem,
    theta: PyTree,
    mirror_map: AbstractMirrorMap,
    mixing: Array,
    first: Array,
    *,
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
