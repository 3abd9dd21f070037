"""Equilibria as a selection sees them: the extremes of continua, followed as theta moves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from ..._compile import compiled
from ...dynamics import AbstractDynamics
from ...equilibrium import (
    find_equilibrium,
    is_isolated,
    largest_regret,
    NASH,
    natural_residual,
    Newton,
)
from ...games import AbstractGame
from ...sensitivity import Implicit
from ...sets import AbstractSet
from .._problem import DesignProblem, evaluate_hypergradient
from ..accurate._examine import Ending, examine

# How far a continuum of equilibria leans towards what the regulator hopes or fears, of its costs.
_LEAN = 1e-5
# Pushes towards the end of a continuum, one after the other.
_PUSHES = 4


class _Leaning(AbstractGame):
    """The game with `weight ∇_x f + push` added: of a continuum of equilibria it keeps one.

    For a monotone game and a small positive `weight` that with the least `f`, where `f` is convex
    (A. N. Tikhonov; F. Facchinei and J.-S. Pang 2003, section 12.2). A small constant `push` keeps
    the end of the continuum that lies farthest against it.
    """

    problem: DesignProblem
    weight: Float[Array, ""]
    push: Float[Array, "*x"]

    def __init__(self, problem: DesignProblem, weight: Array, push: Array):
        self.problem, self.weight, self.push = problem, weight, push

    @property
    def strategy_set(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.problem.game.strategy_set

    def _lean(self, theta: PyTree, x: Array) -> Array:
        slope = jax.grad(self.problem.objective, 1)(theta, x)
        return self.weight.astype(x.dtype) * slope + self.push.astype(x.dtype)

    def unchecked_operator(self, theta: PyTree, x: Array) -> Array:
        return self.problem.game.operator(theta, x) + self._lean(theta, x)

    def log_operator(self, theta: PyTree, x: Array, log_x: Array) -> Array:
        return self.problem.game.log_operator(theta, x, log_x) + self._lean(theta, x)

    @property
    def entropic(self) -> Bool[Array, ""] | None:
        return self.problem.game.entropic


class Branch(NamedTuple):
    """Equilibria at one incentive along a leading axis, and what the regulator makes of them."""

    x: Array
    weight: Array
    push: Array
    objective: Array
    fine: Array

    def row(self, number: int) -> tuple[Array, Array, Array]:
        """One of them, with what it leans on."""
        return self.x[number], self.weight[number], self.push[number]


@compiled
def projected(incentive_set: AbstractSet, point: PyTree) -> PyTree:
    """Compiled: a projection outside of `jit` may be a loop that is compiled at every call."""
    return incentive_set.project(point)


@compiled
def equilibria_from(problem: DesignProblem, theta: PyTree, starts: Array, sign: float) -> Branch:
    """Equilibria that Newton's method reaches, those of a continuum at its extreme."""
    return jax.lax.map(lambda x: _settled(problem, theta, x, sign), starts)


@compiled
def played(problem: DesignProblem, theta: PyTree, starts: Array, play: AbstractDynamics) -> Branch:
    """The equilibrium that play leads to from the first of the starts.

    The others are around it. Where they lead elsewhere the first is at rest on an unstable
    equilibrium, or between two basins, and nobody knows where play goes: then theirs are `fine`,
    and its own is not.
    """

    def one(x: Array) -> Branch:
        reached, _, _ = find_equilibrium(problem.game, theta, x, play, 1e-9, max_steps=50_000)
        exact, _, _ = find_equilibrium(problem.game, theta, reached, Newton(), 1e-10, max_steps=200)
        close = jnp.max(jnp.abs(exact - reached)) <= 1e-3 * (1 + jnp.max(jnp.abs(reached)))
        x = jnp.where(close, exact, reached)
        return _judged(problem, theta, x, jnp.zeros((), x.dtype), jnp.zeros_like(x))

    found = jax.lax.map(one, starts)
    apart = jnp.max(jnp.abs(found.x - found.x[:1]))
    agree = found.fine[0] & (apart <= 1e-3 * (1 + jnp.max(jnp.abs(found.x[0]))))
    first = jnp.arange(len(starts)) == 0
    fine = jnp.where(agree, first, ~first & jnp.all(found.fine[1:]))
    return found._replace(fine=fine)


