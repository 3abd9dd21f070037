"""The accurate designer: searches, steps on pieces, and what is proved of their end."""

from ._b_stationarity import unit_of as unit_of
from ._designer import design_accurately as design_accurately
from ._examine import examine as examine, NO_DERIVATIVE as NO_DERIVATIVE
from ._judge import is_judgeable as is_judgeable, judge as judge
