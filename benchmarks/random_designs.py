"""How often does `ix.design` find the global optimum of random small designs?

    python random_designs.py --count 150 --out f64.json
    python random_designs.py --dtype float32 --families cournot quantal
    python random_designs.py --families moving-box --index 17   # one instance again

Outcomes: global; local (success is claimed at a local optimum); false_success (success is claimed,
but a point within 1e-3 of the box's width is better); false_alarm (no success is claimed at the
global optimum); failed (no success is claimed, rightly); better_than_judge (the judge is wrong).
"""

import argparse
import collections
import itertools
import json
import time
import traceback

import jax
import jax.numpy as jnp
import numpy as np
from _random_families import Data, FAMILIES, instance, problem_of
from _random_judge import judge_of

import incentax as ix

OUTCOMES = "global local false_success false_alarm failed better_than_judge error".split()
NEAR = 1e-3  # of the box's width


def classify(data: Data, solution: ix.DesignSolution, rtol: float) -> dict[str, object]:
    """What the judge says of a solution."""
    data = data.cast("float64")
    judge = judge_of(data)
    zero, one = np.zeros(judge.p), np.ones(judge.p)
    at, best = judge.minimum(zero, one)
    spread = float(np.ptp(judge.value(judge.grid(zero, one, 9))))
    tolerance = rtol * abs(best) + 0.01 * rtol * max(spread, abs(best))
    theta = np.asarray(solution.theta, float)
    u = np.clip((theta - data.low) / (data.high - data.low), 0, 1)
    value = float(judge.value(u[None])[0])
    success = bool(solution.result == ix.RESULTS.successful)
    _, nearby = judge.minimum(np.maximum(u - NEAR, 0), np.minimum(u + NEAR, 1))
    if value < best - tolerance:
        outcome = "better_than_judge"
    elif value <= best + tolerance:
        outcome = "global" if success else "false_alarm"
    elif not success:
        outcome = "failed"
    else:
        outcome = "local" if value - nearby <= tolerance else "false_success"
    return dict(
        outcome=outcome,
        value_off=bool(abs(float(solution.objective) - value) > tolerance),
        u=u.tolist(),
        judge_u=at.tolist(),
        excess=(value - best) / max(abs(best), spread),
        nearby_excess=(value - nearby) / max(abs(best), spread),
        theta=theta.tolist(),
        objective=value,
        best=best,
    )


def run_one(
    family: str, theta_scale: float, cost_scale: float, index: int, options: argparse.Namespace
) -> dict[str, object]:
    """Designs one instance and has it judged."""
    data = instance(family, options.seed, index)
    data = data.in_units(theta_scale, cost_scale).cast(options.dtype)
    units = f"{theta_scale:g}, {cost_scale:g}"
    row = dict(family=family, units=units, seed=options.seed, index=index)
    shape = (family, data.effect.shape)
    row["warm"] = shape in _SEEN
    _SEEN.add(shape)
    compiled, began = len(_COMPILATIONS), time.perf_counter()
    try:
        solution = ix.design(problem_of(family, data), jnp.asarray(data.start), throw=False)
        solution = jax.block_until_ready(solution)
        row["seconds"] = time.perf_counter() - began
        row["compilations"] = len(_COMPILATIONS) - compiled
        row["ending"] = ix.ENDINGS[solution.ending][:40]
        row["result"] = ix.RESULTS[solution.result][:40]
        row["stationarity"] = float(solution.stationarity)
        began = time.perf_counter()
        rtol = options.rtol or (1e-6 if options.dtype == "float64" else 1e-4)
        row |= classify(data, solution, rtol)
        return row | dict(judge_seconds=time.perf_counter() - began)
    except Exception:  # of the package or of the judge
        return row | dict(outcome="error", error=traceback.format_exc(limit=-3))


_COMPILATIONS: list[str] = []
_SEEN: set[tuple] = set()


def _count(event: str, seconds: float, **_: object) -> None:
    """Counts compilations."""
    if event == "/jax/core/compile/backend_compile_duration":
        _COMPILATIONS.append(event)


def report(rows: list[dict]) -> None:
    """A table; times are medians without the instance that compiles."""
    columns = [*OUTCOMES, "value off", "ms", "judge ms", "recompiled"]
    print(f"{'family':<11}{'units':>11}{'number':>8}" + "".join(f"{c:>19}" for c in columns))
    for family, units in dict.fromkeys((row["family"], row["units"]) for row in rows):
        own = [row for row in rows if (row["family"], row["units"]) == (family, units)]
        warm = [row for row in own if row["warm"] and row["outcome"] != "error"]
        count = collections.Counter(row["outcome"] for row in own)
        cells = [count[outcome] for outcome in OUTCOMES]
        cells.append(sum(row.get("value_off", False) for row in own))
        for key in ("seconds", "judge_seconds"):
            cells.append(
                round(1e3 * float(np.median([row[key] for row in warm])), 1) if warm else 0
            )
        cells.append(sum(row["compilations"] > 0 for row in warm))
        print(f"{family:<11}{units:>11}{len(own):>8}" + "".join(f"{cell:>19}" for cell in cells))


def main() -> None:
    """Runs the families asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=30, help="instances a family")
    parser.add_argument("--index", type=int, nargs="*", help="these instances alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    parser.add_argument("--theta-scale", type=float, nargs="+", default=[1.0])
    parser.add_argument("--cost-scale", type=float, nargs="+", default=[1.0])
    parser.add_argument("--rtol", type=float, help="1e-6, and 1e-4 in float32, when left out")
    parser.add_argument("--families", nargs="*", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--cache", help="folder in which JAX keeps compiled programs")
    parser.add_argument("--out", help="JSON with a row an instance")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", options.cache)
    jax.monitoring.register_event_duration_secs_listener(_count)
    indices = range(options.count) if options.index is None else options.index
    rows = []
    units = itertools.product(options.theta_scale, options.cost_scale)
    for family, (theta, cost) in itertools.product(options.families, list(units)):
        for index in indices:
            row = run_one(family, theta, cost, index, options)
            rows.append(row)
            if row["outcome"] != "global" or row.get("value_off"):
                print(json.dumps(row), flush=True)
        if options.out:
            with open(options.out, "w") as file:
                json.dump(dict(options=vars(options), rows=rows), file, indent=1)
    report(rows)


if __name__ == "__main__":
    main()
