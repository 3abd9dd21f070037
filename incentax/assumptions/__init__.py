"""What the theorems ask of a game, what holds of it, and the step sizes that they allow."""

from ._asked import Stability as Stability
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
from ._strong_monotonicity import strong_monotonicity as strong_monotonicity
from ._strong_stability import strong_stability as strong_stability
