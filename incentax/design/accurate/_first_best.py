"""A start from what would be best if agents obeyed: for problems too large for many starts."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._compile import compiled
from ...equilibrium import Newton
from ...games import Game
from ...sets import LinearConstraints
from ._lower_level import LowerLevel

# Of a strategy at its bound, relative to its size.
_CLOSE = 1e-7


def first_best(
    level: LowerLevel, theta: Float[Array, " p"], incentives: LinearConstraints
) -> tuple[np.ndarray, np.ndarray] | None:
    """An incentive near which the regulator's own choice is an equilibrium, and that choice.

    The choice minimises the objective over the strategy set at `theta`. The incentive and the
    agents' multipliers leave least of its equilibrium conditions, linear in the incentive from
    `theta` on, in the sum of their sizes: a linear program. Where agents can be brought to anything
    (a toll on every link) this is the optimum; elsewhere a start. `None` where there is no choice.
    """
    found = jax.tree.map(np.asarray, _obeyed(level, theta))
    x, force, pushed, low, high, equality, inequality, room, solved = found
    if not (solved and np.isfinite(force).all() and np.isfinite(pushed).all()):
        return None
    scale = _CLOSE * (1 + np.abs(x).max(initial=0.0))
    eye, p = np.eye(x.size), len(theta)
    columns = [
        pushed,
        equality.T,
        inequality.T[:, room <= scale],
        -eye[:, x - low <= scale],
        eye[:, high - x <= scale],
        -eye,
        eye,
    ]
    answer = _least_sum(columns, force - pushed @ np.asarray(theta), incentives)
    return None if answer is None else (answer[:p], x)


@compiled
def _obeyed(level: LowerLevel, theta: Float[Array, " p"]) -> tuple[Array, ...]:
    problem, incentive = level.problem, level.unravel(theta)

    def slope(incentive, x: Array) -> Array:
        return jax.grad(problem.objective, 1)(incentive, x)

    obedient = Game(slope, problem.game.strategy_set)
    x, residual, _ = Newton(100).solve(obedient, incentive, level.x, 1e-8)
    flat = x.ravel()
    limits = level.constraints(theta)
    return (
        flat,
        level.operator(theta, flat),
        jax.jacfwd(lambda theta: level.operator(theta, flat))(theta),
        limits.lower,
        limits.upper,
        limits.equality.dense(flat.dtype),
        limits.inequality,
        limits.inequality_level - limits.inequality @ flat,
        residual <= 1e-4 * (abs(slope(incentive, level.x)).max() + jnp.finfo(flat.dtype).tiny),
    )


def _least_sum(
    columns: list[np.ndarray], constant: np.ndarray, incentives: LinearConstraints
) -> np.ndarray | None:
    """`u` with `columns u = -constant`, the last two of the columns what is missing of it.

    The first unknowns are the incentive, the second are free, all others non-negative.
    """
    import scipy.optimize  # noqa: PLC0415 (half a second, for large problems alone)
    import scipy.sparse  # noqa: PLC0415

    so, sparse = scipy.optimize, scipy.sparse
    sizes = [part.shape[1] for part in columns]
    p, more, total = sizes[0], sizes[1], sum(sizes)
    missing = np.zeros(total)
    missing[-sizes[-1] - sizes[-2] :] = 1
    low, high = np.zeros(total), np.full(total, np.inf)
    low[:p], high[:p], low[p : p + more] = incentives.lower, incentives.upper, -np.inf
    own = [incentives.equality.dense(np.dtype(float)), incentives.inequality]
    padded = [np.pad(rows, ((0, 0), (0, total - p))) for rows in own]
    answer = so.linprog(
        missing,
        A_eq=sparse.csr_array(np.concatenate([np.hstack(columns), padded[0]])),
        b_eq=np.concatenate([-constant, incentives.equality_level]),
        A_ub=sparse.csr_array(padded[1]) if len(padded[1]) else None,
        b_ub=incentives.inequality_level if len(padded[1]) else None,
        bounds=np.stack([low, high], 1),
    )
    return answer.x
