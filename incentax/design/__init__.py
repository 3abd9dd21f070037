from ._b_stationarity import unit_of as unit_of
from ._black_box import regulate as regulate, RegulatedRun as RegulatedRun
from ._design import (
    advance as advance,
    as_record as as_record,
    design as design,
    finish as finish,
    Record as Record,
    start as start,
)
from ._design_and_play import DesignAndPlay as DesignAndPlay
from ._double_loop import DoubleLoop as DoubleLoop
from ._examine import examine as examine, NO_DERIVATIVE as NO_DERIVATIVE
from ._judge import is_judgeable as is_judgeable, judge as judge
from ._problem import (
    DesignProblem as DesignProblem,
    evaluate_hypergradient as evaluate_hypergradient,
    Hypergradient as Hypergradient,
    hypergradient as hypergradient,
)
from ._regulator import (
    RegulatorInfo as RegulatorInfo,
    ZerothOrderRegulator as ZerothOrderRegulator,
)
from ._scheme import (
    AbstractScheme as AbstractScheme,
    AbstractSchemeState as AbstractSchemeState,
    SchemeInfo as SchemeInfo,
)
from ._solution import (
    DesignFailure as DesignFailure,
    DesignSolution as DesignSolution,
    History as History,
    raise_unless_designed as raise_unless_designed,
)
