"""The commands and their options."""

import dataclasses
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
from cyclopts import App, Parameter

from .. import plots, traffic
from .._environment import environment
from .._files import writable_folder, write_json, write_npz, write_text
from ..assumptions import diagnose as diagnose_problem
from ..diagnostics import certify as certify_design
from ..experiments import Experiment, EXPERIMENTS, network_tolls, ready_problem, Table
from ..problems import READY
from ._bench import bench
from ._chosen import Chosen, chosen, chosen_again, exactly, kept as kept_arguments
from ._folder import folder_for, is_begun, read_result, run_kept
from ._html import page
from ._replay import compared
from ._show import console, progress, show, show_table

app = App(
    name="incentax",
    help="Incentive design for games, with a certificate. `--no-cache` before or after any command "
    "neither reads nor keeps compiled programs in the user's cache folder.",
    help_format="plaintext",
    version=importlib.metadata.version("incentax"),
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(consume_multiple=True, negative=(), converter=exactly),
)
app.register_install_completion_command()
app.command(bench)

_GO_ON = "the same command with --resume goes on from there"

Settings = Annotated[tuple[str, ...], Parameter(name="--set")]


@app.command(name="list")
def list_all() -> int:
    """What can be run and reproduced, with each problem's own arguments."""
    rows = [
        (f"incentax run {name}", ready.about, ", ".join(kept_arguments(ready.make)))
        for name, ready in READY.items()
    ]
    rows += [
        (f"incentax reproduce {name}", experiment.about, "")
        for name, experiment in EXPERIMENTS.items()
    ]
    rows.append(("incentax tolls", "second-best tolls on a road network of your own", ""))
    show_table("incentax", ("command", "what it does", "--set"), rows)
    return 0


@app.command
def run(
    problem: str,
    *,
    scheme: str | None = None,
    steps: int | None = None,
    seeds: int = 1,
    starts: int | None = None,
    set_: Settings = (),
    out: Path | None = None,
    resume: bool = False,
    force: bool = False,
) -> int:
    """Solve a ready problem or one of your own, and write results, certificate, figure and report.

    Parameters
    ----------
    problem
        A name that `incentax list` shows, or FILE.py:NAME, where NAME is an `Instance`, a
        `DesignProblem`, or a function that returns one.
    scheme
        "accurate", or one of the problem's own schemes; its best one when left out.
    steps
        Steps of the scheme; what the problem needs when left out.
    seeds
        Runs side by side, for schemes with noise.
    starts
        Starts of the accurate designer.
    set_
        key=value, an argument of the problem's own; may be given several times.
    out
        Folder of the results; results/NAME when left out. A scheme's run is written there at
        intervals, and when it is interrupted.
    resume
        Go on with the run in that folder: to its end, or to more `--steps`.
    force
        Replace results of another problem, and a run that was not finished.
    """
    picked = chosen(problem, set_)
    scheme, steps = scheme or picked.scheme, picked.steps if steps is None else steps
    _require_counts({"--steps": steps, "--seeds": seeds, "--starts": starts})
    accurate = ready_problem.scheme_named(picked.instance, scheme) is None
    if accurate and seeds > 1:
        raise ValueError(f"`--seeds` needs a scheme, got {seeds} for the accurate designer")
    if starts is not None and not accurate:
        raise ValueError(f"`--starts` needs the accurate designer, got {starts} for {scheme}")
    folder = folder_for(out or Path("results") / picked.folder, picked.name, force)
    plots.new_figure(1, 1)  # a missing extra is told before the work, not after it
    if accurate and resume:
        raise ValueError("`--resume` needs a scheme: the accurate designer begins anew")
    kept = None
    if not accurate:
        about = {**picked.as_dict(), "scheme": scheme, "seeds": seeds}
        kept = run_kept(folder, about, steps, resume=resume, force=force)
    console().print(
        f"Solving: {picked.instance.description}; {scheme}, at most {steps} steps"
        + (" from each start." if accurate else ".")
    )
    try:
        with progress() as report:
            outcome = ready_problem.run(
                picked.instance,
                scheme,
                steps=steps,
                seeds=seeds,
                starts=starts,
                report=report,
                kept=kept,
            )
        return _write_run(folder, picked, outcome)
    except KeyboardInterrupt as error:  # after the steps, or in the first ones
        if kept is not None and is_begun(kept):
            error.add_note(_GO_ON)
        raise


def _require_counts(counts: dict[str, int | None]) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"`{name}` needs a whole number >= 1, got {count}")


