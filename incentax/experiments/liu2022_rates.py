"""The experiment `incentax reproduce rates`: the theorems' rates, measured.

Algorithms 1 and 2 of Liu et al. (2022) under noise, with the step sizes of Theorems 5.4 and 5.5,
from many seeds in one vmapped call, both gaps against known optima; the same where an assumption
fails, and with the constants that Theorem 5.4 allows. The regulator of Du, Meng, Hu (2025), with
exact and inexact equilibria, and equilibrium seeking with partial information beside its bound.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import plots, schedules
from .._checks import require_count
from ..assumptions import design_constants
from ..design import design, DesignProblem
from ..diagnostics import RateFit
from ..problems import emission_tax, planted_choice
from ..schedules import StepSizes
from ._protocol import Experiment, Report, Table
from .rates_measured import measure, planted, regulator_rate, seeking_factors

FIRMS = 4
# Experiments that meet the assumptions, with step sizes long enough to see the rate.
SETTLED = (
    "Algorithm 1, emission tax",
    "Algorithm 2, entropic game",
    "other exponents: 0.8 and 0.5",
)


# Of the regulator: `a`, whether agents begin anew at every step, and the exponent -min(1/2, a) of
# corollaries 1 to 3 of Du, Meng, Hu (2025). Where they go on, the errors of the two values of a
# comparison are alike and cancel; where they begin anew the errors bind.
_REGIMES = {
    "exact": (None, False, -0.5),
    "inexact, a = 1/4": (0.25, False, -0.25),
    "inexact, a = 1": (1.0, False, -0.5),
    "inexact, a = 1/4, begun anew": (0.25, True, -0.25),
}


@dataclass(frozen=True)
class Options:
    """The rates of Theorems 5.4 and 5.5 of Liu et al. (2022), and the regulator's, measured."""

    steps: int = 100_000
    """steps of design-and-play; the regulator takes up to a tenth of them"""
    seeds: int = 100
    """seeds of every experiment; those of the regulator take a quarter as many"""

    def __post_init__(self):
        require_count("rates", "steps", self.steps, least=100)  # two decades
        require_count("rates", "seeds", self.seeds)


class Curve(NamedTuple):
    """A run from many seeds, and what the theorem says of it.

    - `stated`: the exponents that the theorem states for both gaps, if it covers the problem.
    - `expected`: those of the step sizes, by two-time-scale stochastic approximation: the upper
      gap falls like `alpha_k`, the lower like `beta_k` (V. R. Konda and J. N. Tsitsiklis, *Annals
      of Applied Probability* 14 (2004)).
    """

    step: np.ndarray
    gaps: dict[str, np.ndarray]
    fits: dict[str, RateFit]
    stated: float | None
    expected: tuple[float, float] | None
    sizes: StepSizes


class Rates(NamedTuple):
    """`summary` is JSON; the rest is drawn."""

    summary: dict[str, Any]
    curves: dict[str, Curve]
    regulator: dict[str, tuple[np.ndarray, np.ndarray, RateFit]]
    seeking: dict[str, np.ndarray]


def _experiments() -> dict[str, tuple[DesignProblem, Array, Array, StepSizes, float | None]]:
    """Problem, start, optimum, step sizes, and the exponent that a theorem states."""
    tax, choice = emission_tax(FIRMS), planted_choice()
    best_tax = design(tax.problem, tax.theta0, starts=1).theta
    constants = design_constants(tax.problem)
    allowed = constants.theorem_5_4()
    zero_sum, best_zero = planted([[0.0, 1.0], [-1.0, 0.0]], 2, 1.0)
    flat, best_flat = planted([[1.0, 0.0], [0.0, 1.0]], 4, 0.0)
    practical, away = schedules.theorem_5_4(0.02, 0.3), jnp.zeros(2)
    choice_sizes = schedules.theorem_5_5(1.0, 0.3, 0.03)
    slower = StepSizes(schedules.power(0.02, 0.8), schedules.power(0.3, 0.5), practical.mixing)
    # beta^i = lambda^i beta, and lambda is the same for all firms.
    own = constants.stability.weights[0] * allowed.beta.low
    from_theorem = schedules.theorem_5_4(allowed.alpha.low, own)
    best_choice = jnp.asarray([0.5, -0.5])
    return {
        "Algorithm 1, emission tax": (tax.problem, tax.theta0, best_tax, practical, -2 / 3),
        "Algorithm 2, entropic game": (
            choice.problem,
            choice.theta0,
            best_choice,
            choice_sizes,
            -2 / 7,
        ),
        "other exponents: 0.8 and 0.5": (tax.problem, tax.theta0, best_tax, slower, None),
        "no strong stability (zero-sum)": (
            zero_sum,
            away,
            best_zero,
            schedules.theorem_5_4(1.0, 0.3),
            None,
        ),
        "f_* not strongly convex (quartic)": (
            flat,
            away,
            best_flat,
            schedules.theorem_5_4(1.0, 0.3),
            None,
        ),
        "constants of Theorem 5.4": (tax.problem, tax.theta0, best_tax, from_theorem, None),
    }


