"""The rows of a diagnosis, in words."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..design import DesignProblem
from ..sets import AbstractSet, Simplex
from ._asked import Stability, Verdict
from ._design_constants import DesignConstants
from ._estimate import Estimate
from ._regulator_constants import RegulatorConstants
from ._sampled import Sampled

LIU, DU = "Liu", "Du"


class Assumption(NamedTuple):
    """A row of a [`Diagnosis`][]: verdict, value, what follows from it, and what to do."""

    name: str
    source: str
    verdict: Verdict
    value: str
    follows: str
    advice: str


def finite(seen: Sampled) -> list[Assumption]:
    """Only where some sample is not finite."""
    if not seen.bad:
        return []
    theta, x = seen.bad[0]
    number, all_ = len(seen.bad), len(seen.bad) + len(seen.x)
    where = f"first at theta = {_short(theta)}, x = {_short(x)}"
    return [
        Assumption(
            "operator and its derivatives finite on the sets",
            "both",
            "fails",
            f"not at {number} of {all_} samples",
            f"{where}; every other row is from the samples that are left",
            "shrink the sets to where the operator is defined, or correct it there",
        )
    ]


def _short(tree: PyTree) -> str:
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)] or [np.zeros(0)])
    shown = ", ".join(f"{entry:.3g}" for entry in flat[:4])
    return f"({shown}{', ...' if len(flat) > 4 else ''})"


def sets(problem: DesignProblem, theta: PyTree, x: Array) -> list[Assumption]:
    """What the sets have to be."""
    strategies = problem.game.strategies(theta)
    simplex = isinstance(strategies, Simplex)
    bounded = _is_bounded(strategies, x)
    incentives = _is_bounded(problem.incentive_set, theta)
    return [
        Assumption(
            "strategies compact, convex",
            f"{LIU} 5.1(1), {DU} 1(i)",
            "holds" if bounded else "fails",
            f"{x.size} entries, {'bounded' if bounded else 'unbounded'}",
            "an equilibrium exists wherever costs are continuous and own costs convex"
            if bounded
            else "Theorem 5.4 is stated for all of R^d nevertheless: read its constants on a ball "
            "that holds the play",
            ""
            if bounded
            else "bound strategies (ix.Box) if play runs away; existence then follows",
        ),
        Assumption(
            "incentives compact, convex",
            f"{LIU} 5.2(1)",
            "holds" if incentives else "fails",
            "bounded" if incentives else "unbounded",
            "the gradient of f_* can be bounded"
            if incentives
            else "a strongly convex f_* has no bounded gradient on it; rates hold while theta "
            "stays in a ball",
            "" if incentives else "give `incentive_set` bounds that no sensible theta exceeds",
        ),
        *(
            []
            if simplex or bool(jnp.isinf(strategies.constraints(x).lower).all())
            else [
                Assumption(
                    "strategies R^d or simplices",
                    f"{LIU} 5.4, 5.5",
                    "fails",
                    type(strategies).__name__,
                    "neither theorem covers bounds: the surrogate gradient jumps where one "
                    "becomes active",
                    "design-and-play works there without a theorem; certify what it returns, or "
                    "use the accurate designer",
                )
            ]
        ),
    ]


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


def _finite_value(value: Estimate) -> Verdict:
    """Of a constant that has to be finite."""
    if value.low == math.inf:
        return "fails"
    return "holds" if math.isfinite(value.high) else "not decidable"


def lower_level(
    problem: DesignProblem, found: DesignConstants, monotone: Stability | None, mixing: float
) -> list[Assumption]:
    """Liu et al., Assumption 5.1."""
    steep, stable = found.operator_lipschitz, found.stability
    lipschitz = _finite_value(steep)
    entropic = found.mirror_smoothness.low == math.inf
    rows = [
        Assumption(
            "operator Lipschitz, H_u",
            f"{LIU} 5.1(2)",
            lipschitz,
            str(steep),
            {
                "holds": "bounds the play step that the theorem allows",
                "fails": "log x has no bounded slope at the boundary: the theorem allows no step",
                "not decidable": "met at samples; steps below are upper bounds of what is allowed",
            }[lipschitz],
            "name the mixing in use: diagnose(..., mixing=nu); or a QuantalResponse with epsilon > "
            "0, which gives up strong stability"
            if lipschitz == "fails"
            else "",
        ),
        Assumption(
            "regular Jacobian, rho_theta / rho_x = H_*",
            f"{LIU} 5.1(3)",
            _finite_value(found.inverse_jacobian),
            f"rho_theta {found.incentive_effect}; 1 / rho_x {found.inverse_jacobian}",
            {
                "holds": "where no bound is active x* answers to theta with at most this slope",
                "fails": "x* may jump, or what agents do is not unique",
                "not decidable": "x* answers to theta with this slope or a larger one",
            }[_finite_value(found.inverse_jacobian)],
            ""
            if found.inverse_jacobian.low < math.inf
            else "aggregates may still be unique (link flows): take an objective of those",
        ),
        Assumption(
            "strong stability",
            f"{LIU} 5.1(4)",
            stable.verdict,
            _weights(stable) + ("" if stable.constant.is_exact else ", at samples")
            if stable.verdict == "holds"
            else "",
            f"{stable.reason} (at this theta). "
            + {
                "holds": "One equilibrium, to which play converges",
                "fails": "No theorem promises that play settles, or that x* is the only one",
                "not decidable": "Nothing follows",
            }[stable.verdict],
            ""
            if stable.verdict == "holds"
            else _stabilise(problem, entropic, mixing)
            if stable.verdict == "fails"
            else "look for others with ix.equilibria, and certify what is designed",
        ),
    ]
    if monotone is not None:
        unique = monotone.verdict == "holds"
        rows.append(
            Assumption(
                "strongly monotone with weights",
                f"{LIU} 6",
                monotone.verdict,
                f"{monotone.constant}; {_weights(monotone)}" if unique else "",
                f"one equilibrium on every convex set ({monotone.reason})"
                + ("" if monotone.constant.is_exact else ", as far as samples tell")
                if unique
                else "where it is monotone still, equilibria may form a continuum (Case II); else "
                "several may be isolated (Case I)",
                "" if unique else "ix.equilibria shows them; ix.quantal_path selects",
            )
        )
    return rows


def _stabilise(problem: DesignProblem, entropic: bool, mixing: float) -> str:
    if entropic and problem.game.rational is None and mixing == 0:
        return (
            "ix.QuantalResponse(game, eta) has it on a monotone game with lambda >= 1 / eta; or "
            "name the mixing in use: diagnose(..., mixing=nu)"
        )
    return "list the equilibria with ix.equilibria; design with `selection` where there are several"


def _weights(found: Stability) -> str:
    low, high = float(found.weights.min()), float(found.weights.max())
    if high - low <= 1e-6 * high:
        return f"lambda {high:.4g}"
    return f"lambda {low:.4g} to {high:.4g}"


def upper_level(found: DesignConstants) -> list[Assumption]:
    """Liu et al., Assumption 5.2."""
    mu, steep, surrogate = (
        found.strong_convexity,
        found.objective_lipschitz,
        found.surrogate_lipschitz,
    )
    size = 1e-9 * max(1.0, abs(mu.known)) if math.isfinite(mu.known) else 0.0
    convex: Verdict = "not decidable"
    if mu.low > size:
        convex = "holds"
    elif mu.high <= size:
        convex = "fails"
    return [
        Assumption(
            "f_* strongly convex, mu",
            f"{LIU} 5.2(1)",
            convex,
            str(mu),
            {
                "holds": "one optimum; the rates of 5.4 and 5.5 are for it",
                "fails": "no rate is promised; a stationary point is what schemes look for",
                "not decidable": "nothing met at samples contradicts it",
            }[convex],
            {
                "holds": "",
                "fails": "start several times; or add a cost of intervention, c ||theta||^2",
                "not decidable": "compare ix.design from several starts",
            }[convex],
        ),
        Assumption(
            "gradient of f_* bounded, M",
            f"{LIU} 5.2(1)",
            _finite_value(steep),
            str(steep),
            "f_* is Lipschitz with this constant"
            if math.isfinite(steep.high)
            else "f_* is no less steep"
            if steep.low < math.inf
            else "grows with theta on an unbounded set",
            "",
        ),
        Assumption(
            "surrogate gradient Lipschitz, H~",
            f"{LIU} 5.2(2)",
            _finite_value(surrogate),
            str(surrogate),
            "what an error of play does to the designer's step",
            "",
        ),
    ]


def steps(
    problem: DesignProblem, theta: PyTree, x: Array, found: DesignConstants
) -> list[Assumption]:
    """The step sizes of the theorem for these sets, with its premises."""
    simplex = isinstance(problem.game.strategies(theta), Simplex)
    name, steps = ("5.5", found.theorem_5_5()) if simplex else ("5.4", found.theorem_5_4())
    beta, alpha = steps.beta.high, steps.alpha.high
    sure = steps.beta.is_exact and steps.alpha.is_exact
    limits = problem.game.strategies(theta).constraints(x)
    free = bool(jnp.isinf(limits.lower).all()) and limits.inequality_level.size == 0
    covered = simplex or (free and bool(jnp.isinf(limits.upper).all()))
    verdict: Verdict = "not decidable"
    if beta == 0 or found.stability.verdict == "fails" or not covered:
        verdict = "fails"
    elif found.strong_convexity.high <= 0:
        verdict = "fails"
    elif sure and found.stability.verdict == "holds" and found.strong_convexity.low > 0:
        verdict = "holds"
    known = math.isfinite(beta) and verdict != "fails"
    value = f"beta {beta:.2g}" + (f", alpha {alpha:.2g}" if math.isfinite(alpha) else "")
    value = (value if sure else f"at most {value}") if known else ""
    return [
        Assumption(
            f"step sizes of Theorem {name}",
            f"{LIU} {name}",
            verdict,
            value,
            f"with play steps lambda^i beta, or less, schedules.theorem_{name.replace('.', '_')} "
            f"converges like k^(-{'2/7' if simplex else '2/3'})"
            if verdict == "holds"
            else "sampled constants bound steps from one side alone"
            if known
            else "the theorem says nothing without the assumptions above",
            "steps in use are far longer: play up to 2 / (largest slope) settles, the designer's "
            "is tuned; take the longest that does not oscillate",
        )
    ]


def regulator(found: RegulatorConstants, smoothing: float) -> list[Assumption]:
    """Du, Meng, Hu, Assumptions 1 and 2, and Lemma 5."""
    mu, steep = found.strong_monotonicity, found.lipschitz
    verdict: Verdict = "not decidable"
    if mu.high <= 0 or steep.low == math.inf:
        verdict = "fails"
    elif mu.low > 0 and math.isfinite(steep.high):
        verdict = "holds"
    step = found.step_bound(smoothing)
    social = found.social_lipschitz
    return [
        Assumption(
            "operator strongly monotone and Lipschitz, mu and L",
            f"{DU} 2(i)",
            verdict,
            f"mu {mu}; L {steep}",
            "projected play contracts"
            + (f", best with the step mu / L^2 = {found.play_step.high:.3g}" if steep.known else "")
            if verdict == "holds"
            else "inner loops are not sure to contract",
            ""
            if verdict == "holds"
            else "end inner loops by `inner_tol`, and look at `inner_residual` in the history",
        ),
        Assumption(
            "operator Lipschitz in theta, l",
            f"{DU} 2(ii)",
            _finite_value(found.incentive_lipschitz),
            str(found.incentive_lipschitz),
            "on a set that does not move x* is l / mu-Lipschitz",
            "",
        ),
        Assumption(
            "costs Lipschitz, L_x and L_theta; L0",
            f"{DU} 1(iv), Lemma 5",
            _finite_value(social),
            f"L_x {found.cost_by_strategy}; L_theta {found.cost_by_incentive}; L0 {social}",
            f"with smoothing {smoothing:g} steps up to {step.low:.2g} descend on average, up to "
            "the spread of the estimate"
            if step.low > 0
            else f"with smoothing {smoothing:g} steps known to descend are at most {step.high:.2g}"
            if step.high > 0
            else "no step is sure to descend",
            "steps in use are far longer; keep them below 2 smoothing",
        ),
    ]
