"""What a ready problem comes with."""

import equinox as eqx
from jaxtyping import Array, PyTree

from ..design import AbstractScheme, DesignProblem
from ..traffic import Network


class Instance(eqx.Module):
    """A problem ready to run.

    - `problem`: the design problem.
    - `theta0`, `x0`: where to start.
    - `schemes`: schemes tuned for it, by name.
    - `description`: one sentence.
    - `network`: where there is one, for its picture.
    """

    problem: DesignProblem
    theta0: PyTree
    x0: Array
    schemes: dict[str, AbstractScheme] = eqx.field(default_factory=dict)
    description: str = eqx.field(static=True, default="a problem")
    network: Network | None = None
