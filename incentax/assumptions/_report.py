"""The rows of a diagnosis: of every assumption its name, its source, and what decides it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..design import DesignProblem
from ..sets import AbstractSet, AbstractStrategySet, Simplex
from ._asked import is_free, Stability, Verdict
from ._design_constants import DesignConstants
from ._estimate import Estimate
from ._regulator_constants import RegulatorConstants
from ._sampled import Sampled
from ._sentences import SENTENCES


class Assumption(NamedTuple):
    """A row of a [`Diagnosis`][]: verdict, value, what follows from it, and what to do."""

    name: str
    source: str
    verdict: Verdict
    value: str
    follows: str
    advice: str


@dataclass(frozen=True)
class Evidence:
    """What assumptions are decided from.

    `theta`, `x`: where strong stability is decided; `mixing`, `smoothing`: of the schemes in use;
    `monotone`: strong monotonicity, where it was asked for.
    """

    problem: DesignProblem
    theta: PyTree
    x: Array
    seen: Sampled
    constants: DesignConstants
    regulator: RegulatorConstants
    monotone: Stability | None
    mixing: float
    smoothing: float

    @property
    def strategies(self) -> AbstractStrategySet:
        """The agents' set at `theta`."""
        return self.problem.game.strategies(self.theta)


@dataclass(frozen=True)
class Judged:
    """A verdict, the value shown beside it, and what its sentences need.

    `case`: which sentence, where a verdict has several; `words`: what fills their braces.
    """

    verdict: Verdict
    value: str = ""
    case: str | None = None
    words: dict = field(default_factory=dict)


class Row(NamedTuple):
    """An assumption: `judge` gives `None` where it is not in question."""

    name: str
    source: str
    judge: Callable[[Evidence], Judged | None]


def assumptions(found: Evidence) -> list[Assumption]:
    """Every row that is in question, in words."""
    rows = []
    for name, source, judge in ROWS:
        judged = judge(found)
        if judged is not None:
            key = (name, judged.verdict, *([] if judged.case is None else [judged.case]))
            follows, advice = (text.format(**judged.words) for text in SENTENCES[key])
            rows.append(Assumption(name, source, judged.verdict, judged.value, follows, advice))
    return rows


def _finite(found: Evidence) -> Judged | None:
    """Only where some sample is not finite."""
    seen = found.seen
    if not seen.bad:
        return None
    theta, x = seen.bad[0]
    where = f"first at theta = {_short(theta)}, x = {_short(x)}"
    value = f"not at {len(seen.bad)} of {len(seen.bad) + len(seen.x)} samples"
    return Judged("fails", value, words={"where": where})


def _short(tree: PyTree) -> str:
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)] or [np.zeros(0)])
    shown = ", ".join(f"{entry:.3g}" for entry in flat[:4])
    return f"({shown}{', ...' if len(flat) > 4 else ''})"


def _compact_strategies(found: Evidence) -> Judged:
    bounded = _is_bounded(found.strategies, found.x)
    value = f"{found.x.size} entries, {'bounded' if bounded else 'unbounded'}"
    return Judged("holds" if bounded else "fails", value)


def _compact_incentives(found: Evidence) -> Judged:
    bounded = _is_bounded(found.problem.incentive_set, found.theta)
    return Judged(*(("holds", "bounded") if bounded else ("fails", "unbounded")))


def _covered_set(found: Evidence) -> Judged | None:
    limits = found.strategies.constraints(found.x)
    if isinstance(found.strategies, Simplex) or bool(jnp.isinf(limits.lower).all()):
        return None
    return Judged("fails", type(found.strategies).__name__)


def _is_bounded(point_set: AbstractSet, point: PyTree) -> bool:
    """Whether no direction leads out to infinity: two linear programs for a random objective."""
    from scipy.optimize import linprog  # noqa: PLC0415  # heavy

    limits = point_set.constraints(point)
    lower, upper = np.isfinite(np.asarray(limits.lower)), np.isfinite(np.asarray(limits.upper))
    if (lower & upper).all() or isinstance(point_set, Simplex):
        return True
    equality = np.asarray(limits.equality.dense(limits.lower.dtype))
    rows = np.asarray(limits.inequality)
    objective = np.random.default_rng(0).normal(size=lower.size)
    for sign in (1.0, -1.0):
        program = linprog(
            sign * objective,
            A_ub=rows if len(rows) else None,
            b_ub=np.zeros(len(rows)) if len(rows) else None,
            A_eq=equality if len(equality) else None,
            b_eq=np.zeros(len(equality)) if len(equality) else None,
            bounds=[(0 if a else -1, 0 if b else 1) for a, b in zip(lower, upper)],
        )
        if program.x is None or program.fun < -1e-9:
            return False
    return True


def _of_a_constant(constant: Estimate, value: str | None = None) -> Judged:
    """Of a constant that has to be finite."""
    verdict: Verdict = "not decidable"
    if constant.low == math.inf:
        verdict = "fails"
    elif math.isfinite(constant.high):
        verdict = "holds"
    return Judged(verdict, str(constant) if value is None else value)


def _regular_jacobian(found: Evidence) -> Judged:
    effect, inverse = found.constants.incentive_effect, found.constants.inverse_jacobian
    return _of_a_constant(inverse, f"rho_theta {effect}; 1 / rho_x {inverse}")


def _strong_stability(found: Evidence) -> Judged:
    stable, case, value = found.constants.stability, None, ""
    if stable.verdict == "holds":
        value = _weights(stable) + ("" if stable.constant.is_exact else ", at samples")
    entropic = found.constants.mirror_smoothness.low == math.inf
    plain = found.problem.game.rational is None and found.mixing == 0
    if stable.verdict == "fails" and entropic and plain:
        case = "entropic"
    return Judged(stable.verdict, value, case, {"reason": stable.reason})


