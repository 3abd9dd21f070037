from ._base import (
    AbstractSensitivity as AbstractSensitivity,
    Memory as Memory,
    Pullback as Pullback,
)
from ._face_system import (
    FaceSystem as FaceSystem,
    solve_by_gradients as solve_by_gradients,
    symmetry_of as symmetry_of,
)
from ._implicit import Implicit as Implicit, Neumann as Neumann
from ._laws import (
    AbstractLaw as AbstractLaw,
    AdjointStep as AdjointStep,
    EstimatedResponse as EstimatedResponse,
    Penalty as Penalty,
    SocialGradient as SocialGradient,
    unweighted as unweighted,
)
from ._unrolled import Unrolled as Unrolled
