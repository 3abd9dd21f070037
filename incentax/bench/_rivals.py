"""Other libraries, on the conditions of our problems, from the equilibrium at the stated start."""

import itertools
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..design import DesignProblem
from ..equilibrium import solve_equilibrium
from ._answer import Answer, Refused

# Penalties that the best setting of NashOpt is looked for among, and iterations each may take.
_PENALTIES = tuple(10.0**k for k in range(1, 9))
_ITERATIONS = 10_000
# Residual of the agents' conditions up to which NashOpt, which has no status, succeeded.
_SETTLED = 1e-4

# What CasADi's expressions are written up to, for mpecss, and its infinity.
_WRITTEN, _BIG = 200, 1e20
_fresh = itertools.count()


class _Conditions:
    """The lower level as conditions on `u = (theta, x, y, z, w, v)`.

    `y`, `z` are multipliers of equalities and inequalities, `w`, `v` of lower and upper bounds.
    `u0` is the equilibrium at the start with its multipliers, the best start there is.
    """

    def __init__(self, problem: DesignProblem, theta0: Array):
        game = problem.game
        x0 = solve_equilibrium(game, theta0, throw=False).x
        at = game.strategies(theta0).constraints(x0)
        fixed = np.asarray(at.lower >= at.upper)
        low = np.flatnonzero(np.isfinite(at.lower) & ~fixed)
        high = np.flatnonzero(np.isfinite(at.upper) & ~fixed)
        free, held = np.flatnonzero(~fixed), np.flatnonzero(fixed)
        y, z = game.strategies(theta0).multipliers(x0, game.operator(theta0, x0))
        left = game.operator(theta0, x0).ravel() + at.equality.transpose(y) + z @ at.inequality
        parts = [theta0, x0.ravel(), y, z, jnp.maximum(left[low], 0), jnp.maximum(-left[high], 0)]
        cuts = np.cumsum([part.size for part in parts])[:-1].tolist()
        self.u0, self.p, self.size_x, self.shape = np.concatenate(parts), cuts[0], x0.size, x0.shape
        self.incentives, self.at = problem.incentive_set.constraints(theta0), at
        self.pairs = z.size + low.size + high.size

        def equations(u: Array) -> Array:
            theta, flat, y, z, w, v = jnp.split(u, cuts)
            now = game.strategies(theta).constraints(flat.reshape(x0.shape))
            force = game.operator(theta, flat.reshape(x0.shape)).ravel()
            force = force + now.equality.transpose(y) + z @ now.inequality
            force = force.at[low].add(-w).at[high].add(v)
            still = (flat - now.lower)[held]
            return jnp.concatenate([force[free], now.equality(flat) - now.equality_level, still])

        def slacks(u: Array) -> Array:
            theta, flat, *_ = jnp.split(u, cuts)
            now = game.strategies(theta).constraints(flat.reshape(x0.shape))
            room = now.inequality_level - now.inequality @ flat
            return jnp.concatenate([room, (flat - now.lower)[low], (now.upper - flat)[high]])

        def objective(u: Array) -> Array:
            theta, flat, *_ = jnp.split(u, cuts)
            return problem.objective(theta, flat.reshape(x0.shape))

        self.equations, self.slacks = jax.jit(equations), jax.jit(slacks)
        self.multipliers, self.objective = jax.jit(lambda u: u[cuts[2] :]), jax.jit(objective)


def by_pympcc(problem: DesignProblem, theta0: Array):
    """Scholtes' relaxation of the complementarity program, its default."""
    _stand_in_for_cyipopt()
    import pympcc  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    kkt = _Conditions(problem, theta0)
    n, p, limits = kkt.u0.size, kkt.p, kkt.incentives
    lower, upper = np.full(n + 1, -np.inf), np.full(n + 1, np.inf)
    lower[:p], upper[:p] = limits.lower, limits.upper
    rows, level = np.asarray(limits.inequality), np.asarray(limits.inequality_level)
    if limits.equality_level.size:
        raise Refused("equalities on the incentives are not written here")
    inside: dict[str, Any] = {}
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
        xl=lower,
        xu=upper,
        n_eq=kkt.equations(kkt.u0).size,
        eq_constraints=lambda u: kkt.equations(u[:n]),
        derivatives="jax",
        use_jax_hessian=True,
        **inside,
    )

    def solve() -> Answer:
        found = pympcc.solve(program, ipopt_options={"print_level": 0})
        theta, x = found.x[:p], found.x[p : p + kkt.size_x].reshape(kkt.shape)
        return Answer(theta, bool(found.success), str(found.message), x)

    return solve


def _stand_in_for_cyipopt() -> None:
    """pympcc derives from `cyipopt.Problem`; where IPOPT is not installed, pounce stands in."""
    try:
        import cyipopt  # noqa: F401, PLC0415  # pyright: ignore[reportMissingImports]
    except ImportError:
        import pounce  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    else:
        return

    class Problem:
        def __init__(self, n: int, m: int, **about: Any):
            self._inner = pounce.Problem(n=n, m=m, **{**about, "problem_obj": self})

        def add_option(self, *option: Any) -> Any:
            return self._inner.add_option(*option)

        def solve(self, x0: np.ndarray, **start: Any) -> Any:
            known = {name: one for name, one in start.items() if one is not None and len(one)}
            return self._inner.solve(x0, **known)

    module: Any = types.ModuleType("cyipopt")
    module.Problem = Problem
    sys.modules["cyipopt"] = module