def _strongly_monotone(found: Evidence) -> Judged | None:
    monotone = found.monotone
    if monotone is None:
        return None
    if monotone.verdict != "holds":
        return Judged(monotone.verdict)
    value = f"{monotone.constant}; {_weights(monotone)}"
    case = None if monotone.constant.is_exact else "sampled"
    return Judged("holds", value, case, {"reason": monotone.reason})


def _weights(found: Stability) -> str:
    low, high = float(found.weights.min()), float(found.weights.max())
    if high - low <= 1e-6 * high:
        return f"lambda {high:.4g}"
    return f"lambda {low:.4g} to {high:.4g}"


def _strongly_convex(found: Evidence) -> Judged:
    mu = found.constants.strong_convexity
    size = 1e-9 * max(1.0, abs(mu.known)) if math.isfinite(mu.known) else 0.0
    if mu.low > size:
        return Judged("holds", str(mu))
    return Judged("fails" if mu.high <= size else "not decidable", str(mu))


def _steps_on_simplices(found: Evidence) -> Judged | None:
    return _theorem_steps(found, True) if isinstance(found.strategies, Simplex) else None


def _steps_elsewhere(found: Evidence) -> Judged | None:
    if isinstance(found.strategies, Simplex):
        return None
    return _theorem_steps(found, is_free(found.strategies, found.x))


def _theorem_steps(found: Evidence, covered: bool) -> Judged:
    """The step sizes of the theorem for these sets, with its premises."""
    constants, simplex = found.constants, isinstance(found.strategies, Simplex)
    steps = constants.theorem_5_5() if simplex else constants.theorem_5_4()
    beta, alpha = steps.beta.high, steps.alpha.high
    sure = steps.beta.is_exact and steps.alpha.is_exact
    stable, convex = constants.stability.verdict, constants.strong_convexity
    verdict: Verdict = "not decidable"
    if beta == 0 or stable == "fails" or not covered or convex.high <= 0:
        verdict = "fails"
    elif sure and stable == "holds" and convex.low > 0:
        verdict = "holds"
    if not math.isfinite(beta) or verdict == "fails":
        return Judged(verdict)
    value = f"beta {beta:.2g}" + (f", alpha {alpha:.2g}" if math.isfinite(alpha) else "")
    return Judged(verdict, value if sure else f"at most {value}")


def _contraction(found: Evidence) -> Judged:
    """Du, Meng, Hu, Assumption 2(i)."""
    regulator = found.regulator
    mu, steep = regulator.strong_monotonicity, regulator.lipschitz
    verdict: Verdict = "not decidable"
    if mu.high <= 0 or steep.low == math.inf:
        verdict = "fails"
    elif mu.low > 0 and math.isfinite(steep.high):
        verdict = "holds"
    best = f", best with the step mu / L^2 = {regulator.play_step.high:.3g}" if steep.known else ""
    return Judged(verdict, f"mu {mu}; L {steep}", words={"best_step": best})


def _regulator_steps(found: Evidence) -> Judged:
    """Du, Meng, Hu, Assumption 1(iv) and Lemma 5."""
    regulator, smoothing = found.regulator, found.smoothing
    step, social = regulator.step_bound(smoothing), regulator.social_lipschitz
    words = "no step is sure to descend"
    if step.low > 0:
        words = f"steps up to {step.low:.2g} descend on average, up to the spread of the estimate"
    elif step.high > 0:
        words = f"a step of the incentive is known to descend up to {step.high:.2g}"
    value = f"L_x {regulator.cost_by_strategy}; L_theta {regulator.cost_by_incentive}; L0 {social}"
    judged = _of_a_constant(social, value)
    return Judged(judged.verdict, value, words={"smoothing": smoothing, "steps": words})


ROWS = (
    Row("operator and its derivatives finite on the sets", "both", _finite),
    Row("strategies compact, convex", "Liu 5.1(1), Du 1(i)", _compact_strategies),
    Row("incentives compact, convex", "Liu 5.2(1)", _compact_incentives),
    Row("strategies R^d or simplices", "Liu 5.4, 5.5", _covered_set),
    Row(
        "operator Lipschitz, H_u",
        "Liu 5.1(2)",
        lambda found: _of_a_constant(found.constants.operator_lipschitz),
    ),
    Row("regular Jacobian, rho_theta / rho_x = H_*", "Liu 5.1(3)", _regular_jacobian),
    Row("strong stability", "Liu 5.1(4)", _strong_stability),
    Row("strongly monotone with weights", "Liu 6", _strongly_monotone),
    Row("f_* strongly convex, mu", "Liu 5.2(1)", _strongly_convex),
    Row(
        "gradient of f_* bounded, M",
        "Liu 5.2(1)",
        lambda found: _of_a_constant(found.constants.objective_lipschitz),
    ),
    Row(
        "surrogate gradient Lipschitz, H~",
        "Liu 5.2(2)",
        lambda found: _of_a_constant(found.constants.surrogate_lipschitz),
    ),
    Row("step sizes of Theorem 5.4", "Liu 5.4", _steps_elsewhere),
    Row("step sizes of Theorem 5.5", "Liu 5.5", _steps_on_simplices),
    Row("operator strongly monotone and Lipschitz, mu and L", "Du 2(i)", _contraction),
    Row(
        "operator Lipschitz in theta, l",
        "Du 2(ii)",
        lambda found: _of_a_constant(found.regulator.incentive_lipschitz),
    ),
    Row("costs Lipschitz, L_x and L_theta; L0", "Du 1(iv), Lemma 5", _regulator_steps),
)
