"""A model of the objective from the last steps alone, where incentives are many and free."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Steps that are remembered.
_REMEMBERED = 120


class LimitedMemory(eqx.Module):
    """The last steps and how the gradient changed along each, the newest last.

    Limited-memory BFGS: Nocedal and Wright, *Numerical Optimization* (2006), algorithm 7.4.
    `first`: the curvature before any step.
    """

    steps: Float[Array, "m p"]
    bends: Float[Array, "m p"]
    first: Float[Array, ""]

    def __init__(self, size: int, first: Float[Array, ""]):
        self.steps = self.bends = jnp.zeros((_REMEMBERED, size), first.dtype)
        self.first = first

    def step(self, gradient: Float[Array, " p"]) -> tuple[Float[Array, " p"], Float[Array, ""]]:
        """To the least value of the model, and the decrease that it promises."""
        curvature = jnp.sum(self.steps * self.bends, axis=1)
        inverse = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), 0)

        def back(left: Array, pair: tuple[Array, ...]) -> tuple[Array, Array]:
            moved, bent, inverse = pair
            weight = inverse * (moved @ left)
            return left - weight * bent, weight

        def forth(found: Array, pair: tuple[Array, ...]) -> tuple[Array, None]:
            moved, bent, inverse, weight = pair
            return found + (weight - inverse * (bent @ found)) * moved, None

        pairs = (self.steps, self.bends, inverse)
        left, weights = jax.lax.scan(back, gradient, pairs, reverse=True)
        newest = self.bends[-1] @ self.bends[-1]
        scale = jnp.where(newest > 0, curvature[-1] / jnp.where(newest > 0, newest, 1), 0)
        scale = jnp.where(newest > 0, scale, 1 / self.first)
        found, _ = jax.lax.scan(forth, scale * left, (*pairs, weights))
        return -found, gradient @ found / 2

    def updated(self, moved: Array, bent: Array, step: Array, gradient: Array) -> "LimitedMemory":
        """With one step more, a part or a multiple of the model's `step` from `gradient`."""
        length = jnp.linalg.norm(step)
        image = -gradient * (jnp.linalg.norm(moved) / jnp.where(length > 0, length, 1))
        damped, fine = damped_bend(moved, bent, image)

        def added(rows: Array, row: Array) -> Array:
            return jnp.where(fine, jnp.roll(rows, -1, axis=0).at[-1].set(row), rows)

        both = added(self.steps, moved), added(self.bends, damped)
        return eqx.tree_at(lambda model: (model.steps, model.bends), self, both)


def damped_bend(moved: Array, bent: Array, image: Array) -> tuple[Array, Array]:
    """How the gradient changed along a step, damped so that a model stays convex, and if it does.

    `image`: what the model so far says. Powell's damping: Nocedal and Wright (2006), (18.14).
    """
    curvature, quadratic = moved @ bent, moved @ image
    share = jnp.where(
        curvature >= 0.2 * quadratic,
        1.0,
        0.8 * quadratic / jnp.where(quadratic > curvature, quadratic - curvature, 1),
    )
    damped = share * bent + (1 - share) * image
    tiny = jnp.finfo(moved.dtype).tiny
    fine = (quadratic > 0) & (moved @ damped > tiny) & jnp.all(jnp.isfinite(damped))
    return damped, fine
