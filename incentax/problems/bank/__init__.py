"""Problems with known answers, to compare methods on: published ones and our own.

`designs` and `equilibria` map a name to an entry with its problem, start, best value and source.

!!! example

    >>> import incentax as ix
    >>> entry = ix.problems.bank.designs["Pigou toll"]
    >>> round(float(ix.design(entry.problem, entry.theta0).objective), 6), entry.best
    (0.75, 0.75)
"""

from . import (
    _capacities as _capacities,
    _emission_taxes as _emission_taxes,
    _equilibria as _equilibria,
    _inverse as _inverse,
    _kinks as _kinks,
    _multicommodity_tolls as _multicommodity_tolls,
    _networks as _networks,
    _oligopolies as _oligopolies,
    _outrata as _outrata,
    _planted as _planted,
    _small_bilevel as _small_bilevel,
)
from ._entry import (
    BankDesign as BankDesign,
    BankEquilibrium as BankEquilibrium,
    designs as designs,
    equilibria as equilibria,
)
