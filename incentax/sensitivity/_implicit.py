"""How the equilibrium answers: the adjoint of the implicit function theorem on a face.

On the face of the strategy set where `x*(theta)` moves, written `dx = S w` with `w` on the face,

    P (S ∂F/∂x S + R) P w = - P S ∂F/∂theta dtheta .

So for the cotangent `g` of `x*` the cotangent of `theta` is `(∂F/∂theta)^T S w` with `w` from the
transposed system `P (S (∂F/∂x)^T S + R) P w = - P S g`. On all of R^d that is
`- (∂F/∂theta)^T (∂F/∂x)^-T g`, (4.3) of Liu et al. (2022) with the inverse transposed; at an
equilibrium it equals `(∂h/∂theta)^T (I - ∂h/∂x)^-T g`, their (4.5), for the step `h` of any size.
"""

from collections.abc import Callable
from functools import partial
from typing import get_args, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import bicgstab, gmres
from jaxtyping import Array, Bool, Float, PyTree

from .._checks import require_count, require_positive
from .._linear import solve
from ..games import AbstractGame, AggregativeForm
from ..sets import AbstractFace
from ._aggregate import AggregateSystem
from ._base import AbstractSensitivity, Memory, Pullback

Solver = Literal["auto", "dense", "krylov", "aggregate", "neumann"]

# Up to this many unknowns an explicit matrix is worth its while.
_DENSE = 200
# Relative residual beyond which a linear system has no solution.
_NO_SOLUTION = 1e-2


