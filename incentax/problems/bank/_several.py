"""Games with several equilibria, of which the regulator's best counts."""

from functools import partial

from .._several import coordination, three_routes
from ._entry import design


def _made(ready):
    instance = ready()
    return instance.problem, instance.theta0


# Both at the second place cost nothing without a subsidy; the toll is -1/4.
design("coordination of two players", 0.0)(partial(_made, coordination))
design("three routes, two on one road", 0.8125)(partial(_made, three_routes))
