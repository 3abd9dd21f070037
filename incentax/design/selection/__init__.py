"""Designs of games with several equilibria: the regulator counts on one of them."""

from ._nearest import design_nearest as design_nearest, drawn_at as drawn_at
from ._selected import design_selected as design_selected
