"""What every set can do, and what a face of a strategy set tells about how x* moves."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ._constraints import LinearConstraints, Pairs


class AbstractSet(eqx.Module):
    """A closed convex set of incentives."""

    @abc.abstractmethod
    def project(self, x: PyTree) -> PyTree:
        """`argmin_p ||p - x||` over the set, of the shape of `x`."""

    @abc.abstractmethod
    def centre(self) -> PyTree:
        """A point well inside, where the set knows one; else the point nearest to 0."""

    @abc.abstractmethod
    def check_shape(self, owner: str, name: str, x: PyTree) -> None:
        """Raises `ValueError` when `x` cannot be a point of the set, whatever its values."""

    @abc.abstractmethod
    def constraints(self, x: PyTree) -> LinearConstraints:
        """The set as linear constraints on an `x` of this shape and dtype, flattened."""

    def violation(self, x: PyTree) -> Float[Array, ""]:
        """`max |x - project(x)|`: 0 inside, and NaN where `x` is."""
        moved = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b), initial=0.0), x, self.project(x))
        return jnp.max(jnp.asarray(jax.tree.leaves(moved)))


class AbstractFace(eqx.Module):
    """The face of a strategy set on which an equilibrium moves when `theta` does.

    A motion is written `dx = scale * w`. `project` keeps the `w` that stay on the face. The
    system that `dx` solves is

        project (scale ∂F/∂x scale + relaxation) project w = - project scale ∂F/∂theta dtheta .

    On an active bound nothing moves. `relaxation` is zero on the support of an equilibrium and
    positive on strategies that are on their way out. `degenerate` counts the active constraints
    without a multiplier: there `x*` has only one-sided derivatives. `displacement` is
    `x - project(x - step_size * operator_value)`, which is 0 at an equilibrium.
    """

    scale: eqx.AbstractVar[Float[Array, "..."]]
    relaxation: eqx.AbstractVar[Float[Array, "..."]]
    degenerate: eqx.AbstractVar[Int[Array, ""]]
    displacement: eqx.AbstractVar[Float[Array, "..."]]

    @abc.abstractmethod
    def project(self, w: Array) -> Array:
        """Orthogonal projection on the motions that stay on the face; symmetric."""

    @abc.abstractmethod
    def carry(
        self, constraints: LinearConstraints, x: Array, operator_value: Array
    ) -> tuple[Array, Array]:
        """How `x` and the force of its active constraints follow constraints that move.

        A point on the same face under `constraints`, `x` itself while they rest, and the force
        that the active ones exert there with the multipliers at `x`.
        """

    @abc.abstractmethod
    def multipliers(self, operator_value: Array) -> tuple[Array, Array]:
        """`y` of the equalities and `z` of the inequalities, as functions of `F` on this face."""

    @abc.abstractmethod
    def response(self, diagonal: Array) -> Callable[[Array], Array]:
        """The map `g -> dx = scale * w` with `project(diagonal * w - scale * g) = 0`, `w` on the
        face and `diagonal` without zeros; symmetric."""


class AbstractStrategySet(AbstractSet):
    """A closed convex set of strategies: `x` is one array."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...] | None:
        """Shape of `x`, or `None` when any shape will do."""

    @abc.abstractmethod
    def displacement(self, x: Array, force: Array) -> Array:
        """`x - project(x - force)`."""

    @abc.abstractmethod
    def multipliers(self, x: Array, operator_value: Array) -> tuple[Array, Array]:
        """`y` of the equalities and `z >= 0` of the inequalities at an equilibrium.

        Bounds alone withstand what they leave of the operator, `F + C^T y + A^T z`.
        """

    def pairs(self, x: Array, operator_value: Array) -> Pairs:
        """Slacks and multipliers of the flat constraints at an equilibrium."""
        multipliers = self.multipliers(x, operator_value)
        return Pairs(self.constraints(x), x.ravel(), operator_value.ravel(), multipliers)

    @abc.abstractmethod
    def face(self, x: Array, operator_value: Array, step_size: Array | float) -> AbstractFace:
        """The face on which agents at `x` move, given what they step along.

        A bound of a box is active when the step `x - step_size * operator_value` reaches it; a
        strategy of a simplex when it is not used, whatever the step size.
        """
