from ._base import (
    AbstractFace as AbstractFace,
    AbstractSet as AbstractSet,
    AbstractStrategySet as AbstractStrategySet,
)
from ._box import Box as Box, NonNegative as NonNegative, Reals as Reals
from ._product import Product as Product
from ._simplex import Simplex as Simplex
