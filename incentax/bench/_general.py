"""Minimisers of scipy and of others, over incentives whose equilibria we solve."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array

from ..design import DesignProblem, hypergradient
from ..equilibrium import solve_equilibrium
from ._answer import Answer, Refused

# Their defaults stop too early for six digits.
_TIGHT: dict[str, dict[str, float]] = {
    "SLSQP": {"ftol": 1e-12, "maxiter": 1000},
    "L-BFGS-B": {"ftol": 1e-15, "gtol": 1e-9},
    "Nelder-Mead": {"xatol": 1e-9, "fatol": 1e-12},
}


def by_slsqp(problem: DesignProblem, theta0: Array):
    """On exact gradients."""
    limits = problem.incentive_set.constraints(theta0)
    value = _with_gradient(problem)
    a, b = np.asarray(limits.inequality), np.asarray(limits.inequality_level)
    c, d = np.asarray(limits.equality.dense(theta0.dtype)), np.asarray(limits.equality_level)
    rows: list[dict[str, Any]] = []
    if len(b):
        rows.append({"type": "ineq", "fun": lambda t: b - a @ t, "jac": lambda t: -a})
    if len(d):
        rows.append({"type": "eq", "fun": lambda t: c @ t - d, "jac": lambda t: c})
    how = {"bounds": _bounds(limits), "constraints": rows, "options": _TIGHT["SLSQP"]}
    return _minimiser(problem, value, theta0, jac=True, method="SLSQP", **how)


def by_lbfgsb(problem: DesignProblem, theta0: Array):
    """On exact gradients."""
    bounds = _bounds_alone(problem, theta0)
    value = _with_gradient(problem)
    how = {"bounds": bounds, "options": _TIGHT["L-BFGS-B"]}
    return _minimiser(problem, value, theta0, jac=True, method="L-BFGS-B", **how)


def by_nelder_mead(problem: DesignProblem, theta0: Array):
    """On values alone."""
    bounds, value = _bounds_alone(problem, theta0), _value(problem)
    options = {**_TIGHT["Nelder-Mead"], "maxfev": 1000 * theta0.size}
    return _minimiser(problem, value, theta0, method="Nelder-Mead", bounds=bounds, options=options)


def by_cma(problem: DesignProblem, theta0: Array):
    """On values alone, from one seed."""
    import cma  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    bounds, value = _bounds_alone(problem, theta0), _value(problem)
    low, high = ([one if np.isfinite(one) else None for one in side] for side in zip(*bounds))
    about = {"bounds": [low, high], "seed": 1, "verbose": -9, "maxfevals": 1000 * theta0.size}
    about["maxstd_boundrange"] = np.inf  # its limit fails with one incentive

    def solve() -> Answer:
        width = 0.3 * max(1.0, float(jnp.max(jnp.abs(theta0))))
        best, strategy = cma.fmin2(value, np.asarray(theta0, float), width, about)
        stop = strategy.stop()
        return Answer(jnp.asarray(best), "tolfun" in stop or "tolx" in stop, ", ".join(stop))

    return solve


def _minimiser(
    problem: DesignProblem, value: Callable, theta0: Array, **how: Any
) -> Callable[[], Answer]:
    def solve() -> Answer:
        found = scipy.optimize.minimize(value, np.asarray(theta0, float), **how)
        theta = problem.incentive_set.project(jnp.asarray(found.x))
        return Answer(theta, bool(found.success), str(found.message))

    return solve


def _with_gradient(problem: DesignProblem) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    @jax.jit
    def both(theta: Array) -> tuple[Array, Array]:
        x = solve_equilibrium(problem.game, theta, throw=False).x
        found = hypergradient(problem, theta, x)
        return found.objective, found.value

    def value(theta: np.ndarray) -> tuple[float, np.ndarray]:
        # Rounding must not leave the incentive set.
        objective, gradient = both(problem.incentive_set.project(jnp.asarray(theta)))
        return float(objective), np.asarray(gradient, float)

    return value


def _value(problem: DesignProblem) -> Callable[[np.ndarray], float]:
    @jax.jit
    def objective(theta: Array) -> Array:
        theta = problem.incentive_set.project(theta)
        return problem.objective(theta, solve_equilibrium(problem.game, theta, throw=False).x)

    return lambda theta: float(objective(jnp.asarray(theta)))


def _bounds(limits: Any) -> list[tuple[float, float]]:
    lower, upper = np.asarray(limits.lower, float), np.asarray(limits.upper, float)
    return list(zip(lower.ravel().tolist(), upper.ravel().tolist()))


def _bounds_alone(problem: DesignProblem, theta0: Array) -> list[tuple[float, float]]:
    limits = problem.incentive_set.constraints(theta0)
    if limits.inequality_level.size or limits.equality_level.size:
        raise Refused("it takes bounds on the incentives, and no other rows")
    return _bounds(limits)
