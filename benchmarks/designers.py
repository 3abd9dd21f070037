"""The accurate designer beside SLSQP on the same exact gradients, over the bank of designs.

Both with defaults, from the stated starts. "Solved" is an objective within 1e-6 of the best known
value; what calls itself a success without being one is counted apart.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from _measure import report

import incentax as ix

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.designs import DESIGNS

jax.config.update("jax_enable_x64", True)


def by_design(problem, theta0):
    found = ix.design(problem, theta0, throw=False)
    return found.objective, bool(found.result == ix.RESULTS.successful)


def by_slsqp(problem, theta0):
    theta0 = jnp.asarray(theta0)
    limits = problem.incentive_set.constraints(theta0)

    @jax.jit
    def value_and_gradient(theta):
        x = ix.solve_equilibrium(problem.game, theta, throw=False).x
        found = ix.hypergradient(problem, theta, x)
        return found.objective, found.value

    def inside(theta):  # rounding must not leave the incentive set
        return problem.incentive_set.project(jnp.asarray(theta))

    def value(theta):
        objective, gradient = value_and_gradient(inside(theta))
        return float(objective), np.asarray(gradient)

    a, b = np.asarray(limits.inequality), np.asarray(limits.inequality_level)
    rows = [{"type": "ineq", "fun": lambda t: b - a @ t, "jac": lambda t: -a}] if len(b) else []
    bounds = list(zip(np.asarray(limits.lower), np.asarray(limits.upper)))
    found = scipy.optimize.minimize(
        value, np.asarray(theta0), jac=True, method="SLSQP", bounds=bounds, constraints=rows
    )
    # The value that counts is taken at the re-solved equilibrium of what was returned.
    return value(found.x)[0], bool(found.success)


def main():
    rows, methods = [], {"design": by_design, "SLSQP": by_slsqp}
    for name, (make, best) in DESIGNS.items():
        problem, theta0 = make()
        row = {"problem": name, "best": best}
        for method, solve in methods.items():
            clock = time.perf_counter()
            try:
                objective, success = solve(problem, theta0)
            except Exception as error:  # recorded, not dropped
                objective, success = float("nan"), False
                row[f"{method} error"] = type(error).__name__
            off = float(abs(objective - best))
            solved = off <= 1e-6 * max(abs(best), 1e-6) + (6e-6 if abs(best) > 1e-3 else 0.0)
            row |= {
                f"{method} objective": float(objective),
                f"{method} solved": solved,
                f"{method} calls it a success": success,
                f"{method} seconds with compilation": time.perf_counter() - clock,
            }
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
        jax.clear_caches()
    counts = {
        method: {
            "solved": sum(row[f"{method} solved"] for row in rows),
            "called a success without being one": sum(
                row[f"{method} calls it a success"] and not row[f"{method} solved"] for row in rows
            ),
        }
        for method in methods
    }
    report("designers", rows, {"counts": counts, "problems": len(rows)})


if __name__ == "__main__":
    main()
