"""What 128 seeds in one vmapped call cost, in single runs (Sioux Falls, five paths a pair)."""

import jax
from _measure import compiled, milliseconds, report

import incentax as ix

jax.config.update("jax_enable_x64", True)
SEEDS, STEPS = 128, 200


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
    single = milliseconds(one, keys[0], repeat=5, number=1)
    together = milliseconds(many, keys, repeat=3, number=1)
    rows = [
        {"name": "one run", "milliseconds": single, "compile_seconds": one_compile},
        {
            "name": f"{SEEDS} runs in one vmapped call",
            "milliseconds": together,
            "compile_seconds": many_compile,
            "in_single_runs": together / single,
            "share_of_single_runs": together / single / SEEDS,
        },
    ]
    report("seeds", rows, {"steps": STEPS})


if __name__ == "__main__":
    main()
