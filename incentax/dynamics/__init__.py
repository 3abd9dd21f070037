from ._base import AbstractDynamics as AbstractDynamics, DynamicsState as DynamicsState
from ._extragradient import Extragradient as Extragradient
from ._mirror_descent import (
    MirrorDescent as MirrorDescent,
    ProjectedGradient as ProjectedGradient,
    Schedule as Schedule,
)
