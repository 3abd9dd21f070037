"""Logit shares of paths at the costs which they make, by Newton's method in link flows."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, Int

from ._link_newton import AbstractLoading, newton_as_dispersion_falls, newton_in_link_flows


def logit_shares(
    game: Any, theta: Array, start: Array, tol: Array | float, max_steps: int
) -> tuple[Float[Array, " paths"], Int[Array, ""]]:
    """Path proportions at the logit equilibrium, without checks; and the steps taken."""

    def at(wide: Array) -> AbstractLoading:
        return _Loading(game, theta, start, game.eta.astype(wide.dtype) * wide)

    begun = game.link_flows(start)
    _, x, steps = newton_as_dispersion_falls(at, begun, start, tol, max_steps)
    return x, steps


def rough_logit_shares(
    game: Any, theta: Array, start: Array, tol: Array | float, max_steps: int, *, eta: Array
) -> tuple[Float[Array, " paths"], Int[Array, ""]]:
    """The same at another dispersion, as far as Newton's method comes from the start."""
    loading = _Loading(game, theta, start, eta)
    _, x, _, steps = newton_in_link_flows(loading, game.link_flows(start), tol, max_steps)
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
