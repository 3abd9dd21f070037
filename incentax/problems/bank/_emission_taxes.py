"""The emission tax, with outputs and taxes that are free or not."""

from functools import partial

from .._emission_tax import emission_tax
from ._entry import design

# The emission tax: closed forms and an active set enumeration, to the digits given.
_TAXES = {
    ("free", "unit interval", None): 127.503065,
    ("free", "free", None): 637.599413,
    ("non-negative", "free", None): -2584.126380,
    ("non-negative", "non-negative", None): -2542.961002,
    ("non-negative", "per damage", None): -2364.102714,
}


def _tax(output, tax, penalty):
    instance = emission_tax(output=output, tax=tax, penalty=penalty)
    return instance.problem, instance.theta0


for (_output, _kind, _penalty), _best in _TAXES.items():
    design(f"emission tax, output {_output}, tax {_kind}", _best, "Liu et al. (2022), section 7")(
        partial(_tax, _output, _kind, _penalty)
    )
