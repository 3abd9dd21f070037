"""Affine games with quadratic objectives: their constants are exact."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from .._compile import compiled
from ..design import DesignProblem, evaluate_hypergradient
from ..equilibrium import find_equilibrium, known_entropic, natural_residual
from ..sensitivity import Implicit
from ..sets import AbstractSet, Box, Reals
from ._asked import is_free
from ._estimate import Estimate, exact, largest, least, UNKNOWN
from ._sampled import Sampled, tangent_basis


class Quadratic(NamedTuple):
    """An affine game and a quadratic objective, without bounds on what they do.

    - `hessian`: of `f_*`; `surrogate`: derivative of the surrogate gradient in `x`.
    """

    hessian: np.ndarray
    surrogate: np.ndarray


def quadratic_of(problem: DesignProblem, seen: Sampled) -> Quadratic | None:
    """The derivatives of an affine quadratic problem, `None` for any other."""
    if seen.by_x is None or seen.by_theta is None or seen.eta.any():
        return None
    if not (seen.affine_in_x and seen.affine_in_theta):
        return None
    if seen.by_theta[0].size + seen.by_x[0].size > DENSE_HESSIAN:
        return None
    hessians = [
        np.asarray(hessian_of(problem, seen.incentive(k), jnp.asarray(seen.x[k])))
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
    return Quadratic(f_tt + cross + cross.T + answer.T @ f_xx @ answer, surrogate)


# Up to this many entries of Jacobians an objective's Hessian is made explicit.
DENSE_HESSIAN = 300_000


@compiled
def hessian_of(problem: DesignProblem, theta: PyTree, x: Array) -> Array:
    """Of the objective in `(x, theta)`, all entries one after another."""
    flat, unravel = ravel_pytree(theta)

    def value(both: Array) -> Array:
        return problem.objective(unravel(both[x.size :]), both[: x.size].reshape(x.shape))

    return jax.hessian(value)(jnp.concatenate([x.ravel(), flat]))


def all_of_space(problem: DesignProblem, theta: PyTree, x: Array) -> bool:
    """Whether strategies have no bounds and no inequalities."""
    return is_free(problem.game.strategies(theta), x) and not problem.game.moves


def reduced_hessian(
    problem: DesignProblem, seen: Sampled, x: Array, quadratic: Quadratic | None
) -> tuple[Estimate, Estimate]:
    """`mu` and `M` of `f_*`, from its gradient at the sampled incentives."""
    some, _ = seen.points(None if seen.by_x is not None else 6)
    thetas, gradients, fine = (
        np.asarray(part) for part in gradients_at(problem, some, x, known_entropic(problem.game))
    )
    thetas, gradients = thetas[fine], gradients[fine]
    exactly = quadratic is not None and all_of_space(problem, seen.incentive(0), x)
    if exactly and quadratic is not None and len(thetas):
        return constants_of_quadratic(problem, seen, quadratic, thetas, gradients)
    apart = thetas[:, None] - thetas[None]
    slopes = gradients[:, None] - gradients[None]
    square = (apart**2).sum(-1)
    far = square > 0
    if not far.any():
        return UNKNOWN, UNKNOWN
    ratios = (apart * slopes).sum(-1)[far] / square[far]
    steep = largest(np.linalg.norm(gradients, axis=1), False)
    return least(ratios, False), steep


def constants_of_quadratic(
    problem: DesignProblem,
    seen: Sampled,
    quadratic: Quadratic,
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
            inside = projected(problem.incentive_set, unravel(jnp.asarray(point, thetas.dtype)))
            flat = np.asarray(ravel_pytree(inside)[0])
            met.append(np.linalg.norm(gradients[0] + hessian @ (flat - thetas[0])))
    return mu, Estimate(float(max(met)), max(high, float(max(met))))


@compiled
def projected(incentive_set: AbstractSet, point: PyTree) -> PyTree:
    """The nearest incentive of the set."""
    return incentive_set.project(point)


@compiled
def gradients_at(
    problem: DesignProblem, thetas: PyTree, x: Array, entropic: bool | None
) -> tuple[Array, Array, Array]:
    """Incentives and gradients of `f_*` as rows, and whether each was settled and solved."""

    def one(theta: PyTree) -> tuple[Array, Array, Array]:
        found, _, _ = find_equilibrium(
            problem.game, theta, x, None, None, max_steps=20_000, entropic=entropic
        )
        answer = evaluate_hypergradient(problem, theta, found, Implicit())
        gradient = ravel_pytree(answer.value)[0]
        residual = natural_residual(problem.game, theta, found)
        settled = residual <= 1e-5 * (1 + jnp.max(jnp.abs(found)))
        fine = settled & jnp.all(jnp.isfinite(gradient)) & (answer.residual < 1e-2)
        return ravel_pytree(theta)[0], gradient, fine

    return jax.lax.map(one, thetas)
