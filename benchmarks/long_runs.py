"""What chunks, checkpoints, long histories and many seeds in one call cost, in time and memory."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
from _measure import report

import incentax as ix

jax.config.update("jax_enable_x64", True)
STEPS, ROUNDS, SEEDS = 1000, 24, 256


def main():
    if sys.argv[1:2] == ["memory"]:
        return memory(int(sys.argv[2]))
    if sys.argv[1:2] == ["lanes"]:
        return lanes(*map(int, sys.argv[2:]))
    instance = ix.problems.second_best_tolls(eta=1.0, paths=5, noise=1.0)
    scheme, key = instance.schemes["design-and-play"], jax.random.key(0)

    def run(steps=STEPS, **how):
        clock = time.perf_counter()
        found = ix.design(
            instance.problem,
            instance.theta0,
            scheme,
            x0=instance.x0,
            steps=steps,
            key=key,
            record=100,
            **how,
        )
        jax.block_until_ready(found.theta)
        return time.perf_counter() - clock

    def look(step, info):
        return info.objective < 0

    ways = {
        "one scan": dict,
        "chunks of 100, a callback": lambda: {"callbacks": [look]},
        "and a file every chunk": lambda: {
            "callbacks": [look],
            "checkpoint": ix.Checkpoint(tempfile.mkdtemp(), seconds=0),
        },
    }
    first = {name: run(**how()) for name, how in ways.items()}
    times = {name: [] for name in ways}
    for _ in range(ROUNDS):  # in turn: the machine's speed drifts
        for name, how in ways.items():
            times[name].append(run(**how()))
    whole = statistics.median(times["one scan"])
    rows = [
        {
            "way": name,
            "seconds": statistics.median(several),
            "to_one_scan": statistics.median(several) / whole,
            "first_call": first[name],
        }
        for name, several in times.items()
    ]
    notes = {
        "steps": STEPS,
        "ensemble": ensembles(instance, scheme),
        "memory": memories(),
        "memory_of_lanes": memories_of_lanes(),
    }
    report("long_runs", rows, notes)


def ensembles(instance, scheme, steps=300):
    """Shares of single runs, by block."""
    keys = jax.random.split(jax.random.key(0), SEEDS)
    how = {"x0": instance.x0, "steps": steps, "record": steps}

    def one(key):
        clock = time.perf_counter()
        found = ix.design(instance.problem, instance.theta0, scheme, key=key, throw=False, **how)
        jax.block_until_ready(found.theta)
        return time.perf_counter() - clock

    one(keys[0])
    rows = []
    for block in (256, 128, 64, 32):
        seconds = []
        for _ in range(2):
            clock = time.perf_counter()
            ix.ensemble(instance.problem, keys=keys, scheme=scheme, block=block, **how)
            seconds.append(time.perf_counter() - clock)
        single = statistics.median(one(key) for key in keys[:8])
        share = min(seconds) / single / SEEDS
        rows.append({"block": block, "first": seconds[0], "second": seconds[1], "share": share})
    return {"seeds": SEEDS, "steps": steps, "rows": rows}


def memories():
    """Peak memory of a process by number of steps, with some 1,000 rows whatever their number."""
    steps = 10_000, 100_000, 1_000_000
    return [{"steps": count, "peak_megabytes": peak_of("memory", count)} for count in steps]


def memories_of_lanes():
    """Peak memory of a process by lanes of a block, and by lanes in all."""
    sizes = (32, 256), (64, 256), (128, 256), (256, 256), (256, 512), (256, 1024)
    return [
        {"block": block, "lanes": count, "peak_megabytes": peak_of("lanes", block, count)}
        for block, count in sizes
    ]


def peak_of(*what):
    """Of this program in a process of its own."""
    command = [sys.executable, __file__, *map(str, what)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def lanes(block, count, steps=50):
    """Sioux Falls with five paths a pair, its history one row."""
    instance = ix.problems.second_best_tolls(eta=1.0, paths=5, noise=1.0)
    ix.ensemble(
        instance.problem,
        keys=jax.random.split(jax.random.key(0), count),
        scheme=instance.schemes["design-and-play"],
        block=block,
        x0=instance.x0,
        steps=steps,
        record=steps,
    )
    tell_peak()


def memory(steps):
    """A run with some 1,000 rows and a file a second."""
    problem = ix.problems.emission_tax(n=10)
    ix.design(
        problem.problem,
        problem.theta0,
        problem.schemes["design-and-play"],
        x0=problem.x0,
        steps=steps,
        record=steps // 1000,
        key=jax.random.key(0),
        checkpoint=ix.Checkpoint(tempfile.mkdtemp(), seconds=1),
    )
    tell_peak()


def tell_peak():
    """Not `getrusage`, whose peak a process has from the one that began it."""
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    print(float(status.split()[0]) / 1024)


if __name__ == "__main__":
    main()