def reproduce(options: Options, report: Report) -> Rates:
    """Runs all of it; `steps` of design-and-play, the regulator's runs up to a tenth of them."""
    steps, seeds = options.steps, options.seeds
    report("optima", 0.0)
    experiments = _experiments()
    curves = {}
    for number, (name, (problem, theta0, best, sizes, stated)) in enumerate(experiments.items()):
        report(name, 0.05 + 0.12 * number)
        step, gaps, fits = measure(problem, theta0, best, sizes, steps=steps, seeds=seeds)
        follows = name in SETTLED
        expected = (-float(sizes.design.exponent), -float(sizes.play.exponent)) if follows else None
        curves[name] = Curve(step, gaps, fits, stated, expected, sizes)
    longest = max(1000, steps // 10)
    counts = tuple(int(c) for c in np.unique(np.geomspace(longest / 100, longest, 5).round()))
    regulator = {}
    for number, (name, (inexact, anew, _)) in enumerate(_REGIMES.items()):
        report(f"regulator, {name}", 0.78 + 0.04 * number)
        found, fit = regulator_rate(counts, max(seeds // 4, 4), inexact=inexact, anew=anew)
        regulator[name] = (np.asarray(counts), found, fit)
    report("partial information", 0.96)
    seeking = seeking_factors(np.geomspace(5e-4, 0.2, 12))
    report("figure", 1.0)
    return Rates(_summary(curves, regulator, seeking, seeds), curves, regulator, seeking)


def _fit(fit: RateFit) -> dict[str, float]:
    return {name: float(getattr(fit, name)) for name in ("exponent", "low", "high", "constant")}


def _summary(
    curves: dict[str, Curve],
    regulator: dict[str, tuple[np.ndarray, np.ndarray, RateFit]],
    seeking: dict[str, np.ndarray],
    seeds: int,
) -> dict[str, Any]:
    runs = {}
    for name, curve in curves.items():
        runs[name] = {
            "alpha": float(curve.sizes.design.coefficient),
            "alpha_exponent": float(curve.sizes.design.exponent),
            "beta": float(curve.sizes.play.coefficient),
            "beta_exponent": float(curve.sizes.play.exponent),
            "nu": float(curve.sizes.mixing.coefficient),
            "stated_exponent": curve.stated,
            "expected_exponents": curve.expected,
            "step": curve.step,
            **{
                gap: {
                    **_fit(curve.fits[gap]),
                    "mean": values.mean(axis=0),
                    "quantiles": np.quantile(values, plots.QUANTILES, axis=0),
                }
                for gap, values in curve.gaps.items()
            },
        }
    return {
        "source": "Liu et al. (2022), Theorems 5.4 and 5.5; Du, Meng, Hu (2025), Theorem 1",
        "seeds": seeds,
        "fitted_over": "the last two decades of steps, weighted evenly in the logarithm",
        "design_and_play": runs,
        "regulator": {
            name: {"steps": counts, "mean": found.mean(axis=0), **_fit(fit)}
            for name, (counts, found, fit) in regulator.items()
        },
        "partial_information": seeking,
        "findings": _findings(curves, regulator, seeking),
    }


def _band(fit: RateFit) -> str:
    return f"{float(fit.exponent):.2f} [{float(fit.low):.2f}, {float(fit.high):.2f}]"


def _holds(fit: RateFit, stated: float) -> bool:
    return bool(fit.low <= stated <= fit.high)


def _against(fit: RateFit, stated: float) -> str:
    """In words: a rate that is stated is an upper bound of what is left."""
    if _holds(fit, stated):
        return "as stated"
    return (
        f"{'faster' if fit.high < stated else 'more slowly'} than stated, which the band excludes"
    )


def _findings(
    curves: dict[str, Curve],
    regulator: dict[str, tuple[np.ndarray, np.ndarray, RateFit]],
    seeking: dict[str, np.ndarray],
) -> list[str]:
    """What the numbers say, in words that follow from them."""
    sentences = []
    for name, curve in curves.items():
        fits = curve.fits
        text = f"{name}: exponents {_band(fits['upper'])} (upper), {_band(fits['lower'])} (lower)"
        if curve.stated is not None and curve.expected is not None:
            text += f" against {curve.stated:.2f} stated"
            for gap in ("lower", "upper"):
                text += f"; the {gap} gap falls {_against(fits[gap], curve.stated)}"
            alpha = curve.expected[0]
            if float(fits["upper"].high) < curve.stated and _holds(fits["upper"], alpha):
                text += f", like alpha_k ({alpha:.2f}): the designer averages what agents do wrong"
        elif curve.expected is not None:
            text += f"; alpha_k and beta_k have {curve.expected[0]:.2f} and {curve.expected[1]:.2f}"
        else:
            first, last = (float(curve.gaps["upper"][:, row].mean()) for row in (0, -1))
            text += f"; the upper gap goes from {first:.2g} to {last:.2g}"
        sentences.append(f"{text}.")
    for name, (_, _, fit) in regulator.items():
        _, _, stated = _REGIMES[name]
        sentences.append(
            f"Regulator, {name}: {_band(fit)} against {stated:.2f} stated: {_against(fit, stated)}."
        )
    fine = np.isfinite(seeking["iterations_bound"]) & np.isfinite(seeking["iterations_seen"])
    if fine.any():
        ratio = seeking["iterations_bound"][fine] / seeking["iterations_seen"][fine]
        sentences.append(
            f"Partial information: where the bound contracts, up to a step of "
            f"{seeking['step'][fine].max():.2g}, it asks for {ratio.min():.1f} to "
            f"{ratio.max():.1f} times the iterations that are needed (least "
            f"{seeking['iterations_bound'][fine].min():,.0f}); the best step seen, "
            f"{seeking['step'][np.argmin(seeking['iterations_seen'])]:.2g}, needs "
            f"{seeking['iterations_seen'].min():,.0f}."
        )
    return sentences


def draw(rates: Rates) -> Any:
    """Gaps with fitted lines, what fails, the regulator, and contraction beside its bound."""
    figure = plots.new_figure(15, 8)
    axes = figure.subplots(2, 3).ravel()
    names = list(rates.curves)
    for panel, name in zip(axes[:2], names[:2]):
        curve = rates.curves[name]
        for gap, values in curve.gaps.items():
            fit = curve.fits[gap]
            label = f"{gap} gap: {float(fit.exponent):.2f}"
            plots.bands(panel, curve.step, values, label)
        mean = curve.gaps["lower"].mean(axis=0)[0]
        stated = curve.stated if curve.stated is not None else 0.0
        panel.loglog(
            curve.step,
            mean * (curve.step / curve.step[0]) ** stated,
            "k:",
            label=f"stated: {stated:.2f}",
        )
        panel.set(title=name, xlabel="step", ylabel="squared distance to the optimum")
        panel.legend(fontsize=8)
    for number, name in enumerate(names[2:]):
        curve = rates.curves[name]
        for gap, style in (("upper", "-"), ("lower", "--")):
            mean, fit = curve.gaps[gap].mean(axis=0), curve.fits[gap]
            label = f"{name}, {gap}: {float(fit.exponent):.2f}"
            axes[2 if number in (1, 2) else 3].loglog(
                curve.step, mean, style, color=f"C{number}", label=label
            )
    steps = rates.curves[names[0]].step
    for panel in axes[2:4]:
        _slope(panel, steps, -2 / 3, "stated where all holds")
        panel.set(xlabel="step", ylabel="mean gap")
    axes[2].set(title="where an assumption fails")
    axes[3].set(title="other exponents; the theorem's own constants")
    counts = np.ones(1)
    for name, (counts, found, fit) in rates.regulator.items():
        label = f"{name}: {float(fit.exponent):.2f}"
        plots.bands(axes[4], counts, found, label, marker="o")
    for stated in (-0.5, -0.25):
        _slope(axes[4], np.asarray(counts), stated, "stated")
    axes[4].set(
        title="regulator", xlabel="number of steps K", ylabel="mean of the squared gradient"
    )
    seeking = rates.seeking
    axes[5].loglog(seeking["step"], 1 - seeking["seen"], "o-", label="seen")
    shown = seeking["bound"] < 1
    axes[5].loglog(seeking["step"][shown], 1 - seeking["bound"][shown], "s--", label="bound")
    axes[5].axvline(seeking["known"], color="0.6", ls=":", label="step known to contract")
    _slope(axes[5], seeking["step"], 1.0, "in proportion to the step")
    axes[5].set(title="partial information", xlabel="play step", ylabel="1 - contraction factor")
    for panel in axes[2:]:
        panel.legend(fontsize=7)
    figure.suptitle(f"Rates: mean, and 10 % to 90 % of {rates.summary['seeds']} seeds", fontsize=10)
    return figure


def _slope(panel: Any, steps: np.ndarray, exponent: float, label: str) -> None:
    """A dotted line of a known slope through the middle of what is drawn."""
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in panel.lines])
    heights = heights[np.isfinite(heights) & (heights > 0)]
    middle = np.exp(np.log(heights).mean()) if len(heights) else 1.0
    line = middle * (steps / np.exp(np.log(steps).mean())) ** exponent
    panel.loglog(steps, line, "k:", lw=1, label=f"{label}: {exponent:.2f}")


def tables(rates: Rates) -> list[Table]:
    """Fitted exponents beside those that are stated."""
    rows = [
        (name, _band(curve.fits["upper"]), _band(curve.fits["lower"]), _stated(curve.stated))
        for name, curve in rates.curves.items()
    ]
    rows += [
        (f"regulator, {name}", _band(fit), "-", _stated(_REGIMES[name][2]))
        for name, (_, _, fit) in rates.regulator.items()
    ]
    columns = ("experiment", "upper gap or squared gradient", "lower gap", "stated")
    return [Table("Fitted exponents, with 95 % bands", columns, rows)]


def _stated(exponent: float | None) -> str:
    return "-" if exponent is None else f"{exponent:.2f}"


EXPERIMENT = Experiment(
    "Theorems 5.4 and 5.5 of Liu et al. (2022), and the regulator's, measured",
    Options,
    reproduce,
    draw,
    tables,
    lambda rates: rates.summary["findings"],
)
