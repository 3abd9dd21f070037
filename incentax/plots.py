"""Figures. Needs the extra `plot`: `pip install "incentax[plot]"`."""

from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np

from ._files import write_whole
from .traffic import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure that no window shows; matplotlib's global backend is left alone."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise ImportError('a figure needs matplotlib: pip install "incentax[plot]"') from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", path: Path | str) -> None:
    """Writes the figure as PNG, whole or not at all."""
    write_whole(Path(path), lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def draw_tolls(
    axes: "Axes", network: Network, tolled_links: np.ndarray, tolls: np.ndarray, unit: str
) -> Any:
    """The network, every direction of a road on its own line, tolled links coloured by toll.

    Returns the colour scale's mappable. **Raises** `ValueError` when the network has no positions.
    """
    if network.position is None:
        raise ValueError("`draw_tolls(network)` needs node positions, got position=None")
    start, end = network.position[network.tail], network.position[network.head]
    along = end - start
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    # Drive on the right: each direction lies to the right of the line between its nodes.
    right = np.stack([along[:, 1], -along[:, 0]], axis=1)
    start, end = start + 0.07 * right + 0.2 * along, end + 0.07 * right - 0.2 * along
    colours = axes.figure.colorbar  # the scale belongs to the figure
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415
    from matplotlib.colors import Normalize  # noqa: PLC0415

    scale = ScalarMappable(Normalize(0.0, max(float(np.max(tolls)), 1e-12)), "viridis_r")
    toll_of = dict(zip(np.asarray(tolled_links).tolist(), np.asarray(tolls).tolist()))
    for link in range(network.number_of_links):
        toll = toll_of.get(link)
        axes.annotate(
            "",
            xy=end[link],
            xytext=start[link],
            arrowprops={
                "arrowstyle": "-|>",
                "color": "0.8" if toll is None else scale.to_rgba(toll),
                "linewidth": 0.8 if toll is None else 2.2,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
        if toll is not None:
            middle = (start[link] + end[link]) / 2 + 0.17 * right[link]
            axes.text(
                middle[0], middle[1], f"{link}: {toll:.1f}", fontsize=6, ha="center", va="center"
            )
    for node, (x, y) in enumerate(network.position):
        axes.text(
            x,
            y,
            str(node + 1),
            fontsize=7,
            ha="center",
            va="center",
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "0.4"},
        )
    low, high = network.position.min(0) - 0.5, network.position.max(0) + 0.5
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()
    colours(scale, ax=axes, label=f"toll [{unit}]", shrink=0.6)
    return scale


def draw_map(
    axes: "Axes", network: Network, flows: np.ndarray, tolls: np.ndarray, unit: str
) -> Any:
    """A network of any size: lines as wide as their flow, those with a toll coloured by it.

    `tolls`: one a link, NaN where there is none. Returns the colour scale's mappable. **Raises**
    `ValueError` when the network has no positions.
    """
    if network.position is None:
        raise ValueError("`draw_map(network)` needs node positions, got position=None")
    from matplotlib.collections import LineCollection  # noqa: PLC0415

    ends = np.stack([network.position[network.tail], network.position[network.head]], axis=1)
    along = ends[:, 1] - ends[:, 0]
    length = np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-300)
    # Drive on the right: both directions of a road beside one another.
    aside = 0.06 * np.median(length) * np.stack([along[:, 1], -along[:, 0]], axis=1) / length
    ends = ends + aside[:, None, :]
    width = 0.3 + 3.0 * flows / max(float(np.max(flows)), 1e-300)
    plain = np.isnan(tolls)
    axes.add_collection(LineCollection(ends[plain], linewidths=width[plain], colors="0.75"))
    # The dearest on top.
    order = np.flatnonzero(~plain)[np.argsort(tolls[~plain], kind="stable")]
    coloured = LineCollection(ends[order], linewidths=0.6 + width[order], cmap="viridis_r")
    coloured.set_array(tolls[order])
    coloured.set_clim(0.0, max(float(np.max(tolls[order], initial=0.0)), 1e-12))
    axes.add_collection(coloured)
    axes.set(aspect="equal")
    axes.autoscale_view()
    axes.set_axis_off()
    axes.figure.colorbar(coloured, ax=axes, label=f"toll [{unit}]", shrink=0.6)
    return coloured


def draw_front(
    axes: "Axes", front: Any, names: tuple[str, str] = ("objective", "second objective")
) -> None:
    """A [`Front`][]: points that were reached, joined, and those that are dominated or were not."""
    second, first = np.asarray(front.objectives)[:, 1], np.asarray(front.objectives)[:, 0]
    reached, dominated = np.asarray(front.reached), np.asarray(front.dominated)
    good = reached & ~dominated
    axes.plot(second[good], first[good], "o-", ms=4, label="front")
    for which, marker, label in (
        (reached & dominated, "x", "dominated"),
        (~reached, "s", "missed"),
    ):
        if which.any():
            axes.plot(second[which], first[which], marker, color="C3", ms=5, label=label)
    axes.set(xlabel=names[1], ylabel=names[0])
    axes.legend(fontsize=8)


# Of the seeds, drawn as a band.
QUANTILES = (0.1, 0.9)


def bands(axes: "Axes", steps: np.ndarray, values: np.ndarray, label: str, **style: Any) -> None:
    """Mean over the first axis and, shaded, the middle 80 % of it, on logarithmic axes.

    Steps at which a row is not finite are left out.
    """
    shown = np.isfinite(values).all(axis=0)
    if not shown.any():
        return
    steps, values = steps[shown], values[:, shown]
    (line,) = axes.loglog(steps, values.mean(axis=0), label=label, **style)
    low, high = np.quantile(values, QUANTILES, axis=0)
    axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, lw=0)
