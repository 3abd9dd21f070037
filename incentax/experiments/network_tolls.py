"""Second-best tolls on a network from its files: `incentax tolls`."""

import csv
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .. import plots, traffic
from .._results import ENDINGS, in_words, RESULTS
from ..design import design, DesignSolution
from ..diagnostics import Certificate, certify
from ..problems import network_tolls
from ._protocol import Report, Table

# Rounds of design, between which paths are added that tolls made attractive; links of a table.
_ROUNDS, _SHOWN = 4, 20
# Share of trips with a better path outside of the set beyond which a design is none.
_MISSING = 0.02


@dataclass(frozen=True)
class TollOptions:
    """Which links carry a toll, and how drivers choose."""

    toll_links: tuple[str, ...] = ()
    """Links by their row in the file, from 1, or by their ends, as in 5-6."""
    cordon: tuple[str, ...] = ()
    """Nodes, numbered as in the file: every link that enters this group from outside is tolled."""
    most_congested: int | None = None
    """So many links with the largest delays; 20 where nothing else is chosen."""
    all: bool = False
    """Every link."""
    max_toll: float = 10.0
    """Largest toll, in the file's unit of time."""
    eta: float = 1.0
    """Dispersion of route choice, in the same unit."""
    steps: int = 200
    """Steps of the designer at most, on each set of paths."""


