"""Whether a design is an affine game under a quadratic objective, read off its program."""

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
# Steps that are linear in their real inputs; what chooses among these is of degree 0, or of none.
_LINEAR = frozenset(
    "add add_any sub neg reduce_sum cumsum broadcast_in_dim reshape squeeze expand_dims transpose "
    "concatenate stack unstack tile pad rev slice dynamic_slice dynamic_update_slice gather "
    "scatter scatter-add select_n copy stop_gradient split optimization_barrier "
    "sharding_constraint".split()
)
# At which values are compared with those of the model.
_POINTS = 3


class NoBound(Exception):
    """Why nothing can be proved."""


class QuadraticDesign(NamedTuple):
    """`min q(u)` over `u = (theta, x)` where `x` is an equilibrium of `F(u) = force + slope u`.

    - `q(u) = constant + linear u + u' hessian u / 2`, and of the last term `curvature_k / 2
      (direction_k u)^2` by its eigenvalues, but for those that are rounding.
    - `agents`: `equality x = equality_level`, `inequality x <= inequality_level`, `lower <= x <=
      upper`; `incentives`: the same of `theta`.
    """

    constant: float
    linear: Float[np.ndarray, " u"]
    hessian: Float[np.ndarray, "u u"]
    curvature: Float[np.ndarray, " k"]
    direction: Float[np.ndarray, "k u"]
    force: Float[np.ndarray, " x"]
    slope: Float[np.ndarray, "x u"]
    agents: dict[str, np.ndarray]
    incentives: dict[str, np.ndarray]

    def value(self, u: np.ndarray) -> float:
        """`q(u)`."""
        return float(self.constant + self.linear @ u + 0.5 * u @ self.hessian @ u)

    def over(self, size: float) -> "QuadraticDesign":
        """With the objective divided by `size`."""
        names = ("constant", "linear", "hessian", "curvature")
        return self._replace(**{name: getattr(self, name) / size for name in names})

    @property
    def limits(self) -> tuple[Float[np.ndarray, "x limits"], Float[np.ndarray, " limits"]]:
        """`levels - borne' x` are the agents' slacks: of inequalities, lower and upper bounds."""
        agents, eye = self.agents, np.eye(len(self.slope))
        low, high = (np.flatnonzero(np.isfinite(agents[name])) for name in ("lower", "upper"))
        borne = np.hstack([agents["inequality"].T, -eye[:, low], eye[:, high]])
        levels = [agents["inequality_level"], -agents["lower"][low], agents["upper"][high]]
        return borne, np.concatenate(levels)

    @property
    def is_convex(self) -> bool:
        """Whether no curvature is negative."""
        return self.curvature.min(initial=0.0) >= 0


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

    if _degree(operator, u0) > 1:
        raise NoBound("the operator is not affine in incentives and strategies")
    if _degree(objective, u0) > 2:
        raise NoBound("the objective is not quadratic in incentives and strategies")
    force, slope = operator(u0), jax.jacfwd(operator)(u0)
    gradient, hessian = jax.grad(objective)(u0), np.asarray(jax.hessian(objective)(u0), np.float64)
    hessian = (hessian + hessian.T) / 2
    curvature, direction = _curvatures(hessian)
    start = np.asarray(u0, np.float64)
    linear = np.asarray(gradient, np.float64) - hessian @ start
    slope = np.asarray(slope, np.float64)
    found = QuadraticDesign(
        constant=float(objective(u0)) - float(linear @ start + 0.5 * start @ hessian @ start),
        linear=linear,
        hessian=hessian,
        curvature=curvature,
        direction=direction,
        force=np.asarray(force) - slope @ start,
        slope=slope,
        agents=_plain(problem.game.strategies(theta).constraints(x), x.dtype),
        incentives=_plain(problem.incentive_set.constraints(theta), x.dtype),
    )
    affine = _is_as_modelled(operator, lambda u: found.force + slope @ u, u0)
    if not (affine and _is_as_modelled(objective, found.value, u0)):
        raise NoBound(
            "the values of the operator or the objective are not those of its derivatives"
        )
    return found


