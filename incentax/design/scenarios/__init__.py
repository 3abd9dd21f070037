"""One incentive for many contexts: expected value, worst case, conditional value at risk."""

from ._accurate import (
    above as above,
    at_kinks as at_kinks,
    design_at_risk as design_at_risk,
    lifted as lifted,
)
from ._problem import ScenarioProblem as ScenarioProblem
