"""The evidence for a design: everything recomputed, and said in plain words."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .._checks import is_inside, is_traced, unknown
from .._compile import compiled
from .._results import b_stationarity, ENDINGS, RESULTS
from .._tree import tree_norm
from ..design import (
    DesignProblem,
    evaluate_hypergradient,
    examine,
    is_judgeable,
    judge,
    NO_DERIVATIVE,
)
from ..equilibrium import (
    Equilibrium,
    gap,
    known_entropic,
    largest_regret,
    NASH,
    other_equilibria,
    solve_equilibrium,
)
from ..games import AbstractGame
from ..sensitivity import Implicit
from ._samples import constants_near, differences_around


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
        words.append(f"The design is {ENDINGS[self.ending]} ({self.stationarity:.1e}).")
        allowed = max(1e-4, 10 * float(jnp.finfo(self.objective.dtype).eps) ** 0.5)
        if self.derivative_error > allowed and self.degenerate == 0 and exists:
            words.append(
                f"Central differences disagree with the gradient by {self.derivative_error:.1e}: "
                "check that operator and objective are differentiable functions of their "
                "arguments, of values that double precision can tell apart. Where a game has "
                "several equilibria, solves close by may also end in different ones."
            )
        if self.insensitive:
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
            return "The equilibrium is exact to first order; no player's best reply is known."
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
        words = ("ending", "result")
        figures = {name: float(value) for name, value in vars(self).items() if name not in words}
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
        return "\n".join([*lines, self.verdict])


def certify(
    problem: DesignProblem,
    theta: PyTree,
    x: Array | None = None,
    *,
    key: PRNGKeyArray | None = None,
) -> Certificate:
    """Recomputes what can be known of a design: a [`Certificate`][].

    The equilibrium is solved anew from the centre of the strategy set (from `x` where the game is
    so that play selects among several; give it), the gradient is checked against central
    differences of the re-solved objective, and the game's constants are estimated.

    **Arguments:**

    - `problem`, `theta`: the problem and an incentive of its set.
    - `x`: the strategy that is claimed to be its equilibrium, if any.
    - `key`: for the directions and samples; a fixed one when left out.

    **Raises** `ValueError` when `theta` or `x` is no point of its set.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Box(0.0, 4.0))
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> print(ix.certify(problem, jnp.array([3.0])).verdict)
        The equilibrium is exact. The design is stationary: the gradient vanishes (0.0e+00).
    """
    given = x is not None
    theta, x = problem.at_door("certify", ("theta", "x"), theta, x)
    key = jax.random.key(0) if key is None else key
    game = problem.game
    # Where the set does not say the shape of x, the given one does.
    centre = _centre(game, theta, x) if given else x
    found = solve_equilibrium(game, theta, centre, throw=False)
    if given:
        # From the given strategy too: of several equilibria it is that one which is certified.
        near = solve_equilibrium(game, theta, x, throw=False)
        closer = jnp.max(jnp.abs(near.x - x)) < jnp.max(jnp.abs(found.x - x))
        take = (near.result == RESULTS.successful) & closer
        take = take | (found.result != RESULTS.successful)
        found = jax.tree.map(lambda a, b: jnp.where(take, a, b), near, found)
    given_x = x if given else found.x
    entropic = known_entropic(game)
    known = not is_inside(problem, theta, given_x, key)
    proving = known and is_judgeable(problem, theta, found.x, entropic)
    differences = differences_around(problem, theta, found.x, key)
    certificate = _certify(
        problem,
        theta,
        given_x,
        found,
        key,
        differences=differences,
        probing=None if proving else (entropic,),
    )
    if proving:
        certificate = _proved(certificate, problem, theta, found.x)
    if not proving:
        nobody = unknown(certificate.objective)
        certificate = eqx.tree_at(lambda c: c.least_slope, certificate, nobody)
    if is_traced(certificate) or certificate.monotone or certificate.result != RESULTS.successful:
        return certificate
    others = other_equilibria(game, theta, found.x, jax.random.fold_in(key, 1))
    values = jnp.stack([problem.objective(theta, x) for x in [found.x, *map(jnp.asarray, others)]])
    close = 1e-9 * (1 + jnp.abs(values[0]))
    selected = jnp.asarray(True)
    if problem.selection == "optimistic":
        selected = values[0] <= jnp.min(values) + close
    elif problem.selection == "pessimistic":
        selected = values[0] >= jnp.max(values) - close
    number = jnp.int32(len(others))
    return eqx.tree_at(lambda c: (c.others, c.selected), certificate, (number, selected))


@compiled
def _centre(game: AbstractGame, theta: PyTree, like: Array) -> Array:
    return jnp.broadcast_to(game.strategies(theta).centre(), like.shape).astype(like.dtype)


@compiled
def _certify(
    problem: DesignProblem,
    theta: PyTree,
    given: Array,
    found: Equilibrium,
    key: PRNGKeyArray,
    *,
    differences: tuple[Array, Array],
    probing: tuple[bool | None] | None,
) -> Certificate:
    """All but what linear programs prove; with `probing` by probes, and known to be entropic."""
    game, x = problem.game, found.x
    _, key_pairs, key_shifts, key_probes = jax.random.split(key, 4)
    flat, _ = ravel_pytree(theta)
    gradient = evaluate_hypergradient(problem, theta, x, Implicit())
    slope, _ = ravel_pytree(gradient.value)

    direct, _ = ravel_pytree(jax.grad(problem.objective)(theta, x))
    # At an optimum the two cancel: their sum is no measure of what rounding leaves.
    parts = jnp.abs(direct) + jnp.abs(slope - direct)

    eps = float(jnp.finfo(flat.dtype).eps)

    def error(apart: Array, above: Array, below: Array) -> Array:
        seen, told = above - below, slope @ apart
        # At an optimum both are nearly nothing: then what the objective changes to either side is
        # the measure, and what rounding makes of its value is no error.
        here = gradient.objective
        sides = jnp.abs(above - here) + jnp.abs(below - here)
        rounding = 100 * eps * jnp.maximum(jnp.abs(here), jnp.abs(above))
        size = jnp.sum(jnp.abs(apart) * parts) + sides
        wrong = jnp.maximum(jnp.abs(seen - told) - rounding, 0)
        return wrong / jnp.where(size > 0, size, 1)

    apart, values = differences
    monotonicity, lipschitz = constants_near(game, theta, x, key_pairs)
    # At an optimum the derivative may vanish; everywhere it does not, unless x is ignored.
    shifts = jax.random.normal(key_shifts, (3, *x.shape), x.dtype)
    slopes = jax.vmap(lambda shift: jax.grad(problem.objective, 1)(theta, x + 1e-3 * shift))(shifts)
    examined = None if probing is None else examine(problem, theta, x, key_probes, *probing)
    return Certificate(
        objective=gradient.objective,
        equilibrium_residual=found.residual,
        equilibrium_error=jnp.max(jnp.abs(given - x)),
        gap=gap(game, theta, x),
        stationarity=gradient.objective if examined is None else examined.stationarity,
        gradient=tree_norm(gradient.value),
        derivative_error=jnp.max(jax.vmap(error)(apart, *values)),
        linear_residual=gradient.residual,
        complementarity_margin=_margin(game, theta, x),
        least_slope=gradient.objective,
        regret=largest_regret(game, theta, x),
        strong_monotonicity=monotonicity,
        lipschitz=lipschitz,
        degenerate=gradient.degenerate,
        insensitive=jnp.all(slopes == 0),
        others=jnp.int32(0),
        selected=jnp.asarray(True),
        ending=ENDINGS.undecided if examined is None else examined.ending,
        result=found.result,
    )


def _proved(
    certificate: Certificate, problem: DesignProblem, theta: PyTree, x: Array
) -> Certificate:
    """With what linear programs prove of the design."""
    found = judge(problem, theta, x)
    dtype = certificate.objective.dtype
    if found is None:
        nobody = unknown(certificate.objective)
        return eqx.tree_at(lambda c: (c.stationarity, c.least_slope), certificate, (nobody,) * 2)
    return eqx.tree_at(
        lambda c: (c.stationarity, c.least_slope, c.degenerate, c.ending),
        certificate,
        (
            jnp.asarray(found.stationarity, dtype),
            jax.device_put(np.asarray(found.least_slope, dtype)),
            np.int32(found.degenerate),
            found.ending,
        ),
    )


def _margin(game: AbstractGame, theta: PyTree, x: Array) -> Array:
    margin = game.strategies(theta).pairs(x, game.operator(theta, x)).margin
    # Costs that rise without bound at the boundary keep every strategy in use.
    return margin if game.entropic is None else jnp.where(game.entropic, jnp.inf, margin)
