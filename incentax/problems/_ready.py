"""The ready problems by name, with the scheme and the number of steps that show each best."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ._charging import ev_charging
from ._duopoly import regulated_duopoly
from ._emission_tax import emission_tax
from ._instance import Instance
from ._planted import planted_choice
from ._several import chicken, coordination, three_routes
from ._tolls import second_best_tolls


class Ready(NamedTuple):
    """A ready problem: `make(**arguments)` gives its [`Instance`][].

    - `about`: one sentence.
    - `scheme`: one of the instance's schemes, or "accurate"; `steps`: as many as it needs.

    !!! example

        >>> import incentax as ix
        >>> ready = ix.problems.READY["regulated-duopoly"]
        >>> ready.make(kappa=0.0).description
        'regulated duopoly, kappa = 0'
    """

    make: Callable[..., Instance]
    about: str
    scheme: str
    steps: int


_PLAY = "design-and-play"

READY = {
    "charging": Ready(
        ev_charging, "a price for electric vehicles with private costs", "regulator", 600
    ),
    "chicken": Ready(chicken, "a subsidy in the game of chicken", "accurate", 1000),
    "coordination": Ready(
        coordination, "a subsidy for one of two places to meet", "accurate", 1000
    ),
    "emission-tax": Ready(emission_tax, "a tax for each of 100 Cournot firms", _PLAY, 1000),
    "planted-choice": Ready(
        planted_choice, "charges on the choices of two classes, with a known optimum", _PLAY, 3000
    ),
    "regulated-duopoly": Ready(
        regulated_duopoly, "a price for two producers, with a local optimum", "accurate", 1000
    ),
    "sioux-falls": Ready(
        partial(second_best_tolls, eta=1.0),
        "second-best tolls on 20 links of Sioux Falls",
        _PLAY,
        3000,
    ),
    "three-routes": Ready(
        three_routes, "a toll on a shared road, path flows not unique", "accurate", 1000
    ),
}
