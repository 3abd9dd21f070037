"""What the loop of `design` asks of a scheme."""

import abc

import equinox as eqx
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ._problem import DesignProblem, Hypergradient


class AbstractInfo(eqx.Module):
    """What a person reads of a step; the loop looks at it for what is not finite."""

    design_step: eqx.AbstractVar[Float[Array, ""]]
    play_step: eqx.AbstractVar[Float[Array, ""]]
    largest_cost: eqx.AbstractVar[Float[Array, ""]]
    objective: eqx.AbstractVar[Float[Array, ""]]
    gradient: eqx.AbstractVar[Float[Array, ""]]


class SchemeInfo(AbstractInfo):
    """What a person reads about one step; no step depends on it.

    - `design_step`, `play_step`: Euclidean length of the designer's and the agents' step.
    - `largest_cost`: largest entry, in size, of the operator that the agents stepped along.
    - `objective`: at the pair where the hypergradient was taken.
    - `gradient`: norm of the hypergradient that the designer followed.
    - `gradient_residual`: true relative residual of its linear system.
    - `inner_steps`: steps that agents took.
    - `degenerate`: number of active constraints without a multiplier, where the gradient is
      one-sided at best.
    """

    design_step: Float[Array, ""]
    play_step: Float[Array, ""]
    largest_cost: Float[Array, ""]
    objective: Float[Array, ""]
    gradient: Float[Array, ""]
    gradient_residual: Float[Array, ""]
    degenerate: Int[Array, ""]
    inner_steps: Int[Array, ""]


def require_optimizer(owner: str, optimizer: object) -> optax.GradientTransformation:
    """The optimizer, or `TypeError` for what is no optax transformation."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"`{owner}(optimizer)` needs an optax transformation, got {optimizer!r}")
    return optimizer


def designer_step(
    problem: DesignProblem,
    optimizer: optax.GradientTransformation,
    theta: PyTree,
    state: optax.OptState,
    gradient: Hypergradient,
) -> tuple[PyTree, optax.OptState]:
    """One step of the optimizer along the hypergradient, projected on the incentive set."""
    # Some transformations look at the objective's value too.
    update, state = optax.with_extra_args_support(optimizer).update(
        gradient.value, state, theta, value=gradient.objective
    )
    return problem.incentive_set.project(optax.apply_updates(theta, update)), state


class AbstractSchemeState(eqx.Module):
    """The pytree that a scheme carries from step to step."""

    theta: eqx.AbstractVar[PyTree]


class AbstractScheme(eqx.Module):
    """A rule by which the incentive moves: `init`, then `step` after `step`."""

    @abc.abstractmethod
    def init(self, problem: DesignProblem, theta: PyTree, x: Array) -> AbstractSchemeState:
        """The state at the start."""

    @abc.abstractmethod
    def step(
        self,
        problem: DesignProblem,
        state: AbstractSchemeState,
        count: Array,
        key: PRNGKeyArray | None,
    ) -> tuple[AbstractSchemeState, AbstractInfo]:
        """The state after step number `count`; consumes `key`."""

    @abc.abstractmethod
    def keep(
        self, moved: Bool[Array, ""], reached: AbstractSchemeState, before: AbstractSchemeState
    ) -> AbstractSchemeState:
        """`reached` where a step counts, else `before`; what no answer depends on need not be."""

    @abc.abstractmethod
    def strategy(self, problem: DesignProblem, state: AbstractSchemeState) -> Array:
        """The agents' strategy in a state."""

    def check(self, problem: DesignProblem, theta: PyTree, x: Array) -> None:
        """Raises `ValueError` for a problem that the scheme cannot solve; before compilation."""
        del problem, theta, x

    def conclude(
        self, problem: DesignProblem, state: AbstractSchemeState, count: Array
    ) -> AbstractSchemeState:
        """The state after the last step, made ready to be returned."""
        del problem, count
        return state

    def explain(
        self,
        problem: DesignProblem,
        state: AbstractSchemeState,
        count: Array,
        key: PRNGKeyArray | None,
    ) -> str:
        """What can be said of step number `count` after it turned non-finite; may be nothing."""
        del problem, state, count, key
        return ""

    def multipliers(self, problem: DesignProblem, state: AbstractSchemeState) -> dict[str, Array]:
        """Those of the problem's constraints, by name; a scheme of its own has none."""
        del problem, state
        return {}

    @property
    @abc.abstractmethod
    def needs_key(self) -> bool:
        """Whether a step draws random numbers."""
