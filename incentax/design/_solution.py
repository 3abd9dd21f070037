"""What `design` returns, and what it raises."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._checks import is_traced
from .._results import answer_when_traced, as_table, b_stationarity, ENDINGS, in_words, RESULTS
from ._scheme import AbstractInfo


class History(eqx.Module):
    """One row a recorded step, NaN from the step on at which a run broke off.

    - `step`: number of steps done.
    - `objective`, `residual`: at the pair `(theta, x)` after that step. Without a scheme the
      objective is the smoothed one as long as a step is, and no residual is computed.
    - `info`: the scheme's own figures, [`SchemeInfo`][] or [`RegulatorInfo`][].
    - `observed`: what `Record.observe` returned.
    """

    step: Int[Array, " rows"]
    objective: Float[Array, " rows"]
    residual: Float[Array, " rows"]
    info: AbstractInfo
    observed: PyTree


class DesignSolution(eqx.Module):
    """Answer of [`design`][].

    - `theta`, `x`: the last finite incentive and strategy. In a single loop `x` is where play
      stands, not the exact equilibrium: `residual` tells how far it is from it.
    - `objective`, `residual`: at `(theta, x)`.
    - `steps`: number of finite steps done.
    - `history`: see [`History`][].
    - `stationarity`: `||theta - project(theta - gradient)||` at the equilibrium; NaN for a scheme,
      which [`certify`][] examines.
    - `multipliers`: of every constraint of the problem, by its name, of the shape of its value: by
      how much the optimal objective falls for one more of the bound, in units of the objective per
      unit of the constraint. Not negative at an upper bound, not positive at a lower one, 0 where
      there is room. Where the design is infeasible, of the sum of violations: those that are not
      zero pull against one another.
    - `violation`: the largest violation of a constraint, in its own unit.
    - `ending`: what was found, an entry of `ix.ENDINGS`.
    - `result`: an entry of `ix.RESULTS`. For a scheme with a fixed number of steps, successful
      means that all were done, or a callback ended them, and all was finite; convergence is for
      `residual` and `history` to show. Without one, `stopped` where a callback ended it too early.
    """

    theta: PyTree
    x: Array
    objective: Float[Array, ""]
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    history: History
    stationarity: Float[Array, ""]
    ending: ENDINGS
    result: RESULTS
    multipliers: dict[str, Array] = eqx.field(default_factory=dict)
    violation: Float[Array, ""] | float = 0.0

    @property
    def b_stationary(self) -> str | list[str]:
        """Whether it is proved that no direction descends: "yes", "no" or "undecided".

        Without a scheme, outside of `jit`. At a kink by linear programs over the constraints that
        are about to change; "undecided" where there are too many of them.
        """
        return b_stationarity(self.ending)

    def __str__(self) -> str:
        leaves = [leaf for leaf in jax.tree.leaves(self.theta)]
        incentive = leaves[0] if len(leaves) == 1 else [jnp.shape(leaf) for leaf in leaves]
        return as_table(
            [
                ("objective", self.objective),
                ("incentive", incentive),
                ("strategy", self.x),
                ("residual", self.residual),
                *[(f"multiplier, {name}", mu) for name, mu in self.multipliers.items()],
                *([("violation", self.violation)] if self.multipliers else []),
                ("projected gradient", self.stationarity),
                ("B-stationary", self.b_stationary),
                ("steps", self.steps),
                ("ending", in_words(ENDINGS, self.ending)),
                ("result", in_words(RESULTS, self.result)),
            ]
        )


class DesignFailure(RuntimeError):
    """Raised by [`design`][] with the broken-off run, history included, in `.solution`."""

    def __init__(self, message: str, solution: Any):
        super().__init__(message)
        self.solution = solution


def raise_unless_designed(
    solution: DesignSolution, throw: bool, explain: Callable[[], str] = str
) -> DesignSolution:
    """The solution, or [`DesignFailure`][] with it when its result is none and `throw`.

    `explain` may say more than the result does.
    """
    if not throw:
        return solution
    if is_traced(solution):
        return answer_when_traced(solution)
    fine = (solution.result == RESULTS.successful) | (solution.result == RESULTS.stopped)
    if not jnp.all(fine):
        finished = [
            RESULTS.not_stationary,
            RESULTS.no_derivative,
            RESULTS.never_moved,
            RESULTS.unbounded,
            RESULTS.infeasible,
        ]
        ended = "ended" if any(solution.result == entry for entry in finished) else "broke off"
        message = f"{RESULTS[solution.result]} (the run {ended} after step {solution.steps})"
        if solution.result == RESULTS.not_stationary and solution.x.dtype == jnp.float32:
            message += " In float32 small gains are lost in rounding: set `jax_enable_x64`."
        raise DesignFailure(f"{message} {explain()}".strip(), solution)
    return solution
