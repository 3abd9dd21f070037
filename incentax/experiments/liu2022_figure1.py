"""The experiment `incentax reproduce figure1`: Liu et al. (2022), section 7, figure 1.

Second-best tolls on Sioux Falls under settings A to D, with Gaussian noise on the costs that
drivers perceive. Shown are the source's two gaps against an accurate reference,

    upper level   ||theta_{k+1} - theta_*||^2
    lower level   sum_i D(x~*^i(theta_{k+1}), x~^i_{k+1}),  x~* = (1 - nu_k) x* + nu_k uniform

(the source's lower gap is at theta_k, one designer's step of size alpha_k before).

The source states neither path sets, eta, toll bounds, noise nor constants: ours are in `summary`.
Setting D (no mixing) runs twice: with the entropic step in product form, as printed in the source,
and in the logarithm. Settings A and D run once more with play steps five times as long, for the
product form fails only when steps are long.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from .. import plots, schedules
from .._checks import require_count
from .._compile import compiled
from .._results import RESULTS
from ..design import design, DesignAndPlay, DesignProblem, Record
from ..diagnostics import certify
from ..geometry import AbstractMirrorMap, Entropic, EntropicProduct, relative_entropy
from ..noise import Gaussian
from ..problems import second_best_tolls
from ..sensitivity import Implicit
from ..traffic import logit_equilibrium, RoutingGame
from ._protocol import Experiment, Report, Table

ETA, MAX_TOLL, NOISE = 1.0, 10.0, 1.0
ALPHA, BETA, NU = 1e-3, 0.1, 1e-3

# Name of the curve, setting, mirror map, beta.
CURVES: tuple[tuple[str, str, AbstractMirrorMap, float], ...] = (
    ("A", "A", Entropic(), BETA),
    ("B", "B", Entropic(), BETA),
    ("C", "C", Entropic(), BETA),
    ("D, product form", "D", EntropicProduct(), BETA),
    ("D, logarithm", "D", Entropic(), BETA),
    ("A, long steps", "A", Entropic(), 5 * BETA),
    ("D, product form, long steps", "D", EntropicProduct(), 5 * BETA),
    ("D, logarithm, long steps", "D", Entropic(), 5 * BETA),
)


@dataclass(frozen=True)
class Options:
    """Step size settings A to D on Sioux Falls under noise."""

    steps: int = 3000
    """steps of every setting"""
    seeds: int = 10
    """runs of every setting, side by side"""
    paths: int = 10
    """shortest paths of each pair"""

    def __post_init__(self):
        for name in ("steps", "seeds", "paths"):
            require_count("figure1", name, getattr(self, name))


class Figure1(NamedTuple):
    """`summary` is JSON; `steps` and `gaps[name] = (upper, lower)`, seeds by rows, are drawn."""

    summary: dict[str, Any]
    steps: np.ndarray
    gaps: dict[str, tuple[np.ndarray, np.ndarray]]


def reproduce(options: Options, report: Report) -> Figure1:
    """Runs every setting, all seeds of one in one vmapped call, and measures both gaps."""
    steps, seeds, paths = options.steps, options.seeds, options.paths
    instance = second_best_tolls(ETA, paths, MAX_TOLL)
    report("reference optimum", 0.0)
    reference = design(instance.problem, instance.theta0, x0=instance.x0, starts=1).theta
    every = max(1, steps // 300)
    record = Record(every, observe=lambda theta, x: (theta, x))
    rows = _log_spaced(-(-steps // every))
    keys = jax.random.split(jax.random.key(0), seeds)
    gaps, finite, broke_off, zeros, worst = {}, {}, {}, {}, 0.0
    shown_steps = np.minimum((rows + 1) * every, steps)
    for number, (name, setting, mirror_map, beta) in enumerate(CURVES):
        report(f"setting {name}", number / len(CURVES))
        sizes = schedules.setting(setting, ALPHA, beta, NU)  # pyright: ignore[reportArgumentType]
        scheme = DesignAndPlay(
            optax.sgd(sizes.design),
            play_step=sizes.play,
            mixing=None if setting == "D" else sizes.mixing,
            feedback=Gaussian(NOISE),
            mirror_map=mirror_map,
            # Far from equilibrium, under long steps, the system is not worth solving to the end.
            sensitivity=Implicit(tol=1e-6, max_iterations=50),
        )
        solution = jax.vmap(
            lambda key, scheme=scheme: design(
                instance.problem,
                instance.theta0,
                scheme,
                x0=instance.x0,
                steps=steps,
                key=key,
                record=record,
                throw=False,
            )
        )(keys)
        finite[name] = np.asarray(solution.result == RESULTS.successful)
        broke_off[name] = np.asarray(solution.steps)
        theta, x = jax.tree.map(lambda leaf: leaf[:, rows], solution.history.observed)
        mixing = sizes.mixing(shown_steps - 1) * np.ones(rows.size)
        lower, residual = _lower_gaps(instance.problem, theta, x, mixing)
        upper = jnp.sum(jnp.square(theta - reference[None, None]), axis=-1)
        alive = np.asarray(solution.history.step)[:, rows] >= shown_steps
        zeros[name] = int((np.asarray(x[:, -1]) == 0).any(axis=1).sum())
        worst = max(worst, float(np.where(alive, np.asarray(residual), 0.0).max()))
        gaps[name] = tuple(np.where(alive, np.asarray(gap), np.nan) for gap in (upper, lower))
    report("figure", 1.0)
    summary = {
        "source": "Liu et al. (2022), figure 1",
        "problem": instance.description,
        "constants": {
            "eta": ETA,
            "max_toll": MAX_TOLL,
            "noise": NOISE,
            "alpha": ALPHA,
            "beta": BETA,
            "nu": NU,
            "paths": paths,
        },
        "seeds": seeds,
        "reference_tolls": reference,
        "certificate": certify(instance.problem, reference).as_dict(),
        "largest_residual_of_reference_equilibria": worst,
        "step": shown_steps,
        "settings": {
            name: {
                "finite_runs": int(finite[name].sum()),
                "beta": beta,
                "broke_off_after_step": broke_off[name][~finite[name]],
                "runs_with_a_strategy_at_zero": zeros[name],
                "upper_gap_mean": _over_seeds(np.mean, upper),
                "upper_gap_std": _over_seeds(np.std, upper),
                "lower_gap_mean": _over_seeds(np.mean, lower),
                "lower_gap_std": _over_seeds(np.std, lower),
            }
            for (name, _, _, beta), (upper, lower) in zip(CURVES, gaps.values())
        },
    }
    summary["findings"] = _findings(summary)
    return Figure1(summary, shown_steps, gaps)


def draw(figure1: Figure1) -> Any:
    """Both gaps over the steps: mean over the seeds and the middle 80 % of them."""
    figure = plots.new_figure(13, 5.5)
    for axes, title, which in zip(
        figure.subplots(1, 2),
        (r"upper level $\|\theta_k-\theta_*\|^2$", r"lower level $D(\tilde x_*,\tilde x_{k+1})$"),
        (0, 1),
    ):
        for name, gaps in figure1.gaps.items():
            row = figure1.summary["settings"][name]
            label = name
            if row["finite_runs"] < figure1.summary["seeds"]:
                label += f" ({row['finite_runs']} of {figure1.summary['seeds']} runs stay finite)"
            colour = f"C{'ABCD'.index(name[0])}"
            style = {"color": colour, "ls": "--" if "long" in name else "-"}
            if "product" in name:  # wide, for the logarithm's curve often lies on top of it
                style |= {"lw": 5, "alpha": 0.35}
            # Runs that broke off end: the mean goes over those that are left.
            gap = gaps[which][np.isfinite(gaps[which]).all(axis=1)]
            if gap.size:
                plots.bands(axes, figure1.steps, gap, label, **style)
            else:
                axes.plot([], [], label=label, **style)
        axes.set(xlabel="step", title=title)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(
        "Second-best tolls on Sioux Falls under noise: mean, and 10 % to 90 % of "
        f"{figure1.summary['seeds']} seeds",
        fontsize=10,
    )
    return figure


@compiled
def _lower_gaps(
    problem: DesignProblem, theta: Array, x: Array, mixing: Array
) -> tuple[Array, Array]:
    """`D(x~*, x~)` for all seeds (first axis) and rows (second), row by row from the last x*."""
    game = problem.game
    assert isinstance(game, RoutingGame)
    uniform = game.strategies(None).centre()

    def one(theta, x, start, mixing):
        # A row of a run that broke off holds NaN: it is measured nowhere, and costs nothing.
        inside = jnp.where(jnp.isfinite(theta), theta, 0.0)
        exact = logit_equilibrium(game, inside, start)
        # A strategy that underflowed is read as the smallest number: D would be infinite.
        positive = jnp.maximum(x, jnp.finfo(x.dtype).tiny)
        gap = relative_entropy((1 - mixing) * exact.x + mixing * uniform, positive)
        return (gap, exact.residual), exact.x

    def row(start, columns):
        theta, x, mixing = columns
        # One after another: lanes of a vmap would all wait for the one with the most steps.
        gap, exact = jax.lax.map(
            lambda lane: one(lane[0], lane[1], lane[2], mixing), (theta, x, start)
        )
        return exact, gap

    start = jnp.broadcast_to(uniform, (theta.shape[0], uniform.size))
    columns = (jnp.swapaxes(theta, 0, 1), jnp.swapaxes(x, 0, 1), jnp.asarray(mixing))
    gap, residual = jax.lax.scan(row, start, columns)[1]
    return gap.T, residual.T


def _log_spaced(rows: int, number: int = 24) -> np.ndarray:
    return np.unique(np.round(np.geomspace(1, rows, number)).astype(int)) - 1


def _over_seeds(statistic: Callable, gap: np.ndarray) -> list[float]:
    alive = gap[np.isfinite(gap).all(axis=1)]
    return [float("nan")] * gap.shape[1] if alive.size == 0 else statistic(alive, axis=0).tolist()


def _findings(summary: dict[str, Any]) -> list[str]:
    """What the numbers say, in words that follow from them."""
    settings, seeds = summary["settings"], summary["seeds"]
    last = {name: row["upper_gap_mean"][-1] for name, row in settings.items()}
    finite = [name for name, row in settings.items() if row["finite_runs"] == seeds]
    ranking = sorted(finite, key=last.__getitem__)
    sentences = []
    for name, row in settings.items():
        if not name.startswith("D"):
            continue
        broken, zeros = seeds - row["finite_runs"], row["runs_with_a_strategy_at_zero"]
        if broken:
            steps = row["broke_off_after_step"]
            text = f"{broken} of {seeds} runs turn non-finite, after step {min(steps)}"
            text += f" to {max(steps)}." if max(steps) > min(steps) else "."
        else:
            text = "no run turns non-finite."
        if zeros and not broken and "product" in name:
            text += f" In {zeros} of {seeds} runs strategies underflow to exactly 0, the boundary."
        sentences.append(f"Setting {name} (beta = {row['beta']:g}): {text}")
    gaps = ", ".join(f"{name} {last[name]:.3g}" for name in ranking)
    sentences.append(f"Upper-level gaps at the last step, best first: {gaps}.")
    order = [name for name in ranking if name in ("A", "B", "C", "D, logarithm")]
    best = bool(order) and order[0] == "A"
    sentences.append(
        f"'Setting A is best' {'reproduces' if best else 'does not reproduce'}: at beta = "
        f"{BETA:g} the order is {', '.join(order)}."
    )
    product = any(settings[name]["finite_runs"] < seeds for name in settings if "product" in name)
    logarithm = any(settings[name]["finite_runs"] < seeds for name in settings if "D, log" in name)
    if product and not logarithm:
        sentences.append(
            "'Setting D fails' reproduces for the product form and not for the logarithm: what "
            "fails is the arithmetic, not the missing mixing."
        )
    else:
        fails = "reproduces, in the logarithm too" if logarithm else "does not reproduce"
        sentences.append(f"'Setting D fails' {fails}.")
    return sentences


def tables(figure1: Figure1) -> list[Table]:
    """Mean gaps at the last step."""
    columns = ("setting", "runs that stayed finite", "upper-level gap", "lower-level gap")
    rows = [
        (
            name,
            f"{row['finite_runs']} of {figure1.summary['seeds']}",
            _shown(row["upper_gap_mean"][-1]),
            _shown(row["lower_gap_mean"][-1]),
        )
        for name, row in figure1.summary["settings"].items()
    ]
    return [Table("Figure 1: mean gaps at the last step", columns, rows)]


def _shown(value: float) -> str:
    return f"{value:.3g}" if value == value else "-"


EXPERIMENT = Experiment(
    "Liu et al. (2022), figure 1: step size settings A to D under noise",
    Options,
    reproduce,
    draw,
    tables,
    lambda figure1: figure1.summary["findings"],
)
