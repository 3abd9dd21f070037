"""What a ready problem comes with."""

import equinox as eqx
from jaxtyping import Array, PyTree

from ..design import AbstractScheme, DesignProblem


class Instance(eqx.Module):
    """A problem ready to run.

    - `problem`: the design problem.
    - `theta0`, `x0`: where to start.
    - `schemes`: schemes tuned for it, by name.
    - `description`: one sentence.
    """

    problem: DesignProblem
    theta0: PyTree
    x0: Array
    schemes: dict[str, AbstractScheme]
    description: str = eqx.field(static=True)
