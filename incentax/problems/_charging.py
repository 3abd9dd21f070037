"""Electric vehicles that charge, and the price that keeps them from all doing the same."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float

from .._checks import require_count, require_positive
from ..design import DesignAndPlay, DesignProblem, DoubleLoop, ZerothOrderRegulator
from ..dynamics import ConsensusSeeking
from ..games import AtomicGame
from ..graphs import erdos_renyi, Graph
from ..sets import Box
from ._instance import Instance


class Bill(eqx.Module):
    """What each resident pays, in each of the time slots together.

        J_i = sum over slots of a_i x_i^2 - b_i x_i + k_i (x_i - mean x)^2 + c x_i sum_j x_j + price

    with the price `theta (x_i - mean x)`, which is neutral in revenue, or `theta x_i`.
    """

    loss: Float[Array, "residents 1"]
    benefit: Float[Array, "residents slots"]
    sensitivity: Float[Array, "residents 1"]
    congestion: Float[Array, ""]
    neutral: bool = eqx.field(static=True)

    def __call__(
        self, price: Float[Array, " slots"], x: Float[Array, "residents slots"]
    ) -> Float[Array, " residents"]:
        total = jnp.sum(x, axis=0, keepdims=True)
        deviation = x - total / x.shape[0]
        billed = deviation if self.neutral else x
        own = self.loss * x**2 - self.benefit * x + self.sensitivity * deviation**2
        return jnp.sum(own + self.congestion * x * total + price[None, :] * billed, axis=1)


def ev_charging(
    n: int = 10,
    *,
    slots: int = 1,
    price: Literal["revenue-neutral", "plain"] = "revenue-neutral",
    congestion: ArrayLike = 0.05,
    charge: tuple[float, float] = (0.5, 5.0),
    prices: tuple[float, float] = (0.5, 6.0),
    graph: Graph | None = None,
    seed: int = 1,
) -> Instance:
    """Residents who charge at a public station, and the authority that prices their deviation.

    After Du, Meng, Hu (2025), section 4. Their constants are not available; this is a **stand-in**:
    quadratic bills (see `Bill` in the source file) with constants drawn by
    `numpy.random.default_rng(seed)`, `a ~ U(.5, 1.5)`, `k ~ U(.2, 1)`, `b ~ U(4, 8)` in this order.
    The social cost is the sum of all bills. With the plain price the social cost is concave in the
    price wherever the same residents are at their bounds, so the optimum is a corner; the
    revenue-neutral price has its optimum inside.

    **Arguments:**

    - `n`: number of residents.
    - `slots`: number of time slots, each with its own price; `theta` has shape `(slots,)` and `x`
      `(n, slots)`.
    - `price`: "revenue-neutral", billed on the deviation from the mean, or "plain".
    - `congestion`: `c >= 0`.
    - `charge`, `prices`: bounds of every `x_i` and of every price.
    - `graph`: who hears whom in the scheme "regulator"; an Erdős-Rényi graph with edge probability
      0.4 (more where few residents need it to be connected) when left out.
    - `seed`: of the constants, and of the graph.

    The schemes: "regulator" (zeroth order over consensus seeking), "regulator, full information"
    (over exact equilibria), "design-and-play" and "double-loop".

    **Raises** `ValueError` for an argument out of range.

    !!! example

        >>> import incentax as ix
        >>> instance = ix.problems.ev_charging()
        >>> ix.design(instance.problem, instance.theta0).theta.round(4).tolist()
        [1.1625]
    """
    require_count("ev_charging", "n", n, 2)
    require_count("ev_charging", "slots", slots)
    if price not in ("revenue-neutral", "plain"):
        raise ValueError(
            f"`ev_charging(price=...)` needs 'revenue-neutral' or 'plain', got {price!r}"
        )
    for name, bounds in (("charge", charge), ("prices", prices)):
        if not (len(bounds) == 2 and bounds[0] < bounds[1]):
            raise ValueError(f"`ev_charging({name}=...)` needs lower < upper, got {bounds}")
    congestion = require_positive("ev_charging", "congestion", congestion, strictly=False)
    draw = np.random.default_rng(seed)
    loss, sensitivity = draw.uniform(0.5, 1.5, (n, 1)), draw.uniform(0.2, 1, (n, 1))
    benefit = draw.uniform(4, 8, (n, slots))
    dtype = jnp.asarray(0.0).dtype
    bill = Bill(
        loss=jnp.asarray(loss, dtype),
        benefit=jnp.asarray(benefit, dtype),
        sensitivity=jnp.asarray(sensitivity, dtype),
        congestion=congestion.astype(dtype),
        neutral=price == "revenue-neutral",
    )
    game = AtomicGame(bill, Box(jnp.full((n, slots), charge[0]), charge[1]))
    problem = DesignProblem(game, None, Box(jnp.full(slots, prices[0]), prices[1]))
    if graph is None:
        graph = erdos_renyi(n, min(1.0, max(0.4, 2 * np.log(n) / n)), jax.random.key(seed))
    # The Hessian of a bill is at most 2 (1.5 + 1) + c n: a step well below its inverse.
    step = 0.5 / (5 + float(congestion) * n)
    # The social cost is a sum over residents, and so is its curvature in the price.
    gamma = 0.5 / n
    gradient_step = optax.sgd(gamma)
    return Instance(
        problem=problem,
        theta0=jnp.full(slots, sum(prices) / 2, dtype),
        x0=jnp.full((n, slots), sum(charge) / 2, dtype),
        schemes={
            "regulator": ZerothOrderRegulator(
                smoothing=0.1, step_size=gamma, seeking=ConsensusSeeking(graph, step)
            ),
            "regulator, full information": ZerothOrderRegulator(smoothing=0.1, step_size=gamma),
            "design-and-play": DesignAndPlay(gradient_step, play_step=step),
            "double-loop": DoubleLoop(gradient_step, play_step=step),
        },
        description=f"charging of {n} vehicles in {slots} slot(s), {price} price (stand-in)",
    )
