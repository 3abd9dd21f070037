"""Problems with known answers, to compare methods on: published ones and our own.

`designs` and `equilibria` map a name to an entry with its problem, start, best value and source.

!!! example

    >>> import incentax as ix
    >>> entry = ix.problems.bank.designs["Pigou toll"]
    >>> round(float(ix.design(entry.problem, entry.theta0).objective), 6), entry.best
    (0.75, 0.75)
"""

from . import (
    _black_boxes as _black_boxes,
    _capacities as _capacities,
    _caps as _caps,
    _electricity as _electricity,
    _emission_taxes as _emission_taxes,
    _equilibria as _equilibria,
    _followers as _followers,
    _inverse as _inverse,
    _kinks as _kinks,
    _markets as _markets,
    _multicommodity_tolls as _multicommodity_tolls,
    _networks as _networks,
    _oligopolies as _oligopolies,
    _outrata as _outrata,
    _planted as _planted,
    _prices as _prices,
    _random as _random,
    _routes as _routes,
    _several as _several,
    _small_bilevel as _small_bilevel,
    _supply_functions as _supply_functions,
)
from ._entry import (
    BankDesign as BankDesign,
    BankEquilibrium as BankEquilibrium,
    designs as designs,
    equilibria as equilibria,
)
