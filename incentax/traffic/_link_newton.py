"""Newton's method for flows that are loaded at the costs which they make."""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, Int

# Relative residual of the linear system of a Newton step, one that small dispersions need, and a
# bound on iterations.
_ROUGH, _FINE, _INNER_STEPS = 1e-3, 1e-6, 200
# Dispersions on the way where the direct one fails, and how much each is smaller.
_STAGES, _RATIO = 10, 2.0


class AbstractLoading(abc.ABC):
    """Flows `V(t(v) + toll)` that drivers make of the costs at flows `v`, and its derivatives."""

    @abc.abstractmethod
    def link_times(self, flows: Array) -> Array:
        """`t(v)`, link by link."""

    @abc.abstractmethod
    def imbalance(self, flows: Array) -> tuple[Any, Array]:
        """Whatever belongs to these flows, such as shares of paths, and `V - v`."""

    @abc.abstractmethod
    def response(self, flows: Array, with_them: Any) -> Callable[[Array], Array]:
        """`M = -∂V/∂cost`, symmetric and positive semidefinite: what flows fall by, where costs
        rise."""


def newton_in_link_flows(
    loading: AbstractLoading,
    flows: Float[Array, " links"],
    tol: Array | float,
    max_steps: int,
    *,
    inner: Array | float = _ROUGH,
) -> tuple[Float[Array, " links"], Any, Float[Array, " links"], Int[Array, ""]]:
    """Flows with `V - v = 0`, what belongs to them, what is left of `V - v`, and the steps taken.

    With `T' = dt/dv` the step is `dv = r - M T'^1/2 w` for the imbalance `r`, where
    `(I + T'^1/2 M T'^1/2) w = T'^1/2 r` by conjugate gradients; it is halved until the imbalance
    falls. `tol`: on the imbalance, relative to the largest flow, and no less than rounding;
    `inner`: on the residual of the linear system.
    """
    tol = jnp.maximum(tol, _least(flows.dtype))

    def going_on(carry):
        count, flows, _, left, moved = carry
        large = jnp.max(jnp.abs(left)) > tol * jnp.max(jnp.abs(flows))
        return large & (count < max_steps) & moved

    def advance(carry):
        count, flows, with_them, left, _ = carry
        newton = _newton_step(loading, flows, with_them, left, inner)

        def too_long(trial):
            length, _, _, candidate = trial
            worse = jnp.linalg.norm(candidate) > (1 - 1e-4 * length) * jnp.linalg.norm(left)
            return (worse | ~jnp.all(jnp.isfinite(candidate))) & (length > 1e-6)

        def halved(trial):
            length = trial[0] / 2
            reached = jnp.maximum(flows + length * newton, 0)
            return length, reached, *loading.imbalance(reached)

        unknown = jnp.full_like(left, jnp.inf)
        twice = jnp.full((), 2, flows.dtype), flows, with_them, unknown
        length, *reached = jax.lax.while_loop(too_long, halved, twice)
        moved = length > 1e-6
        kept = jax.tree.map(
            lambda new, old: jnp.where(moved, new, old), tuple(reached), (flows, with_them, left)
        )
        return count + 1, *kept, moved

    carry = (jnp.int32(0), flows, *loading.imbalance(flows), jnp.bool_(True))
    steps, flows, with_them, left, _ = jax.lax.while_loop(going_on, advance, carry)
    return flows, with_them, left, steps


def newton_as_dispersion_falls(
    loading_at: Callable[[Array], AbstractLoading],
    begun: Float[Array, " links"],
    with_them: Any,
    tol: Array | float,
    max_steps: int,
) -> tuple[Float[Array, " links"], Any, Int[Array, ""]]:
    """The same where Newton's method may not arrive from the start: it then follows the equilibrium
    as the dispersion falls.

    `loading_at(wide)`: at so many times the dispersion; `with_them`: of the shape of what belongs
    to flows.
    """
    small = jnp.maximum(1e-6, jnp.maximum(tol, _least(begun.dtype)))

    def going_on(carry: tuple[Any, ...]) -> Array:
        stage, arrived = carry[:2]
        return ~arrived & (stage <= _STAGES)

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        stage, _, flows, _, count = carry
        wide = jnp.where(stage == 0, 1.0, _RATIO ** (_STAGES - stage).astype(flows.dtype))
        inner = jnp.where(stage == 0, _ROUGH, _FINE)
        reached, with_them, left, steps = newton_in_link_flows(
            loading_at(wide), flows, tol, max_steps, inner=inner
        )
        arrived = (wide == 1) & (jnp.max(jnp.abs(left)) <= small * jnp.max(jnp.abs(reached)))
        finite = jnp.all(jnp.isfinite(reached)) & ((stage > 0) | arrived)
        return stage + 1, arrived, jnp.where(finite, reached, begun), with_them, count + steps

    first = jnp.int32(0), jnp.bool_(False), begun, with_them, jnp.int32(0)
    _, _, flows, with_them, steps = jax.lax.while_loop(going_on, advance, first)
    return flows, with_them, steps


def _least(dtype: Any) -> float:
    """Of what is left relative to the largest flow, for rounding."""
    return 30 * float(jnp.finfo(dtype).eps)


def _newton_step(
    loading: AbstractLoading, flows: Array, with_them: Any, left: Array, inner: Any
) -> Array:
    root = jnp.sqrt(slope_of(loading.link_times, flows))
    respond = loading.response(flows, with_them)
    w, _ = cg(lambda w: w + root * respond(root * w), root * left, tol=inner, maxiter=_INNER_STEPS)
    return left - respond(root * w)


def slope_of(link_times: Callable[[Array], Array], flows: Array) -> Float[Array, " links"]:
    """`dt/dv` link by link, `>= 0`; 0 where it is infinite, on an empty link of a power below 1."""
    _, slope = jax.jvp(link_times, (flows,), (jnp.ones_like(flows),))
    return jnp.where(jnp.isfinite(slope), jnp.maximum(slope, 0), 0)
