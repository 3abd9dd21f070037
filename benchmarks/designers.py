"""The accurate designer beside others over the bank of designs, each with its defaults.

SLSQP on our exact gradients; where they are installed pympcc (IPOPT on the complementarity program)
and NashOpt (a penalty on KKT residuals), on conditions written from our problems and started from
the exact equilibrium at the stated start. "Solved" is an objective within 1e-6 of the best known
value, at the re-solved equilibrium; what calls itself a success without being one is counted apart.
"""

import argparse
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from _measure import report

import incentax as ix

try:
    import pympcc
except ImportError:
    pympcc = None
try:
    import nashopt
except ImportError:
    nashopt = None

jax.config.update("jax_enable_x64", True)


# Of our own, and solved in the tests alone.
OTHERS = ("multicommodity tolls", "capacities", "inverse problem", "kink")


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


class KKTConditions:
    """The lower level as conditions on `u = (theta, x, y, z, w, v)`.

    `y`, `z` are multipliers of equalities and inequalities, `w`, `v` of lower and upper bounds.
    `u0` is the equilibrium at the start with its multipliers, the best start there is.
    """

    def __init__(self, problem, theta0):
        theta0 = jnp.asarray(theta0)
        game = problem.game
        x0 = ix.solve_equilibrium(game, theta0, throw=False).x
        at = game.strategies(theta0).constraints(x0)
        low, high = np.isfinite(at.lower), np.isfinite(at.upper)
        fixed = np.asarray(at.lower >= at.upper)
        low, high = np.flatnonzero(low & ~fixed), np.flatnonzero(high & ~fixed)
        y, z = game.strategies(theta0).multipliers(x0, game.operator(theta0, x0))
        left = game.operator(theta0, x0).ravel() + at.equality.transpose(y) + z @ at.inequality
        parts = [theta0, x0.ravel(), y, z, jnp.maximum(left[low], 0), jnp.maximum(-left[high], 0)]
        cuts = np.cumsum([part.size for part in parts])[:-1]
        self.problem, self.u0, self.p = problem, np.concatenate(parts), theta0.size
        self.incentives = problem.incentive_set.constraints(theta0)
        self.pairs = z.size + low.size + high.size
        free = np.flatnonzero(~fixed)

        def split(u):
            return jnp.split(u, cuts)

        def equations(u):
            theta, flat, y, z, w, v = split(u)
            now = game.strategies(theta).constraints(flat.reshape(x0.shape))
            force = game.operator(theta, flat.reshape(x0.shape)).ravel()
            force = force + now.equality.transpose(y) + z @ now.inequality
            force = force.at[low].add(-w).at[high].add(v)
            still = (flat - now.lower)[np.flatnonzero(fixed)]
            return jnp.concatenate([force[free], now.equality(flat) - now.equality_level, still])

        def slacks(u):
            theta, flat, *_ = split(u)
            now = game.strategies(theta).constraints(flat.reshape(x0.shape))
            room = now.inequality_level - now.inequality @ flat
            return jnp.concatenate([room, (flat - now.lower)[low], (now.upper - flat)[high]])

        self.equations, self.slacks = jax.jit(equations), jax.jit(slacks)
        self.multipliers = jax.jit(lambda u: u[cuts[2] :])
        self.objective = jax.jit(
            lambda u: problem.objective(split(u)[0], split(u)[1].reshape(x0.shape))
        )
        self.shape = x0.shape
        self.size_x = x0.size

    def judged(self, theta, x):
        """The objective at the re-solved equilibrium of what was returned."""
        problem = self.problem
        theta = problem.incentive_set.project(jnp.asarray(theta))
        start = problem.game.strategies(theta).project(jnp.asarray(x).reshape(self.shape))
        found = ix.solve_equilibrium(problem.game, theta, start, throw=False)
        return float(problem.objective(theta, found.x))


