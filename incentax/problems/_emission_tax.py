"""Cournot firms that pollute, and the tax on what they emit."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

from .._checks import require_count, require_positive
from ..design import DesignAndPlay, DesignProblem, DoubleLoop
from ..games import AggregativeGame
from ..sensitivity import Unrolled
from ..sets import Box, NonNegative, Reals
from ._instance import Instance


class Market(eqx.Module):
    """The firms: unit costs `c`, damages `d = 10 - exp(c) + epsilon` and inverse demand.

    `p = p0 - gamma Q` for the total output `Q`, and `tau` is what society pays for a unit of
    damage.
    """

    cost: Float[Array, " firms"]
    damage: Float[Array, " firms"]
    p0: Float[Array, ""]
    gamma: Float[Array, ""]
    tau: Float[Array, ""]

    def welfare(self, output: Float[Array, " firms"]) -> Float[Array, ""]:
        """`p0 Q - gamma Q^2 / 2 - c' a - tau d' a`: taxes are transfers."""
        total = output.sum()
        gained = self.p0 * total - self.gamma * total**2 / 2
        return gained - self.cost @ output - self.tau * self.damage @ output


class _MarginalCost(eqx.Module):
    market: Market
    by_damage: bool = eqx.field(static=True)

    def __call__(self, theta: Array, output: Array, total: Array) -> Array:
        market = self.market
        tax = theta * market.damage if self.by_damage else theta
        return market.cost + tax - (market.p0 - market.gamma * (output + total))


class _LostWelfare(eqx.Module):
    market: Market
    penalty: Float[Array, ""]

    def __call__(self, theta: Array, output: Array) -> Array:
        return self.penalty * jnp.sum(theta**2) - self.market.welfare(output)


def _total(theta: Array, output: Array) -> Array:
    del theta
    return output.sum()


def emission_tax(
    n: int = 100,
    *,
    output: Literal["free", "non-negative"] = "free",
    tax: Literal["unit interval", "free", "non-negative", "per damage"] = "free",
    penalty: ArrayLike | None = None,
    epsilon: ArrayLike = 0.0,
    p0: ArrayLike = 100.0,
    gamma: ArrayLike = 1.0,
    tau: ArrayLike = 10.0,
) -> Instance:
    """A tax on the output of `n` Cournot firms that maximises welfare.

        F^i = c^i + theta^i - (p0 - gamma (a^i + Q)) ,     objective = penalty ||theta||^2 - W(a)

    Liu et al. (2022), section 7. Without a penalty the objective has a rank-one Hessian in the tax
    (welfare is linear in how output is split), and the answer depends on the sets, which the
    source does not state. State the variant that you run.

    **Arguments:**

    - `n`: number of firms; unit costs are evenly spaced on [1, 2].
    - `output`: whether firms' output may be negative ("free", as the closed forms have it).
    - `tax`: where each firm's tax may lie; "per damage" is one price `t >= 0` with the tax
      `t d^i`.
    - `penalty`: of `||theta||^2`; when left out 50 for "free" output and a "free" tax (there the
      problem has no optimum without), else 0.
    - `epsilon`: shift of the damages `d = 10 - exp(c) + epsilon`.
    - `p0`, `gamma`, `tau`: price at no output, slope of demand, cost of a unit of damage.

    The schemes have the step sizes of `incentax reproduce table1`: "design-and-play",
    "double-loop" (implicit) and "double-loop-unrolled".

    **Raises** `ValueError` for an unknown variant or a number out of range.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.emission_tax(output="non-negative", tax="per damage")
        >>> solution = ix.design(instance.problem, instance.theta0)
        >>> print(solution.theta.round(3), -solution.objective.round(2))
        [9.768] 2364.1
    """
    require_count("emission_tax", "n", n)
    outputs = {"free": Reals((n,)), "non-negative": Box(jnp.zeros(n), jnp.inf)}
    taxes = {
        "unit interval": Box(jnp.zeros(n), 1.0),
        "free": Reals((n,)),
        "non-negative": Box(jnp.zeros(n), jnp.inf),
        "per damage": NonNegative(),
    }
    for name, value, known in (("output", output, outputs), ("tax", tax, taxes)):
        if value not in known:
            raise ValueError(
                f"`emission_tax({name}=...)` needs one of {', '.join(map(repr, known))}, "
                f"got {value!r}"
            )
    if penalty is None:
        penalty = 50.0 if output == tax == "free" else 0.0
    penalty = require_positive("emission_tax", "penalty", penalty, strictly=False)
    cost = jnp.linspace(1.0, 2.0, n)
    gamma = require_positive("emission_tax", "gamma", gamma)
    market = Market(
        cost=cost,
        damage=10 - jnp.exp(cost) + jnp.asarray(epsilon, cost.dtype),
        p0=require_positive("emission_tax", "p0", p0).astype(cost.dtype),
        gamma=gamma.astype(cost.dtype),
        tau=require_positive("emission_tax", "tau", tau, strictly=False).astype(cost.dtype),
    )
    game = AggregativeGame(_MarginalCost(market, tax == "per damage"), _total, outputs[output])
    problem = DesignProblem(game, _LostWelfare(market, penalty.astype(cost.dtype)), taxes[tax])
    theta0 = jnp.zeros(1 if tax == "per damage" else n)
    # The operator's largest eigenvalue is gamma (n + 1), its least gamma: a step just below the
    # longest stable one, 2 / (gamma (n + 1)), is the fastest.
    play_step = 1.9 / (gamma * (n + 1))
    # A tenth of the penalty's own step; without a penalty, of the slope of demand's.
    optimizer = optax.sgd(0.1 / (2 * float(penalty) if penalty > 0 else 1.0))
    through = Unrolled(2000)
    return Instance(
        problem=problem,
        theta0=theta0,
        x0=jnp.zeros(n),
        schemes={
            "design-and-play": DesignAndPlay(optimizer, play_step=play_step),
            "double-loop": DoubleLoop(optimizer, play_step=play_step),
            "double-loop-unrolled": DoubleLoop(
                optimizer, play_step=play_step, sensitivity=through, warm=False
            ),
        },
        description=f"emission tax on {n} Cournot firms, output {output}, tax {tax}",
    )
