"""How a computation ended. Each entry is advice: it says what to change."""

from typing import Any, TypeVar

import equinox as eqx
import numpy as np

from ._checks import is_raising, nan_unless

S = TypeVar("S", bound=Any)


class RESULTS(eqx.Enumeration):
    """Outcome of a public verb, in its `.result`; compare with `== ix.RESULTS.successful`."""

    successful = ""
    max_steps_reached = (
        "The equilibrium was not reached to `tol` within `max_steps`: `.x` is the last point and "
        "`.residual` its distance from equilibrium. Raise `max_steps` or `tol`, or start nearer "
        "with `x0`. If nothing helps there may be no equilibrium: on an unbounded set, costs that "
        "fall without end have none."
    )
    cycling = (
        "Play does not come nearer to equilibrium: in the second half of `max_steps` it was no "
        "nearer than in the first. It cycles, as it does in zero-sum games, where extragradient "
        "play (`method=ix.Extragradient()`) or Newton's method (`method=None`) converges; or its "
        "steps are too long: lower the step size. On an unbounded set, costs that fall without end "
        "have no equilibrium."
    )
    nonfinite_play = (
        "The agents' play turned non-finite: `.steps` counts the finite steps, and `.x` is the "
        "last finite strategy. Lower the play step size, or raise the mixing so that strategies "
        "keep away from the boundary. Where no step size was given, costs may fall without end on "
        "an unbounded strategy set: then there is no equilibrium."
    )
    nonfinite_design = (
        "The incentive turned non-finite while play was finite: `.steps` counts the finite steps, "
        "and `.theta` is the last finite incentive. Lower the optimizer's learning rate."
    )
    nonfinite_objective = (
        "The objective or its hypergradient turned non-finite while incentive and play were "
        "finite: `.steps` counts the finite steps. Lower the optimizer's learning rate if "
        "`.history.info.design_step` had grown, the play step size if `play_step` had; else check "
        "the objective near `.theta` and `.x`. A regulator without derivatives asks for costs "
        "up to `smoothing` outside of the incentive set (raised, its error names the direction)."
    )
    nonfinite_start = (
        "The operator or the objective is not finite at the start. Check the user's functions at "
        "`theta0` and `x0`."
    )
    empty_set = (
        "The strategy set has no points at this `theta`: its constraints contradict one another. "
        "Keep `theta` where `strategy_set(theta)` is not empty."
    )
    not_stationary = (
        "The designer stopped at a point that is not stationary: `.objective` is the best that it "
        "found and `.stationarity` what is left of the gradient. Raise `steps` if they were used "
        "up; else try other `starts`, scale `theta` so that its entries are of one size, or check "
        "the objective's derivative with `ix.certify`. Where a strategy set moves with `theta`, "
        "the optimum may lie where it is about to be empty: keep `theta` off such incentives."
    )
    unbounded = (
        "The objective falls without end as the incentive grows: `.theta` is as far as the "
        "designer went. Bound the incentive set, as by `ix.Box`, or let the objective say what a "
        "large incentive costs."
    )
    infeasible = (
        "No equilibrium that meets the constraints was found: `.violation` is what is left of them "
        "where it is least, at `.theta`. Loosen the bounds of those whose `.multipliers` are not "
        "zero (they pull against one another), widen the incentive set, or start elsewhere with "
        "`theta0`."
    )
    outside = (
        "The policy's incentives left the incentive set while it was trained: `.outside` says how "
        "far. Squash its output into the set, as by `lower + (upper - lower) * "
        "jax.nn.sigmoid(output)`."
    )
    stopped = (
        "A callback ended the design before it was done: `.objective` is the best that was found "
        "by then, and `.stationarity` what is left of the gradient."
    )
    leaders_apart = (
        "The leaders do not settle: their incentives still move, or one of them would gain by "
        "another incentive, as `.regrets` say. Raise `rounds`, damp them by a smaller `share`, or "
        "start elsewhere; there may be no equilibrium of leaders."
    )
    never_moved = (
        "The incentive never moved: at its start active constraints have no multiplier, and with "
        "these held at rest the gradient is zero. That may be no optimum. Start elsewhere with "
        "`theta0`, or design without a scheme, which looks to both sides of such a kink."
    )
    no_derivative = (
        "At `.theta` the objective has no derivative: its adjoint system has no solution. Either "
        "it depends on what an equilibrium leaves open (path flows, where link flows alone are "
        "unique): take an objective of what is unique, or a quantal response with a small `eta`. "
        "Or `x*` has an infinite slope there. `.objective` is that of the equilibrium found."
    )


class ENDINGS(eqx.Enumeration):
    """What a designer found, in `.ending` of its solution."""

    stationary = "stationary: the gradient vanishes"
    at_bounds = "stationary: what is left of the gradient points out of the incentive set"
    kink = (
        "B-stationary at a kink: active constraints of the agents change there, and linear "
        "programs prove that no direction descends"
    )
    undecided = (
        "undecided at a kink: an active set changes there, and no direction that was tried "
        "improves, which is no proof"
    )
    jump = (
        "at a jump or a kink: the selected equilibrium changes there, and neither shorter steps "
        "nor those along the coordinates improve"
    )
    no_derivative = (
        "undecided: no direction that was tried improves, but the objective has no derivative there"
    )
    infeasible = "infeasible: the least violation of the constraints that was found"
    not_stationary = "not stationary"
    not_examined = "the scheme's number of steps is done; `ix.certify` examines where it ended"


def b_stationarity(ending: ENDINGS) -> str | list[str]:
    """Whether an ending proves that no direction descends: "yes", "no" or "undecided"."""
    proved = (ending == ENDINGS.stationary) | (ending == ENDINGS.at_bounds)
    proved = np.asarray(proved | (ending == ENDINGS.kink))
    refuted = np.asarray(ending == ENDINGS.not_stationary)
    return np.where(proved, "yes", np.where(refuted, "no", "undecided")).tolist()


def answer_when_traced(solution: S) -> S:
    """A solution in a program of the caller's: no answer, that is NaN, where it is no success.

    Within [`compiled_errors`][] it raises instead.
    """
    failed = solution.result != RESULTS.successful
    if is_raising():
        return solution.result.error_if(solution, failed)
    names = [name for name in ("theta", "x", "value", "objective") if hasattr(solution, name)]
    answers = [nan_unless(~failed, getattr(solution, name)) for name in names]
    return eqx.tree_at(lambda s: [getattr(s, name) for name in names], solution, answers)


def in_words(kind: type[eqx.Enumeration], entry: Any) -> str | list:
    """The text of an entry, or a list of them for a batch; its name where it has no text."""
    names = [name for name in vars(kind)["_name_to_item"]]
    entries = [getattr(kind, name) for name in names]
    texts = np.array([kind[one] or name for name, one in zip(names, entries)], dtype=object)
    which = np.argmax([np.asarray(entry == one) for one in entries], axis=0)
    return texts[which].tolist() if np.ndim(which) else str(texts[which])


def as_table(rows: list[tuple[str, Any]]) -> str:
    """A name and a value a line: numbers in one form, arrays shortened, words as they are."""
    lines = []
    for name, value in rows:
        if isinstance(value, str | list):
            text = str(value)
        elif np.ndim(value) == 0:
            text = f"{float(value): .6e}" if np.asarray(value).dtype.kind == "f" else f" {value}"
        else:
            text = np.array2string(np.asarray(value), precision=5, threshold=8, edgeitems=3)
        lines.append(f"{name:<24} {text}")
    return "\n".join(lines)
