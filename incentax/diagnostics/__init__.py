"""The evidence: certificates, how stationary a nonsmooth point is, and rates."""

from ._certificate import Certificate as Certificate
from ._certify import certify as certify
from ._goldstein import (
    goldstein_measure as goldstein_measure,
    GoldsteinMeasure as GoldsteinMeasure,
)
from ._rates import fit_rate as fit_rate, RateFit as RateFit
