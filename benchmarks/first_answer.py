"""How long does the first answer take, from the start of the process to the printed optimum?

    python first_answer.py [--cases ...] [--methods ...] [--repeat 3] [--out FILE]

Every figure is of fresh processes, one after another: least CPU seconds of `--repeat` runs.
"cold" compiles everything, "kept" finds its programs on disk (`ix.enable_cache`). Rivals solve the
firms alone, written for them by hand: SLSQP (scipy) with exact derivatives on the complementarity
conditions, pympcc on pounce, NashOpt; those that are not installed are left out.
"""

# ruff: noqa: PLC0415 (imports are part of what is timed)

import argparse
import functools
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRMS = {"2 firms": 2, "10 firms": 10, "50 firms": 50}
BANK = {
    "24 tolls, 96 arc flows": "multicommodity tolls A7",
    "25 tolls, 90 arc flows": "multicommodity tolls A6",
    "capacities, 5 links": "capacities B1",
    "inverse problem, n = 50": "inverse problem C1",
}
CASES = [*FIRMS, *BANK, "Sioux Falls, 20 tolls"]
METHODS = ["cold", "kept", "SLSQP", "pympcc", "NashOpt"]
NEEDS = {"pympcc": ("pympcc", "pounce"), "NashOpt": ("nashopt",)}


def problem_of(case: str):
    """The problem and its start, for incentax."""
    import jax.numpy as jnp

    import incentax as ix

    if case in BANK:
        entry = ix.problems.bank.designs[BANK[case]]
        return entry.problem, entry.theta0
    if case not in FIRMS:
        instance = ix.problems.second_best_tolls()
        return instance.problem, instance.theta0
    cost = jnp.linspace(1.0, 2.0, FIRMS[case])
    game = ix.Game(lambda tax, x: cost + tax - (10 - x.sum() - x), ix.NonNegative())
    problem = ix.DesignProblem(
        game,
        lambda tax, x: (x.sum() - 4.0) ** 2 + 0.01 * (tax**2).sum(),
        ix.Box(jnp.zeros(cost.size), 4.0),
    )
    return problem, jnp.zeros(cost.size)


def by_incentax(case: str, began: float) -> dict:
    """CPU seconds of every verb and of the stages of compilation, traces, text and memory maps."""
    import jax

    import incentax as ix
    from incentax import _compile

    jax.config.update("jax_enable_x64", True)
    row, stages = {"import": time.process_time() - began}, {}
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: stages.__setitem__(event, stages.get(event, 0) + seconds)
    )
    if os.environ.get("KEPT"):
        ix.enable_cache(os.environ["KEPT"])
    problem, theta0 = problem_of(case)
    made, texts = _compile._new_program, {}
    if os.environ.get("COUNT"):

        @functools.cache
        def counted(function, *rest):
            program = made(function, *rest)

            def call(arrays):
                texts.setdefault(program, program.lower(arrays).as_text().count("\n"))
                return program(arrays)

            return call

        _compile._program = counted
    solution = None
    for verb in ("solve_equilibrium", "design", "design again", "certify"):
        clock = time.process_time()
        if verb == "solve_equilibrium":
            ix.solve_equilibrium(problem.game, theta0, throw=False).x.block_until_ready()
        elif verb == "certify":
            ix.certify(problem, solution.theta, solution.x)
        else:
            solution = jax.block_until_ready(ix.design(problem, theta0, throw=False))
            row["objective"] = float(solution.objective)
        row[verb] = time.process_time() - clock
    for name, event in (
        ("trace", "jaxpr_trace"),
        ("lower", "jaxpr_to_mlir_module"),
        ("compile", "backend_compile"),
    ):
        row[name] = stages.get(f"/jax/core/compile/{event}_duration", 0.0)
    if texts:
        row = {"lines of StableHLO": sum(texts.values())}
    if os.path.exists("/proc/self/maps"):
        row["memory maps"] = Path("/proc/self/maps").read_text().count("\n")
    return row


def by_slsqp(case: str) -> float:
    """Minimises over `(tax, x)` with `0 <= x` complementary to `F >= 0`."""
    import numpy as np
    import scipy.optimize

    n = FIRMS[case]
    cost, matrix = np.linspace(1.0, 2.0, n), np.eye(n) + 1

    def value(z):
        tax, x = z[:n], z[n:]
        slope = np.concatenate([0.02 * tax, np.full(n, 2 * (x.sum() - 4))])
        return (x.sum() - 4) ** 2 + 0.01 * (tax**2).sum(), slope

    def force(z):
        return cost + z[:n] - 10 + matrix @ z[n:]

    slopes = np.hstack([np.eye(n), matrix])
    rules = [
        {"type": "ineq", "fun": force, "jac": lambda z: slopes},
        {
            "type": "ineq",
            "fun": lambda z: -z[n:] * force(z),
            "jac": lambda z: (
                -z[n:, None] * slopes - np.hstack([np.zeros((n, n)), np.diag(force(z))])
            ),
        },
    ]
    bounds = [(0, 4)] * n + [(0, None)] * n
    start = np.concatenate([np.zeros(n), np.maximum(np.linalg.solve(matrix, 10 - cost), 0)])
    found = scipy.optimize.minimize(
        value, start, jac=True, method="SLSQP", bounds=bounds, constraints=rules
    )
    return float(found.fun)


