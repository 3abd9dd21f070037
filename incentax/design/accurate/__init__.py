"""The accurate designer: searches, steps on pieces, and what is proved of their end."""

from ._b_stationarity import incentives_of as incentives_of, unit_of as unit_of
from ._designer import (
    design_accurately as design_accurately,
    design_near as design_near,
    history_of as history_of,
)
from ._examine import examine as examine, NO_DERIVATIVE as NO_DERIVATIVE
from ._judge import is_judgeable as is_judgeable, judge as judge
from ._lower_level import LowerLevel as LowerLevel
from ._pieces import gradient_on as gradient_on
from ._place import arrive as arrive, nearest as nearest, Place as Place
from ._quadratic import least_quadratic as least_quadratic
from ._search import updated_curvature as updated_curvature
from ._smoothed import smoothing_of as smoothing_of
from ._tangent import Equations as Equations
from ._unbounded import is_bottomless as is_bottomless, is_far as is_far