class Outcome(NamedTuple):
    """Everything that is shown; `summary` is JSON, `links` a row for every link, `history` the
    objective step by step on every set of paths."""

    summary: dict[str, Any]
    links: list[dict[str, Any]]
    network: traffic.Network
    history: list[np.ndarray]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Of every link (NaN where there is no toll), and the history of the last set of paths."""
        names = ("toll", "flow", "cost")
        arrays = {name: np.array([row[name] for row in self.links], float) for name in names}
        return arrays | {"objective": self.history[-1]}


def run(
    network: traffic.Network, demand: traffic.Demand, options: TollOptions, report: Report
) -> Outcome:
    """Tolls for logit route choice on the paths that traffic uses, and what they do to a
    deterministic user equilibrium."""
    clock = time.perf_counter()
    for name, value in (("--eta", options.eta), ("--max-toll", options.max_toll)):
        if not value > 0:
            raise ValueError(f"`{name}` needs a number > 0, got {value:g}")
    if options.steps < 1:
        raise ValueError(f"`--steps` needs a whole number >= 1, got {options.steps}")
    _tolled(network, options, np.zeros(network.number_of_links))  # refusals before the work
    user = traffic.assign(network, demand, gap=1e-8, progress=_told(report, "user equilibrium", 0))
    links = _tolled(network, options, user.flows)
    told = _told(report, "system optimum", 0.1)
    system = traffic.assign(network, demand, objective="system", gap=1e-8, progress=told)
    told = _told(report, "equilibria for the paths", 0.2)
    paths = traffic.generate_paths(network, demand, start=user, progress=told)
    theta = jnp.zeros(len(links))
    rounds: list[dict[str, Any]] = []
    history: list[np.ndarray] = []
    while True:
        report(f"tolls on {paths.number_of_paths:,} paths", 0.3 + 0.2 * len(rounds))
        instance = network_tolls(
            network, demand, links, paths=paths, eta=options.eta, max_toll=options.max_toll
        )
        problem, game = instance.problem, instance.problem.game
        assert isinstance(game, traffic.RoutingGame)
        found = design(problem, theta, steps=options.steps, throw=False)
        history.append(np.asarray(found.history.objective))
        theta, flows = found.theta, np.asarray(game.link_flows(found.x))
        costs = np.array(game.link_times(jnp.asarray(flows)))
        costs[links] += np.asarray(theta)
        grown, missing = traffic.grow_paths(network, demand, paths, costs)
        rounds.append({"paths": paths.number_of_paths, "share_with_a_better_path": missing})
        if missing < _MISSING / 10 or len(rounds) == _ROUNDS:
            break
        paths = grown
    report("certificate", 0.9)
    certificate = certify(problem, theta, found.x)
    without = game.total_travel_time(None, _settled(game, jnp.zeros(len(links)), found))
    tolls = np.full(network.number_of_links, np.nan)
    tolls[links] = np.asarray(theta)
    report("user equilibrium with tolls", 0.95)
    tolled = traffic.assign(network, demand, tolls=np.nan_to_num(tolls), gap=1e-8, start=user)
    summary = {
        "links": network.number_of_links,
        "nodes": network.number_of_nodes,
        "pairs": len(demand.trips),
        "trips": float(np.sum(demand.trips)),
        "trips_within_zones": demand.within_zones,
        "tolled_links": len(links),
        "eta": options.eta,
        "max_toll": options.max_toll,
        "rounds": rounds,
        "logit": {"without_tolls": float(without), "with_tolls": float(found.objective)},
        "deterministic": {
            "without_tolls": user.total_travel_time,
            "with_tolls": tolled.total_travel_time,
            "system_optimum": system.total_travel_time,
            "relative_gaps": [user.relative_gap, tolled.relative_gap, system.relative_gap],
        },
        "revenue": float(np.nansum(tolls * flows)),
        "certificate": certificate.as_dict(),
        "result": _result(found, certificate, missing),
        "steps": sum(map(len, history)),
        "seconds": time.perf_counter() - clock,
    }
    return Outcome(summary, _rows(network, flows, costs, tolls), network, history)


def _told(report: Report, what: str, share: float) -> Callable[[int, float, float], None]:
    """Begins a part of the work, and tells of the gap after every iteration of it."""
    report(what, share)
    return lambda number, gap, seconds: report(f"{what}, gap {gap:.0e}", share)


def _settled(game: traffic.RoutingGame, theta: Any, found: DesignSolution) -> Any:
    return traffic.logit_equilibrium(game, theta, found.x).x


def _result(found: DesignSolution, certificate: Certificate, missing: float) -> str:
    """In words, "successful" where nothing is to be said."""
    if missing > _MISSING:
        return (
            f"{100 * missing:.1f} % of all trips have a better path under these tolls than any in "
            "the set: totals with tolls are not to be trusted; try a smaller --eta or --max-toll"
        )
    if found.result == RESULTS.successful:
        return "successful"
    return f"{in_words(ENDINGS, found.ending)}: {certificate.verdict}"


def _tolled(network: traffic.Network, options: TollOptions, flows: np.ndarray) -> np.ndarray:
    """Rows of the links that are chosen, from 0; `ValueError` unless in one way."""
    ways = {
        "--toll-links": bool(options.toll_links),
        "--cordon": bool(options.cordon),
        "--most-congested": options.most_congested is not None,
        "--all": options.all,
    }
    named = [name for name, given in ways.items() if given]
    if len(named) > 1:
        raise ValueError(f"links to toll are chosen in one way, got {' and '.join(named)}")
    if options.all:
        return np.arange(network.number_of_links)
    if options.cordon:
        names = {network.name_of_node(node): node for node in range(network.number_of_nodes)}
        unknown = [name for name in options.cordon if name not in names]
        if unknown:
            raise ValueError(f"`--cordon` needs nodes of the network, got {unknown[0]}")
        return traffic.cordon(network, [names[name] for name in options.cordon])
    if options.toll_links:
        return np.array(
            sorted({link for text in options.toll_links for link in _named(network, text)})
        )
    number = 20 if options.most_congested is None else options.most_congested
    number = min(number, network.number_of_links) if options.most_congested is None else number
    return np.sort(traffic.most_congested(network, flows, number))


def _named(network: traffic.Network, text: str) -> list[int]:
    """Links by a row, from 1, or by their ends; several where links are parallel."""
    if text.isdigit() and 1 <= int(text) <= network.number_of_links:
        return [int(text) - 1]
    ends = [link for link in range(network.number_of_links) if network.ends_of_link(link) == text]
    if not ends:
        raise ValueError(
            f"`--toll-links` needs rows in 1..{network.number_of_links}, or ends as in "
            f"{network.ends_of_link(0)}, got {text}"
        )
    return ends


def _rows(
    network: traffic.Network, flows: np.ndarray, costs: np.ndarray, tolls: np.ndarray
) -> list[dict[str, Any]]:
    return [
        {
            "link": link + 1,
            "from": network.name_of_node(int(network.tail[link])),
            "to": network.name_of_node(int(network.head[link])),
            "toll": None if np.isnan(tolls[link]) else float(tolls[link]),
            "flow": float(flows[link]),
            "cost": float(costs[link]),
        }
        for link in range(network.number_of_links)
    ]


def as_csv(outcome: Outcome) -> str:
    """A row for every link: number and ends as in the file, toll (empty where none), flow, cost."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(outcome.links[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(outcome.links)
    return text.getvalue()


