from ._base import (
    AbstractFace as AbstractFace,
    AbstractSet as AbstractSet,
    AbstractStrategySet as AbstractStrategySet,
)
from ._beside import Beside as Beside
from ._box import Box as Box, NonNegative as NonNegative, Reals as Reals
from ._constraints import (
    Blocks as Blocks,
    bounds_alone as bounds_alone,
    LinearConstraints as LinearConstraints,
    Pairs as Pairs,
    Rows as Rows,
)
from ._interior import (
    Bounds as Bounds,
    finite_max as finite_max,
    interior_start as interior_start,
    InteriorPoint as InteriorPoint,
    KKTPoint as KKTPoint,
    reduced as reduced,
    solve_central as solve_central,
)
from ._jacobians import (
    AbstractJacobian as AbstractJacobian,
    DenseJacobian as DenseJacobian,
    KKTRows as KKTRows,
    LowRankJacobian as LowRankJacobian,
    positive as positive,
)
from ._kkt import solve_kkt as solve_kkt
from ._polyhedron import PerPlayer as PerPlayer, Polyhedron as Polyhedron
from ._product import Product as Product
from ._side_by_side import side_by_side as side_by_side
from ._simplex import Simplex as Simplex
