"""Designs within constraints, and the multipliers of these."""

from ._along import along_levels as along_levels, SECOND as SECOND
from ._augmented import (
    AugmentedLagrangian as AugmentedLagrangian,
    keeping_constraints as keeping_constraints,
)
from ._designer import (
    contradicting as contradicting,
    design_constrained as design_constrained,
)
from ._judge import judge_constrained as judge_constrained