def by_pympcc(case: str) -> float:
    """Defaults, on pounce in place of IPOPT."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import pounce

    sys.modules["cyipopt"] = pounce
    import pympcc

    jax.config.update("jax_enable_x64", True)
    n = FIRMS[case]
    cost = jnp.linspace(1.0, 2.0, n)
    free = np.full(n, np.inf)
    program = pympcc.MPCCProblem(
        n=2 * n,
        n_comp=n,
        x0=np.concatenate([np.zeros(n), np.full(n, 8.5 / (n + 1))]),
        objective=lambda z: (z[n:].sum() - 4) ** 2 + 0.01 * (z[:n] ** 2).sum(),
        comp_G=lambda z: z[n:],
        comp_H=lambda z: cost + z[:n] - (10 - z[n:].sum() - z[n:]),
        xl=np.concatenate([np.zeros(n), -free]),
        xu=np.concatenate([np.full(n, 4.0), free]),
        derivatives="jax",
        use_jax_hessian=True,
    )
    return float(pympcc.solve(program, ipopt_options={"print_level": 0}).objective)


def by_nashopt(case: str) -> float:
    """Defaults: a penalty on the KKT residual."""
    import jax
    import jax.numpy as jnp
    import nashopt
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    n = FIRMS[case]
    cost = jnp.linspace(1.0, 2.0, n)
    costs = [lambda x, t, i=i: x[i] * (cost[i] + t[i] - 10 + x.sum()) for i in range(n)]
    game = nashopt.ParametricGNEP([1] * n, costs, lb=np.zeros(n), ub=np.full(n, np.inf), npar=n)
    found = game.solve(
        J=lambda x, t: (x.sum() - 4) ** 2 + 0.01 * (t**2).sum(),
        pmin=np.zeros(n),
        pmax=np.full(n, 4.0),
        p0=jnp.zeros(n),
        x0=jnp.full(n, 8.5 / (n + 1)),
        verbose=False,
    )
    x = np.asarray(found.x)
    return float((x.sum() - 4) ** 2 + 0.01 * (np.asarray(found.p) ** 2).sum())


RIVALS = {"SLSQP": by_slsqp, "pympcc": by_pympcc, "NashOpt": by_nashopt}


def child(case: str, method: str) -> None:
    """What a fresh process does."""
    began = time.process_time()
    if method in RIVALS:
        row = {"objective": RIVALS[method](case)}
    else:
        row = by_incentax(case, began)
    sys.stdout.write("\n" + json.dumps(row) + "\n")


def timed(case: str, method: str, **environment: str) -> dict:
    """A fresh process: what it found, its CPU and wall seconds."""
    command = [sys.executable, __file__, "--child", case, method]
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ran = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=False
    )
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode:  # recorded, not dropped
        return {"error": ran.stderr.strip().splitlines()[-1][:200]}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall} | json.loads(ran.stdout.strip().splitlines()[-1])


def measure(case: str, method: str, repeat: int) -> dict:
    """The fastest of some fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"KEPT": folder} if method == "kept" else {}
        if environment:
            timed(case, method, **environment)  # fills it
        runs = [timed(case, method, **environment) for _ in range(repeat)]
        row = min(runs, key=lambda run: run.get("cpu", float("inf")))
        if method == "cold" and "error" not in row:
            row |= timed(case, method, COUNT="1") if "error" not in row else {}
            row |= {key: min(runs, key=lambda r: r["cpu"])[key] for key in ("cpu", "wall")}
    return {"case": case, "method": method} | row


def main() -> None:
    """Runs what is asked for and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    rows = []
    for case in options.cases:
        for method in options.methods:
            missing = not all(map(importlib.util.find_spec, NEEDS.get(method, ())))
            if missing or (method in RIVALS and case not in FIRMS):
                continue
            rows.append(measure(case, method, options.repeat))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    columns = ("case", "method", "cpu", "wall", "import", "solve_equilibrium", "design", "certify")
    columns += ("design again", "trace", "lower", "compile", "memory maps", "objective")
    for row in [dict(zip(columns, columns)), *rows]:
        cells = [row.get(c, row.get("error", "") if c == "cpu" else "") for c in columns]
        shown = [f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells]
        print("| " + " | ".join(shown) + " |")
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
