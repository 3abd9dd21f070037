"""How stationary a point of a nonsmooth social cost is."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from .._checks import is_traced, require_count, require_positive
from .._compile import compiled
from ..design import DesignProblem
from ..equilibrium import find_equilibrium, known_entropic
from ..smoothing import moreau_gradient, sphere, trial_points, two_point_gradient


class GoldsteinMeasure(eqx.Module):
    """Answer of [`goldstein_measure`][].

    - `measure`: norm of the estimated gradient of the smoothed objective, envelope included.
    - `standard_error`: of that gradient: `sqrt(trace of its covariance / samples)`. At a stationary
      point the measure is about as large.
    - `gradient`: the estimate itself, like `theta`.
    """

    measure: Float[Array, ""]
    standard_error: Float[Array, ""]
    gradient: PyTree


def goldstein_measure(
    problem: DesignProblem,
    theta: PyTree,
    *,
    smoothing: ArrayLike,
    key: PRNGKeyArray,
    samples: int = 1024,
    x0: Array | None = None,
) -> GoldsteinMeasure:
    """`||∇F_delta(theta) + (theta - project(theta)) / delta||`, estimated, with its standard error.

    The gradient of the ball-smoothed objective lies in the Goldstein `delta`-subdifferential; a
    point where it is at most `epsilon` is `(delta, epsilon)`-stationary: Du, Meng, Hu (2025), Lemma
    2. From central two-point estimates at exact equilibria.

    **Arguments:**

    - `problem`, `theta`: the problem and an incentive, which may lie outside of its set.
    - `smoothing`: `delta > 0`.
    - `key`: consumed; `samples`: number of directions, at least 2.
    - `x0`: where equilibria are sought from; the centre of the strategy set when left out.

    !!! example

        >>> import incentax as ix, jax, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> found = ix.goldstein_measure(
        ...     problem, jnp.array([4.0]), smoothing=0.1, key=jax.random.key(0), samples=8
        ... )
        >>> print(found.measure.round(4))
        2.0
    """
    delta = require_positive("goldstein_measure", "smoothing", smoothing)
    samples = require_count("goldstein_measure", "samples", samples, 2)
    inner = problem.incentive_set.project(theta)
    _, x = problem.at_door("goldstein_measure", ("theta", "x0"), inner, x0)
    found, bad = _measure(
        problem, theta, x, delta, key, samples=samples, entropic=known_entropic(problem.game)
    )
    if not is_traced(bad) and bad >= 0:
        direction = sphere(jax.random.split(key, samples)[int(bad)], theta)
        raise ValueError(
            "`goldstein_measure(problem)` needs costs that are finite up to `smoothing` around "
            f"theta, got others {float(delta):g} away in direction {direction}"
        )
    return found


@compiled
def _measure(
    problem: DesignProblem,
    theta: PyTree,
    x: Array,
    delta: Array,
    key: PRNGKeyArray,
    *,
    samples: int,
    entropic: bool | None,
) -> tuple[GoldsteinMeasure, Array]:
    """The measure, and the number of the first sample that is not finite, or -1."""

    def value(point: PyTree) -> Array:
        reached, _, _ = find_equilibrium(
            problem.game, point, x, None, 1e-10, max_steps=20_000, entropic=entropic
        )
        return problem.objective(point, reached)

    def one(key: PRNGKeyArray) -> Array:
        direction = jax.tree.map(lambda leaf: leaf[None], sphere(key, theta))
        values = jax.lax.map(value, trial_points(theta, direction, delta, "central"))
        return ravel_pytree(two_point_gradient(values, direction, delta, "central"))[0]

    draws = jax.lax.map(one, jax.random.split(key, samples))
    pull, unravel = ravel_pytree(moreau_gradient(problem.incentive_set, theta, delta))
    gradient = jnp.mean(draws, axis=0) + pull
    error = jnp.sqrt(jnp.sum(jnp.var(draws, axis=0, ddof=1)) / samples)
    fine = jnp.all(jnp.isfinite(draws), axis=1)
    bad = jnp.where(jnp.all(fine), -1, jnp.argmin(fine).astype(jnp.int32))
    return GoldsteinMeasure(jnp.linalg.norm(gradient), error, unravel(gradient)), bad
