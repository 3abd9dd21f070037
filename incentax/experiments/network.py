"""What a run on a road network shows beside: system optimum, the gap captured, tolls by link."""

from typing import Any

import numpy as np
from jaxtyping import Array

from .. import plots, traffic
from ._protocol import Table


def network_figures(
    game: traffic.RoutingGame, tolls: np.ndarray, before: Array, after: Array
) -> dict[str, Any]:
    """Entries of the summary: total travel times, the share of the gap captured, tolls by link.

    `before` and `after` are the path shares at equilibrium without tolls and with them.
    """
    links = np.asarray(game.tolled_links)
    optimum = traffic.system_optimum(game)
    ideal = float(optimum.total_travel_time)
    first, last = (float(game.total_travel_time(None, x)) for x in (before, after))
    # With one path a pair there is nothing to choose, and no gap.
    open_gap = first - ideal > 1e-9 * first
    return {
        "tolls_by_link": dict(zip(map(str, links.tolist()), tolls.tolist())),
        "total_travel_time": {
            "without_tolls": first,
            "with_tolls": last,
            "system_optimum_on_these_paths": ideal,
            "system_optimum_relative_gap": float(optimum.relative_gap),
        },
        "gap_captured": (first - last) / (first - ideal) if open_gap else float("nan"),
    }


def network_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What is shown of it."""
    times = summary["total_travel_time"]
    return [
        ("total travel time without tolls", f"{times['without_tolls']:,.1f}"),
        ("total travel time with tolls, at their equilibrium", f"{times['with_tolls']:,.1f}"),
        (
            "total travel time at system optimum on these paths (relative gap "
            f"{times['system_optimum_relative_gap']:.0e})",
            f"{times['system_optimum_on_these_paths']:,.1f}",
        ),
        ("share of the gap captured", f"{100 * summary['gap_captured']:.2f} %"),
    ]


def network_table(summary: dict[str, Any], across: int = 3) -> Table:
    """Tolls by link, several links in a row."""
    entries = [(link, f"{toll:.3f}") for link, toll in summary["tolls_by_link"].items()]
    entries += [("", "")] * (-len(entries) % across)
    rows = [
        tuple(cell for entry in entries[first : first + across] for cell in entry)
        for first in range(0, len(entries), across)
    ]
    title = "Tolls; links are rows of the network, from 0, as in the figure"
    return Table(title, ("link", "toll") * across, rows)


def draw_network(axes: Any, network: traffic.Network, summary: dict[str, Any]) -> None:
    """The network, with a number and a toll on every tolled link."""
    links = np.array([int(link) for link in summary["tolls_by_link"]])
    tolls = np.array(list(summary["tolls_by_link"].values()))
    plots.draw_tolls(axes, network, links, tolls, "the network's unit of time")
    captured = 100 * summary["gap_captured"]
    axes.set_title(f"tolls capture {captured:.1f} % of the gap", fontsize=10)
