"""What the theorems ask of a game, what holds of it, and the step sizes that they allow."""

from ._design_constants import (
    design_constants as design_constants,
    DesignConstants as DesignConstants,
    Steps as Steps,
)
from ._diagnose import diagnose as diagnose, Diagnosis as Diagnosis
from ._estimate import Estimate as Estimate
from ._regulator_constants import (
    regulator_constants as regulator_constants,
    RegulatorConstants as RegulatorConstants,
)
from ._report import Assumption as Assumption
from ._stability import (
    Stability as Stability,
    strong_monotonicity as strong_monotonicity,
    strong_stability as strong_stability,
)
