from ._base import (
    AbstractSensitivity as AbstractSensitivity,
    Memory as Memory,
    Pullback as Pullback,
)
from ._implicit import Implicit as Implicit, Neumann as Neumann
from ._unrolled import Unrolled as Unrolled
