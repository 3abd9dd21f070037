"""What one step of design-and-play costs on Sioux Falls (5,280 paths), and what rivals cost."""

import jax
import jax.numpy as jnp
from _measure import compiled, milliseconds, report
from jax.scipy.sparse.linalg import gmres

import incentax as ix

jax.config.update("jax_enable_x64", True)
STEPS = 3000


def main():
    instance = ix.problems.second_best_tolls(eta=1.0, paths=10, max_toll=10.0)
    problem, game = instance.problem, instance.problem.game
    theta = jnp.linspace(0.5, 5.0, 20)
    x = ix.solve_equilibrium(game, theta).x
    scheme = instance.schemes["design-and-play"]

    def unit(theta, x, cotangent):
        value, pull = jax.vjp(game.operator, theta, x)
        return value, pull(cotangent)

    def step(theta0):
        return ix.design(problem, theta0, scheme, x0=instance.x0, steps=STEPS, record=STEPS)

    def hypergradient(solver):
        sensitivity = ix.Implicit(solver, tol=1e-8)
        return lambda t, x: ix.hypergradient(problem, t, x, sensitivity=sensitivity)

    def plain_gmres(theta, x):
        """Path space without scaling or aggregate: the system as the formula prints it."""
        f_theta, f_x = jax.grad(problem.objective, (0, 1))(theta, x)

        def played(theta, x):
            log_x = jnp.log(x) - 0.05 * game.operator(theta, x)
            return game.strategy_set.normalise_log(log_x)[0]

        _, pull = jax.vjp(played, theta, x)
        matvec = lambda w: w - pull(w)[1]  # noqa: E731
        w, _ = gmres(matvec, f_x, tol=1e-8, restart=50, maxiter=20, solve_method="incremental")
        residual = jnp.linalg.norm(matvec(w) - f_x) / jnp.linalg.norm(f_x)
        return f_theta + pull(w)[0], residual

    exact = hypergradient("aggregate")(theta, x).value
    rows = []

    def measure(name, function, arguments, *, scale=1, **repetitions):
        program, seconds = compiled(function, *arguments)
        rows.append(
            {
                "name": name,
                "milliseconds": milliseconds(program, *arguments, **repetitions) / scale,
                "compile_seconds": seconds,
            }
        )
        return program(*arguments)

    measure("operator and its vector-Jacobian product", unit, (theta, x, x))
    design = measure(
        "one step of design-and-play, hypergradient included",
        step,
        (instance.theta0,),
        scale=STEPS,
        repeat=3,
        number=1,
    )
    rows[-1]["largest_linear_residual_at_the_end"] = float(
        design.history.info.gradient_residual[-1]
    )
    for solver, repetitions in (
        ("aggregate", {}),
        ("krylov", {}),
        ("dense", {"repeat": 1, "number": 1}),
    ):
        found = measure(
            f"hypergradient from nothing, {solver}",
            hypergradient(solver),
            (theta, x),
            **repetitions,
        )
        rows[-1] |= {
            "linear_residual": float(found.residual),
            "relative_error": float(jnp.linalg.norm(found.value - exact) / jnp.linalg.norm(exact)),
        }
    value, residual = measure(
        "hypergradient from nothing, plain GMRES on I - dh/dx in path space",
        plain_gmres,
        (theta, x),
        repeat=3,
        number=2,
    )
    rows[-1] |= {
        "linear_residual": float(residual),
        "relative_error": float(jnp.linalg.norm(value - exact) / jnp.linalg.norm(exact)),
    }
    unit_cost = rows[0]["milliseconds"]
    for row in rows:
        row["in_units"] = row["milliseconds"] / unit_cost
    report("iteration", rows, {"paths": int(x.size), "steps": STEPS})


if __name__ == "__main__":
    main()
