"""Which assumption of which theorem holds for a problem."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from .._checks import require_count, require_positive
from ..design import DesignProblem
from ._asked import region, share_of, Stability
from ._design_constants import constants_of, DesignConstants
from ._regulator_constants import regulated, RegulatorConstants
from ._report import Assumption, assumptions, Evidence
from ._sampled import agents_of, DENSE, sample
from ._strong_monotonicity import monotonicity


class Diagnosis(NamedTuple):
    """Answer of [`diagnose`][]; prints as a table.

    - `assumptions`: one a row.
    - `constants`, `regulator`: the figures behind them.
    - `monotonicity`: with weights searched for; `None` with more than 600 unknowns.
    - `summary`: in plain words.
    """

    assumptions: list[Assumption]
    constants: DesignConstants
    regulator: RegulatorConstants
    monotonicity: Stability | None
    summary: str

    def as_dict(self) -> dict[str, Any]:
        """The rows and the summary, for a file."""
        return {
            "assumptions": [row._asdict() for row in self.assumptions],
            "summary": self.summary,
        }

    def __str__(self) -> str:
        header = ("assumption", "verdict", "value", "what follows", "what to do")
        lines = []
        rows = [(f"{row.name} [{row.source}]", *row[2:]) for row in self.assumptions]
        for cells in [header, *rows]:
            wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, _WIDTHS)]
            for number in range(max(map(len, wrapped))):
                parts = [cell[number] if number < len(cell) else "" for cell in wrapped]
                line = "  ".join(part.ljust(width) for part, width in zip(parts, _WIDTHS))
                lines.append(line.rstrip())
            lines.append("-" * (sum(_WIDTHS) + 2 * len(_WIDTHS) - 2))
        return "\n".join([*lines, *textwrap.wrap(self.summary, sum(_WIDTHS))])


_WIDTHS = (24, 13, 20, 32, 32)


def diagnose(
    problem: DesignProblem,
    theta: PyTree = None,
    *,
    mixing: ArrayLike = 0.0,
    smoothing: ArrayLike = 0.1,
    sizes: Sequence[int] | None = None,
    samples: int = 16,
    key: PRNGKeyArray | None = None,
) -> Diagnosis:
    """Which assumptions of Liu et al. (2022) and Du, Meng, Hu (2025) hold, and what follows.

    "Liu" and "Du" name them as the sources number them. Each has a value that says whether it is
    exact (the operator has one Jacobian at all samples, the objective one Hessian) or met at
    samples, as a lower (`>=`) or an upper (`<=`) bound. The step sizes that the theorems then allow
    are far below what works in practice.

    **Arguments:**

    - `problem`, `theta`: the problem, and the incentive (the set's centre when left out) at which
      strong stability is decided and around which unbounded sets are sampled.
    - `mixing`, `sizes`: see [`design_constants`][].
    - `smoothing`: `delta` of the regulator, for its step size.
    - `samples`: number of points in the sets; `key` draws them (a fixed one when left out).

    **Raises** `ValueError` under `jit`, for a `theta` outside of its set, and when the operator is
    finite at no sample.

    !!! example

        >>> import incentax as ix
        >>> report = ix.diagnose(ix.problems.emission_tax(10).problem)
        >>> {row.name: row.verdict for row in report.assumptions}["strong stability"]
        'holds'
        >>> print(report.regulator.lipschitz)
        11 (exact)
    """
    samples = require_count("diagnose", "samples", samples)
    theta, x = region("diagnose", problem, theta)
    share = share_of("diagnose", mixing)
    delta = float(require_positive("diagnose", "smoothing", smoothing))
    key = jax.random.key(0) if key is None else key
    key_sample, key_rest = jax.random.split(key)
    game = problem.game
    seen = sample(game, problem.incentive_set, theta, x, samples, key=key_sample)
    agents = agents_of(game.strategies(theta), x, sizes)
    constants = constants_of(problem, theta, x, seen, agents, mixing=share, key=key_rest)
    regulator = regulated(problem, theta, x, seen)
    monotone = None if x.size > DENSE else monotonicity(seen, agents)
    evidence = Evidence(
        problem, theta, x, seen, constants, regulator, monotone, mixing=share, smoothing=delta
    )
    found = assumptions(evidence)
    return Diagnosis(found, constants, regulator, monotone, _summary(found))


def _summary(found: list[Assumption]) -> str:
    fails = [row.name for row in found if row.verdict == "fails"]
    unsure = [row.name for row in found if row.verdict == "not decidable"]
    words = []
    if fails:
        words.append(f"Fails: {'; '.join(fails)}.")
    if unsure:
        words.append(f"Not decidable: {'; '.join(unsure)}.")
    if not fails and not unsure:
        words.append("Every assumption holds.")
    words.append(
        "Theorems promise rates where all of theirs hold; schemes often work where one does not, "
        "and `ix.certify` tells whether they did."
    )
    return " ".join(words)
