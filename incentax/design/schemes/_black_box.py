"""A regulator over a simulator that JAX cannot trace."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ..._checks import require_count
from ...equilibrium import inside
from ...sets import AbstractSet
from ._regulator import ZerothOrderRegulator


class RegulatedRun(eqx.Module):
    """Answer of [`regulate`][].

    - `theta`: the last incentive, in the incentive set; `costs`: what players paid there.
    - `social_cost`, `player_costs`, `distance`: a row a step: at the projected incentive before the
      step, and how far outside of the set the step led.
    - `oracle_calls`: how often the simulator ran.
    """

    theta: PyTree
    costs: Float[Array, " players"]
    social_cost: Float[Array, " steps"]
    player_costs: Float[Array, "steps players"]
    distance: Float[Array, " steps"]
    oracle_calls: Int[Array, ""]


def regulate(
    black_box: Callable[[PRNGKeyArray, PyTree], Array],
    theta0: PyTree,
    incentive_set: AbstractSet,
    scheme: ZerothOrderRegulator,
    *,
    steps: int,
    key: PRNGKeyArray,
) -> RegulatedRun:
    """[`ZerothOrderRegulator`][] over players who are known by what they pay alone.

    A loop in Python: `black_box(key, theta) -> costs`, one number a player, may be any program (a
    simulator, a measurement, a subprocess). It is called for every incentive that is tried and,
    once a step, for the projected one. What it raises is raised, with the incentive as a note.

    **Arguments:**

    - `black_box`: gets a key of its own each time; players settle inside.
    - `theta0`, `incentive_set`: a start, and where the incentive may lie.
    - `scheme`: its smoothing, step size, estimator and directions are used; its inner loop is not.
    - `steps`, `key`: number of steps; the key is consumed.

    **Raises** `ValueError` when costs are not finite, naming the incentive and the direction.

    !!! example

        >>> import incentax as ix, jax, jax.numpy as jnp, numpy as np
        >>> def simulator(key, theta):
        ...     return np.abs(np.asarray(theta) - 3)  # no JAX here
        >>> scheme = ix.ZerothOrderRegulator(smoothing=0.1, step_size=0.05)
        >>> run = ix.regulate(
        ...     simulator, jnp.zeros(1), ix.Box(0.0, 2.0), scheme, steps=60, key=jax.random.key(0)
        ... )
        >>> run.theta.round(3).tolist(), int(run.oracle_calls)
        ([2.0], 181)
    """
    if not callable(black_box):
        raise TypeError(f"`regulate(black_box)` needs a function, got {black_box!r}")
    if not isinstance(scheme, ZerothOrderRegulator):
        raise TypeError(f"`regulate(scheme)` needs a `ZerothOrderRegulator`, got {scheme!r}")
    steps = require_count("regulate", "steps", steps)
    theta = inside("regulate", "theta0", theta0, incentive_set)
    iterate = theta
    draw, move = eqx.filter_jit(scheme.draw), eqx.filter_jit(scheme.move)
    calls, players, rows = 0, 0, []

    def costs_at(number: int, point: PyTree, direction: PyTree | None) -> np.ndarray:
        nonlocal calls, players
        calls += 1
        try:
            returned = black_box(jax.random.fold_in(key, number), point)
        except Exception as error:
            error.add_note(f"raised by the black box at theta = {point}")
            raise
        costs = np.asarray(returned)
        numbers = np.issubdtype(costs.dtype, np.floating) or np.issubdtype(costs.dtype, np.integer)
        if not numbers or costs.ndim != 1 or costs.size != (players or costs.size):
            raise ValueError(
                "`regulate(black_box)` needs real costs of shape (players,), the same at every "
                f"call, got {returned!r} at theta = {point}"
            )
        players, costs = costs.size, costs.astype(float)
        if not np.isfinite(costs).all():
            where = "" if direction is None else f", in direction {direction}"
            raise ValueError(
                "`regulate(black_box)` needs finite costs, one a player, up to `smoothing` outside "
                f"of the incentive set, got {costs} at theta = {point}{where}"
            )
        return costs

    for step in range(steps):
        step_key = jax.random.fold_in(key, step)
        directions, trials = draw(theta, iterate, step_key)
        lanes = len(jax.tree.leaves(trials)[0])
        paid = []
        for lane in range(lanes):
            point = jax.tree.map(lambda leaf, lane=lane: leaf[lane], trials)
            number = (lane - 1) % scheme.directions
            sign = 1 if lane <= scheme.directions else -1
            direction = jax.tree.map(lambda leaf, n=number, s=sign: s * leaf[n], directions)
            paid.append(costs_at(step * lanes + lane, point, direction if lane else None))
        values = jnp.asarray(np.sum(paid[1:], axis=1), jax.tree.leaves(theta)[0].dtype)
        iterate, theta, _, distance = move(
            incentive_set, iterate, directions, values, jnp.int32(step)
        )
        rows.append((paid[0].sum(), paid[0], float(distance)))
    last = costs_at(2**31 - 1, theta, None)
    social, players, distances = (jnp.asarray(np.asarray(column)) for column in zip(*rows))
    return RegulatedRun(theta, jnp.asarray(last), social, players, distances, jnp.int32(calls))
