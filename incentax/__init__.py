"""Differentiable incentive design on JAX.

A regulator sets `theta`, agents settle at an equilibrium `x*(theta)`, and the regulator wants the
`theta` whose equilibrium is best. The package is a house of floors, and a module imports only from
lower ones: sets, schedules and noise (1); geometry and games (2); how agents move, `dynamics` (3);
how `x*` answers, `sensitivity` (4); where they stop, `equilibrium` (5); how `theta` moves,
`design` (6); evidence, `diagnostics`, what theorems ask, `assumptions`, and `traffic` (7); ready
`problems` and `plots` (8); the sources' `experiments` (9); the command line (10).
"""

from . import (
    assumptions as assumptions,
    callbacks as callbacks,
    diagnostics as diagnostics,
    graphs as graphs,
    noise as noise,
    problems as problems,
    schedules as schedules,
    smoothing as smoothing,
    traffic as traffic,
)
from ._cache import enable_cache as enable_cache
from ._checkpoint import Checkpoint as Checkpoint
from ._checks import compiled_errors as compiled_errors
from ._compile import prepare as prepare
from ._results import ENDINGS as ENDINGS, RESULTS as RESULTS
from .assumptions import diagnose as diagnose, Diagnosis as Diagnosis
from .design import (
    AugmentedLagrangian as AugmentedLagrangian,
    Basin as Basin,
    Constraint as Constraint,
    design as design,
    design_globally as design_globally,
    design_leaders as design_leaders,
    DesignAndPlay as DesignAndPlay,
    DesignFailure as DesignFailure,
    DesignProblem as DesignProblem,
    DesignSolution as DesignSolution,
    DoubleLoop as DoubleLoop,
    Ensemble as Ensemble,
    ensemble as ensemble,
    ExternalityPricing as ExternalityPricing,
    Front as Front,
    GlobalSolution as GlobalSolution,
    History as History,
    Hypergradient as Hypergradient,
    hypergradient as hypergradient,
    LeadersProblem as LeadersProblem,
    LeadersSolution as LeadersSolution,
    Nearest as Nearest,
    pareto as pareto,
    PolicyHistory as PolicyHistory,
    Record as Record,
    regulate as regulate,
    RegulatedRun as RegulatedRun,
    RegulatorInfo as RegulatorInfo,
    Run as Run,
    ScenarioProblem as ScenarioProblem,
    SchemeInfo as SchemeInfo,
    train_policy as train_policy,
    TrainedPolicy as TrainedPolicy,
    value_sensitivity as value_sensitivity,
    ZerothOrderRegulator as ZerothOrderRegulator,
)
from .diagnostics import (
    Certificate as Certificate,
    certify as certify,
    goldstein_measure as goldstein_measure,
    GoldsteinMeasure as GoldsteinMeasure,
)
from .dynamics import (
    ConsensusSeeking as ConsensusSeeking,
    Extragradient as Extragradient,
    MirrorDescent as MirrorDescent,
    ProjectedGradient as ProjectedGradient,
    seeking_constants as seeking_constants,
    SeekingConstants as SeekingConstants,
)
from .equilibrium import (
    best_response as best_response,
    BestResponse as BestResponse,
    directional_derivative as directional_derivative,
    DirectionalDerivative as DirectionalDerivative,
    Equilibria as Equilibria,
    equilibria as equilibria,
    Equilibrium as Equilibrium,
    gap as gap,
    natural_residual as natural_residual,
    nearest_equilibrium as nearest_equilibrium,
    Newton as Newton,
    quantal_path as quantal_path,
    QuantalPath as QuantalPath,
    solve_equilibrium as solve_equilibrium,
)
from .games import (
    AggregativeGame as AggregativeGame,
    AtomicGame as AtomicGame,
    Game as Game,
    QuantalResponse as QuantalResponse,
    Tikhonov as Tikhonov,
)
from .geometry import (
    Entropic as Entropic,
    EntropicProduct as EntropicProduct,
    Euclidean as Euclidean,
    Mahalanobis as Mahalanobis,
)
from .sensitivity import (
    AdjointStep as AdjointStep,
    EstimatedResponse as EstimatedResponse,
    Implicit as Implicit,
    Neumann as Neumann,
    Penalty as Penalty,
    SocialGradient as SocialGradient,
    Unrolled as Unrolled,
)
from .sets import (
    Box as Box,
    NonNegative as NonNegative,
    PerPlayer as PerPlayer,
    Polyhedron as Polyhedron,
    Product as Product,
    Reals as Reals,
    Simplex as Simplex,
)
