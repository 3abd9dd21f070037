"""The curvature of the objective by the response of the equilibrium to every incentive."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ...sensitivity import FaceSystem, solve_by_gradients, symmetry_of
from .._problem import DesignProblem

# Responses that are kept, at most: 200 MB.
_KEPT = 5e7
# Relative residual of the linear systems: a model needs no more.
_TOL, _ITERATIONS = 1e-2, 300


def has_responses(problem: DesignProblem, theta: PyTree, x: Array) -> bool:
    """Whether a game is of the kind, and not too large: see [`curvature_by_responses`][]."""
    game, incentives = problem.game, ravel_pytree(theta)[0].size
    if game.moves or game.lanes is not None or incentives * x.size > _KEPT:
        return False
    return jax.eval_shape(partial(symmetry_of, game), theta, x) is not None


def curvature_by_responses(
    problem: DesignProblem, like: PyTree, theta: Float[Array, " p"], x: Array
) -> Float[Array, "p p"]:
    """Second derivative of `f(theta, x*(theta))` on the face where `x` moves, row by row.

    With the responses `X = ∂x*/∂theta` and the adjoint `lambda` it is `[I; X]' ∂²(f + lambda' F)
    [I; X]`: Nocedal and Wright, *Numerical Optimization* (2006), section 18.3. For games whose
    `weights ∂F/∂x` is symmetric, of any size: a linear system and a product for each incentive.
    """
    unravel, game = ravel_pytree(like)[1], problem.game

    def operator(theta: Array, x: Array) -> Array:
        return game.operator(unravel(theta), x)

    def objective(theta: Array, x: Array) -> Array:
        return problem.objective(unravel(theta), x)

    value, push = jax.linearize(lambda x: operator(theta, x), x)
    pull = jax.linear_transpose(push, x)
    face = game.strategies(unravel(theta)).face(x, value, 1.0)
    symmetry = symmetry_of(game, unravel(theta), x)
    assert symmetry is not None

    def solve(apply, right_side: Array, *, adjoint: bool) -> Array:
        w = solve_by_gradients(
            FaceSystem(face, apply),
            face.project(-face.scale * right_side),
            jnp.zeros_like(x),
            symmetry,
            tol=_TOL,
            max_iterations=_ITERATIONS,
            adjoint=adjoint,
        )
        return face.scale * w

    through = jax.grad(objective, 1)(theta, x)
    multiplier = solve(lambda v: pull(v)[0], through, adjoint=True)
    driven = jax.linearize(lambda theta: operator(theta, x), theta)[1]
    unit = jnp.eye(theta.size, dtype=theta.dtype)

    def respond(way: Array) -> Array:
        # In single precision: there is no larger array, and they are known to a hundredth.
        return solve(push, driven(way), adjoint=False).astype(jnp.float32)

    responses = jax.lax.map(respond, unit)

    def lagrangian(theta: Array, x: Array) -> Array:
        return objective(theta, x) + jnp.vdot(multiplier, operator(theta, x))

    def bend(ways: tuple[Array, Array]) -> Array:
        way, response = ways
        along = way, response.astype(x.dtype)
        _, (own, through) = jax.jvp(jax.grad(lagrangian, (0, 1)), (theta, x), along)
        return own + (responses @ through.astype(jnp.float32)).astype(own.dtype)

    return jax.lax.map(bend, (unit, responses))
