"""Linearised KKT systems, and the forms of a Jacobian in which they can be solved."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._linear import Factors
from ._constraints import LinearConstraints


class AbstractJacobian(eqx.Module):
    """`∂F/∂x`, in a form in which a KKT system can be solved."""

    @abc.abstractmethod
    def factor(self, rows: "KKTRows", constraints: LinearConstraints) -> Callable:
        """The map from right sides `(g_x, g_y, g_z)` to the solution `(dx, dy, dz)`."""

    @abc.abstractmethod
    def diagonal(self) -> Float[Array, " d"]:
        """The derivatives of each entry in its own coordinate."""

    @abc.abstractmethod
    def scaled(self, by: Float[Array, ""]) -> "AbstractJacobian":
        """`by ∂F/∂x`."""

    @abc.abstractmethod
    def shifted(self, by: Float[Array, ""]) -> "AbstractJacobian":
        """`∂F/∂x + by I`."""

    @abc.abstractmethod
    def transpose(self) -> "AbstractJacobian":
        """`(∂F/∂x)^T`."""


class KKTRows(eqx.Module):
    """Weights of a linearised KKT system.

    free (J dx + C^T dy + A^T dz) + own dx = g_x
    C dx = g_y
    taut A dx - slack dz = g_z
    """

    free: Float[Array, " d"]
    own: Float[Array, " d"]
    taut: Float[Array, " more"]
    slack: Float[Array, " more"]


class DenseJacobian(AbstractJacobian):
    """An explicit matrix."""

    matrix: Float[Array, "d d"]

    def diagonal(self) -> Array:
        return jnp.diagonal(self.matrix)

    def scaled(self, by: Array) -> "DenseJacobian":
        return DenseJacobian(by * self.matrix)

    def shifted(self, by: Array) -> "DenseJacobian":
        return DenseJacobian(self.matrix + by * jnp.eye(len(self.matrix), dtype=self.matrix.dtype))

    def transpose(self) -> "DenseJacobian":
        return DenseJacobian(self.matrix.T)

    def factor(self, rows: KKTRows, constraints: LinearConstraints) -> Callable:
        j = self.matrix
        c, a = constraints.equality.dense(j.dtype), constraints.inequality.astype(j.dtype)
        n, me, mi = j.shape[0], c.shape[0], a.shape[0]
        size = positive(jnp.max(jnp.abs(j), initial=0.0))
        near = (
            max(1e-8, 10 * float(jnp.finfo(j.dtype).eps)) * size
        )  # where x is not unique, the solution nearest to where it is
        prox = jnp.diag(rows.own + near * rows.free)
        # Dependent constraints share a multiplier.
        dual = max(1e-10, float(jnp.finfo(j.dtype).eps)) / size
        system = jnp.concatenate(
            [
                jnp.concatenate(
                    [
                        rows.free[:, None] * j + prox,
                        rows.free[:, None] * c.T,
                        rows.free[:, None] * a.T,
                    ],
                    axis=1,
                ),
                jnp.concatenate(
                    [c, -dual * jnp.eye(me, dtype=j.dtype), jnp.zeros((me, mi), j.dtype)], axis=1
                ),
                jnp.concatenate(
                    [
                        rows.taut[:, None] * a,
                        jnp.zeros((mi, me), j.dtype),
                        -jnp.diag(rows.slack + dual),
                    ],
                    axis=1,
                ),
            ]
        )
        factors = Factors(system)

        def solve(g_x, g_y, g_z):
            found = factors.solve(jnp.concatenate([g_x, g_y, g_z]))
            return found[:n], found[n : n + me], found[n + me :]

        return solve


class LowRankJacobian(AbstractJacobian):
    """`diag(own) + sent felt`: agents who meet in an aggregate; equalities in blocks or none."""

    own: Float[Array, " d"]
    sent: Float[Array, "d m"]
    felt: Float[Array, "m d"]

    def diagonal(self) -> Array:
        return self.own + jnp.sum(self.sent * self.felt.T, axis=1)

    def scaled(self, by: Array) -> "LowRankJacobian":
        return LowRankJacobian(by * self.own, by * self.sent, self.felt)

    def shifted(self, by: Array) -> "LowRankJacobian":
        return LowRankJacobian(self.own + by, self.sent, self.felt)

    def transpose(self) -> "LowRankJacobian":
        return LowRankJacobian(self.own, self.felt.T, self.sent.T)

    def factor(self, rows: KKTRows, constraints: LinearConstraints) -> Callable:
        # Where agents feel nothing but the aggregate, the solution nearest to where they are.
        near = max(1e-8, 10 * float(jnp.finfo(self.own.dtype).eps)) * positive(
            jnp.max(jnp.sum(jnp.abs(self.sent * self.felt.T), axis=1))
        )
        diagonal = rows.free * (self.own + near) + rows.own
        weight = rows.free / diagonal
        # Blocks, or a dense matrix without rows.
        blocks = constraints.equality
        mass = blocks(weight)
        share = jnp.where(mass > 0, 1 / jnp.where(mass > 0, mass, 1), 0)

        def respond(g, level):
            dx = g / diagonal
            y = share * (blocks(dx) - level)
            return dx - weight * blocks.transpose(y), y

        none = jnp.zeros_like(constraints.equality_level)
        pushed = jax.vmap(lambda column: respond(rows.free * column, none)[0], 1, 1)(self.sent)
        system = jnp.eye(self.sent.shape[1], dtype=self.own.dtype) + self.felt @ pushed
        factors = Factors(system)

        def solve(g_x, g_y, g_z):
            dx, _ = respond(g_x, g_y)
            u = factors.solve(self.felt @ dx)
            dx, y = respond(g_x - rows.free * (self.sent @ u), g_y)
            return dx, y, g_z

        return solve


def positive(size: Array) -> Array:
    """The size itself, or 1 for zero."""
    return jnp.where(size > 0, size, 1)
