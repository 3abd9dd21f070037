"""Global search: local designs from many starts, and a bound where one can be proved."""

from ._globally import (
    Basin as Basin,
    design_globally as design_globally,
    GlobalSolution as GlobalSolution,
)
