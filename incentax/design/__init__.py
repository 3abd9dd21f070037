"""The regulator's problem, the loop of every scheme, and the verb `design`."""

from ._chunks import run_in_chunks as run_in_chunks, watch_at_door as watch_at_door
from ._constraint import Constraint as Constraint
from ._design import design as design
from ._ensemble import (
    ensemble as ensemble,
)
from ._front import Front as Front, pareto as pareto
from ._lanes import Ensemble as Ensemble
from ._leaders import (
    design_leaders as design_leaders,
    LeadersProblem as LeadersProblem,
    LeadersSolution as LeadersSolution,
)
from ._policy import (
    PolicyHistory as PolicyHistory,
    train_policy as train_policy,
    TrainedPolicy as TrainedPolicy,
)
from ._problem import (
    DesignProblem as DesignProblem,
    evaluate_hypergradient as evaluate_hypergradient,
    Hypergradient as Hypergradient,
    hypergradient as hypergradient,
    Nearest as Nearest,
)
from ._record import Record as Record
from ._run import Run as Run, side_by_side as side_by_side, solutions_of as solutions_of
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
from ._value import value_sensitivity as value_sensitivity
from .accurate import (
    examine as examine,
    is_judgeable as is_judgeable,
    judge as judge,
    NO_DERIVATIVE as NO_DERIVATIVE,
    unit_of as unit_of,
)
from .constrained import (
    AugmentedLagrangian as AugmentedLagrangian,
    judge_constrained as judge_constrained,
)
from .globally import (
    Basin as Basin,
    design_globally as design_globally,
    GlobalSolution as GlobalSolution,
)
from .scenarios import at_kinks as at_kinks, ScenarioProblem as ScenarioProblem
from .schemes import (
    DesignAndPlay as DesignAndPlay,
    DoubleLoop as DoubleLoop,
    ExternalityPricing as ExternalityPricing,
    regulate as regulate,
    RegulatedRun as RegulatedRun,
    RegulatorInfo as RegulatorInfo,
    ZerothOrderRegulator as ZerothOrderRegulator,
)
from .selection import drawn_at as drawn_at
