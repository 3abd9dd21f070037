"""Shared by the benchmarks: compile ahead, time, report."""

import argparse
import importlib.metadata
import json
import time
from pathlib import Path

import jax


def compiled(function, *arguments):
    """The compiled function and the seconds that compilation took."""
    clock = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return program, time.perf_counter() - clock


def milliseconds(program, *arguments, repeat=7, number=20):
    """Least time of a call over `repeat` repetitions of `number` calls."""
    jax.block_until_ready(program(*arguments))
    best = float("inf")
    for _ in range(repeat):
        clock = time.perf_counter()
        for _ in range(number):
            out = program(*arguments)
        jax.block_until_ready(out)
        best = min(best, (time.perf_counter() - clock) / number)
    return 1e3 * best


def report(name: str, rows: list[dict], notes: dict) -> None:
    """Prints the rows and writes them, with versions and device, where `--out` says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    out = parser.parse_known_args()[0].out
    packages = ("jax", "jaxlib", "optax", "equinox", "incentax")
    content = {
        "benchmark": name,
        "rows": rows,
        **notes,
        "device": str(jax.devices()[0]),
        "x64": bool(jax.config.read("jax_enable_x64")),
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }
    text = json.dumps(content, indent=2)
    print(text)
    if out is not None:
        out.write_text(text + "\n")
