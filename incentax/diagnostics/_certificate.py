"""The evidence for a design: everything recomputed, and said in plain words."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._results import b_stationarity, ENDINGS, RESULTS
from ..design import (
    NO_DERIVATIVE,
)
from ..equilibrium import (
    NASH,
)

# Of agents with a better strategy outside, what is worth a word.
_OUTSIDE = 1e-3


class Certificate(eqx.Module):
    """What is known of a design `theta`; prints as a table.

    - `objective`: at the equilibrium of `theta`, solved anew.
    - `equilibrium_residual`: `max |x - project(x - F)|` there.
    - `equilibrium_error`: largest distance of the given strategy from it; 0 when none was given.
    - `gap`: `max over y of <F, x - y>`; infinite where the strategy set is unbounded.
    - `stationarity`: `||theta - project(theta - gradient)||`, and `gradient`, its norm.
    - `derivative_error`: largest difference between the gradient's slope and central differences
      of the re-solved objective in four directions, relative to the gradient's two parts, the
      direct one and the one through the equilibrium (which cancel at an optimum).
    - `linear_residual`: of the adjoint system.
    - `complementarity_margin`: least over the constraints of the larger of slack and multiplier;
      near 0 an active set is about to change, and derivatives are one-sided. Infinite where costs
      keep every strategy in use.
    - `least_slope`: least change of the objective over all directions of unit length, to first
      order, relative to its parts: 0 where no direction descends. NaN where nobody decided it.
    - `regret`: what a player of an [`AtomicGame`][] could gain by another reply, searched for
      globally; relative to its cost. 0 for other games, NaN where no best reply was found.
    - `strong_monotonicity`: the least eigenvalue of `(∂F/∂x + ∂F/∂x^T) / 2` at the equilibrium and
      slope between sampled pairs of strategies, an upper bound of the game's constant; with more
      than 300 unknowns from samples alone.
    - `lipschitz`: likewise the largest, a lower bound of the Lipschitz constant of `F`.
    - `insensitive`: whether the objective has no derivative in `x` around the equilibrium.
    - `others`: how many other equilibria Newton's method found from 16 random starts, where the
      game is not monotone by the estimate and known values allow a search; else 0.
    - `selected`: whether none of them is the one that the problem's selection prefers.
    - `multipliers`: of the problem's constraints, by name, see [`DesignSolution`][]; `violation`,
      the largest of one, in its own unit. With constraints `stationarity` is that of the
      Lagrangian, and `least_slope` is over the directions that they allow.
    - `outside`: the share of agents whose best strategy is none that the game lists: of trips
      that are made and have a better path than all of a [`RoutingGame`][], see [`grow_paths`][].
      NaN where the game does not tell.
    - `ending`: whether the design is stationary, an entry of `ix.ENDINGS`.
    - `result`: how the equilibrium was solved.
    """

    objective: Float[Array, ""]
    equilibrium_residual: Float[Array, ""]
    equilibrium_error: Float[Array, ""]
    gap: Float[Array, ""]
    stationarity: Float[Array, ""]
    gradient: Float[Array, ""]
    derivative_error: Float[Array, ""]
    linear_residual: Float[Array, ""]
    complementarity_margin: Float[Array, ""]
    least_slope: Float[Array, ""]
    regret: Float[Array, ""]
    strong_monotonicity: Float[Array, ""]
    lipschitz: Float[Array, ""]
    degenerate: Int[Array, ""]
    insensitive: Bool[Array, ""]
    others: Int[Array, ""]
    selected: Bool[Array, ""]
    ending: ENDINGS
    result: RESULTS
    multipliers: dict[str, Array] = eqx.field(default_factory=dict)
    violation: Float[Array, ""] | float = 0.0
    outside: Float[Array, ""] | float = float("nan")

    @property
    def verdict(self) -> str:
        """Plain words."""
        words = []
        if not bool(self.result == RESULTS.successful):
            return (
                f"The equilibrium was not reached (residual {self.equilibrium_residual:.1e}), and "
                "without it nothing can be said of the design."
            )
        words.append(self._of_the_equilibrium())
        if self.equilibrium_error > 1e-3:
            words.append(
                f"The given strategy is not it: they differ by {self.equilibrium_error:.1e}."
            )
        exists = bool(self.linear_residual <= NO_DERIVATIVE) or self.ending == ENDINGS.kink
        if not exists:
            words.append(
                "The derivative of the objective does not exist there: the adjoint system has no "
                f"solution (residual {self.linear_residual:.1e})."
            )
        if self.ending == ENDINGS.infeasible:
            words.append(f"A constraint is violated by {float(self.violation):.1e}.")
        else:
            words.append(f"The design is {ENDINGS[self.ending]} ({self.stationarity:.1e}).")
        if self.multipliers and self.ending != ENDINGS.infeasible:
            words.append(f"The constraints are kept to {float(self.violation):.1e}.")
        allowed = max(1e-4, 10 * float(jnp.finfo(self.objective.dtype).eps) ** 0.5)
        if self.derivative_error > allowed and self.degenerate == 0 and exists:
            words.append(
                f"Central differences disagree with the gradient by {self.derivative_error:.1e}: "
                "check that operator and objective are differentiable functions of their "
                "arguments, of values that double precision can tell apart. Where a game has "
                "several equilibria, solves close by may also end in different ones."
            )
        if self.outside >= _OUTSIDE:
            words.append(
                f"{100 * float(self.outside):.3g} % of agents have a better strategy than all that "
                "the game lists."
            )
        if self.insensitive and not self.multipliers:
            words.append("The objective does not change with what agents do.")
        if self.monotone:
            return " ".join(words)
        words.append(f"The game is not monotone (estimate {self.strong_monotonicity:.1e}):")
        if self.others > 0:
            words.append(
                f"{int(self.others)} other equilibria were found; what is said here is of one of "
                "them, and `ix.equilibria` shows all."
            )
            if not self.selected:
                words.append("It is not the one that the problem selects.")
        else:
            words.append("other equilibria may exist, though 16 starts led to none.")
        return " ".join(words)

    def _of_the_equilibrium(self) -> str:
        if jnp.isnan(self.regret):
            return "The equilibrium is exact to first order; far better replies were not ruled out."
        if self.regret > NASH:
            return (
                "The equilibrium is one to first order only: costs are not convex, and another "
                f"reply would gain a player {float(self.regret):.1e} of its cost."
            )
        return "The equilibrium is exact."

    @property
    def b_stationary(self) -> str | list[str]:
        """Whether it is proved that no direction descends: "yes", "no" or "undecided"."""
        return b_stationarity(self.ending)

    @property
    def monotone(self) -> bool:
        """Whether nothing speaks against it; an estimate."""
        rounding = max(1e-8, 100 * float(jnp.finfo(self.lipschitz.dtype).eps))
        least, largest = map(np.asarray, (self.strong_monotonicity, self.lipschitz))
        return bool(least >= -rounding * np.maximum(1, largest))

    def as_dict(self) -> dict[str, float | str]:
        """Every figure by its name, the ending and the verdict, for a file."""
        words = ("ending", "result", "multipliers")
        figures = {name: float(value) for name, value in vars(self).items() if name not in words}
        for name, mu in self.multipliers.items():
            flat = np.ravel(mu)
            for place, value in enumerate(flat, 1):
                label = f"multiplier, {name}" + (f", {place}" if flat.size > 1 else "")
                figures[label] = float(value)
        return {**figures, "ending": ENDINGS[self.ending], "verdict": self.verdict}

    def __str__(self) -> str:
        rows = [
            ("objective", self.objective),
            ("equilibrium residual", self.equilibrium_residual),
            ("error of the given strategy", self.equilibrium_error),
            ("gap", self.gap),
            ("projected gradient", self.stationarity),
            ("gradient", self.gradient),
            ("derivative error", self.derivative_error),
            ("linear residual", self.linear_residual),
            ("complementarity margin", self.complementarity_margin),
            ("least slope", self.least_slope),
            ("regret", self.regret),
            ("strong monotonicity, at most", self.strong_monotonicity),
            ("Lipschitz constant, at least", self.lipschitz),
        ]
        lines = [f"{name:<30} {float(value): .6e}" for name, value in rows]
        if self.multipliers:
            lines.append(f"{'violation':<30} {float(self.violation): .6e}")
        if self.outside > 0:
            lines.append(f"{'share with a better strategy':<30} {float(self.outside): .6e}")
        lines += [f"{f'multiplier, {name}':<30} {mu}" for name, mu in self.multipliers.items()]
        return "\n".join([*lines, self.verdict])
