"""What 128 seeds in one vmapped call cost, in single runs (Sioux Falls, five paths a pair)."""

import statistics
import time

import jax
from _measure import compiled, report

import incentax as ix

jax.config.update("jax_enable_x64", True)
SEEDS, STEPS, ROUNDS = 128, 1000, 4


def main():
    instance = ix.problems.second_best_tolls(eta=1.0, paths=5, noise=1.0)
    scheme = instance.schemes["design-and-play"]

    def run(key):
        return ix.design(
            instance.problem,
            instance.theta0,
            scheme,
            x0=instance.x0,
            steps=STEPS,
            record=STEPS,
            key=key,
        ).theta

    keys = jax.random.split(jax.random.key(0), SEEDS)
    one, one_compile = compiled(run, keys[0])
    many, many_compile = compiled(jax.vmap(run), keys)
    # Single runs before each vmapped call: the machine's speed drifts over a minute.
    rows = []
    for _ in range(ROUNDS):
        singles = [seconds(one, key) for key in keys[:8]]
        single, together = statistics.median(singles), seconds(many, keys)
        rows.append(
            {
                "single_seconds": single,
                "together_seconds": together,
                "share_of_single_runs": together / single / SEEDS,
            }
        )
    shares = [row["share_of_single_runs"] for row in rows]
    notes = {
        "steps": STEPS,
        "seeds": SEEDS,
        "median_share_of_single_runs": statistics.median(shares),
        "compile_seconds": {"one": one_compile, "vmapped": many_compile},
    }
    report("seeds", rows, notes)


def seconds(program, argument):
    clock = time.perf_counter()
    jax.block_until_ready(program(argument))
    return time.perf_counter() - clock


if __name__ == "__main__":
    main()
