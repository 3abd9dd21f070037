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
from typing import Any, get_args, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import bicgstab, gmres
from jaxtyping import Array, Bool, PyTree

from .._checks import require_count, require_positive
from ..games import AbstractGame, AggregativeForm, hold_captured
from ._aggregate import AggregateSystem
from ._base import AbstractSensitivity, Memory, Pullback, pullback_in_lanes
from ._face_system import (
    Carried,
    FaceSystem,
    refined,
    relative_residual,
    solve_by_gradients,
    solve_by_neumann,
    solve_explicitly,
    symmetry_of,
    unless_solved,
    unscaled,
)

Solver = Literal["auto", "dense", "krylov", "aggregate", "neumann"]

# Up to this many unknowns an explicit matrix is worth its while, and up to this many it is made
# where another solver fails.
_DENSE, _EXPLICIT = 200, 2000


class Implicit(AbstractSensitivity):
    """Implicit differentiation of the equilibrium.

    **Arguments:**

    - `solver`: how the adjoint system is solved.
        - `"dense"`: explicit `d x d` matrix.
        - `"krylov"`: GMRES of `jax.scipy.sparse.linalg`, on vector-Jacobian products.
        - `"aggregate"`: in the space of the aggregate of an aggregative game: up to 200
          dimensions by its inverse (in a loop an earlier inverse, corrected by BiCGStab), refined
          until the system itself holds; beyond by GMRES. Right too where only the aggregate of an
          equilibrium is unique; if the objective asks for more, the residual shows it.
        - `"neumann"`: `max_iterations` terms of the Neumann series; see [`Neumann`][].
        - `"auto"`: aggregate if the game has one of at most half the size of `x`, else dense up
          to 200 unknowns, else Krylov; where what it gives does not solve the system, dense up to
          2,000. Beyond an aggregate of 200 conjugate gradients in place of it for routing games,
          whose system is symmetric.
    - `tol`: relative tolerance of an iterative solve; when left out 1e-10, in float32 1e-5, and in
          a scheme, whose next step corrects what this one leaves, 1.5e-8 and 3.5e-4.
    - `max_iterations`: bound on its iterations.

    **Raises** `ValueError` for an unknown solver, or for "aggregate" and a game without one.

    A solver's own word for its success is not used: the residual is computed anew. Derivatives
    through `.x` of [`solve_equilibrium`][] are NaN where it is above `sqrt(eps)`, 1.5e-8 in
    float64: the system has no solution (then there is no derivative), or an iterative solver was
    stopped before it had one.

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
        lanes = game.lanes
        if lanes is not None:
            return jax.vmap(lambda datum, x: self.memory(lanes.game_of(datum), theta, x))(
                lanes.data, lanes.split(x)
            )
        form = self._form(game, theta, x)
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
        memory: PyTree | None = None,
        refresh: Bool[Array, ""] | bool = True,
        operator_value: Array | None = None,
    ) -> Pullback:
        if game.lanes is not None:
            how = {"step_size": step_size, "memory": memory, "refresh": refresh}
            return pullback_in_lanes(self, game.lanes, theta, (x, cotangent, operator_value), how)
        form = self._form(game, theta, x)
        alone = memory is None
        known = self.memory(game, theta, x) if memory is None else memory
        assert isinstance(known, Memory)
        computed_value, pull = jax.vjp(game.operator, theta, x)
        operator_value = computed_value if operator_value is None else operator_value
        face = game.strategies(theta).face(x, operator_value, step_size)
        system = FaceSystem(face, lambda v: pull(v)[1])
        whole = -face.scale * cotangent
        right_side = face.project(whole)
        if form is not None:
            reduced = AggregateSystem(form, theta, x, face, adjoint=True)
            # In a loop the next step corrects what this one leaves.
            tol = self._tol(x.dtype) if alone else self.tol or no_solution(x.dtype)
            least = tol * jnp.linalg.norm(right_side.ravel())
            known = self._solve_reduced(reduced, cotangent, known, refresh, least)
            w = unscaled(face, reduced.motion(known.solution, cotangent))
            if known.inverse is not None:
                correct = partial(reduced.correct, known.inverse)
                w = refined(system, right_side, w, correct, tol)
        else:
            symmetry = symmetry_of(game, theta, x)
            start = known.solution.reshape(x.shape)
            w = self._solve(system, right_side, start, symmetry, adjoint=True)
            known = Memory(w.ravel(), None)
        if alone and not (form is None and self._explicit(x.size)):
            w = self._or_explicitly(system, right_side, w)
        w = face.project(w)
        dx = face.scale * w
        theta_cotangent, pulled = pull(dx)
        if game.moves:
            carried = Carried(face, x, operator_value)
            _, pull_carried = jax.vjp(lambda theta: carried(game, theta), theta)
            (theta_cotangent,) = pull_carried((dx, cotangent))
        residual = relative_residual(system.complete(pulled, w) - right_side, right_side, whole)
        return Pullback(theta_cotangent, residual, face.degenerate, known)

    def attach(self, game: AbstractGame, theta: PyTree, x: Array) -> Array:
        """An equilibrium `x`, as a function of `theta` and the game that JAX can differentiate.

        With `dx = S w + dx_0`, where `dx_0` follows the constraints that move, `w` solves the
        system above with the force of both on its right side.
        """
        lanes = game.lanes
        if lanes is not None:

            def alone(datum: PyTree, x: Array) -> Array:
                return self.attach(hold_captured(lanes.game_of(datum), theta, x), theta, x)

            return jax.vmap(alone)(lanes.data, lanes.split(x)).reshape(x.shape)
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
        carried = Carried(face, x, value)
        _, (force, brought) = jax.jvp(
            lambda arrays: carried(*eqx.combine(arrays, rest)), (arrays,), (tangent,)
        )
        form = self._form(game, theta, x)

        def solve(apply, right_side: Array, *, adjoint: bool) -> Array:
            w = solve_unchecked(apply, face.project(right_side), adjoint=adjoint)
            w = w + right_side - face.project(right_side)
            if self.solver == "neumann":
                return w  # cut off on purpose
            # A system without a solution says that there is no derivative: never zero for that.
            on_face = face.project(right_side)
            left = relative_residual(face.project(apply(w) - right_side), on_face, right_side)
            return jnp.where(left <= no_solution(x.dtype), w, jnp.nan)

        def solve_unchecked(apply, right_side: Array, *, adjoint: bool) -> Array:
            if form is None:
                symmetry = symmetry_of(game, theta, x)
                start = jnp.zeros_like(right_side)
                w = self._solve(apply, right_side, start, symmetry, adjoint=adjoint)
                if not self._explicit(x.size):
                    w = self._or_explicitly(apply, right_side, w)
                return face.project(w)
            reduced = AggregateSystem(form, theta, x, face, adjoint=adjoint)
            pulled = -unscaled(face, right_side)
            size = jax.eval_shape(form.aggregate, theta, x).size
            start = jnp.zeros(size, x.dtype)
            left = reduced.mismatch(start, pulled)
            inverse = reduced.inverse(size, x.dtype) if size <= _DENSE else None
            u = self._gmres(reduced, left, start) if inverse is None else inverse @ left
            w = unscaled(face, reduced.motion(u, pulled))
            if inverse is not None:
                correct = partial(reduced.correct, inverse)
                w = refined(apply, right_side, w, correct, self._tol(x.dtype))
            return face.project(self._or_explicitly(apply, right_side, w))

        # What the face does not keep of a right side shows how large rounding is in what it does:
        # it goes through the system unchanged, forward and in the adjoint, and is taken off again.
        whole = -face.scale * force
        w = jax.lax.custom_linear_solve(
            FaceSystem(face, push),
            whole,
            solve=partial(solve, adjoint=False),
            transpose_solve=partial(solve, adjoint=True),
        )
        w = w - (whole - face.project(whole))
        # A lane without a strategy has no derivative in anything.
        unknown = jnp.where(jnp.all(jnp.isfinite(x)), 0, jnp.nan).astype(x.dtype)
        moved = sum(jnp.sum(leaf).astype(x.dtype) for leaf in jax.tree.leaves(tangent))
        return brought + face.scale * w + unknown * moved

    def _solve(
        self,
        system: Any,
        right_side: Array,
        start: Array,
        symmetry: tuple[Array, Array] | None,
        *,
        adjoint: bool,
    ) -> Array:
        """`w` of the system on the face; see [`solve_by_gradients`][] for `symmetry`."""
        if self.solver == "neumann":
            return solve_by_neumann(system, right_side, self.max_iterations)
        if self._explicit(right_side.size):
            return solve_explicitly(system, right_side)
        if self.solver == "auto" and symmetry is not None:
            tol, most = self._tol(start.dtype), 10 * self.max_iterations
            return solve_by_gradients(
                system, right_side, start, symmetry, tol=tol, max_iterations=most, adjoint=adjoint
            )
        return self._gmres(system, right_side, start)

    def _or_explicitly(self, system: Callable, right_side: Array, w: Array) -> Array:
        """`w`, or the answer of the next solver where "auto" may choose one and this one failed."""
        if self.solver != "auto" or w.size > _EXPLICIT:
            return w
        least = no_solution(w.dtype) * jnp.linalg.norm(right_side.ravel())
        return unless_solved(system, right_side, w, least)

    def _form(self, game: AbstractGame, theta: PyTree, x: Array) -> AggregativeForm | None:
        form = game.aggregative_form
        if self.solver == "aggregate" and form is None:
            raise ValueError(
                "`Implicit(solver='aggregate')` needs an aggregative game, got "
                f"{type(game).__name__}"
            )
        if form is None or self.solver not in ("auto", "aggregate"):
            return None
        if self.solver == "aggregate":
            return form
        size = jax.eval_shape(form.aggregate, theta, x).size
        if size > _DENSE and game.potential_diagonal(theta, x) is not None:
            return None
        # An aggregate that is as large as x is no help.
        return form if 2 * size <= x.size else None

    def _explicit(self, unknowns: int) -> bool:
        return self.solver == "dense" or (self.solver == "auto" and unknowns <= _DENSE)

    def _tol(self, dtype: jnp.dtype) -> float:
        return self.tol or _default_tol(dtype)

    def _gmres(
        self, system: Callable, right_side: Array, start: Array, scale: Array | float = 0.0
    ) -> Array:
        # Restarts forget: as many directions as the bound allows are kept, up to 100.
        restart = min(right_side.size, self.max_iterations, 100)
        tol = self._tol(right_side.dtype)
        right_side, start = _side_by_side(right_side, start)
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
        least: Array,
    ) -> Memory:
        """A correction of the remembered solution, preconditioned by the remembered inverse, until
        at most `least` is left of the system on the face.

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
        # What is left on the face, for what is left here, in the direction of the start's.
        met = jnp.linalg.norm(system.left_on_face(left).ravel())
        there = jnp.linalg.norm(left) / jnp.where(met > 0, met, 1)
        left, guess = _side_by_side(left, inverse @ left)
        correction, _ = bicgstab(
            system,
            left,
            guess,
            # Rounding is all that is left below this, whatever the unit of the face.
            tol=min(self._tol(start.dtype), _default_tol(start.dtype)),
            atol=0.3 * least * there,
            maxiter=self.max_iterations,
            M=lambda v: inverse @ v,
        )
        return Memory(start + correction, inverse)


def _default_tol(dtype: jnp.dtype) -> float:
    return 1e-10 if dtype == jnp.float64 else 1e-5


def _side_by_side(first: Array, second: Array) -> tuple[Array, Array]:
    """The same two, their lanes under `vmap` along one axis, which JAX's solvers ask for."""
    both = jnp.stack([first, second])
    return both[0], both[1]


def no_solution(dtype: jnp.dtype) -> float:
    """Relative residual beyond which a linear system has no solution."""
    return float(jnp.finfo(dtype).eps) ** 0.5


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
