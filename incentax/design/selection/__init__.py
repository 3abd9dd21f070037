"""Designs of games with several equilibria: the regulator counts on one of them."""

from ._selected import design_selected as design_selected
