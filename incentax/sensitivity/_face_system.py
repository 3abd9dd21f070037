"""The linear system on a face of the strategy set, and how it is solved whatever the game."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, PyTree

from .._linear import solve
from ..games import AbstractGame
from ..sets import AbstractFace

# Corrections of a solution at most.
_CORRECTIONS = 30


class FaceSystem(eqx.Module):
    """`w -> P (S J S + R) P w + (1 - P) w` for `J = ∂F/∂x` or its transpose."""

    face: AbstractFace
    apply: Callable[[Array], Array]

    def __call__(self, w: Array) -> Array:
        on_face = self.face.project(w)
        return self.on_face(on_face) + w - on_face

    def on_face(self, w: Array) -> Array:
        """The system at a `w` on the face."""
        return self.complete(self.apply(self.face.scale * w), w)

    def complete(self, applied: Array, w: Array) -> Array:
        """The system at a `w` on the face whose `J S w` is known."""
        return self.face.project(self.face.scale * applied + self.face.relaxation * w)


class Carried(eqx.Module):
    """What moves of itself with `theta`: the force at `x`, and `x` with its constraints."""

    face: AbstractFace
    x: Array
    operator_value: Array

    def __call__(self, game: AbstractGame, theta: PyTree) -> tuple[Array, Array]:
        constraints = game.strategies(theta).constraints(self.x)
        at, force = self.face.carry(constraints, self.x, self.operator_value)
        return game.operator(theta, at) + force, at


def unscaled(face: AbstractFace, dx: Array) -> Array:
    """`w` with `dx = S w`."""
    return jnp.where(face.scale > 0, dx / jnp.where(face.scale > 0, face.scale, 1), 0)


def refined(system: Callable, right_side: Array, w: Array, correct: Callable, tol: float) -> Array:
    """`w + M (b - A w)`, again and again, as long as that lessens what is left of `A w = b`.

    `M b` is near a solution of `A w = b` where there is one: a system with several is solved too.
    """

    def going_on(carry):
        _, _, size, better, count = carry
        return (size > tol * reference) & better & (count < _CORRECTIONS)

    def step(carry):
        w, left, size, _, count = carry
        trial = w + correct(left)
        left_then = right_side - system(trial)
        size_then = _norm(left_then)
        better = size_then < 0.9 * size
        kept = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (trial, left_then, size_then),
            (w, left, size),
        )
        return *kept, better, count + 1

    reference = _norm(right_side)
    w = jnp.where(jnp.all(jnp.isfinite(w)), w, 0)
    left = right_side - system(w)
    start = (w, left, _norm(left), jnp.asarray(True), jnp.int32(0))
    return jax.lax.while_loop(going_on, step, start)[0]


def solve_explicitly(system: Callable, right_side: Array) -> Array:
    """By the matrix of the system; the least of several solutions, or what comes nearest to one."""
    return _by_matrix(system, jnp.eye(right_side.size, dtype=right_side.dtype), right_side)


def _by_matrix(system: Callable, eye: Array, right_side: Array) -> Array:
    columns = jax.vmap(system)(eye.reshape(-1, *right_side.shape))
    matrix = columns.reshape(eye.shape).T
    return solve(matrix, right_side.ravel()).reshape(right_side.shape)


def symmetry_of(game: AbstractGame, theta: PyTree, x: Array) -> tuple[Array, Array] | None:
    """Weights with which `∂F/∂x` is symmetric, and its diagonal, where a game knows that."""
    diagonal = game.potential_diagonal(theta, x)
    if diagonal is None:
        return None
    weights = jnp.ones_like(x) if game.weights is None else game.weights.astype(x.dtype)
    return weights, diagonal


def solve_by_gradients(
    system: "FaceSystem",
    right_side: Array,
    start: Array,
    symmetry: tuple[Array, Array],
    *,
    tol: float,
    max_iterations: int,
    adjoint: bool,
) -> Array:
    """By preconditioned conjugate gradients, where `weights ∂F/∂x` is symmetric and positive
    semidefinite; one of several solutions where there are several.

    `symmetry`: the weights, equal within what the face projects, and the diagonal of `∂F/∂x`.
    """
    weights, diagonal = symmetry
    face = system.face
    # The largest is that of a share near zero, as it is where choices are dispersed: no measure.
    share = jnp.square(face.scale)
    mean = jnp.sum(jnp.where(share > 0, share * diagonal, 0)) / jnp.maximum(jnp.sum(share), 1e-30)
    diagonal = share * jnp.maximum(diagonal, jnp.where(mean > 0, 1e-8 * mean, 1))
    whole = weights * (diagonal + face.relaxation)
    respond = face.response(jnp.where(face.scale > 0, whole, 1))
    # Forward `(weights A) w = weights b`; adjoint `(A weights) y = b` with `w = weights y`.
    before, after = (1.0, weights) if adjoint else (weights, 1.0)
    start = face.project(start / after)
    solution, _ = cg(
        lambda w: before * system.on_face(after * w),
        before * face.project(right_side),
        start,
        tol=tol,
        maxiter=max_iterations,
        M=lambda left: unscaled(face, respond(unscaled(face, left))),
    )
    # Of a right side that is rounding alone the squares vanish, by which it divides.
    return after * jnp.where(jnp.all(jnp.isfinite(solution)), solution, start)


def unless_solved(system: Callable, right_side: Array, w: Array, least: Array | float) -> Array:
    """`w`, or where it leaves more than `least` of the system what its matrix gives."""

    def unsolved(w: Array) -> Array:
        return ~(_norm(system(w) - right_side) <= least)

    def solved(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        # What depends on nothing in the loop would be computed before it, needed or not.
        eye = jnp.eye(right_side.size, dtype=right_side.dtype)
        eye, _ = jax.lax.optimization_barrier((eye, carry[0]))
        return _by_matrix(system, eye, right_side), jnp.asarray(False)

    # A loop of at most one round: under `vmap` it is run only when some lane needs it.
    return jax.lax.while_loop(lambda carry: carry[1], solved, (w, unsolved(w)))[0]


def solve_by_neumann(system: Callable, right_side: Array, terms: int) -> Array:
    """`beta sum_j (1 - beta A)^j b` over `terms` terms, `beta` below the inverse of `||A||`."""

    def grow(v, _):
        v = system(v)
        size = _norm(v)
        return v / jnp.where(size > 0, size, 1), size

    # Power iteration from a start that favours no direction.
    start = jnp.cos(jnp.arange(right_side.size, dtype=right_side.dtype)).reshape(right_side.shape)
    _, sizes = jax.lax.scan(grow, start / _norm(start), length=20)
    beta = 0.9 / jnp.max(sizes[5:])

    def add(w, _):
        return w + beta * (right_side - system(w)), None

    return jax.lax.scan(add, jnp.zeros_like(right_side), length=terms)[0]


def relative_residual(residual: Array, right_side: Array, whole: Array) -> Float[Array, ""]:
    """`||A w - b|| / ||b||`, where `b` is what the face keeps of `whole`.

    Rounding alone may be left of a cotangent that the face keeps nothing of: then relative to
    `sqrt(eps)` of the whole.
    """
    eps = float(jnp.finfo(whole.dtype).eps)
    reference = jnp.maximum(_norm(right_side), eps**0.5 * _norm(whole))
    size = _norm(residual)
    return jnp.where(reference > 0, size / jnp.where(reference > 0, reference, 1), size)


def _norm(v: Array) -> Float[Array, ""]:
    return jnp.linalg.norm(v.ravel())
