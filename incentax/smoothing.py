"""Derivatives without derivatives: functions smoothed over a ball, by two values a direction.

`f_delta(theta) = E f(theta + delta v)` for `v` uniform in the unit ball is differentiable where `f`
is only Lipschitz, and its gradient is an expectation over directions `u` on the unit sphere of two
values of `f` each: Du, Meng, Hu (2025), section 2.2.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from . import _checks, _tree, sets

Estimator = Literal["central", "forward"]
ESTIMATORS = ("central", "forward")


def sphere(key: PRNGKeyArray, theta: PyTree) -> PyTree:
    """A direction like `theta`, uniform on the unit sphere of all its entries together.

    !!! example

        >>> import incentax as ix, jax, jax.numpy as jnp
        >>> direction = ix.smoothing.sphere(jax.random.key(0), {"toll": jnp.zeros(3)})
        >>> round(float(jnp.linalg.norm(direction["toll"])), 6)
        1.0
    """
    flat, unravel = ravel_pytree(theta)
    draw = jax.random.normal(key, flat.shape, flat.dtype)
    return unravel(draw / jnp.linalg.norm(draw))


def trial_points(
    theta: PyTree, directions: PyTree, delta: ArrayLike, estimator: Estimator
) -> PyTree:
    """Where the function's values are asked for, along a leading axis.

    `theta + delta u` for all directions first; then `theta - delta u` (central) or `theta` itself
    once (forward).

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> ix.smoothing.trial_points(jnp.zeros(1), jnp.ones((1, 1)), 0.5, "central").tolist()
        [[0.5], [-0.5]]
    """

    def points(leaf: Array, direction: Array) -> Array:
        away = jnp.asarray(delta, leaf.dtype) * direction
        other = leaf[None] - away if estimator == "central" else leaf[None]
        return jnp.concatenate([leaf[None] + away, other])

    return jax.tree.map(points, theta, directions)


def two_point_gradient(
    values: Float[Array, " points"], directions: PyTree, delta: ArrayLike, estimator: Estimator
) -> PyTree:
    """The mean over directions of the two-point estimates from the values at [`trial_points`][].

        forward (p / delta) [f(theta + delta u) - f(theta)] u
        central (p / 2 delta) [f(theta + delta u) - f(theta - delta u)] u

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> values, directions = jnp.array([2.0, 1.0]), jnp.ones((1, 1))
        >>> ix.smoothing.two_point_gradient(values, directions, 0.5, "central").tolist()
        [1.0]
    """
    leaves = jax.tree.leaves(directions)
    number = leaves[0].shape[0]
    size = sum(leaf.size for leaf in leaves) // number
    width = jnp.asarray(delta, values.dtype) * (2 if estimator == "central" else 1)
    slopes = size * (values[:number] - values[number:]) / width

    def mean(direction: Array) -> Array:
        return jnp.tensordot(slopes.astype(direction.dtype), direction, 1) / number

    return jax.tree.map(mean, directions)


def moreau_gradient(incentive_set: sets.AbstractSet, theta: PyTree, delta: ArrayLike) -> PyTree:
    """`(theta - project(theta)) / delta`: the gradient of `dist(theta, set)^2 / (2 delta)`.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> ix.smoothing.moreau_gradient(ix.Box(0.0, 1.0), jnp.array([1.5]), 0.25).tolist()
        [2.0]
    """
    away = _tree.tree_subtract(theta, incentive_set.project(theta))
    return jax.tree.map(lambda leaf: leaf / jnp.asarray(delta, leaf.dtype), away)


def estimate_gradient(
    function: Callable[[PyTree], Array],
    theta: PyTree,
    key: PRNGKeyArray,
    *,
    smoothing: ArrayLike,
    directions: int = 1,
    estimator: Estimator = "central",
) -> PyTree:
    """An unbiased estimate of the gradient of `function`, smoothed over a ball of radius delta.

    **Arguments:**

    - `function`: pure function of an incentive that returns a number; its values are computed side
      by side.
    - `theta`: any pytree of float arrays, `p` entries in all.
    - `key`: consumed.
    - `smoothing`: `delta > 0`.
    - `directions`: number of directions that are averaged.
    - `estimator`: "central" has the smaller variance, "forward" asks for one value less a step.

    **Raises** `ValueError` for values that are not finite, naming the direction (under `jit` they
    show in the estimate), and for a function that does not return one number.

    !!! example

        In one dimension the central estimate is the difference quotient itself:

        >>> import incentax as ix, jax, jax.numpy as jnp
        >>> found = ix.smoothing.estimate_gradient(
        ...     lambda t: jnp.abs(t - 1).sum(), jnp.zeros(1), jax.random.key(0), smoothing=0.5
        ... )
        >>> found.round(6).tolist()
        [-1.0]
    """
    delta = _checks.require_positive("estimate_gradient", "smoothing", smoothing)
    _checks.require_one_of("estimate_gradient", "estimator", estimator, ESTIMATORS)
    count = _checks.require_count("estimate_gradient", "directions", directions)
    theta = jax.tree.map(_checks.as_float, theta)
    drawn = jax.vmap(lambda k: sphere(k, theta))(jax.random.split(key, count))
    points = trial_points(theta, drawn, delta, estimator)
    values = jax.vmap(function)(points)
    if jnp.ndim(values) != 1:
        raise ValueError(
            "`estimate_gradient(function)` needs a function that returns one number, got shape "
            f"{jnp.shape(values)[1:]}"
        )
    if not _checks.is_traced(values) and not jnp.isfinite(values).all():
        lane = int(jnp.argmin(jnp.isfinite(values)))
        point = jax.tree.map(lambda leaf: leaf[lane], points)
        sign = 1 if lane < count else -1
        direction = jax.tree.map(lambda leaf: sign * leaf[lane % count], drawn)
        raise ValueError(
            "`estimate_gradient(function)` needs finite values up to `smoothing` around theta, got "
            f"{values[lane]} at theta = {point}, in direction {direction}"
        )
    return two_point_gradient(values, drawn, delta, estimator)
