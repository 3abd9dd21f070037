"""Logit shares of paths at the costs which they make, by Newton's method in link flows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._link_newton import AbstractLoading, FINE, newton_in_link_flows, ROUGH

# Dispersions on the way where the direct one fails, and how much each is smaller.
_STAGES, _RATIO = 10, 2.0


def logit_shares(
    game: Any, theta: Array, start: Array, tol: Array | float, max_steps: int
) -> tuple[Float[Array, " paths"], Int[Array, ""]]:
    """Path proportions at the logit equilibrium, without checks; and the steps taken.

    Where Newton's method does not arrive from the start, it follows the equilibrium as the
    dispersion falls.
    """
    begun = game.link_flows(start)

    def going_on(carry: tuple[Array, ...]) -> Array:
        stage, arrived = carry[:2]
        return ~arrived & (stage <= _STAGES)

    def advance(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        stage, _, flows, _, count = carry
        wide = jnp.where(stage == 0, 1.0, _RATIO ** (_STAGES - stage).astype(start.dtype))
        loading = _Loading(game, theta, start, game.eta * wide)
        inner = jnp.where(stage == 0, ROUGH, FINE)
        reached, x, steps = newton_in_link_flows(loading, flows, tol, max_steps, inner=inner)
        left = jnp.max(jnp.abs(game.link_flows(x) - reached)) / jnp.max(jnp.abs(reached))
        arrived = (wide == 1) & (left <= 1e-6)
        finite = jnp.all(jnp.isfinite(reached)) & ((stage > 0) | arrived)
        return stage + 1, arrived, jnp.where(finite, reached, begun), x, count + steps

    first = jnp.int32(0), jnp.bool_(False), begun, start, jnp.int32(0)
    _, _, _, x, steps = jax.lax.while_loop(going_on, advance, first)
    return x, steps


def rough_logit_shares(
    game: Any, theta: Array, start: Array, tol: Array | float, max_steps: int, *, eta: Array
) -> tuple[Float[Array, " paths"], Int[Array, ""]]:
    """The same at another dispersion, as far as Newton's method comes from the start."""
    loading = _Loading(game, theta, start, eta)
    _, x, steps = newton_in_link_flows(loading, game.link_flows(start), tol, max_steps)
    return x, steps


class _Loading(AbstractLoading):
    """What drivers make of the costs at link flows; see [`AbstractLoading`][]."""

    def __init__(self, game: Any, theta: Array, start: Array, eta: Array):
        self.game, self.theta, self.start = game, theta, start
        self.eta = eta.astype(start.dtype)
        self.trips = game.flows.trips.astype(start.dtype)

    def link_times(self, flows: Array) -> Array:
        return self.game.link_times(flows, self.theta)

    def imbalance(self, flows: Array) -> tuple[Array, Array]:
        costs = self.game.costs(self.theta, self.start, flows)
        x = self.game.simplex.normalise_log(-costs / self.eta)[0]
        return x, self.game.link_flows(x) - flows

    def response(self, flows: Array, with_them: Array) -> Callable[[Array], Array]:
        x = with_them
        blocks, incidence = self.game.simplex.blocks, self.game.flows.incidence

        def respond(rise: Array) -> Array:
            felt = incidence.along_paths(rise)
            mean = blocks.transpose(blocks(x * felt))
            return incidence.over_links(self.trips * x * (felt - mean)) / self.eta

        return respond
