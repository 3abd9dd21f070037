"""How the equilibrium answers: the adjoint of the implicit function theorem on a face.

On the face of the strategy set where `x*(theta)` moves, written `dx = S w` with `w` on the face,

    P (S ∂F/∂x S + R) P w = - P S ∂F/∂theta dtheta .

So for the cotangent `g` of `x*` the cotangent of `theta` is `(∂F/∂theta)^T S w` with `w` from the
transposed system `P (S (∂F/∂x)^T S + R) P w = - P S g`. On all of R^d that is
`- (∂F/∂theta)^T (∂F/∂x)^-T g`, (4.3) of Liu et al. (2022) with the inverse transposed; at an
equilibrium it equals `(∂h/∂theta)^T (I - ∂h/∂x)^-T g`, their (4.5), for the step `h` of any size.
"""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import bicgstab, gmres
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import require_count, require_positive
from ..games import AbstractGame, AggregativeForm
from ..sets import AbstractFace
from ._aggregate import AggregateSystem

Solver = Literal["auto", "dense", "krylov", "aggregate"]

# Up to this many unknowns an explicit matrix is worth its while.
_DENSE = 200


class Memory(eqx.Module):
    """What one solve leaves to the next.

    - `solution`: its unknowns, where the next iteration starts.
    - `inverse`: of the system's matrix when it was last made explicit, the preconditioner of the
      solves since; `None` where it never is.
    """

    solution: Float[Array, " unknowns"]
    inverse: Float[Array, "unknowns unknowns"] | None


class Pullback(eqx.Module):
    """Cotangent of `theta`, and how well its linear system was solved.

    - `theta`: like the incentive.
    - `residual`: true relative residual `||A^T w - b|| / ||b||` of the system on the face.
    - `degenerate`: number of active constraints without a multiplier, see `AbstractFace`.
    - `memory`: for the next solve.
    """

    theta: PyTree
    residual: Float[Array, ""]
    degenerate: Int[Array, ""]
    memory: Memory


class Implicit(eqx.Module):
    """Implicit differentiation of the equilibrium.

    **Arguments:**

    - `solver`: how the adjoint system is solved.
        - `"dense"`: explicit `d x d` matrix.
        - `"krylov"`: GMRES of `jax.scipy.sparse.linalg`, on vector-Jacobian products.
        - `"aggregate"`: in the space of the aggregate of an aggregative game: up to 200
          dimensions by its inverse (in a loop an earlier inverse, corrected by BiCGStab), beyond
          by GMRES. Right too where only the aggregate of an equilibrium is unique; if the
          objective asks for more, the residual shows it.
        - `"auto"`: aggregate if the game has one, else dense up to 200 unknowns, else Krylov.
    - `tol`: relative tolerance of an iterative solve; when left out 1e-10, in float32 1e-5.
    - `max_iterations`: bound on its iterations.

    **Raises** `ValueError` for an unknown solver, or for "aggregate" and a game without one.

    A solver's own word for its success is not used: the residual is computed anew.

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
        if self.solver not in ("auto", "dense", "krylov", "aggregate"):
            raise ValueError(
                "`Implicit(solver)` needs one of 'auto', 'dense', 'krylov', 'aggregate', "
                f"got {self.solver!r}"
            )
        if self.tol is not None:
            require_positive("Implicit", "tol", self.tol)
        require_count("Implicit", "max_iterations", self.max_iterations)

    def memory(self, game: AbstractGame, theta: PyTree, x: Array) -> Memory:
        """What `pullback` may be given as its first memory."""
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
        """The cotangent of `theta` for a cotangent of `x*(theta)`, evaluated at `x`.

        `step_size` is that of the step whose face counts: see `AbstractStrategySet.face`.
        `refresh` says whether an explicit matrix is made anew, where one is remembered.
        `operator_value` may be given where it is known, as from `log x`.
        """
        form = self._form(game)
        memory = self.memory(game, theta, x) if memory is None else memory
        computed_value, pull = jax.vjp(game.operator, theta, x)
        operator_value = computed_value if operator_value is None else operator_value
        face = game.strategy_set.face(x, operator_value, step_size)
        system = _AdjointSystem(face, lambda v: pull(v)[1])
        right_side = -face.project(face.scale * cotangent)
        if form is not None:
            cost_scale = jnp.max(jnp.abs(operator_value))
            reduced = AggregateSystem(form, theta, x, face, cost_scale)
            memory = self._solve_reduced(reduced, cotangent, memory, refresh)
            dx = reduced.motion(memory.solution, cotangent)
            w = jnp.where(face.scale > 0, dx / jnp.where(face.scale > 0, face.scale, 1), 0)
        elif self._explicit(x.size):
            solution = jnp.linalg.solve(system.matrix(x), right_side.ravel())
            w, memory = face.project(solution.reshape(x.shape)), Memory(solution, None)
            dx = face.scale * w
        else:
            solution = self._gmres(system, right_side, memory.solution.reshape(x.shape))
            w, memory = face.project(solution), Memory(solution.ravel(), None)
            dx = face.scale * w
        theta_cotangent, pulled = pull(dx)
        residual = _relative(system.complete(pulled, w) - right_side, right_side)
        return Pullback(theta_cotangent, residual, face.degenerate, memory)

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


class _AdjointSystem(eqx.Module):
    """`w -> P (S (∂F/∂x)^T S + R) P w + (1 - P) w`."""

    face: AbstractFace
    pull: Callable[[Array], Array]

    def __call__(self, w: Array) -> Array:
        on_face = self.face.project(w)
        return self.complete(self.pull(self.face.scale * on_face), on_face) + w - on_face

    def complete(self, pulled: Array, w: Array) -> Array:
        """The system at a `w` on the face whose `(∂F/∂x)^T S w` is known."""
        return self.face.project(self.face.scale * pulled + self.face.relaxation * w)

    def matrix(self, x: Array) -> Float[Array, "d d"]:
        columns = jax.vmap(self)(jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape))
        return columns.reshape(x.size, x.size).T


def _relative(residual: Array, right_side: Array) -> Float[Array, ""]:
    size, reference = jnp.linalg.norm(residual.ravel()), jnp.linalg.norm(right_side.ravel())
    return jnp.where(reference > 0, size / jnp.where(reference > 0, reference, 1), size)
