"""Whether a design is an affine game under a convex quadratic objective, read off its program."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr
from jaxtyping import Array, Float

from ...sets import LinearConstraints
from .._problem import DesignProblem

# Curvatures below this part of the largest are rounding.
_FLAT = 1e-10
# Steps of a program that are programs themselves, with the same inputs and outputs.
_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call")


class NoBound(Exception):
    """Why nothing can be proved."""


class QuadraticDesign(NamedTuple):
    """`min q(u)` over `u = (theta, x)` where `x` is an equilibrium of `F(u) = force + slope u`.

    - `q(u) = constant + linear u + sum of curvature_k / 2 (direction_k u)^2`.
    - `agents`: `equality x = equality_level`, `inequality x <= inequality_level`, `lower <= x <=
      upper`; `incentives`: the same of `theta`.
    """

    constant: float
    linear: Float[np.ndarray, " u"]
    curvature: Float[np.ndarray, " k"]
    direction: Float[np.ndarray, "k u"]
    force: Float[np.ndarray, " x"]
    slope: Float[np.ndarray, "x u"]
    agents: dict[str, np.ndarray]
    incentives: dict[str, np.ndarray]

    def value(self, u: np.ndarray) -> float:
        """`q(u)`."""
        along = self.direction @ u
        return float(self.constant + self.linear @ u + 0.5 * self.curvature @ along**2)


def quadratic_design(problem: DesignProblem, theta: Array, x: Array) -> QuadraticDesign:
    """The numbers of such a design; [`NoBound`][] for any other, with the reason."""
    if problem.constraints:
        raise NoBound("a bound is proved for problems without constraints on the equilibrium")
    if problem.selection is not None:
        raise NoBound("a bound is proved for problems without a selection")
    if problem.game.moves:
        raise NoBound("a bound is proved for sets that do not move with the incentives")
    p, shape = theta.size, x.shape
    u0 = jnp.concatenate([theta.ravel(), x.ravel()])

    def parts(u: Array) -> tuple[Array, Array]:
        return u[:p].reshape(theta.shape), u[p:].reshape(shape)

    def operator(u: Array) -> Array:
        return problem.game.operator(*parts(u)).ravel()

    def objective(u: Array) -> Array:
        return problem.objective(*parts(u))

    if _feels_the_point(operator, u0):
        raise NoBound("the operator is not affine in incentives and strategies")
    if _feels_the_point(jax.grad(objective), u0):
        raise NoBound("the objective is not quadratic in incentives and strategies")
    force, slope = operator(u0), jax.jacfwd(operator)(u0)
    gradient, hessian = jax.grad(objective)(u0), np.asarray(jax.hessian(objective)(u0))
    curvature, direction = np.linalg.eigh((hessian + hessian.T) / 2)
    largest = np.abs(curvature).max(initial=0.0)
    if curvature.min(initial=0.0) < -1e-9 * largest:
        raise NoBound("the objective is not convex in incentives and strategies together")
    bent = curvature > _FLAT * largest
    start = np.asarray(u0)
    linear = np.asarray(gradient) - hessian @ start
    return QuadraticDesign(
        constant=float(objective(u0)) - float(linear @ start + 0.5 * start @ hessian @ start),
        linear=linear,
        curvature=curvature[bent],
        direction=direction.T[bent],
        force=np.asarray(force) - np.asarray(slope) @ start,
        slope=np.asarray(slope),
        agents=_plain(problem.game.strategies(theta).constraints(x), x.dtype),
        incentives=_plain(problem.incentive_set.constraints(theta), x.dtype),
    )


def _plain(limits: LinearConstraints, dtype: jnp.dtype) -> dict[str, np.ndarray]:
    return {
        "lower": np.asarray(limits.lower).ravel(),
        "upper": np.asarray(limits.upper).ravel(),
        "equality": np.asarray(limits.equality.dense(dtype)),
        "equality_level": np.asarray(limits.equality_level),
        "inequality": np.asarray(limits.inequality),
        "inequality_level": np.asarray(limits.inequality_level),
    }


def _feels_the_point(function: Callable[[Array], Array], at: Array) -> bool:
    """Whether the derivative's program uses the point at which it is taken: `False` is a proof that
    the function is affine, whatever the numbers."""

    def derivative(point: Array, direction: Array) -> Array:
        return jax.jvp(function, (point,), (direction,))[1]

    program = jax.make_jaxpr(derivative)(at, at)
    return any(0 in needed for needed in _inputs_of(program.jaxpr))


def _inputs_of(jaxpr: Jaxpr) -> list[frozenset[int]]:
    """Of every output of a program the inputs that it may depend on."""
    known: dict[Any, frozenset[int]] = {var: frozenset([k]) for k, var in enumerate(jaxpr.invars)}

    def needed(atom: Any) -> frozenset[int]:
        return frozenset() if hasattr(atom, "val") else known.get(atom, frozenset())

    for equation in jaxpr.eqns:
        inputs = [needed(atom) for atom in equation.invars]
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        if equation.primitive.name in _CALLS and inner is not None:
            found = [
                frozenset().union(*(inputs[k] for k in one))
                for one in _inputs_of(getattr(inner, "jaxpr", inner))
            ]
        else:
            found = [frozenset().union(*inputs)] * len(equation.outvars)
        known.update(zip(equation.outvars, found))
    return [needed(atom) for atom in jaxpr.outvars]
