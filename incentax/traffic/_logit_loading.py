"""Logit shares of paths at the costs which they make, by Newton's method in link flows."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, Int

from ._link_newton import AbstractLoading, newton_in_link_flows


def logit_shares(
    game: Any,
    theta: Array,
    start: Array,
    tol: Array | float,
    max_steps: int,
    *,
    eta: Array | None = None,
) -> tuple[Float[Array, " paths"], Int[Array, ""]]:
    """Path proportions at the logit equilibrium, without checks; and the steps taken.

    `eta`: the game's dispersion when left out.
    """
    loading = _Loading(game, theta, start, game.eta if eta is None else eta)
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
