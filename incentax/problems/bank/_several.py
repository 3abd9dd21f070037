"""Games with several equilibria: the best value is that of the regulator's best one.

An answer is judged at the equilibrium near the strategies that come with it.
"""

from functools import partial

from .._several import coordination, three_routes
from ._entry import design


def _made(ready):
    instance = ready()
    return instance.problem, instance.theta0


# Without a subsidy both may be at the second place, which costs nothing.
design("coordination of two players", 0.0)(partial(_made, coordination))
# Link flows are unique; the toll is -1/4.
design("three routes, two on one road", 0.8125)(partial(_made, three_routes))
