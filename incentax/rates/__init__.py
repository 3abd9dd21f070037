"""The experiment `incentax reproduce rates`: the theorems' rates, measured.

Algorithms 1 and 2 of Liu et al. (2022) under noise, with the step sizes of Theorems 5.4 and 5.5,
from many seeds in one vmapped call, both gaps against known optima; the same where an assumption
fails, and with the constants that Theorem 5.4 allows. The regulator of Du, Meng, Hu (2025), with
exact and inexact equilibria, and equilibrium seeking with partial information beside its bound.
"""

from ._measure import (
    measure as measure,
    planted as planted,
    regulator_rate as regulator_rate,
    seeking_factors as seeking_factors,
)
from ._report import draw as draw, Rates as Rates, reproduce as reproduce