def as_geojson(outcome: Outcome) -> str | None:
    """The same as lines on a map, in the coordinates of the file; `None` without positions."""
    network = outcome.network
    if network.position is None:
        return None
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "LineString",
                "coordinates": [
                    network.position[end[link]].tolist() for end in (network.tail, network.head)
                ],
            },
            "properties": row,
        }
        for link, row in enumerate(outcome.links)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


def tables(outcome: Outcome) -> list[Table]:
    """What came of it, and the dearest links."""
    summary = outcome.summary
    logit, certain = summary["logit"], summary["deterministic"]
    gaps = certain["relative_gaps"]
    rows = [
        ("total travel time, logit, without tolls", f"{logit['without_tolls']:,.6f}"),
        ("total travel time, logit, with tolls", f"{logit['with_tolls']:,.6f}"),
        (f"user equilibrium without tolls (gap {gaps[0]:.0e})", f"{certain['without_tolls']:,.2f}"),
        (f"user equilibrium with these tolls (gap {gaps[1]:.0e})", f"{certain['with_tolls']:,.2f}"),
        (f"system optimum (gap {gaps[2]:.0e})", f"{certain['system_optimum']:,.2f}"),
        ("revenue", f"{summary['revenue']:,.2f}"),
        ("paths", f"{summary['rounds'][-1]['paths']:,}"),
        (
            "share of trips whose best path is none of these",
            f"{100 * summary['rounds'][-1]['share_with_a_better_path']:.3g} %",
        ),
        ("residual of equilibrium", f"{summary['certificate']['equilibrium_residual']:.1e}"),
        ("slope along tolls that may still move", f"{summary['certificate']['stationarity']:.2g}"),
        ("steps; seconds in all", f"{summary['steps']}; {summary['seconds']:.1f}"),
        ("result", summary["result"]),
    ]
    tolled = [row for row in outcome.links if row["toll"] is not None]
    dear = sorted(tolled, key=lambda row: -row["toll"])[:_SHOWN]
    shown = [
        (str(row["link"]), row["from"], row["to"], f"{row['toll']:.4f}", f"{row['flow']:,.1f}")
        for row in dear
    ]
    title = "Tolls" + (f", the dearest {_SHOWN} of {len(tolled)}" if len(tolled) > _SHOWN else "")
    return [
        Table("Result", ("what", "value"), rows),
        Table(title, ("link", "from", "to", "toll", "flow"), shown),
    ]


def words(outcome: Outcome) -> list[str]:
    """The verdict, and what was left out."""
    summary = outcome.summary
    said = [summary["certificate"]["verdict"]]
    certain = summary["deterministic"]
    # A total is right to about ten times the gap.
    rounding = 1 + 10 * max(certain["relative_gaps"])
    if certain["with_tolls"] > certain["without_tolls"] * rounding:
        said.append(
            "Were route choice deterministic, these tolls would make total travel time worse: they "
            "are for drivers whose choices spread by `--eta`, which has to fit the unit of time."
        )
    if summary["trips_within_zones"]:
        said.append(
            f"{summary['trips_within_zones']:,.1f} trips stay in their zone and are on no link."
        )
    return said


def draw(outcome: Outcome) -> Any:
    """The designer's steps, and the map where nodes have positions."""
    network = outcome.network
    figure = plots.new_figure(12 if network.position is not None else 6, 6)
    axes = figure.subplots(1, 1 if network.position is None else 2, squeeze=False)[0]
    begun = 0
    for number, values in enumerate(outcome.history):
        label = f"on {outcome.summary['rounds'][number]['paths']:,} paths"
        axes[0].plot(begun + np.arange(1, len(values) + 1), values, lw=1, label=label)
        begun += len(values)
    before = outcome.summary["logit"]["without_tolls"]
    axes[0].axhline(before, color="C3", ls="--", lw=1, label="without tolls, on the last paths")
    axes[0].set(xlabel="step of the designer", ylabel="total travel time")
    least = min(values.min() for values in outcome.history)
    axes[0].set_ylim(top=before + 0.3 * (before - least))
    axes[0].legend(fontsize=8)
    if network.position is not None:
        flows = np.array([row["flow"] for row in outcome.links])
        tolls = np.array([row["toll"] for row in outcome.links], float)
        plots.draw_map(axes[1], network, flows, tolls, "the network's unit of time")
    return figure
