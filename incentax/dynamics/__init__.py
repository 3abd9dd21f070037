from ._base import AbstractDynamics as AbstractDynamics, DynamicsState as DynamicsState
from ._consensus import ConsensusSeeking as ConsensusSeeking
from ._extragradient import Extragradient as Extragradient
from ._mirror_descent import (
    as_schedule as as_schedule,
    MirrorDescent as MirrorDescent,
    ProjectedGradient as ProjectedGradient,
    Schedule as Schedule,
)
from ._seeking import (
    seeking_constants as seeking_constants,
    SeekingConstants as SeekingConstants,
)
