from ._assumptions import Assumption as Assumption
from ._certificate import Certificate as Certificate, certify as certify
from ._constants import (
    design_constants as design_constants,
    DesignConstants as DesignConstants,
    Steps as Steps,
)
from ._diagnose import diagnose as diagnose, Diagnosis as Diagnosis
from ._estimate import Estimate as Estimate
from ._goldstein import (
    goldstein_measure as goldstein_measure,
    GoldsteinMeasure as GoldsteinMeasure,
)
from ._rates import fit_rate as fit_rate, RateFit as RateFit
from ._regulated import (
    regulator_constants as regulator_constants,
    RegulatorConstants as RegulatorConstants,
)
from ._stability import (
    Stability as Stability,
    strong_monotonicity as strong_monotonicity,
    strong_stability as strong_stability,
)