class Implicit(AbstractSensitivity):
    """Implicit differentiation of the equilibrium.

    **Arguments:**

    - `solver`: how the adjoint system is solved.
        - `"dense"`: explicit `d x d` matrix.
        - `"krylov"`: GMRES of `jax.scipy.sparse.linalg`, on vector-Jacobian products.
        - `"aggregate"`: in the space of the aggregate of an aggregative game: up to 200
          dimensions by its inverse (in a loop an earlier inverse, corrected by BiCGStab), beyond
          by GMRES. Right too where only the aggregate of an equilibrium is unique; if the
          objective asks for more, the residual shows it.
        - `"neumann"`: `max_iterations` terms of the Neumann series; see [`Neumann`][].
        - `"auto"`: aggregate if the game has one, else dense up to 200 unknowns, else Krylov.
    - `tol`: relative tolerance of an iterative solve; when left out 1e-10, in float32 1e-5.
    - `max_iterations`: bound on its iterations.

    **Raises** `ValueError` for an unknown solver, or for "aggregate" and a game without one.

    A solver's own word for its success is not used: the residual is computed anew. Derivatives
    through `.x` of [`solve_equilibrium`][] are NaN where it is above 1e-2: the system has no
    solution (then there is no derivative), or an iterative solver was stopped before it had one.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum(x**2), ix.Reals())
        >>> theta = jnp.array([1.0, 2.0])
        >>> krylov = ix.Implicit("krylov")
        >>> print(ix.hypergradient(problem, theta, theta, sensitivity=krylov).value.round(4))
        [2. 4.]
    """

    solver: Solver = eqx.field(static=True, default="auto")
    tol: float | None = eqx.field(static=True, default=None)
    max_iterations: int = eqx.field(static=True, default=300)

    def __check_init__(self):
        if self.solver not in get_args(Solver):
            raise ValueError(
                f"`Implicit(solver)` needs one of {', '.join(map(repr, get_args(Solver)))}, "
                f"got {self.solver!r}"
            )
        if self.tol is not None:
            require_positive("Implicit", "tol", self.tol)
        require_count("Implicit", "max_iterations", self.max_iterations)

    def memory(self, game: AbstractGame, theta: PyTree, x: Array) -> Memory:
        form = self._form(game)
        if form is None:
            return Memory(jnp.zeros(x.size, x.dtype), None)
        size = jax.eval_shape(form.aggregate, theta, x).size
        inverse = jnp.eye(size, dtype=x.dtype) if size <= _DENSE else None
        return Memory(jnp.zeros(size, x.dtype), inverse)

    def pullback(
        self,
        game: AbstractGame,
        theta: PyTree,
        x: Array,
        cotangent: Array,
        *,
        step_size: Array | float = 1.0,
        memory: Memory | None = None,
        refresh: Bool[Array, ""] | bool = True,
        operator_value: Array | None = None,
    ) -> Pullback:
        form = self._form(game)
        memory = self.memory(game, theta, x) if memory is None else memory
        computed_value, pull = jax.vjp(game.operator, theta, x)
        operator_value = computed_value if operator_value is None else operator_value
        face = game.strategies(theta).face(x, operator_value, step_size)
        system = _FaceSystem(face, lambda v: pull(v)[1])
        right_side = -face.project(face.scale * cotangent)
        if form is not None:
            cost_scale = jnp.max(jnp.abs(operator_value))
            reduced = AggregateSystem(form, theta, x, face, cost_scale, adjoint=True)
            memory = self._solve_reduced(reduced, cotangent, memory, refresh)
            dx = reduced.motion(memory.solution, cotangent)
            w = _unscaled(face, dx)
        else:
            start = memory.solution.reshape(x.shape)
            w = face.project(self._solve(system, right_side, start))
            memory, dx = Memory(w.ravel(), None), face.scale * w
        theta_cotangent, pulled = pull(dx)
        if game.moves:
            carried = _Carried(face, x, operator_value)
            _, pull_carried = jax.vjp(lambda theta: carried(game, theta), theta)
            (theta_cotangent,) = pull_carried((dx, cotangent))
        # Rounding alone may be left of a cotangent that the face takes nothing of.
        eps = jnp.finfo(x.dtype).eps
        least = jnp.sqrt(eps) * jnp.linalg.norm((face.scale * cotangent).ravel())
        residual = _relative(system.complete(pulled, w) - right_side, right_side, least)
        return Pullback(theta_cotangent, residual, face.degenerate, memory)

    def attach(self, game: AbstractGame, theta: PyTree, x: Array) -> Array:
        """An equilibrium `x`, as a function of `theta` and the game that JAX can differentiate.

        With `dx = S w + dx_0`, where `dx_0` follows the constraints that move, `w` solves the
        system above with the force of both on its right side.
        """
        arrays, rest = eqx.partition((game, theta), eqx.is_inexact_array)
        integers, static = eqx.partition(rest, eqx.is_array)

        @jax.custom_jvp
        def attached(arrays, integers, x):
            del arrays, integers
            return x

        @attached.defjvp
        def attached_jvp(primals, tangents):
            arrays, integers, found = primals
            # Not `found`: what is computed from the answer has derivatives in its turn.
            x = attached(arrays, integers, found)
            rest = eqx.combine(integers, static)
            return x, self._motion(arrays, tangents[0], rest, x)

        return attached(arrays, integers, jax.lax.stop_gradient(x))

    def _motion(self, arrays: PyTree, tangent: PyTree, rest: PyTree, x: Array) -> Array:
        game, theta = eqx.combine(arrays, rest)
        value, push = jax.linearize(lambda x: game.operator(theta, x), x)
        # Which face it is does not move; its rows do, where they depend on theta.
        face = game.strategies(theta).face(*jax.lax.stop_gradient((x, value)), 1.0)
        carried = _Carried(face, x, value)
        _, (force, brought) = jax.jvp(
            lambda arrays: carried(*eqx.combine(arrays, rest)), (arrays,), (tangent,)
        )
        form = self._form(game)

        def solve(apply, right_side: Array, *, adjoint: bool) -> Array:
            w = solve_unchecked(apply, right_side, adjoint=adjoint)
            if self.solver == "neumann":
                return w  # cut off on purpose
            # A system without a solution says that there is no derivative: never zero for that.
            left, size = (jnp.linalg.norm(v.ravel()) for v in (apply(w) - right_side, right_side))
            # Of a cotangent that the face takes nothing of, rounding arrives.
            rounding = jnp.sqrt(jnp.finfo(x.dtype).eps)
            return jnp.where(left <= jnp.maximum(_NO_SOLUTION * size, rounding), w, jnp.nan)

        def solve_unchecked(apply, right_side: Array, *, adjoint: bool) -> Array:
            if form is None:
                return self._solve(apply, right_side, jnp.zeros_like(right_side))
            cost_scale = jnp.max(jnp.abs(value))
            reduced = AggregateSystem(form, theta, x, face, cost_scale, adjoint=adjoint)
            pulled = -_unscaled(face, right_side)
            size = jax.eval_shape(form.aggregate, theta, x).size
            start = jnp.zeros(size, x.dtype)
            left = reduced.mismatch(start, pulled)
            if size <= _DENSE:
                u = reduced.inverse(size, x.dtype) @ left
            else:
                u = self._gmres(reduced, left, start)
            return _unscaled(face, reduced.motion(u, pulled))

        w = jax.lax.custom_linear_solve(
            _FaceSystem(face, push),
            -face.project(face.scale * force),
            solve=partial(solve, adjoint=False),
            transpose_solve=partial(solve, adjoint=True),
        )
        # A lane without a strategy has no derivative in anything.
        unknown = jnp.where(jnp.all(jnp.isfinite(x)), 0, jnp.nan).astype(x.dtype)
        moved = sum(jnp.sum(leaf).astype(x.dtype) for leaf in jax.tree.leaves(tangent))
        return brought + face.scale * face.project(w) + unknown * moved

    def _solve(self, system: Callable, right_side: Array, start: Array) -> Array:
        """`w` of the system on the face, whatever the game."""
        if self.solver == "neumann":
            return _neumann(system, right_side, self.max_iterations)
        if self._explicit(right_side.size):
            eye = jnp.eye(right_side.size, dtype=right_side.dtype)
            columns = jax.vmap(system)(eye.reshape(-1, *right_side.shape))
            matrix = columns.reshape(eye.shape).T
            return solve(matrix, right_side.ravel()).reshape(right_side.shape)
        return self._gmres(system, right_side, start)

    def _form(self, game: AbstractGame) -> AggregativeForm | None:
        form = game.aggregative_form
        if self.solver == "aggregate" and form is None:
            raise ValueError(
                "`Implicit(solver='aggregate')` needs an aggregative game, got "
                f"{type(game).__name__}"
            )
        return form if self.solver in ("auto", "aggregate") else None

    def _explicit(self, unknowns: int) -> bool:
        return self.solver == "dense" or (self.solver == "auto" and unknowns <= _DENSE)

    def _tol(self, dtype: jnp.dtype) -> float:
        return self.tol or (1e-10 if dtype == jnp.float64 else 1e-5)

    def _gmres(
        self, system: Callable, right_side: Array, start: Array, scale: Array | float = 0.0
    ) -> Array:
        # Restarts forget: as many directions as the bound allows are kept, up to 100.
        restart = min(right_side.size, self.max_iterations, 100)
        tol = self._tol(right_side.dtype)
        solution, _ = gmres(
            system,
            right_side,
            start,
            tol=tol,
            atol=tol * scale,  # pyright: ignore[reportArgumentType]
            restart=restart,
            maxiter=-(-self.max_iterations // restart),
            solve_method="incremental",
        )
        return solution

    def _solve_reduced(
        self,
        system: AggregateSystem,
        cotangent: Array,
        memory: Memory,
        refresh: Bool[Array, ""] | bool,
    ) -> Memory:
        """A correction of the remembered solution, preconditioned by the remembered inverse.

        Between steps of a loop the matrix moves so little that the first correction is often the
        last.
        """
        start = memory.solution
        left, size = system.mismatch(start, cotangent), jnp.linalg.norm(start)
        if memory.inverse is None:
            return Memory(start + self._gmres(system, left, jnp.zeros_like(start), size), None)
        inverse = jax.lax.cond(
            refresh, lambda: system.inverse(start.size, start.dtype), lambda: memory.inverse
        )
        tol = self._tol(start.dtype)
        correction, _ = bicgstab(
            system,
            left,
            inverse @ left,
            tol=tol,
            # The right side is at least as large as an accurate start, whose size is at hand.
            atol=tol * size,
            maxiter=self.max_iterations,
            M=lambda v: inverse @ v,
        )
        return Memory(start + correction, inverse)


class _FaceSystem(eqx.Module):
    """`w -> P (S J S + R) P w + (1 - P) w` for `J = ∂F/∂x` or its transpose."""

    face: AbstractFace
    apply: Callable[[Array], Array]

    def __call__(self, w: Array) -> Array:
        on_face = self.face.project(w)
        return self.complete(self.apply(self.face.scale * on_face), on_face) + w - on_face

    def complete(self, applied: Array, w: Array) -> Array:
        """The system at a `w` on the face whose `J S w` is known."""
        return self.face.project(self.face.scale * applied + self.face.relaxation * w)


class _Carried(eqx.Module):
    """What moves of itself with `theta`: the force at `x`, and `x` with its constraints."""

    face: AbstractFace
    x: Array
    operator_value: Array

    def __call__(self, game: AbstractGame, theta: PyTree) -> tuple[Array, Array]:
        constraints = game.strategies(theta).constraints(self.x)
        at, force = self.face.carry(constraints, self.x, self.operator_value)
        return game.operator(theta, at) + force, at


def _unscaled(face: AbstractFace, dx: Array) -> Array:
    return jnp.where(face.scale > 0, dx / jnp.where(face.scale > 0, face.scale, 1), 0)


def _neumann(system: Callable, right_side: Array, terms: int) -> Array:
    """`beta sum_j (1 - beta A)^j b` over `terms` terms, `beta` below the inverse of `||A||`."""

    def grow(v, _):
        v = system(v)
        size = jnp.linalg.norm(v)
        return v / jnp.where(size > 0, size, 1), size

    # Power iteration from a start that favours no direction.
    start = jnp.cos(jnp.arange(right_side.size, dtype=right_side.dtype)).reshape(right_side.shape)
    _, sizes = jax.lax.scan(grow, start / jnp.linalg.norm(start), length=20)
    beta = 0.9 / jnp.max(sizes[5:])

    def add(w, _):
        return w + beta * (right_side - system(w)), None

    return jax.lax.scan(add, jnp.zeros_like(right_side), length=terms)[0]


def Neumann(terms: int) -> Implicit:
    """Implicit differentiation by `terms` terms of the Neumann series of the adjoint system.

    `A^-1 ≈ beta sum_{j < terms} (1 - beta A)^j`: what unrolling as many steps of play would give,
    without storing them. `beta` is `0.9 / ||A||` by power iteration; the residual tells what the
    truncation leaves.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum(x**2), ix.Reals())
        >>> theta = jnp.array([1.0, 2.0])
        >>> found = ix.hypergradient(problem, theta, theta, sensitivity=ix.Neumann(3))
        >>> print(found.value.round(3), found.residual.round(3))
        [1.998 3.996] 0.001
    """
    return Implicit("neumann", max_iterations=require_count("Neumann", "terms", terms))


def _relative(residual: Array, right_side: Array, least: Array) -> Float[Array, ""]:
    size, reference = jnp.linalg.norm(residual.ravel()), jnp.linalg.norm(right_side.ravel())
    reference = jnp.maximum(reference, least)
    return jnp.where(reference > 0, size / jnp.where(reference > 0, reference, 1), size)
