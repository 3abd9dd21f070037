"""One incentive for many contexts: expected value, worst case, conditional value at risk."""

from ._accurate import at_kinks as at_kinks, design_at_risk as design_at_risk
from ._problem import ScenarioProblem as ScenarioProblem
