"""Strong monotonicity, with weights of the agents."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from .._checks import require_count
from ..design import DesignProblem
from ._asked import NOT_FINITE, region, Stability
from ._estimate import Estimate, least, UNKNOWN
from ._matrices import weigh_matrices
from ._sampled import Agents, agents_of, DENSE, sample, Sampled


def strong_monotonicity(
    problem: DesignProblem,
    theta: PyTree = None,
    *,
    sizes: Sequence[int] | None = None,
    samples: int = 16,
    key: PRNGKeyArray | None = None,
) -> Stability:
    """The largest `m` with `sum_i lambda^i <F^i(a) - F^i(b), a^i - b^i> >= m ||a - b||^2`.

    Over weights `lambda > 0` whose mean is 1, by cutting planes on the least eigenvalue of
    `(Lambda ∂F + ∂F^T Lambda) / 2` along the motions that the equalities allow. Exact where `∂F` is
    the same at all samples; else met at samples, an upper bound.

    **Arguments:**

    - `problem`, `theta`: the game, its incentives, and one of them (the set's centre when left
      out).
    - `sizes`: entries of a flat `x` that belong to each agent; when left out agents are blocks of
      simplices or rows of `x`.
    - `samples`: number of points in the sets; `key` draws them (a fixed one when left out).

    **Raises** `ValueError` with more than 600 unknowns, and under `jit`.

    !!! example

        Alone no weights are needed for `F = x`; here firm 1 counts for more:

        >>> import incentax as ix, jax.numpy as jnp
        >>> matrix = jnp.array([[1.0, 10.0], [0.0, 1.0]])
        >>> game = ix.Game(lambda theta, x: matrix @ x - theta, ix.Reals((2,)))
        >>> problem = ix.DesignProblem(game, lambda theta, x: x @ x, ix.Reals((2,)))
        >>> found = ix.assumptions.strong_monotonicity(problem)
        >>> print(found.verdict, found.weights[1] > 25 * found.weights[0])
        holds True
    """
    owner = "strong_monotonicity"
    samples = require_count(owner, "samples", samples)
    theta, x = region(owner, problem, theta)
    if x.size > DENSE:
        raise ValueError(
            f"`{owner}(problem)` needs a game of at most {DENSE} unknowns, got {x.size}"
        )
    key = jax.random.key(0) if key is None else key
    seen = sample(problem.game, problem.incentive_set, theta, x, samples, key=key)
    agents = agents_of(problem.game.strategies(theta), x, sizes)
    return monotonicity(seen, agents)


def monotonicity(seen: Sampled, agents: Agents) -> Stability:
    """[`strong_monotonicity`][] of what was sampled."""
    assert seen.tangent is not None
    matrices = seen.jacobians()
    constant = seen.affine_in_x and not seen.eta.any()
    if not np.isfinite(matrices).all():
        return Stability("not decidable", np.ones(agents.number), UNKNOWN, NOT_FINITE)
    matrices = matrices[:1] if constant else matrices
    eps = float(np.finfo(seen.x.dtype).eps)
    unit = np.eye(matrices.shape[1])
    found = weigh_matrices(matrices, unit, seen.tangent, agents, eps=eps, straight=True)
    if found.holds:
        weights = found.weights * agents.number / found.weights.sum()
        value = least([agents.number / found.weights.sum()], constant)
        reason = "the same Jacobian at all samples" if constant else "least over the samples"
        if agents.number > 1 and found.least > 0:
            reason += f"; no weights reach more than {agents.number / found.least:.4g}"
        return Stability("holds", weights, value, reason)
    if found.least == np.inf:
        # What fails along one Jacobian fails, whatever the others are.
        reason = "no weights: proved by duality"
        return Stability("fails", found.weights, Estimate(-np.inf, 0.0), reason)
    reason = "rounding decides, or the search for weights did not end"
    return Stability("not decidable", found.weights, UNKNOWN, reason)