def _write_run(folder: Path, picked: Chosen, outcome: ready_problem.Outcome) -> int:
    figure = ready_problem.draw(picked.instance, outcome)
    tables, words = ready_problem.tables(outcome), ready_problem.words(outcome)
    summary = {**picked.as_dict(), **outcome.summary, "environment": picked.environment()}
    write_npz(folder / "result.npz", outcome.arrays)
    plots.save(figure, folder / "figure.png")
    title = f"{picked.instance.description}: {outcome.summary['scheme']}"
    shown = page(title, words, tables, folder / "figure.png", summary)
    write_text(folder / "report.html", shown)
    write_json(folder / "result.json", summary)
    show(tables, words)
    console().print(f"Wrote result.json, result.npz, figure.png and report.html to {folder}")
    if outcome.summary["result"] == "successful":
        return 0
    _tell(outcome.summary["result"])
    if outcome.summary["result"].startswith("interrupted"):
        _tell(_GO_ON)
    return 1


def _tell(sentence: str) -> None:
    """On standard error."""
    console(stderr=True).print(f"incentax: {sentence}", highlight=False)


_TOLLS = network_tolls.TollOptions()


@app.command
def tolls(
    *,
    net: Path | None = None,
    trips: Path | None = None,
    nodes: Path | None = None,
    city: int | None = None,
    toll_weight: float = 0.0,
    distance_weight: float = 0.0,
    options: Annotated[network_tolls.TollOptions, Parameter(name="*")] = _TOLLS,
    out: Path = Path("results/tolls"),
    force: bool = False,
) -> int:
    """Second-best tolls on any road network: tolls.csv, tolls.geojson, a map and a report.

    Parameters
    ----------
    net
        Network in the TNTP format, or a GMNS link.csv.
    trips
        Trips in the TNTP format, or a GMNS demand.csv.
    nodes
        Positions of the nodes, in the same format.
    city
        In place of files: a made-up city of so many by so many crossings.
    toll_weight
        Time that one unit of the file's column `toll` is worth, in the file's unit of time.
    distance_weight
        The same for one unit of its column `length`.
    out
        Folder of the results.
    force
        Replace results of another network.
    """
    network, demand = _network(net, trips, nodes, city, (toll_weight, distance_weight))
    name = f"tolls on {net or f'a city of {city} by {city} crossings'}"
    folder = folder_for(out, name, force)
    plots.new_figure(1, 1)
    needed = traffic.memory_of_assignment(network, demand)
    console().print(
        f"{network.number_of_links:,} links, {len(demand.trips):,} pairs with trips; "
        f"about {needed / 1e9:.2g} GB for the equilibrium."
    )
    with progress() as report:
        outcome = network_tolls.run(network, demand, options, report)
    shown_tables, words = network_tolls.tables(outcome), network_tolls.words(outcome)
    plots.save(network_tolls.draw(outcome), folder / "figure.png")
    write_text(folder / "tolls.csv", network_tolls.as_csv(outcome))
    drawn = network_tolls.as_geojson(outcome)
    if drawn is not None:
        write_text(folder / "tolls.geojson", drawn)
    summary = {"name": name, **outcome.summary, "environment": environment()}
    title = f"Tolls on {outcome.summary['tolled_links']} of {network.number_of_links} links"
    write_text(
        folder / "report.html", page(title, words, shown_tables, folder / "figure.png", summary)
    )
    write_json(folder / "result.json", summary)
    write_npz(folder / "result.npz", outcome.arrays)
    show(shown_tables, words)
    written = [
        "result.json",
        "result.npz",
        "tolls.csv",
        *(["tolls.geojson"] if drawn else []),
        "figure.png",
    ]
    console().print(f"Wrote {', '.join(written)} and report.html to {folder}")
    if summary["result"] == "successful":
        return 0
    _tell(outcome.summary["result"])
    return 1


def _network(
    net: Path | None,
    trips: Path | None,
    nodes: Path | None,
    city: int | None,
    weights: tuple[float, float],
) -> tuple[traffic.Network, traffic.Demand]:
    if city is not None:
        if net is not None or trips is not None or nodes is not None:
            raise ValueError("`--city` stands in place of files, got both")
        return traffic.generate_city(city, zones=min(city * city, 100))
    if net is None or trips is None:
        raise ValueError("`incentax tolls` needs --net and --trips, or --city")
    if net.suffix == ".csv":
        if any(weights):
            raise ValueError(
                "`--toll-weight` and `--distance-weight` are for TNTP files: in GMNS vdf_toll is "
                "in the unit of time already"
            )
        network, demand = traffic.read_gmns(net, nodes, trips)
    else:
        network, demand = traffic.read_tntp(
            net, trips, nodes, toll_weight=weights[0], distance_weight=weights[1]
        )
    assert demand is not None
    return network, demand


