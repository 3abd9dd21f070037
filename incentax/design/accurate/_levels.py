"""What a search minimises: the designer's objective, exact and along a homotopy."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from ..._results import RESULTS
from ..._tree import tree_where
from ...equilibrium import find_equilibrium
from ...sensitivity import Implicit
from ...sets import InteriorPoint, LinearConstraints, Reals
from .._problem import DesignProblem, evaluate_hypergradient
from ._reduced import made_convex
from ._responses import curvature_by_responses
from ._smoothed import evaluate_smoothed, smoothed_curvature, Smoothing

# Of the equilibria whose objectives are compared.
_TOL = 1e-10
# Steps after which the responses to all incentives are worth their while again, at least, and for
# how many incentives there has been one.
_EVERY, _MANY = 10, 30
# Curvatures by responses are known to a hundredth: parts of the largest below this are not.
_BLUNT = 1e-4
# How far the model is trusted, in parts of the width of the incentives' set.
_TRUSTED = 0.1
# Up to this many incentives a step by a matrix costs nothing.
_FEW = 64


class Evaluation(eqx.Module):
    """The objective of a level at one incentive, its gradient, and the points that belong to it.

    `objective` is infinite where no equilibrium, or no central point, was found.
    """

    objective: Array
    gradient: Array
    x: Array
    central: InteriorPoint | None
    degenerate: Array


class ExactObjective(eqx.Module):
    """The objective and its gradient at the exact equilibrium; infinite where none is found."""

    problem: DesignProblem
    like: PyTree
    entropic: bool | None = eqx.field(static=True)

    def __call__(self, theta: Array, x: Array, central: InteriorPoint | None) -> Evaluation:
        incentive = ravel_pytree(self.like)[1](theta)
        found_x, _, result = find_equilibrium(
            self.problem.game, incentive, x, None, _TOL, max_steps=20_000, entropic=self.entropic
        )
        found = evaluate_hypergradient(self.problem, incentive, found_x, Implicit())
        gradient = ravel_pytree(found.value)[0].astype(theta.dtype)
        solved = (result == RESULTS.successful) & jnp.isfinite(found.objective)
        return Evaluation(
            objective=jnp.where(solved, found.objective, jnp.inf),
            gradient=gradient,
            x=jnp.where(solved, found_x, x),
            central=central,
            degenerate=found.degenerate,
        )


@dataclass(frozen=True)
class Levels:
    """What is minimised: the objective along a homotopy whose first and last levels are exact.

    `mu`: complementarity products of the levels (dispersions, where `smoothing` is by entropy), in
    units of a run's scale; `first`: the level at which descent begins, after a look at the exact
    objective; `tight`: the first one that is not left early; `longest`: steps on the last one;
    `curved`, `responsive`: how second derivatives are to be had, if at all.
    """

    problem: DesignProblem
    like: PyTree
    shape: tuple[int, ...]
    incentives: LinearConstraints
    mu: Float[Array, " levels"]
    first: Int[Array, ""]
    tight: int
    longest: int
    smoothing: Smoothing | None
    curved: bool
    responsive: bool
    entropic: bool | None

    @property
    def last(self) -> int:
        """The level on which a run ends."""
        return len(self.mu) - 1

    @property
    def is_free(self) -> bool:
        """Whether nothing bounds the incentive."""
        return isinstance(self.problem.incentive_set, Reals)

    def is_forgetful(self, incentives: int) -> bool:
        """Whether the model is one of the last steps, for a matrix is dear and nothing needs it."""
        plain = self.smoothing is None and not self.responsive
        return plain and self.is_free and incentives > _FEW

    def unravel(self, theta: Array) -> PyTree:
        """The incentive as the user's functions take it."""
        return ravel_pytree(self.like)[1](theta)

    def near(self, theta: Array) -> LinearConstraints:
        """The incentives to which a step may lead: where curvatures are those of one point, and of
        both signs, a longer one leads to another optimum. Not where an incentive has no range."""
        bounds = self.incentives
        if not self.responsive:
            return bounds
        most = _TRUSTED * (bounds.upper - bounds.lower)
        both = jnp.maximum(bounds.lower, theta - most), jnp.minimum(bounds.upper, theta + most)
        return eqx.tree_at(lambda bounds: (bounds.lower, bounds.upper), bounds, both)

    def is_exact(self, level: Array) -> Array:
        """Whether a level is without smoothing."""
        return (level == 0) | (level == self.last)

    def evaluate(self, theta: Array, near: Evaluation, level: Array, scale: Array) -> Evaluation:
        """The objective of a level, from the points of another incentive."""
        if self.smoothing is None:
            return self.exact(theta, near)
        smoothed = self.dispersed if self.smoothing == "entropy" else self.smoothed
        return jax.lax.cond(
            self.is_exact(level),
            lambda: self.exact(theta, near),
            lambda: smoothed(theta, near, scale * self.mu[level]),
        )

    def exact(self, theta: Array, near: Evaluation) -> Evaluation:
        """At the equilibrium."""
        exact = ExactObjective(self.problem, self.like, self.entropic)
        return exact(theta, near.x, near.central)

    def dispersed(self, theta: Array, near: Evaluation, mu: Array) -> Evaluation:
        """At the equilibrium of the game with dispersed choices."""
        game = self.problem.game.dispersed(mu)
        problem = eqx.tree_at(lambda problem: problem.game, self.problem, game)
        return ExactObjective(problem, self.like, True)(theta, near.x, near.central)

    def smoothed(self, theta: Array, near: Evaluation, mu: Array) -> Evaluation:
        """On the central path."""
        assert near.central is not None
        found = evaluate_smoothed(self.problem, self.unravel(theta), near.central, self.shape, mu)
        gradient = ravel_pytree(found.gradient)[0].astype(theta.dtype)
        solved = jnp.isfinite(found.objective) & jnp.all(jnp.isfinite(gradient))
        return Evaluation(
            objective=jnp.where(solved, found.objective, jnp.inf),
            gradient=gradient,
            x=near.x,
            central=tree_where(solved, found.point, near.central),
            degenerate=jnp.int32(0),
        )

    def model(self, now: Any) -> Any:
        """The curvature of the objective where that is affordable, else from steps."""
        if self.smoothing == "central" and self.curved:
            wanted, compute, least = ~self.is_exact(now.level), self._central_curvature, 1e-8
        elif self.responsive:
            wanted = now.level_steps % max(_EVERY, now.theta.size // _MANY) == 0
            compute, least = self._curvature_by_responses, _BLUNT
        else:
            return now.hessian

        def computed() -> Array:
            convex = made_convex(compute(now), now.gradient, now.theta, least)
            return jnp.where(jnp.all(jnp.isfinite(convex)), convex, now.hessian)

        return jax.lax.cond(wanted & ~now.fresh, computed, lambda: now.hessian)

    def _central_curvature(self, now: Any) -> Array:
        central, mu = now.central, now.scale * self.mu[now.level]
        assert central is not None
        return smoothed_curvature(self.problem, self.like, now.theta, central, self.shape, mu=mu)

    def _curvature_by_responses(self, now: Any) -> Array:
        return curvature_by_responses(self.problem, self.like, now.theta, now.x)


def scale_of_products(problem: DesignProblem, theta: PyTree, x: Array) -> Array:
    """Size of a product of complementary quantities, in any unit of costs."""
    length = jnp.maximum(jnp.mean(jnp.abs(x)), 1e-2)
    along = jnp.full_like(x, length)
    value, moved = jax.jvp(lambda x: problem.game.operator(theta, x), (x,), (along,))
    sizes = [jnp.mean(jnp.abs(jnp.where(jnp.isfinite(v), v, 1))) for v in (value, moved)]
    costs = jnp.maximum(sizes[0], 1e-2 * sizes[1])
    return length * jnp.where(costs > 0, costs, 1)


def mean_cost(problem: DesignProblem, theta: PyTree, x: Array) -> Array:
    """Of a choice, each by its share."""
    value = jnp.where(x > 0, problem.game.operator(theta, x), 0)
    return jnp.sum(jnp.abs(x * value)) / jnp.sum(jnp.abs(x))
