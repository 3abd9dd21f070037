"""Mirror maps: the geometry in which agents take a step.

With the mirror map `psi` and its Bregman divergence `D(p, x) = psi(p) - psi(x) -
<psi'(x), p - x>`, a step of size `beta` from `x` along `F` is

    x+ = argmin_{p in X}  <F, p> + D(p, x) / beta .

A mirror map keeps the agents' strategy in the form in which its step is exact (the *state*).
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ._checks import as_float, require
from .sets import AbstractStrategySet, Reals, Simplex


class AbstractMirrorMap(eqx.Module):
    """One step of agents, the mixing of strategies, and the divergence that measures both."""

    @abc.abstractmethod
    def check(self, strategy_set: AbstractStrategySet) -> None:
        """Raises `ValueError` when the step has no closed form on this set."""

    @abc.abstractmethod
    def state(self, x: Array) -> PyTree:
        """The form in which a strategy is carried."""

    @abc.abstractmethod
    def strategy(self, state: PyTree) -> Array:
        """The strategy `x` of a state."""

    @abc.abstractmethod
    def operator(self, game, theta: PyTree, state: PyTree) -> Array:
        """The game's operator at the strategy of a state."""

    @abc.abstractmethod
    def step(
        self, strategy_set: AbstractStrategySet, state: PyTree, estimate: Array, step_size: Array
    ) -> PyTree:
        """The state after a step along the estimate of the operator."""

    @abc.abstractmethod
    def mix(self, strategy_set: AbstractStrategySet, state: PyTree, mixing: Array) -> PyTree:
        """The state of `(1 - nu) x + nu centre`; Liu et al. (2022), (4.6)."""

    @property
    @abc.abstractmethod
    def smoothness(self) -> Float[Array, ""]:
        """`H_psi`, the Lipschitz constant of `∇psi`: Liu et al. (2022), section 4.1."""

    @abc.abstractmethod
    def divergence(self, p: Array, x: Array) -> Float[Array, ""]:
        """`D(p, x)`, non-negative, 0 where `p = x`."""

    @abc.abstractmethod
    def local_lipschitz(
        self, strategy_set: AbstractStrategySet, states: tuple, values: tuple
    ) -> Float[Array, ""]:
        """`||F_1 - F_0||_* / ||x_1 - x_0||` in the norm of `psi''` between the two states."""


class _AbstractPrimal(AbstractMirrorMap):
    """Mirror maps that carry the strategy itself."""

    def state(self, x: Array) -> Array:
        return x

    def strategy(self, state: Array) -> Array:
        return state

    def operator(self, game, theta: PyTree, state: Array) -> Array:
        return game.operator(theta, state)

    def mix(self, strategy_set: AbstractStrategySet, state: Array, mixing: Array) -> Array:
        return (1 - mixing) * state + mixing * strategy_set.centre().astype(state.dtype)


class Euclidean(_AbstractPrimal):
    """`psi = ||x||^2 / 2`: the step is `project(x - beta F)`, projected gradient play.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> step = ix.Euclidean().step
        >>> step(ix.NonNegative(), jnp.array([1.0]), jnp.array([4.0]), jnp.array(0.5)).tolist()
        [0.0]
    """

    def check(self, strategy_set: AbstractStrategySet) -> None:
        del strategy_set

    def step(
        self, strategy_set: AbstractStrategySet, state: Array, estimate: Array, step_size: Array
    ) -> Array:
        return strategy_set.project(state - step_size * estimate)

    @property
    def smoothness(self) -> Array:
        return jnp.asarray(1.0)

    def divergence(self, p: Array, x: Array) -> Array:
        return jnp.sum(jnp.square(p - x)) / 2

    def local_lipschitz(
        self, strategy_set: AbstractStrategySet, states: tuple, values: tuple
    ) -> Array:
        del strategy_set
        moved, changed = states[1] - states[0], values[1] - values[0]
        return _ratio(jnp.sum(jnp.square(changed)), jnp.sum(jnp.square(moved)))


