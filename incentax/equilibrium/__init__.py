from ._directional import (
    directional_derivative as directional_derivative,
    DirectionalDerivative as DirectionalDerivative,
)
from ._door import inside as inside, strategy_at_door as strategy_at_door
from ._draw import (
    draw_around as draw_around,
    draw_corners as draw_corners,
    draw_incentives as draw_incentives,
    draw_strategies as draw_strategies,
)
from ._equilibria import (
    Equilibria as Equilibria,
    equilibria as equilibria,
    natural_play as natural_play,
    other_equilibria as other_equilibria,
)
from ._face import is_isolated as is_isolated
from ._gap import (
    best_response as best_response,
    BestResponse as BestResponse,
    gap as gap,
    largest_regret as largest_regret,
    NASH as NASH,
)
from ._nearest import (
    nearest_equilibrium as nearest_equilibrium,
    target_at_door as target_at_door,
)
from ._newton import jacobian_of as jacobian_of, Newton as Newton
from ._path import quantal_path as quantal_path, QuantalPath as QuantalPath
from ._residual import natural_residual as natural_residual
from ._solve import (
    Equilibrium as Equilibrium,
    find_equilibrium as find_equilibrium,
    known_entropic as known_entropic,
    raise_unless_successful as raise_unless_successful,
    solve_equilibrium as solve_equilibrium,
)