def _settled(problem: DesignProblem, theta: PyTree, x: Array, sign: float) -> Branch:
    """The equilibrium that Newton's method reaches; in a continuum its extreme one.

    Where the objective is curved the right way, a leaning that follows its slope finds the extreme
    inside of the continuum; where it is not, pushes along its slope, again and again, find an end.
    """
    game = problem.game

    def slope_at(x: Array) -> Array:
        return jax.grad(problem.objective, 1)(theta, x)

    def solve(weight: Array, push: Array, start: Array) -> Array:
        leaning = _Leaning(problem, weight, push)
        return find_equilibrium(leaning, theta, start, Newton(), 1e-10, max_steps=200)[0]

    none, still = jnp.zeros((), x.dtype), jnp.zeros_like(x)
    reached = solve(none, still, x)
    costs = jnp.max(jnp.abs(game.operator(theta, reached)))
    weight = sign * _LEAN * (1 + costs) / (1 + jnp.max(jnp.abs(slope_at(reached))))

    def pushed(end: Array, _) -> tuple[Array, Array]:
        push = weight * slope_at(end)
        return solve(none, push, end), push

    leaned = solve(weight, still, reached)
    end, pushes = jax.lax.scan(pushed, reached, length=_PUSHES)
    branches = [
        _judged(problem, theta, leaned, weight, still),
        _judged(problem, theta, end, none, pushes[-1]),
    ]
    alone = is_isolated(game, theta, reached)
    best = _judged(problem, theta, reached, none, still)
    for branch in branches:
        near = natural_residual(game, theta, branch.x) <= 10 * _LEAN * (1 + costs)
        # Close by there is an equilibrium indeed, and not only of the game that leans.
        settled = solve(none, still, branch.x)
        close = jnp.max(jnp.abs(settled - branch.x)) <= 1e-3 * (1 + jnp.max(jnp.abs(settled)))
        near = near & close & _judged(problem, theta, settled, none, still).fine
        # As good will do: with a leaning it has a derivative.
        level = sign * best.objective + 1e-9 * (1 + jnp.abs(best.objective))
        better = branch.fine & near & (sign * branch.objective <= level)
        take = ~alone & (better | ~best.fine)
        best = jax.tree.map(lambda a, b, take=take: jnp.where(take, a, b), branch, best)
    return best


def _judged(problem: DesignProblem, theta: PyTree, x: Array, weight: Array, push: Array) -> Branch:
    value = problem.game.operator(theta, x)
    residual = natural_residual(_Leaning(problem, weight, push), theta, x)
    objective = problem.objective(theta, x)
    fine = residual <= 1e-7 * (1 + jnp.max(jnp.abs(x)) + jnp.max(jnp.abs(value)))
    if problem.selection != "play":
        # Players whose costs are not convex may have a better reply elsewhere.
        regret = largest_regret(problem.game, theta, x)
        fine = fine & ~(regret > NASH)
    return Branch(x, weight, push, objective, fine & jnp.isfinite(objective))


def _leaning_problem(problem: DesignProblem, weight: Array, push: Array) -> DesignProblem:
    game = _Leaning(problem, weight, push)
    return DesignProblem(game, problem.objective, problem.incentive_set)


@compiled
def followed(
    problem: DesignProblem, theta: PyTree, x: Array, weight: Array, push: Array
) -> tuple[Array, Array]:
    """Objective and gradient on the branch through `x`; NaN where it is lost."""
    leaning = _leaning_problem(problem, weight, push)
    moved, _, _ = find_equilibrium(leaning.game, theta, x, Newton(), 1e-10, max_steps=200)
    answer = evaluate_hypergradient(leaning, theta, moved, Implicit())
    judged = _judged(problem, theta, moved, weight, push)
    slope = ravel_pytree(answer.value)[0]
    value = jnp.where(judged.fine, judged.objective, jnp.nan)
    return value, jnp.where(judged.fine, slope, jnp.nan)


@compiled
def examined(
    problem: DesignProblem,
    theta: PyTree,
    x: Array,
    weight: Array,
    push: Array,
    *,
    key: PRNGKeyArray,
) -> Ending:
    """What [`examine`][] says of a branch."""
    return examine(_leaning_problem(problem, weight, push), theta, x, key, None)