def by_pympcc(problem, theta0):
    """pympcc with defaults (Scholtes' relaxation, IPOPT) on the complementarity program."""
    kkt = KKTConditions(problem, theta0)
    n, p, limits = kkt.u0.size, kkt.p, kkt.incentives
    lower, upper = np.full(n, -np.inf), np.full(n, np.inf)
    lower[:p], upper[:p] = limits.lower, limits.upper
    rows, level = np.asarray(limits.inequality), np.asarray(limits.inequality_level)
    inside = {}
    if len(level):
        inside = {"n_ineq": len(level), "ineq_constraints": lambda u: rows @ u[:p] - level}
    # It wants at least one pair: a last variable `s` with `0 <= s` complementary to `1 - s >= 0`.
    program = pympcc.MPCCProblem(
        n=n + 1,
        n_comp=kkt.pairs + 1,
        x0=np.append(kkt.u0, 0.0),
        objective=lambda u: kkt.objective(u[:n]),
        comp_G=lambda u: jnp.append(kkt.slacks(u[:n]), u[n]),
        comp_H=lambda u: jnp.append(kkt.multipliers(u[:n]), 1 - u[n]),
        xl=np.append(lower, -np.inf),
        xu=np.append(upper, np.inf),
        n_eq=kkt.equations(kkt.u0).size,
        eq_constraints=lambda u: kkt.equations(u[:n]),
        derivatives="jax",
        use_jax_hessian=True,
        **inside,
    )
    found = pympcc.solve(program, ipopt_options={"print_level": 0})
    return kkt.judged(found.x[:p], found.x[p : p + kkt.size_x]), bool(found.success)


def by_nashopt(problem, theta0):
    """NashOpt with defaults: a penalty on the KKT residual. One agent whose gradient is `F`."""
    kkt = KKTConditions(problem, theta0)
    game, shape = problem.game, kkt.shape
    theta0 = jnp.asarray(theta0)
    if game.moves:
        raise NotImplementedError("strategy sets that move are not bounds of a NashOpt game")
    at = game.strategies(theta0).constraints(jnp.zeros(shape))

    @jax.custom_jvp
    def cost(x, theta):
        return x @ game.operator(theta, x.reshape(shape)).ravel()

    @cost.defjvp
    def cost_jvp(primals, tangents):
        x, theta = primals
        return cost(x, theta), game.operator(theta, x.reshape(shape)).ravel() @ tangents[0]

    rows = {}
    if at.inequality_level.size:
        rows = {
            "g": lambda x, theta: at.inequality @ x - at.inequality_level,
            "ng": at.inequality_level.size,
        }
    if at.equality_level.size:
        rows |= {
            "Aeq": np.asarray(at.equality.dense(jnp.float64)),
            "beq": np.asarray(at.equality_level),
        }
    limits = kkt.incentives
    if limits.inequality_level.size:
        raise NotImplementedError("incentives in a polyhedron are not bounds")
    players = nashopt.ParametricGNEP(
        [kkt.size_x],
        [cost],
        lb=np.asarray(at.lower),
        ub=np.asarray(at.upper),
        npar=kkt.p,
        **rows,
    )
    found = players.solve(
        J=lambda x, theta: problem.objective(theta, x.reshape(shape)),
        pmin=np.asarray(limits.lower),
        pmax=np.asarray(limits.upper),
        p0=theta0,
        x0=jnp.asarray(kkt.u0[kkt.p : kkt.p + kkt.size_x]),
        maxiter=10_000,
        verbose=False,
    )
    # It has no status of its own: its KKT residual tells.
    return kkt.judged(found.p, found.x), bool(np.max(np.abs(found.res)) < 1e-4)


def main():
    rows, methods = [], {"design": by_design, "SLSQP": by_slsqp}
    if pympcc is not None:
        methods["pympcc"] = by_pympcc
    if nashopt is not None:
        methods["NashOpt"] = by_nashopt
    parser = argparse.ArgumentParser()
    parser.add_argument("--methods", nargs="+", choices=list(methods), default=list(methods))
    chosen, _ = parser.parse_known_args()
    methods = {name: methods[name] for name in chosen.methods}
    for name, entry in ix.problems.bank.designs.items():
        if name.startswith(OTHERS):
            continue
        problem, theta0, best = entry.problem, entry.theta0, float(entry.best)
        row = {"problem": name, "best": best}
        for method, solve in methods.items():
            clock = time.perf_counter()
            try:
                objective, success = solve(problem, theta0)
            except Exception as error:  # recorded, not dropped
                objective, success = float("nan"), False
                row[f"{method} error"] = type(error).__name__
            off = abs(float(objective) - best)
            solved = off <= 1e-6 * max(abs(best), 1e-6) + (6e-6 if abs(best) > 1e-3 else 0.0)
            row |= {
                f"{method} objective": float(objective),
                f"{method} solved": solved,
                f"{method} calls it a success": success,
                f"{method} seconds with compilation": time.perf_counter() - clock,
            }
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
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