class Mahalanobis(_AbstractPrimal):
    """`psi = x' Q x / 2` on all of R^d: the step is `x - beta Q^-1 F`.

    **Arguments:**

    - `matrix`: `Q`, symmetric and positive definite.

    **Raises** `ValueError` unless `Q` is square, symmetric and positive definite; in use, when
    the strategy set has bounds.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> mirror_map = ix.Mahalanobis(jnp.diag(jnp.array([1.0, 4.0])))
        >>> float(mirror_map.divergence(jnp.ones(2), jnp.zeros(2)))
        2.5
    """

    matrix: Float[Array, "d d"]

    def __init__(self, matrix: ArrayLike):
        q = as_float(matrix)
        if q.ndim != 2 or q.shape[0] != q.shape[1]:
            raise ValueError(f"`Mahalanobis(matrix)` needs a square matrix, got shape {q.shape}")
        q = require(q, q == q.T, "`Mahalanobis(matrix)` needs a symmetric matrix", q)
        least = jnp.linalg.eigvalsh(q)[0]
        rule = "`Mahalanobis(matrix)` needs a positive definite matrix; its least eigenvalue is"
        self.matrix = require(q, least > 0, rule, least)

    def check(self, strategy_set: AbstractStrategySet) -> None:
        if not isinstance(strategy_set, Reals):
            raise ValueError(
                "`Mahalanobis(matrix)` needs the strategy set `ix.Reals()`, got "
                f"{type(strategy_set).__name__}"
            )

    def step(
        self, strategy_set: AbstractStrategySet, state: Array, estimate: Array, step_size: Array
    ) -> Array:
        del strategy_set
        return state - step_size * jnp.linalg.solve(self.matrix, estimate)

    @property
    def smoothness(self) -> Array:
        return jnp.linalg.eigvalsh(self.matrix)[-1]

    def divergence(self, p: Array, x: Array) -> Array:
        return (p - x) @ self.matrix @ (p - x) / 2

    def local_lipschitz(
        self, strategy_set: AbstractStrategySet, states: tuple, values: tuple
    ) -> Array:
        del strategy_set
        moved, changed = states[1] - states[0], values[1] - values[0]
        dual = changed @ jnp.linalg.solve(self.matrix, changed)
        return _ratio(dual, moved @ self.matrix @ moved)


class LogStrategy(eqx.Module):
    """A strategy beside its logarithm, which stays exact where the strategy underflows."""

    x: Array
    log_x: Array


class Entropic(AbstractMirrorMap):
    """`psi = sum x log x` on simplices, carried as `log x`: `log x+ = log x - beta F - const`.

    The product form `x+ ∝ x exp(-beta F)` ([`EntropicProduct`][]) underflows to zero, and then
    to NaN, on real networks; the logarithm does not.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> mirror_map, simplex = ix.Entropic(), ix.Simplex(2)
        >>> state = mirror_map.state(simplex.centre())
        >>> state = mirror_map.step(simplex, state, jnp.array([0.0, 1e4]), jnp.array(1.0))
        >>> state.log_x.round(2).tolist()
        [0.0, -10000.0]
    """

    def check(self, strategy_set: AbstractStrategySet) -> None:
        _require_simplex("Entropic", strategy_set)

    def state(self, x: Array) -> LogStrategy:
        return LogStrategy(x, jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny)))

    def strategy(self, state: LogStrategy) -> Array:
        return state.x

    def operator(self, game, theta: PyTree, state: LogStrategy) -> Array:
        return game.log_operator(theta, state.x, state.log_x)

    def step(
        self,
        strategy_set: AbstractStrategySet,
        state: LogStrategy,
        estimate: Array,
        step_size: Array,
    ) -> LogStrategy:
        return LogStrategy(
            *_simplex(strategy_set).normalise_log(state.log_x - step_size * estimate)
        )

    def mix(
        self, strategy_set: AbstractStrategySet, state: LogStrategy, mixing: Array
    ) -> LogStrategy:
        # Mixed with a positive share of the centre nothing underflows, so x itself is mixed:
        # one logarithm where `logaddexp` takes two transcendental functions.
        x = (1 - mixing) * state.x + mixing * strategy_set.centre().astype(state.x.dtype)
        return LogStrategy(x, jnp.where(mixing > 0, jnp.log(x), state.log_x))

    @property
    def smoothness(self) -> Array:
        return jnp.asarray(jnp.inf)

    def divergence(self, p: Array, x: Array) -> Array:
        return relative_entropy(p, x)

    def local_lipschitz(
        self, strategy_set: AbstractStrategySet, states: tuple, values: tuple
    ) -> Array:
        return _entropic_lipschitz(_simplex(strategy_set), states, values)