reproduce = App(
    name="reproduce",
    help="Repeat an experiment of the literature: writes NAME.json, NAME.md, NAME.png and "
    "NAME.html.",
    help_format="plaintext",
)
app.command(reproduce)


def _reproduce(name: str, experiment: Experiment, options: Any, out: Path) -> int:
    folder = writable_folder(out)
    plots.new_figure(1, 1)
    with progress() as report:
        outcome = experiment.run(options, report)
    tables, words = experiment.tables(outcome), experiment.words(outcome)
    chosen_options = dataclasses.asdict(options)
    content = {"options": chosen_options, "environment": environment(), **outcome.summary}
    plots.save(experiment.draw(outcome), folder / f"{name}.png")
    write_text(folder / f"{name}.md", "\n".join(table.as_markdown() for table in tables))
    shown = page(experiment.about, words, tables, folder / f"{name}.png", content)
    write_text(folder / f"{name}.html", shown)
    write_json(folder / f"{name}.json", content)
    show(tables, words)
    console().print(f"Wrote {name}.json, {name}.md, {name}.png and {name}.html to {folder}")
    return 0


def _command(name: str, experiment: Experiment) -> Callable[..., int]:
    """`incentax reproduce NAME`, with the options of the experiment as its own."""

    defaults = experiment.options()

    def reproduce_one(options: Any = defaults, *, out: Path = Path("results")) -> int:
        return _reproduce(name, experiment, options, out)

    reproduce_one.__annotations__["options"] = Annotated[experiment.options, Parameter(name="*")]
    reproduce_one.__doc__ = experiment.about
    return reproduce_one


for _name, _experiment in EXPERIMENTS.items():
    reproduce.command(_command(_name, _experiment), name=_name)


@reproduce.command(name="all")
def reproduce_all(*, out: Path = Path("results")) -> int:
    """All of them, as each is by default."""
    for name, experiment in EXPERIMENTS.items():
        _reproduce(name, experiment, experiment.options(), out)
    return 0


@app.command
def certify(folder: Path) -> int:
    """Recompute the certificate of a run's incentives and strategies, from its folder alone.

    Parameters
    ----------
    folder
        What `incentax run --out` wrote.
    """
    content, arrays = read_result(folder)
    picked = chosen_again(content)
    theta, x = picked.unravel(arrays["theta"]), jnp.asarray(arrays["x"])
    certificate = certify_design(picked.instance.problem, theta, x)
    console().print(str(certificate), highlight=False)
    reported, again = content["objective"]["reached"], float(certificate.objective)
    differs = abs(again - reported) > 1e-6 * max(abs(reported), abs(again))
    if differs:
        _tell(f"the objective is {again:.10g}, and result.json says {reported:.10g}")
    return int(differs)


@app.command
def replay(folder: Path) -> int:
    """Run again what is in a folder, and compare: bit by bit on the same machine, else closely.

    Parameters
    ----------
    folder
        What `incentax run --out` wrote.
    """
    content, arrays = read_result(folder)
    if "record" not in content:
        raise ValueError(
            f"`DIR` needs a folder of this version of `incentax run`, got {folder}, of "
            f"{content.get('environment', {}).get('versions', {}).get('incentax', 'another one')}"
        )
    if content["result"].startswith("interrupted"):
        raise ValueError(
            f"`DIR` needs a run that is done, got {folder}, {content['result']}: `incentax run "
            "--resume` first"
        )
    picked = chosen_again(content)
    with progress() as report:
        outcome = ready_problem.run(
            picked.instance,
            content["scheme"],
            steps=content["steps"],
            seeds=content["seeds"],
            starts=content["starts"],
            report=report,
            kept=ready_problem.Kept(every=content["record"]),
        )
    rows, fine = compared(arrays, outcome.arrays, content["environment"], picked.environment())
    show([Table("Replay", ("what", "largest relative difference"), rows)], [])
    if not fine:
        _tell(f"the run in {folder} is not reproduced")
    return int(not fine)


@app.command
def diagnose(problem: str, *, set_: Settings = ()) -> int:
    """Which assumptions of the theorems hold for a problem.

    Parameters
    ----------
    problem
        As for `incentax run`.
    set_
        key=value, an argument of the problem's own; may be given several times.
    """
    picked = chosen(problem, set_)
    console().print(str(diagnose_problem(picked.instance.problem)), highlight=False)
    return 0
