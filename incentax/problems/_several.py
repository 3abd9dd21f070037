"""Games with several equilibria, whose answers are known."""

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..design import DesignAndPlay, DesignProblem
from ..games import Game
from ..sets import Box, Simplex
from ._instance import Instance


class _TwoByTwo(eqx.Module):
    """Costs of two players who mix two strategies each; a subsidy for both players' second one."""

    first: Float[Array, "2 2"]
    second: Float[Array, "2 2"]

    def __call__(self, theta: Float[Array, " 1"], x: Float[Array, " 4"]) -> Float[Array, " 4"]:
        subsidy = jnp.concatenate([jnp.zeros_like(theta), theta])
        costs = self.first @ x[2:] - subsidy, self.second.T @ x[:2] - subsidy
        return jnp.concatenate(costs)


def _second_played(theta: Array, x: Array) -> Array:
    """How far both are from the second strategy, and what the subsidy costs."""
    return (1 - x[1]) ** 2 + (1 - x[3]) ** 2 + 0.01 * jnp.sum(theta**2)


def _two_by_two(first, second, description: str) -> Instance:
    costs = _TwoByTwo(jnp.asarray(first), jnp.asarray(second))
    problem = DesignProblem(Game(costs, Simplex([2, 2])), _second_played, Box(jnp.zeros(1), 4.0))
    return Instance(
        problem=problem,
        theta0=jnp.zeros(1),
        x0=jnp.full(4, 0.5),
        schemes={"design-and-play": DesignAndPlay(optax.sgd(0.05), play_step=0.1)},
        description=description,
    )


def coordination() -> Instance:
    """Two players who win 2 when they meet at the first place and 1 at the second.

    Without a subsidy three isolated equilibria (Liu et al. 2022, section 6, Case I): both places,
    and the mixed one `(1/3, 2/3)` each, which is unstable. A subsidy `theta` for the second place
    moves the mixed one, `(1 + theta) / 3` at the first place, and beyond 2 nobody goes there.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.coordination()
        >>> found = ix.equilibria(instance.problem.game, instance.theta0)
        >>> found.stable.tolist()
        [True, True, False]
    """
    meet = [[-2.0, 0.0], [0.0, -1.0]]
    return _two_by_two(meet, meet, "coordination of two players, three isolated equilibria")


def chicken() -> Instance:
    """Two drivers who meet on a narrow road: to swerve alone costs 1, a crash 10.

    Strategies are to drive on and to swerve. Three isolated equilibria: one drives on and the other
    swerves, which are stable, and the mixed one, where each drives on with probability 1/10.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.chicken()
        >>> print(ix.equilibria(instance.problem.game, instance.theta0).x[2].round(3))
        [0.1 0.9 0.1 0.9]
    """
    first = [[10.0, -1.0], [1.0, 0.0]]
    second = [[10.0, 1.0], [-1.0, 0.0]]
    return _two_by_two(first, second, "chicken, three isolated equilibria")


class _RouteTimes(eqx.Module):
    def __call__(self, theta: Float[Array, " 1"], h: Float[Array, " 3"]) -> Float[Array, " 3"]:
        shared = h[0] + h[1]
        return jnp.stack([shared + theta[0], shared + theta[0], 2 * h[2]])


class _TotalTime(eqx.Module):
    def __call__(self, theta: Array, h: Array) -> Array:
        del theta
        return (h[0] + h[1]) ** 2 + 2 * h[2] ** 2 + 0.5 * h[2]


def three_routes() -> Instance:
    """Wardrop equilibrium with a continuum of path flows: two routes share their only road.

    A demand of 1; the shared road takes its flow, the third route twice its own; `theta` is a toll
    on the shared road. Link flows are unique, `(2 - theta) / 3` on the shared road, path flows are
    not: monotone, but not strongly (Liu et al. 2022, section 6, Case II). The quantal response
    tends to equal flows on the two routes. The objective, total time and half a unit of noise on
    the third route, is least at a shared flow of 3/4, for which the toll is -1/4.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.three_routes()
        >>> print(ix.design(instance.problem, instance.theta0).theta.round(4))
        [-0.25]
    """
    problem = DesignProblem(
        Game(_RouteTimes(), Simplex(3)), _TotalTime(), Box(jnp.full(1, -1.0), 1.0)
    )
    return Instance(
        problem=problem,
        theta0=jnp.zeros(1),
        x0=jnp.full(3, 1 / 3),
        schemes={"design-and-play": DesignAndPlay(optax.sgd(0.05), play_step=0.1)},
        description="three routes of which two share a road: a continuum of path flows",
    )
