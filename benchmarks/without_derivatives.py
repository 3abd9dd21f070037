"""What the lack of derivatives costs: the regulator beside hypergradient schemes.

The emission tax of 20 firms and 20 tolls on Sioux Falls (logit, eta 1, 10 paths, tolls up to 10):
20 incentives each, from zero. Every scheme gets the same number of lower-level iterations: steps of
the agents' play, over all incentives that are tried. What counts is the objective at the exact
equilibrium of the incentive reached, as a share of what can be gained at all. Writes a table
(Markdown), a figure and JSON to the folder `--folder`. Step sizes were chosen by trial.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import numpy as np
from _measure import report

import incentax as ix
from incentax import plots

jax.config.update("jax_enable_x64", True)

LEVELS = (0.1, 0.01, 0.001)
BUDGETS = {"emission tax": 40_000, "Sioux Falls": 40_000}
DOUBLE_LOOP_STEPS = 1000


def emission_tax():
    instance = ix.problems.emission_tax(20)
    play, sgd = instance.schemes["design-and-play"], instance.schemes["double-loop"]
    step = 1.9 / 21  # of play, as in the schemes of the instance
    return instance, {
        "design-and-play": (play, 1),
        "double loop, implicit": (sgd, 1),
        "regulator, 1 direction": (regulator(4e-4, 0.1, step, 60, 1), 2),
        "regulator, 10 directions": (regulator(2e-3, 0.1, step, 60, 10), 20),
    }


def sioux_falls():
    instance = ix.problems.second_best_tolls(1.0)
    play = instance.schemes["design-and-play"]
    sgd = ix.DoubleLoop(play.optimizer, play_step=0.05, inner_tol=1e-3, inner_steps=60)
    return instance, {
        "design-and-play": (play, 1),
        "double loop, implicit": (sgd, 1),
        "regulator, 1 direction": (regulator(6e-5, 0.2, 0.05, 60, 1), 2),
        "regulator, 10 directions": (regulator(3e-4, 0.2, 0.05, 60, 10), 20),
    }


def regulator(step_size, smoothing, play_step, inner_steps, directions):
    return ix.ZerothOrderRegulator(
        smoothing=smoothing,
        step_size=step_size,
        seeking=ix.MirrorDescent(play_step),
        inner_steps=inner_steps,
        directions=directions,
    )


def curve(instance, scheme, lanes, budget):
    """Lower-level iterations spent, and the objective at the exact equilibrium, over the run."""
    problem = instance.problem
    record = ix.Record(1, observe=lambda theta, x: theta)

    @partial(jax.jit, static_argnums=0)
    def run(steps):
        return ix.design(
            problem,
            instance.theta0,
            scheme,
            x0=instance.x0,
            steps=steps,
            key=jax.random.key(0),
            record=record,
            throw=False,
        )

    # As many steps as the budget buys, if each takes at least what the cheapest one does.
    steps = budget // (lanes * int(scheme.inner_steps(0))) if lanes > 1 else budget
    if isinstance(scheme, ix.DoubleLoop):
        steps = DOUBLE_LOOP_STEPS
    found = run(steps)
    assert found.result == ix.RESULTS.successful
    spent = np.cumsum(lanes * np.maximum(np.asarray(found.history.info.inner_steps), 1))
    rows = np.flatnonzero(spent <= budget)
    rows = rows[np.unique(np.geomspace(1, len(rows), 60).astype(int)) - 1]

    @jax.jit
    def exact(thetas):
        def objective(theta):
            x = ix.solve_equilibrium(problem.game, theta, throw=False).x
            return problem.objective(theta, x)

        return jax.lax.map(objective, thetas)

    return spent[rows], np.asarray(exact(found.history.observed[rows]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("results"))
    options, _ = parser.parse_known_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    figure = plots.new_figure(10, 4)
    rows, panels = [], figure.subplots(1, 2)
    for axes, (title, make) in zip(
        panels, {"emission tax": emission_tax, "Sioux Falls": sioux_falls}.items()
    ):
        instance, schemes = make()
        problem = instance.problem
        best = float(ix.design(problem, instance.theta0).objective)
        x = ix.solve_equilibrium(problem.game, instance.theta0).x
        first = float(problem.objective(instance.theta0, x))
        for name, (scheme, lanes) in schemes.items():
            spent, objectives = curve(instance, scheme, lanes, BUDGETS[title])
            left = (objectives - best) / (first - best)
            axes.loglog(spent, np.maximum(left, 1e-12), label=name)
            reached = {}
            for level in LEVELS:
                below = np.flatnonzero(left <= level)
                reached[f"iterations to {level:g}"] = int(spent[below[0]]) if below.size else None
            row = {"problem": title, "scheme": name, "left at the end": float(left[-1]), **reached}
            row["iterations"] = int(spent[-1])
            rows.append(row)
            print(row, flush=True)
        axes.set(xlabel="lower-level iterations", title=title, ylabel="share of the gain left")
        axes.legend(fontsize=8)
    plots.save(figure, options.folder / "without_derivatives.png")
    (options.folder / "without_derivatives.md").write_text(as_markdown(rows))
    report("without_derivatives", rows, {"budgets": BUDGETS})


def as_markdown(rows):
    head = [f"left {level:g} after" for level in LEVELS]
    lines = [
        "| problem | scheme | " + " | ".join(head) + " | left at the end |",
        "|---" * (len(head) + 3) + "|",
    ]
    for row in rows:
        counts = [row[f"iterations to {level:g}"] for level in LEVELS]
        shown = ["-" if count is None else f"{count:,}" for count in counts]
        lines.append(
            f"| {row['problem']} | {row['scheme']} | "
            + " | ".join(shown)
            + f" | {row['left at the end']:.1e} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
