"""What is asked of a game, and how it is answered: common to all assumptions."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from .._checks import is_inside, require_positive
from ..design import DesignProblem
from ..sets import AbstractStrategySet
from ._estimate import Estimate

Verdict = Literal["holds", "fails", "not decidable"]


class Stability(NamedTuple):
    """Answer of [`strong_stability`][] and [`strong_monotonicity`][].

    - `verdict`: "holds", "fails" or "not decidable".
    - `weights`: `lambda`, one an agent; the least found under which it holds, or the best found.
    - `constant`: of the inequality, under these weights.
    - `reason`: how this is known.
    """

    verdict: Verdict
    weights: Float[np.ndarray, " agents"]
    constant: Estimate
    reason: str


def share_of(owner: str, mixing: ArrayLike) -> float:
    """A mixing in [0, 1), as a number."""
    share = float(require_positive(owner, "mixing", mixing, strictly=False))
    if share >= 1:
        raise ValueError(f"`{owner}(mixing=...)` needs a share below 1, got {share:g}")
    return share


def region(owner: str, problem: DesignProblem, theta: PyTree) -> tuple[PyTree, Array]:
    """An incentive and a strategy in the middle of what is looked at, with all refusals."""
    if not isinstance(problem, DesignProblem):
        raise TypeError(f"`{owner}(problem)` needs a `DesignProblem`, got {problem!r}")
    if is_inside(problem, theta):
        raise ValueError(
            f"`{owner}(problem)` needs known values: what it finds decides what it looks at next; "
            "call it outside of `jit` and `vmap`"
        )
    if theta is None:
        theta = problem.incentive_set.centre()
        incentives = problem.incentive_set
        if isinstance(incentives, AbstractStrategySet) and incentives.shape is None:
            raise ValueError(
                f"`{owner}(theta=...)` needs an incentive: the incentive set does not say the "
                "shape of theta, got None"
            )
    return problem.at_door(owner, ("theta", None), theta, None)


NOT_FINITE = "the operator or its Jacobian is not finite at a sample"


def is_free(strategies: AbstractStrategySet, x: Array) -> bool:
    """Whether strategies have no bounds, and no inequalities."""
    limits = strategies.constraints(x)
    free = bool(jnp.isinf(limits.lower).all()) and bool(jnp.isinf(limits.upper).all())
    return free and limits.inequality_level.size == 0