def by_mpecss(problem: DesignProblem, theta0: Array):
    """Scholtes' relaxation with adaptive parameters, by the IPOPT of CasADi.

    It takes expressions of CasADi: those of quadratic conditions are written from derivatives.
    Its first phase stays at any equilibrium that it is given or finds; left out, as here, it
    solves more.
    """
    import casadi  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    from mpecss.phase_2.mpecss import (  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
        run_mpecss,
    )

    kkt = _Conditions(problem, theta0)
    n, p, limits = kkt.u0.size, kkt.p, kkt.incentives
    objective = _as_quadratics(kkt.objective, n)
    equations, slacks = _as_quadratics(kkt.equations, n), _as_quadratics(kkt.slacks, n)
    # A last variable `s` with `0 <= s` complementary to `1 - s >= 0`: with no pair it does nothing.
    first, pairs, start = n - kkt.pairs, kkt.pairs + 1, np.append(kkt.u0, 0.0)
    start += 0.01 * np.cos(np.arange(n + 1))  # as its own loaders do
    rows = casadi.DM(np.vstack([limits.inequality, np.asarray(limits.equality.dense(jnp.float64))]))
    level = np.concatenate([limits.inequality_level, limits.equality_level])
    floor = np.where(np.arange(len(level)) < len(limits.inequality_level), -_BIG, level)
    lower, upper = np.full(n + 1, -_BIG), np.full(n + 1, _BIG)
    lower[:p] = np.maximum(limits.lower, -_BIG)
    upper[:p] = np.minimum(limits.upper, _BIG)
    still = len(kkt.equations(kkt.u0))

    def room(u: Any) -> Any:
        return casadi.vertcat(slacks(u[:n]), u[n])

    def multiplier(u: Any) -> Any:
        return casadi.vertcat(u[first:n], 1 - u[n])

    def build(relaxation: Any, shift: Any, smoothing: str = "product") -> dict[str, Any]:
        del smoothing
        u = casadi.SX.sym("u", n + 1)
        one, other = room(u), multiplier(u)
        g = [equations(u[:n]), rows @ u[:p], one + shift, other + shift, one * other - relaxation]
        zero, big = np.zeros(pairs), np.full(pairs, _BIG)
        sides = ([np.zeros(still), floor, zero, zero, -big],
                 [np.zeros(still), level, big, big, zero])  # fmt: skip
        low, high = (np.concatenate(side).tolist() for side in sides)
        about = {"n_comp": pairs, "n_orig_con": still + len(level)}
        bounds = {"lbg": low, "ubg": high, "lbx": lower.tolist(), "ubx": upper.tolist()}
        return {"x": u, "f": objective(u[:n]), "g": casadi.vertcat(*g), **bounds, **about}

    program = {
        "name": str(next(_fresh)),  # what it keeps is by name
        "family": "",
        "n_x": n + 1,
        "n_comp": pairs,
        "n_con": still + len(level),
        "n_p": 0,
        "x0_fn": lambda seed=0: start,
        "build_casadi": build,
        "G_fn": room,
        "H_fn": multiplier,
        "lbx": lower.tolist(),
        "ubx": upper.tolist(),
        "lbG_eff": [0.0] * pairs,
        "lbH_eff": [0.0] * pairs,
    }

    def solve() -> Answer:
        found = run_mpecss(program, start, {"feasibility_phase": False})
        at = np.asarray(found["z_final"])
        x = jnp.asarray(at[p : p + kkt.size_x]).reshape(kkt.shape)
        words = f"{found['status']}, {found['stationarity']}"
        return Answer(jnp.asarray(at[:p]), found["status"] == "converged", words, x)

    return solve


def _as_quadratics(function: Callable[[Array], Array], n: int) -> Callable[[Any], Any]:
    """The same function of CasADi's vectors, `Refused` where it is no polynomial of degree two."""
    import casadi  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    if n > _WRITTEN:
        raise Refused(f"its expressions are written up to {_WRITTEN} unknowns, here are {n}")
    rows = jax.jit(lambda u: jnp.atleast_1d(function(u)))
    zero = jnp.zeros(n)
    at, slopes, bends = rows(zero), jax.jacfwd(rows)(zero), jax.jacfwd(jax.jacrev(rows))(zero)
    far = 3 * jax.random.normal(jax.random.key(0), (5, n))
    model = at + far @ slopes.T + jnp.einsum("ai,rij,aj->ar", far, bends, far) / 2
    off = jnp.abs(jax.vmap(rows)(far) - model) / (1 + jnp.abs(model))
    if not (jnp.max(off, initial=0.0) < 1e-9):
        raise Refused("its expressions are written where all is quadratic, which this is not")
    slope, curved = casadi.sparsify(casadi.DM(np.asarray(slopes))), np.asarray(bends)

    def expression(u: Any) -> Any:
        quadratic = [
            casadi.bilin(casadi.sparsify(casadi.DM(bend)), u, u) / 2 if bend.any() else 0
            for bend in curved
        ]
        return np.asarray(at) + slope @ u + casadi.vertcat(*quadratic)

    return expression


