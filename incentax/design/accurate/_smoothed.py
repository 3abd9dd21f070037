"""The design objective on the central path, where it is smooth."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ...equilibrium import jacobian_of, Newton
from ...sets import (
    Bounds,
    interior_start,
    InteriorPoint,
    KKTRows,
    Reals,
    reduced,
    solve_central,
)
from .._problem import DesignProblem
from ._reduced import Surface


class Smoothed(eqx.Module):
    """`f(theta, x_mu(theta))` with its gradient, and the central point `x_mu` itself.

    `x_mu` solves the KKT system of the lower level with every complementary product equal to
    `mu`; Facchinei and Pang (2003), chapter 11; Facchinei, Jiang, Qi, *Mathematical Programming*
    85 (1999), for the use in design. As `mu -> 0` it tends to the equilibrium.
    """

    objective: Float[Array, ""]
    gradient: PyTree
    point: InteriorPoint


def start_point(problem: DesignProblem, theta: PyTree, x: Array) -> InteriorPoint:
    """Where the first central point is sought from."""
    game = problem.game
    constraints = game.strategies(theta).constraints(x)
    return interior_start(_operator(game, theta, x.shape), constraints, x.ravel())


def evaluate_smoothed(
    problem: DesignProblem, theta: PyTree, start: InteriorPoint, shape: tuple[int, ...], mu: Array
) -> Smoothed:
    """At `theta`, from a central point of another `theta`; infinite where none is found."""
    game = problem.game
    x = start.point.x.reshape(shape)
    constraints = game.strategies(theta).constraints(x)
    operator = _operator(game, theta, shape)

    def linearise(flat: Array):
        return operator(flat), jacobian_of(game, theta, flat.reshape(shape))

    found, reached = solve_central(linearise, operator, constraints, start, mu)
    point = found.point
    x = point.x.reshape(shape)
    objective, (direct, through) = jax.value_and_grad(problem.objective, (0, 1))(theta, x)
    barrier = _curvature(constraints.lower, constraints.upper, found)
    more = jnp.ones_like(found.slack)
    thick = constraints.upper > constraints.lower
    rows = KKTRows(thick.astype(x.dtype), barrier, more, found.slack / point.inequality)
    solve = jacobian_of(game, theta, x).transpose().factor(rows, constraints)
    right_side = jnp.where(thick, -through.ravel(), 0)
    adjoint = solve(right_side, jnp.zeros_like(point.equality), jnp.zeros_like(point.inequality))

    def conditions(theta):
        """The equations of the central point, their unknowns held."""
        now = game.strategies(theta).constraints(x)
        value = game.operator(theta, x).ravel()
        pull = value + now.equality.transpose(point.equality) + point.inequality @ now.inequality
        if game.moves:
            low, high = jnp.isfinite(now.lower) & thick, jnp.isfinite(now.upper) & thick
            pull = pull - jnp.where(low, mu / jnp.where(low, point.x - now.lower, 1), 0)
            pull = pull + jnp.where(high, mu / jnp.where(high, now.upper - point.x, 1), 0)
            pull = jnp.where(thick, pull, point.x - now.lower)
        return (
            pull,
            now.equality(point.x) - now.equality_level,
            now.inequality @ point.x - now.inequality_level,
        )

    if game.moves:
        # Where bounds meet, x follows them, and what it exerts on the others follows it.
        dx, dy, dz = adjoint
        _, felt = jax.vjp(operator, point.x)
        exerted = felt(dx)[0] + constraints.equality.transpose(dy) + dz @ constraints.inequality
        adjoint = jnp.where(thick, dx, -through.ravel() - exerted), dy, dz
    _, pull_back = jax.vjp(conditions, theta)
    (indirect,) = pull_back(adjoint)
    objective = jnp.where(reached, objective, jnp.inf)
    return Smoothed(objective, jax.tree.map(jnp.add, direct, indirect), found)


def smoothed_curvature(
    problem: DesignProblem,
    like: PyTree,
    theta: Float[Array, " p"],
    at: InteriorPoint,
    shape: tuple[int, ...],
    *,
    mu: Array,
) -> Float[Array, "p p"]:
    """Second derivative of the smoothed objective in a flat `theta`, at its central point."""
    both, split = ravel_pytree((theta, at.point))
    _, unravel = ravel_pytree(like)
    game = problem.game

    def zero(both: Array) -> Array:
        flat, point = split(both)
        x = point.x.reshape(shape)
        constraints = game.strategies(unravel(flat)).constraints(x)
        box = Bounds(constraints)
        force = reduced(constraints, point, game.operator(unravel(flat), x).ravel())
        low, high = box.has_low & ~box.fixed, box.has_high & ~box.fixed
        force = force - jnp.where(low, mu / jnp.where(low, point.x - box.low, 1), 0)
        force = force + jnp.where(high, mu / jnp.where(high, box.high - point.x, 1), 0)
        room = constraints.inequality_level - constraints.inequality @ point.x
        z = point.inequality
        # Divided so that both factors of a product count alike.
        product = (z * room - mu) / jax.lax.stop_gradient(z + at.slack)
        missed = constraints.equality(point.x) - constraints.equality_level
        return jnp.concatenate([jnp.where(box.fixed, point.x - box.low, force), missed, product])

    def value(both: Array) -> Array:
        flat, point = split(both)
        return problem.objective(unravel(flat), point.x.reshape(shape))

    return Surface(zero, both, theta.size).curvature(value)


def _operator(game, theta: PyTree, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    return lambda flat: game.operator(theta, flat.reshape(shape)).ravel()


def _curvature(lower: Array, upper: Array, at: InteriorPoint) -> Array:
    """What the bounds add to the Jacobian; where they meet, nothing moves."""
    above, below = at.point.x - lower, upper - at.point.x
    thick = upper > lower
    low, high = jnp.isfinite(lower) & thick, jnp.isfinite(upper) & thick
    barrier = jnp.where(low, at.above / jnp.where(low, above, 1), 0)
    barrier = barrier + jnp.where(high, at.below / jnp.where(high, below, 1), 0)
    return jnp.where(thick, barrier, 1)


Smoothing = Literal["central", "entropy"]


def smoothing_of(
    problem: DesignProblem, theta: PyTree, x: Array, entropic: bool | None
) -> Smoothing | None:
    """By the central path, or by dispersed choices where the game has those at hand; `None` where
    no active set can change, or neither can be had."""
    if isinstance(problem.game.strategies(theta), Reals) or entropic is True:
        return None
    if entropic is False and problem.game.dispersed(jnp.ones(())) is not None:
        return "entropy"
    return "central" if Newton().fits(problem.game, theta, x) else None
