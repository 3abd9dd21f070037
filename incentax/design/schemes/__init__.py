"""How `theta` moves step by step: the single loop, the double loop, the regulator, a black box."""

from ._black_box import regulate as regulate, RegulatedRun as RegulatedRun
from ._design_and_play import DesignAndPlay as DesignAndPlay
from ._double_loop import DoubleLoop as DoubleLoop
from ._externality import ExternalityPricing as ExternalityPricing
from ._regulator import (
    RegulatorInfo as RegulatorInfo,
    ZerothOrderRegulator as ZerothOrderRegulator,
)