class EntropicProduct(_AbstractPrimal):
    """The entropic step as printed, `x+ ∝ x exp(-beta F)`; Liu et al. (2022), Remark 4.3.

    Kept to show what fails: it divides zero by zero once every strategy of a block underflows.
    Use [`Entropic`][].

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> simplex = ix.Simplex(2)
        >>> ix.EntropicProduct().step(
        ...     simplex, simplex.centre(), jnp.array([1e4, 2e4]), jnp.array(1.0)
        ... ).tolist()
        [nan, nan]
    """

    def check(self, strategy_set: AbstractStrategySet) -> None:
        _require_simplex("EntropicProduct", strategy_set)

    def step(
        self, strategy_set: AbstractStrategySet, state: Array, estimate: Array, step_size: Array
    ) -> Array:
        simplex = _simplex(strategy_set)
        weight = state * jnp.exp(-step_size * estimate)
        scale = simplex.total.astype(state.dtype) / simplex.blocks(weight)
        return weight * simplex.blocks.transpose(scale)

    @property
    def smoothness(self) -> Array:
        return jnp.asarray(jnp.inf)

    def divergence(self, p: Array, x: Array) -> Array:
        return relative_entropy(p, x)

    def local_lipschitz(
        self, strategy_set: AbstractStrategySet, states: tuple, values: tuple
    ) -> Array:
        logarithmic = tuple(Entropic().state(state) for state in states)
        return _entropic_lipschitz(_simplex(strategy_set), logarithmic, values)


def relative_entropy(p: Array, x: Array) -> Float[Array, ""]:
    """`sum p log(p / x) - p + x`, with `0 log 0 = 0`."""
    return jnp.sum(jax.scipy.special.kl_div(p, x))


def natural_mirror_map(strategy_set: AbstractStrategySet) -> AbstractMirrorMap:
    """Entropic on simplices, Euclidean elsewhere."""
    return Entropic() if isinstance(strategy_set, Simplex) else Euclidean()


def _entropic_lipschitz(simplex: Simplex, states: tuple[LogStrategy, ...], values: tuple) -> Array:
    """Variances of the changes in `F` and in `log x`, both under the mean of the two strategies."""
    weight = (states[0].x + states[1].x) / 2
    mass = simplex.blocks(weight)

    def variance(change: Array) -> Array:
        mean = simplex.blocks(weight * change) / mass
        return jnp.sum(weight * jnp.square(change - simplex.blocks.transpose(mean)))

    return _ratio(variance(values[1] - values[0]), variance(states[1].log_x - states[0].log_x))


def _ratio(dual: Array, primal: Array) -> Array:
    return jnp.sqrt(dual / jnp.maximum(primal, jnp.finfo(primal.dtype).tiny))


def _require_simplex(name: str, strategy_set: AbstractStrategySet) -> None:
    if not isinstance(strategy_set, Simplex):
        raise ValueError(
            f"`{name}()` needs the strategy set `ix.Simplex(...)`, got "
            f"{type(strategy_set).__name__}"
        )


def _simplex(strategy_set: AbstractStrategySet) -> Simplex:
    assert isinstance(strategy_set, Simplex)  # `check` has refused every other set
    return strategy_set
