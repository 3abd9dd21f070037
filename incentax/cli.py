"""The command line: `incentax list`, `incentax run`, `incentax reproduce`."""

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from . import plots
from ._cache import keep_programs
from ._files import writable_folder, write_json, write_npz, write_text
from .charging import draw as draw_charging, reproduce as reproduce_charging
from .figure1 import draw as draw_figure1, Figure1, reproduce as reproduce_figure1
from .problems import second_best_tolls
from .rates import draw as draw_rates, reproduce as reproduce_rates
from .table1 import as_markdown, draw as draw_table1, reproduce as reproduce_table1
from .toll_run import draw as draw_tolls, run_tolls

RUNS = {"sioux-falls": "second-best tolls on 20 links of Sioux Falls, by design-and-play"}
REPRODUCTIONS = {
    "charging": "Du, Meng, Hu (2025), figures 2 to 4: a regulator without derivatives (stand-in)",
    "figure1": "Liu et al. (2022), figure 1: step size settings A to D under noise",
    "rates": "Theorems 5.4 and 5.5 of Liu et al. (2022), and the regulator's, measured",
    "table1": "Liu et al. (2022), table 1: one loop against two on the emission tax",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command `incentax`; returns the exit status.

    Wrong arguments end with a message and status 2, as does a missing optional package; a run
    that breaks off or is interrupted writes what there is and ends with status 1. Everything is
    solved in double precision: an application may say so, the library itself never does.
    """
    options = _parser().parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    if not options.no_cache:
        keep_programs()
    try:
        if options.command == "list":
            return _list()
        if options.command == "run":
            return _run(options)
        return _reproduce(options)
    except (ValueError, ImportError) as error:
        sys.stderr.write(f"incentax: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="incentax", description="Incentive design for games, with a certificate."
    )
    no_cache = "neither read nor keep compiled programs in the user's cache folder"
    parser.add_argument("--no-cache", action="store_true", help=no_cache)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what can be run")

    run = commands.add_parser("run", help="solve a ready problem")
    run.add_argument("name", choices=RUNS, metavar="NAME", help=", ".join(RUNS))
    run.add_argument(
        "--eta", type=_positive, default=1.0, help="dispersion of route choice [0.01 h]"
    )
    run.add_argument("--paths", type=_count, default=10, help="shortest paths of each pair")
    run.add_argument(
        "--max-toll", type=_positive, default=10.0, help="bound on every toll [0.01 h]"
    )
    run.add_argument("--steps", type=_count, default=3000, help="steps of design-and-play")
    run.add_argument("--seeds", type=_count, default=1, help="runs side by side")
    run.add_argument("--noise", type=_non_negative, default=0.0, help="of perceived costs [0.01 h]")
    run.add_argument("--setting", choices=("A", "B", "C", "D"), default="A", help="step sizes")
    run.add_argument("--out", default="results/sioux-falls", help="folder of the results")

    reproduce = commands.add_parser("reproduce", help="repeat an experiment of the literature")
    reproduce.add_argument(
        "name", choices=[*REPRODUCTIONS, "all"], metavar="NAME", help=", ".join(REPRODUCTIONS)
    )
    reproduce.add_argument("--steps", type=_count, default=3000, help="steps of every setting")
    reproduce.add_argument("--seeds", type=_count, default=10, help="runs of every setting")
    reproduce.add_argument(
        "--rate-steps", type=_count, default=100_000, help="steps of design-and-play of rates"
    )
    reproduce.add_argument(
        "--rate-seeds", type=_count, default=100, help="runs of every experiment of rates"
    )
    reproduce.add_argument("--paths", type=_count, default=10, help="shortest paths of each pair")
    reproduce.add_argument("--firms", type=_count, default=100, help="number of firms of table1")
    reproduce.add_argument(
        "--sizes",
        type=_count,
        nargs="+",
        default=[10, 100, 1000, 10_000],
        help="numbers of firms over which table1 shows how cost grows",
    )
    reproduce.add_argument(
        "--gap", type=_positive, default=1e-8, help="true gap to which table1 solves"
    )
    reproduce.add_argument("--out", default="results", help="folder of the results")
    return parser


def _list() -> int:
    table = _table("incentax", ("command", "what it does"))
    for name, text in RUNS.items():
        table.add_row(f"incentax run {name}", text)
    for name, text in REPRODUCTIONS.items():
        table.add_row(f"incentax reproduce {name}", text)
    _console().print(table)
    return 0


def _run(options: argparse.Namespace) -> int:
    folder = writable_folder(options.out)
    plots.new_figure(1, 1)  # a missing extra is told before the work, not after it
    clock = time.perf_counter()
    instance = second_best_tolls(
        options.eta,
        options.paths,
        options.max_toll,
        setting=options.setting,
        noise=options.noise,
    )
    _console().print(
        f"Solving: {instance.description}; eta {options.eta:g}, {options.paths} paths a pair, "
        f"tolls in [0, {options.max_toll:g}], setting {options.setting}, {options.steps} steps, "
        f"{options.seeds} seed(s), noise {options.noise:g}."
    )
    scheme = instance.schemes["design-and-play"]
    with _progress() as report:
        run = run_tolls(instance, scheme, steps=options.steps, seeds=options.seeds, report=report)
    summary = {"options": _options(options), "environment": _environment(), **run.summary}
    summary["seconds_in_all"] = time.perf_counter() - clock
    write_json(folder / "result.json", summary)
    write_npz(folder / "result.npz", run.arrays)
    plots.save(draw_tolls(instance, run), folder / "figure.png")
    _show_run(summary)
    _console().print(f"Wrote {folder}/result.json, result.npz and figure.png")
    if summary["result"] != "successful":
        sys.stderr.write(f"incentax: {summary['result']}\n")
        return 1
    return 0


def _show_run(summary: dict[str, Any]) -> None:
    times, certificate = summary["total_travel_time"], summary["certificate"]
    slope, without = summary["slope"], summary["slope_without_tolls"]
    done = f"all {summary['steps']} steps done, finite throughout"
    table = _table("Result (times in 0.01 h)", ("what", "value"))
    rows: list[tuple[str, str]] = [
        ("total travel time without tolls", f"{times['without_tolls']:,.1f}"),
        ("total travel time with tolls, at their equilibrium", f"{times['with_tolls']:,.1f}"),
        (
            f"total travel time at system optimum on these paths "
            f"(relative gap {float(times['system_optimum_relative_gap']):.0e})",
            f"{float(times['system_optimum_on_these_paths']):,.1f}",
        ),
        ("share of the gap captured", f"{100 * summary['gap_captured']:.2f} %"),
        (
            "left to gain by quasi-Newton steps on exact gradients",
            f"{100 * summary['left_to_gain']:.1e} %",
        ),
        (
            "slope along tolls that may still move (without tolls)",
            f"{slope['projected_hypergradient_norm']:.2g} "
            f"({without['projected_hypergradient_norm']:.4g}) per 0.01 h",
        ),
        (
            "residual of equilibrium at these tolls",
            f"{certificate['equilibrium_residual']:.1e}",
        ),
        (
            "residual of play (mixing keeps it off equilibrium)",
            f"{float(summary['play_residual']):.1e}",
        ),
        ("derivative error, against central differences", f"{certificate['derivative_error']:.1e}"),
        ("seconds to compile", f"{summary['seconds_to_compile']:.1f}"),
        ("seconds to run", f"{summary['seconds_to_run']:.1f}"),
        ("result", done if summary["result"] == "successful" else summary["result"]),
    ]
    for row in rows:
        table.add_row(*row)
    table.caption = _tolls_in_words(summary)
    tolls = _table(
        "Tolls (0.01 h); links are rows of the network, from 0, as in the figure",
        ("link", "toll", "link", "toll", "link", "toll"),
    )
    entries = [(link, f"{toll:.3f}") for link, toll in summary["tolls_by_link"].items()]
    for first in range(0, len(entries), 3):
        tolls.add_row(*(cell for entry in entries[first : first + 3] for cell in entry))
    _console().print(table)
    _console().print(tolls)


def _tolls_in_words(summary: dict[str, Any]) -> str:
    certificate, left = summary["certificate"], 100 * summary["left_to_gain"]
    words = [
        "The equilibrium is exact."
        if certificate["equilibrium_residual"] < 1e-6
        else f"The equilibrium was not reached ({certificate['equilibrium_residual']:.1e}).",
        f"The tolls are within {left:.1e} % of the best that accurate steps reach from them.",
    ]
    if summary["seeds"] > 1:
        words.append(
            f"They are those of seed {summary['tolls_of_seed']}, the best of {summary['seeds']}; "
            f"over the seeds a toll differs by {summary['largest_spread_of_a_toll_over_seeds']:.2g}"
            " at most."
        )
    return " ".join(words)


def _reproduce(options: argparse.Namespace) -> int:
    folder = writable_folder(options.out)
    plots.new_figure(1, 1)
    wanted = REPRODUCTIONS if options.name == "all" else [options.name]
    if "charging" in wanted:
        _reproduce_charging(options, folder)
    if "table1" in wanted:
        _reproduce_table1(options, folder)
    if "figure1" in wanted:
        _reproduce_figure1(options, folder)
    if "rates" in wanted:
        _reproduce_rates(options, folder)
    return 0


def _reproduce_charging(options: argparse.Namespace, folder: Path) -> None:
    with _progress() as report:
        charging = reproduce_charging(steps=min(options.steps, 600), seeds=20, report=report)
    content = {"options": _options(options), "environment": _environment(), **charging.summary}
    write_json(folder / "charging.json", content)
    plots.save(draw_charging(charging), folder / "charging.png")
    shown = _table("Charging (stand-in)", ("what", "value"))
    for name, value in charging.summary["findings"].items():
        shown.add_row(name, f"{value:.6g}")
    left = charging.summary["certificate"]["stationarity"]
    shown.caption = (
        f"At the median price of the seeds the projected gradient is {left:.1e}: a regulator "
        "without derivatives settles near the optimum, within what its smoothing and its step "
        "leave, not on it."
    )
    _console().print(shown)
    _console().print(f"Wrote {folder}/charging.json and charging.png")


def _reproduce_table1(options: argparse.Namespace, folder: Path) -> None:
    with _progress() as report:
        table = reproduce_table1(
            n=options.firms,
            sizes=options.sizes,
            gap=options.gap,
            max_iterations=options.steps,
            report=report,
        )
    content = {"options": _options(options), "environment": _environment(), **table._asdict()}
    write_json(folder / "table1.json", content)
    write_text(folder / "table1.md", as_markdown(table))
    plots.save(draw_table1(table), folder / "table1.png")
    shown = _table("Table 1", ("method", "iterations", "ms / iteration", "seconds", "gap"))
    for row in table.rows:
        shown.add_row(
            row["method"],
            str(row["iterations"]) if row["reached"] else f"> {row['iterations']}",
            f"{row['milliseconds_per_iteration']:.4g}",
            f"{row['seconds']:.3g}",
            f"{row['gap']:.1e}",
        )
    _console().print(shown)
    _console().print(f"Wrote {folder}/table1.json, table1.md and table1.png")


def _reproduce_rates(options: argparse.Namespace, folder: Path) -> None:
    if options.rate_steps < 100:
        raise ValueError(f"--rate-steps needs at least 100, two decades, got {options.rate_steps}")
    with _progress() as report:
        rates = reproduce_rates(steps=options.rate_steps, seeds=options.rate_seeds, report=report)
    content = {"options": _options(options), "environment": _environment(), **rates.summary}
    write_json(folder / "rates.json", content)
    plots.save(draw_rates(rates), folder / "rates.png")
    for sentence in rates.summary["findings"]:
        _console().print(f"- {sentence}")
    _console().print(f"Wrote {folder}/rates.json and rates.png")


def _reproduce_figure1(options: argparse.Namespace, folder: Path) -> None:
    with _progress() as report:
        figure1 = reproduce_figure1(
            steps=options.steps, seeds=options.seeds, paths=options.paths, report=report
        )
    content = {"options": _options(options), "environment": _environment(), **figure1.summary}
    write_json(folder / "figure1.json", content)
    plots.save(draw_figure1(figure1), folder / "figure1.png")
    _show_figure1(figure1)
    _console().print(f"Wrote {folder}/figure1.json and figure1.png")


def _show_figure1(figure1: Figure1) -> None:
    table = _table(
        "Figure 1: mean gaps at the last step",
        ("setting", "runs that stayed finite", "upper-level gap", "lower-level gap"),
    )
    for name, row in figure1.summary["settings"].items():
        table.add_row(
            name,
            f"{row['finite_runs']} of {figure1.summary['seeds']}",
            _number(row["upper_gap_mean"][-1]),
            _number(row["lower_gap_mean"][-1]),
        )
    _console().print(table)
    for sentence in figure1.summary["findings"]:
        _console().print(f"- {sentence}")


def _number(value: float) -> str:
    return f"{value:.3g}" if value == value else "-"


def _options(options: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if name != "command"}


def _environment() -> dict[str, Any]:
    packages = ("incentax", "jax", "jaxlib", "optax", "equinox", "numpy", "scipy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"device": str(jax.devices()[0]), "dtype": "float64", "versions": versions}


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"needs a whole number >= 1, got {text}")
    return int(text)


def _positive(text: str) -> float:
    value = _number_or_nan(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"needs a finite number > 0, got {text}")
    return value


def _non_negative(text: str) -> float:
    value = _number_or_nan(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"needs a finite number >= 0, got {text}")
    return value


def _number_or_nan(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _rich() -> Any:
    try:
        import rich  # noqa: PLC0415
        import rich.console  # noqa: PLC0415
        import rich.progress  # noqa: PLC0415
        import rich.table  # noqa: PLC0415
    except ImportError:
        raise ImportError('the command line needs rich: pip install "incentax[plot]"') from None
    return rich


def _console() -> Any:
    return _rich().console.Console(soft_wrap=True)


def _table(title: str, columns: Sequence[str]) -> Any:
    table = _rich().table.Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


class _progress:
    """A progress bar; gives the function that moves it."""

    def __enter__(self) -> Callable[[str, float], None]:
        self._bar = _rich().progress.Progress(transient=False)
        self._bar.start()
        task = self._bar.add_task("starting", total=1.0)

        def report(what: str, share: float) -> None:
            self._bar.update(task, description=what, completed=share)

        return report

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def entry() -> None:
    """What the installed command calls."""
    sys.exit(main())