def by_nashopt(problem: DesignProblem, theta0: Array):
    """A penalty on the residual of the agents' conditions, at its default."""
    design = _nashopt(problem, theta0)
    return lambda: design(1e5)


def by_nashopt_at_its_best(problem: DesignProblem, theta0: Array):
    """The penalty, out of eight, whose incentive is best at the equilibrium solved anew."""
    design = _nashopt(problem, theta0)

    @jax.jit
    def value(theta: Array, x: Array) -> Array:
        theta = problem.incentive_set.project(theta)
        found = solve_equilibrium(problem.game, theta, x, throw=False)
        return jnp.nan_to_num(problem.objective(theta, found.x), nan=jnp.inf)

    def solve() -> Answer:
        found = [(design(penalty), penalty) for penalty in _PENALTIES]
        answer, penalty = min(found, key=lambda one: float(value(one[0].theta, one[0].x)))
        return answer._replace(words=f"penalty {penalty:.0e}, {answer.words}")

    return solve


def _nashopt(problem: DesignProblem, theta0: Array):
    import nashopt  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    if problem.game.moves:
        raise Refused("strategy sets that move are not bounds of its games")
    kkt = _Conditions(problem, theta0)
    game, shape, at, limits = problem.game, kkt.shape, kkt.at, kkt.incentives
    if limits.inequality_level.size or limits.equality_level.size:
        raise Refused("it takes bounds on the incentives, and no other rows")

    # One agent whose gradient is the operator.
    @jax.custom_jvp
    def cost(x: Array, theta: Array) -> Array:
        return x @ game.operator(theta, x.reshape(shape)).ravel()

    @cost.defjvp
    def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
        x, theta = primals
        return cost(x, theta), game.operator(theta, x.reshape(shape)).ravel() @ tangents[0]

    rows: dict[str, Any] = {}
    if at.inequality_level.size:
        rows["g"] = lambda x, theta: at.inequality @ x - at.inequality_level
        rows["ng"] = at.inequality_level.size
    if at.equality_level.size:
        rows["Aeq"] = np.asarray(at.equality.dense(jnp.float64))
        rows["beq"] = np.asarray(at.equality_level)
    sides = {"lb": np.asarray(at.lower), "ub": np.asarray(at.upper)}
    players = nashopt.ParametricGNEP([kkt.size_x], [cost], npar=kkt.p, **sides, **rows)

    def value(x: Array, theta: Array) -> Array:
        return problem.objective(theta, x.reshape(shape))

    def design(penalty: float) -> Answer:
        found = players.solve(
            J=value,
            pmin=np.asarray(limits.lower),
            pmax=np.asarray(limits.upper),
            p0=theta0,
            x0=jnp.asarray(kkt.u0[kkt.p : kkt.p + kkt.size_x]),
            rho=penalty,
            maxiter=_ITERATIONS,
            verbose=False,
        )
        left, x = float(np.max(np.abs(found.res))), jnp.asarray(found.x)
        words = f"residual {left:.1e}"
        return Answer(jnp.asarray(found.p), left < _SETTLED, words, x.reshape(shape))

    return design


def by_optimistix(problem: DesignProblem, theta0: Array):
    """Its Newton method for `F(theta, x) = 0`, differentiated implicitly, under L-BFGS-B."""
    import optimistix  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    import scipy.optimize  # noqa: PLC0415

    game, limits = problem.game, problem.incentive_set.constraints(theta0)
    x0 = solve_equilibrium(game, theta0, throw=False).x
    at = game.strategies(theta0).constraints(x0)
    bounded = bool(np.isfinite(at.lower).any() or np.isfinite(at.upper).any())
    if bounded or at.inequality_level.size or at.equality_level.size:
        raise Refused("its implicit derivatives need a lower level without constraints")
    if limits.inequality_level.size or limits.equality_level.size:
        raise Refused("it takes bounds on the incentives, and no other rows")
    newton = optimistix.Newton(rtol=1e-10, atol=1e-10)

    @jax.jit
    @jax.value_and_grad
    def value(theta: Array) -> Array:
        found = optimistix.root_find(lambda x, theta: game.operator(theta, x), newton, x0, theta)
        return problem.objective(theta, found.value)

    def both(theta: np.ndarray) -> tuple[float, np.ndarray]:
        objective, gradient = value(jnp.asarray(theta))
        return float(objective), np.asarray(gradient, float)

    bounds = list(zip(np.asarray(limits.lower).tolist(), np.asarray(limits.upper).tolist()))

    def solve() -> Answer:
        found = scipy.optimize.minimize(
            both, np.asarray(theta0, float), jac=True, method="L-BFGS-B", bounds=bounds
        )
        return Answer(jnp.asarray(found.x), bool(found.success), str(found.message))

    return solve
