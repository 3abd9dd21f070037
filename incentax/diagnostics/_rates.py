"""How fast something falls: an exponent fitted to runs over many seeds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from .._checks import as_float, is_traced, require, require_count, require_positive


class RateFit(eqx.Module):
    """Answer of [`fit_rate`][]: `values ~ constant * steps^exponent`.

    - `exponent`, `constant`: least squares in logarithms, of the mean over seeds.
    - `low`, `high`: 95 % band of the exponent over seeds drawn anew; NaN for a single run.
    """

    exponent: Float[Array, ""]
    constant: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]


def fit_rate(
    steps: ArrayLike, values: ArrayLike, *, key: PRNGKeyArray | None = None, draws: int = 400
) -> RateFit:
    """The exponent of `values` in `steps`, over two decades of steps at least.

    Every factor of the steps counts alike, however many steps lie in it: a step weighs as much as
    its distance to its neighbours in the logarithm.

    **Arguments:**

    - `steps`: positive and increasing, shape `(k,)`.
    - `values`: positive means over seeds are needed; shape `(k,)`, or `(seeds, k)`.
    - `key`, `draws`: of the bootstrap over seeds (a fixed key when left out).

    **Raises** `ValueError` where fewer than two decades are covered, or shapes do not fit.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> steps = jnp.arange(1.0, 1001.0)
        >>> print(ix.diagnostics.fit_rate(steps, 3 * steps**-0.5).exponent.round(3))
        -0.5
    """
    steps, values = require_positive("fit_rate", "steps", steps), as_float(values)
    draws = require_count("fit_rate", "draws", draws)
    if steps.ndim != 1 or values.ndim not in (1, 2) or values.shape[-1:] != steps.shape:
        raise ValueError(
            "`fit_rate(steps, values)` needs shapes (k,) and (k,) or (seeds, k), got "
            f"{steps.shape} and {values.shape}"
        )
    if not is_traced(steps):
        given = np.asarray(steps)
        if len(given) < 2 or (np.diff(given) <= 0).any() or given[-1] < 99.9 * given[0]:
            raise ValueError(
                "`fit_rate(steps)` needs increasing steps over two decades at least, got "
                f"{len(given)} from {given.min():g} to {given.max():g}"
            )
    dtype = jnp.result_type(steps, values)
    steps, runs = steps.astype(dtype), jnp.atleast_2d(values).astype(dtype)
    seeds = len(runs)
    logs = jnp.log(steps)
    weight = jnp.asarray(jnp.gradient(logs))
    centred = logs - jnp.sum(weight * logs) / jnp.sum(weight)

    def fit(mean: Array) -> tuple[Array, Array]:
        curve = jnp.log(mean)
        level = jnp.sum(weight * curve) / jnp.sum(weight)
        exponent = jnp.sum(weight * centred * curve) / jnp.sum(weight * centred**2)
        return exponent, jnp.exp(level - exponent * (logs[0] - centred[0]))

    mean = jnp.mean(runs, axis=0)
    rule = "`fit_rate(values)` needs means over seeds that are positive and finite"
    mean = require(mean, (mean > 0) & jnp.isfinite(mean), rule, mean)
    exponent, constant = fit(mean)
    if seeds == 1:
        return RateFit(exponent, constant, *jnp.full(2, jnp.nan, dtype))
    key = jax.random.key(0) if key is None else key
    chosen = jax.random.randint(key, (draws, seeds), 0, seeds)
    exponents = jax.lax.map(lambda rows: fit(jnp.mean(runs[rows], axis=0))[0], chosen)
    low, high = jnp.nanquantile(exponents, jnp.asarray([0.025, 0.975], dtype))
    return RateFit(exponent, constant, low, high)
