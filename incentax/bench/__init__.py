"""Methods side by side over the bank of designs: the command `incentax bench`."""

from ._answer import Answer as Answer, Method as Method, Refused as Refused
from ._methods import METHODS as METHODS
from ._one import judged as judged, solve_one as solve_one
from ._runs import (
    Limits as Limits,
    methods_named as methods_named,
    problems_named as problems_named,
    ROW as ROW,
    run as run,
)
from ._tables import (
    CLOCKS as CLOCKS,
    draw as draw,
    page as page,
    ratios as ratios,
    tables as tables,
    words as words,
)