def _curvatures(hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`u' hessian u` as a sum of `curvature_k (direction_k u)^2`, each entry of `u` in the unit in
    which it bends by 1: none is lost beside one in another unit."""
    bend = np.sqrt(np.abs(np.diagonal(hessian)))
    own = np.where(bend > 0, 1 / np.where(bend > 0, bend, 1), 0)
    cross = np.abs(hessian @ np.diag(own)).max(axis=1, initial=0.0)
    own = np.where(bend > 0, own, np.where(cross > 0, 1 / np.where(cross > 0, cross, 1), 1))
    curvature, direction = np.linalg.eigh(own[:, None] * hessian * own)
    bent = np.abs(curvature) > _FLAT * np.abs(curvature).max(initial=0.0)
    return curvature[bent], direction.T[bent] / own


def _plain(limits: LinearConstraints, dtype: jnp.dtype) -> dict[str, np.ndarray]:
    return {
        "lower": np.asarray(limits.lower, np.float64).ravel(),
        "upper": np.asarray(limits.upper, np.float64).ravel(),
        "equality": np.asarray(limits.equality.dense(dtype), np.float64),
        "equality_level": np.asarray(limits.equality_level, np.float64),
        "inequality": np.asarray(limits.inequality, np.float64),
        "inequality_level": np.asarray(limits.inequality_level, np.float64),
    }


def _degree(function: Callable[[Array], Array], at: Array) -> float:
    """Of the polynomial that the function's program is, at most; infinite where it may be none."""
    program = jax.make_jaxpr(function)(at)
    return max(_degrees_of(program.jaxpr, [1.0]), default=0.0)


def _degrees_of(jaxpr: Jaxpr, inputs: list[float]) -> list[float]:
    """Of every output of a program, by those of its inputs."""
    known: dict[Any, float] = dict(zip(jaxpr.invars, inputs, strict=True))

    def degree(atom: Any) -> float:
        return 0.0 if hasattr(atom, "val") else known.get(atom, 0.0)

    for equation in jaxpr.eqns:
        given, name = [degree(atom) for atom in equation.invars], equation.primitive.name
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        largest = max(given, default=0.0)
        if largest == 0:
            found = [0.0] * len(equation.outvars)
        elif name in _CALLS and inner is not None:
            found = _degrees_of(getattr(inner, "jaxpr", inner), given)
        else:
            found = [_after(equation, name, given, largest)] * len(equation.outvars)
        known.update(zip(equation.outvars, found))
    return [degree(atom) for atom in jaxpr.outvars]


def _after(equation: Any, name: str, given: list[float], largest: float) -> float:
    """The degree of what one step makes of its inputs."""
    if name in _LINEAR:
        return largest
    if name == "convert_element_type":
        real = jnp.issubdtype(equation.params["new_dtype"], jnp.floating)
        return largest if real else np.inf
    if name in ("mul", "dot_general"):
        return sum(given)
    if name == "div":
        return np.inf if given[1] else given[0]
    if name in ("integer_pow", "square"):
        power = equation.params.get("y", 2)
        return power * largest if power >= 0 else np.inf
    return np.inf


def _is_as_modelled(function: Callable[[Array], Array], model: Callable, at: Array) -> bool:
    """Whether values are what derivatives made of them, at random points: a function may have a
    derivative of its own making."""
    size = 1 + jnp.abs(at)
    ways = jax.random.normal(jax.random.key(0), (_POINTS, at.size), at.dtype)
    for point in [at + size * way for way in ways]:
        value, told = np.asarray(function(point)), model(np.asarray(point))
        scale = 1 + np.abs(value).max(initial=0.0) + np.abs(told).max(initial=0.0)
        if not np.abs(value - told).max(initial=0.0) <= 1e6 * jnp.finfo(at.dtype).eps * scale:
            return False
    return True
