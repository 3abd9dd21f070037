"""Laws in place of a linear solve: what a regulator can follow who knows less, or computes less.

Each answers the question of [`Implicit`][], how the objective follows the incentive through the
agents, in a way of its own; a scheme goes down along the answer. None of them is a derivative of
the equilibrium on its own, so none serves `solve_equilibrium(sensitivity=...)`.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from .._checks import require, require_positive
from ..dynamics import MirrorDescent
from ..games import AbstractGame
from ..geometry import Euclidean
from ._base import AbstractSensitivity, Pullback
from ._face_system import FaceSystem


class AbstractLaw(AbstractSensitivity):
    """A law of a scheme: it remembers, step by step, and is no derivative."""

    @property
    def needs_step_size(self) -> bool:
        """Whether it takes a step of its own, as long as the agents' if that is known."""
        return False

    @property
    def sees_sets_move(self) -> bool:
        """Whether it serves agents whose strategy set depends on the incentive."""
        return False

    def attach(self, game: AbstractGame, theta: PyTree, x: Array) -> Array:
        del game, theta, x
        raise ValueError(
            f"`{type(self).__name__}` is a law for schemes, no derivative of the equilibrium: give "
            "it to `ix.DesignAndPlay(sensitivity=...)`"
        )

    @abstractmethod
    def follow(
        self, game: AbstractGame, at: tuple[PyTree, Array], cotangent: Array, step: "_Step"
    ) -> tuple[PyTree, PyTree]:
        """The cotangent of `theta` at `at = (theta, x)`, and what is remembered."""

    def pullback(
        self,
        game: AbstractGame,
        theta: PyTree,
        x: Array,
        cotangent: Array,
        *,
        step_size: Array | float = 1.0,
        memory: PyTree | None = None,
        refresh: Bool[Array, ""] | bool = True,
        operator_value: Array | None = None,
    ) -> Pullback:
        del refresh
        if game.moves and not self.sees_sets_move:
            raise ValueError(
                f"`{type(self).__name__}` needs a strategy set that does not depend on theta"
            )
        memory = self.memory(game, theta, x) if memory is None else memory
        value, pull = jax.vjp(game.operator, theta, x)
        value = value if operator_value is None else operator_value
        face = game.strategies(theta).face(x, value, step_size)
        system = FaceSystem(face, lambda v: pull(v)[1])
        step = _Step(system, lambda dx: pull(dx)[0], jnp.asarray(step_size, x.dtype), memory)
        found, memory = self.follow(game, (theta, x), cotangent, step)
        # A law solves no system that could be off.
        return Pullback(found, jnp.full((), jnp.nan, x.dtype), face.degenerate, memory)


class _Step(eqx.Module):
    """What a law is given: the adjoint system on the face, `(∂F/∂theta)^T`, the step size of play,
    and what it remembers."""

    system: FaceSystem
    pull: object
    size: Float[Array, "..."]
    memory: PyTree

    def or_own(self, step_size: Array | None) -> Array:
        """A step size of the law's own, else that of play."""
        return self.size if step_size is None else step_size.astype(self.size.dtype)

    def through(self, w: Array) -> PyTree:
        """The cotangent of `theta` for a motion `dx = S w`."""
        return self.pull(self.system.face.scale * w)  # pyright: ignore[reportCallIssue]


def unweighted(game: AbstractGame, x: Array, cotangent: Array) -> Array:
    """A gradient in `x`, divided by the game's own weights; 0 for who has none."""
    if game.weights is None:
        return cotangent
    weights = game.weights.astype(x.dtype)
    return jnp.where(weights > 0, cotangent / jnp.where(weights > 0, weights, 1), 0)


class SocialGradient(AbstractLaw):
    """The gradient of the social cost in the agents' own actions, in place of the hypergradient.

        ∇_theta f - (∂F/∂theta)^T ∇_x f     on the face where agents move

    the hypergradient with `∂F/∂x` replaced by the identity (by that in `log x` on simplices; in the
    game's own weights, where it has some). G. Vasileiou, L. Zhang, S. Zhang, *Incentive design
    without hypergradients* (2026), arXiv 2604.11346: where incentives enter as prices, one a
    strategy, strategies are free and the objective depends on these alone, it is a direction of
    descent whatever the agents' costs, as long as these are strongly monotone.

    **Knows:** `∇f` and how incentives enter the costs; not how agents respond.

    Deviations from the source: bounds and simplices, where what is not used is held at rest, and
    fewer prices than strategies. The guarantee does not reach so far: on simplices the law may
    ascend.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: 3 * x + theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 1) ** 2), ix.Reals())
        >>> law = ix.SocialGradient()
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.5), play_step=0.2, sensitivity=law)
        >>> ix.design(problem, jnp.zeros(2), scheme, steps=200).theta.round(4).tolist()
        [-3.0, -3.0]
    """

    def memory(self, game: AbstractGame, theta: PyTree, x: Array) -> None:
        del game, theta, x

    def follow(
        self, game: AbstractGame, at: tuple[PyTree, Array], cotangent: Array, step: _Step
    ) -> tuple[PyTree, None]:
        _, x = at
        face = step.system.face
        return step.through(-face.project(face.scale * unweighted(game, x, cotangent))), None


class AdjointStep(AbstractLaw):
    """One step of the adjoint system an iteration, in place of its solution.

        w <- w - rho (P (S (∂F/∂x)^T S + R) P w + P S ∇_x f) ,
        ∇_theta f + (∂F/∂theta)^T S w

    M. Dagréou, P. Ablin, S. Vaiter, T. Moreau, *A framework for bilevel optimization that enables
    stochastic and global variance reduction algorithms*, NeurIPS 2022 (SOBA), for minimisation at
    the lower level; on faces of a variational inequality it is our derivation. Its fixed points are
    those of the hypergradient.

    **Knows:** all that [`Implicit`][] knows; one vector-Jacobian product a step.

    **Arguments:**

    - `step_size`: `rho`; the agents' own step size when left out, which is as long as the same
      operator allows.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: 3 * x + theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 1) ** 2), ix.Reals())
        >>> law = ix.AdjointStep()
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.5), play_step=0.2, sensitivity=law)
        >>> ix.design(problem, jnp.zeros(2), scheme, steps=200).theta.round(4).tolist()
        [-3.0, -3.0]
    """

    step_size: Float[Array, ""] | None

    def __init__(self, step_size: ArrayLike | None = None):
        self.step_size = None
        if step_size is not None:
            self.step_size = require_positive("AdjointStep", "step_size", step_size)

    @property
    def needs_step_size(self) -> bool:
        return self.step_size is None

    def memory(self, game: AbstractGame, theta: PyTree, x: Array) -> Array:
        del game, theta
        return jnp.zeros_like(x)

    def follow(
        self, game: AbstractGame, at: tuple[PyTree, Array], cotangent: Array, step: _Step
    ) -> tuple[PyTree, Array]:
        del game, at
        face = step.system.face
        rho = step.or_own(self.step_size)
        w = face.project(step.memory)
        w = w - rho * (step.system.on_face(w) + face.project(face.scale * cotangent))
        return step.through(w), w


class Penalty(AbstractLaw):
    """A second population that is pushed a little towards the regulator's aim: no derivative of `F`
    in `x` at all.

        y plays  F(theta, y) + sigma ∇_x f ,      ∇_theta f + (∂_theta Φ(y) - ∂_theta Φ(x)) / sigma

    for the potential `Φ` of the game, whose differences are taken by the trapezoidal rule from
    `∂F/∂theta`: for `sigma -> 0` the hypergradient. In a game without a potential (`∂F/∂x` not
    symmetric in the game's weights) `(∂F/∂x)^-1` stands where its transpose should, and the law is
    biased. After A. Niu, K. Wang, J. Ziani, *Finding a multiple follower Stackelberg equilibrium: a
    fully first-order method* (2025), arXiv 2509.08161, whose own penalty serves games without a
    potential too; this one is derived for potential games, and needs one population more, not two.

    **Knows:** `∇f`, how incentives enter the costs, and a population to try on; a second step of
    play an iteration. For [`DesignAndPlay`][] without mixing, where both populations move alike.

    **Arguments:**

    - `sigma`: positive; by how much the push moves the second population in a step, in parts of the
      largest strategy (on simplices of each). Its error is of its order.
    - `step_size`: of the second population; the agents' own when left out.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: 3 * x + theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 1) ** 2), ix.Reals())
        >>> law = ix.Penalty(0.01)
        >>> scheme = ix.DesignAndPlay(optax.sgd(0.5), play_step=0.2, sensitivity=law)
        >>> ix.design(problem, jnp.zeros(2), scheme, steps=200).theta.round(4).tolist()
        [-3.0, -3.0]
    """

    sigma: Float[Array, ""]
    step_size: Float[Array, ""] | None

    def __init__(self, sigma: ArrayLike = 1e-2, *, step_size: ArrayLike | None = None):
        self.sigma = require_positive("Penalty", "sigma", sigma)
        self.step_size = None
        if step_size is not None:
            self.step_size = require_positive("Penalty", "step_size", step_size)

    @property
    def needs_step_size(self) -> bool:
        return self.step_size is None

    def memory(self, game: AbstractGame, theta: PyTree, x: Array) -> PyTree:
        return MirrorDescent(1.0).geometry(game, theta).state(x)

    def follow(
        self, game: AbstractGame, at: tuple[PyTree, Array], cotangent: Array, step: _Step
    ) -> tuple[PyTree, PyTree]:
        theta, x = at
        weights = jnp.ones_like(x) if game.weights is None else game.weights.astype(x.dtype)
        geometry, push = MirrorDescent(1.0).geometry(game, theta), unweighted(game, x, cotangent)
        strength, length = jnp.max(jnp.abs(push)), step.or_own(self.step_size)
        # So that one step moves by `sigma` of what there is: of `x`, or of its logarithm.
        scale = jnp.max(jnp.abs(x)) if isinstance(geometry, Euclidean) else 1.0
        unit = scale / (jnp.max(length) * strength)
        fine = jnp.isfinite(unit) & (unit > 0)
        sigma = self.sigma.astype(x.dtype) * jnp.where(fine, unit, 1)
        pushed = geometry.operator(game, theta, step.memory) + sigma * push
        point = geometry.step(game.strategies(theta), step.memory, pushed, length)
        y = geometry.strategy(point)
        moved = weights * (y - x) / sigma
        _, pull_there = jax.vjp(lambda theta: game.operator(theta, y), theta)
        here, (there,) = step.pull(moved), pull_there(moved)  # pyright: ignore[reportCallIssue]
        found = jax.tree.map(lambda a, b: (a + b) / 2, here, there)
        return found, point


class Response(eqx.Module):
    """What [`EstimatedResponse`][] remembers: `dx/dtheta` as it is believed, how uncertain that is,
    and the last pair that was seen."""

    slope: Float[Array, "x p"]
    spread: Float[Array, "p p"]
    theta: Float[Array, " p"]
    x: Float[Array, " x"]


class EstimatedResponse(AbstractLaw):
    """The response of agents of whom nothing is known, estimated from what they did.

        x_k - x_{k-1} ≈ M (theta_k - theta_{k-1}) ,      ∇_theta f + M^T ∇_x f

    with `M` by recursive least squares that forget. In the spirit of RAID (G. Vasileiou, L. Zhang,
    S. Zhang, *A no-regret framework for adaptive incentive design* (2026), arXiv 2606.02529), which
    estimates the parameters of known cost functions and takes turns between probing and using what
    it knows; here the response itself is estimated, in our derivation, without its guarantees.
    Probing is the optimizer's: chain `optax.add_noise` before it, whose noise falls with the steps.

    **Knows:** `∇f`, and sees what agents do. With [`DoubleLoop`][] they have settled when they are
    looked at; agents in motion blur the estimate.

    **Arguments:**

    - `forgetting`: in (0, 1]; what was seen k steps ago weighs `forgetting^k`.
    - `uncertainty`: positive; how little is known at first, in units of `1 / theta^2`.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp, optax
        >>> game = ix.Game(lambda theta, x: 3 * x + theta, ix.Reals())
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 1) ** 2), ix.Reals())
        >>> def probe(update, count, theta=None):
        ...     return update + jnp.cos(count * jnp.arange(1.0, 3.0)) / (1 + count), count + 1
        >>> probing = optax.GradientTransformation(lambda theta: jnp.zeros(()), probe)
        >>> optimizer = optax.chain(optax.sgd(0.5), probing)
        >>> scheme = ix.DoubleLoop(optimizer, sensitivity=ix.EstimatedResponse())
        >>> ix.design(problem, jnp.zeros(2), scheme, steps=600).theta.round(1).tolist()
        [-3.0, -3.0]
    """

    forgetting: Float[Array, ""]
    uncertainty: Float[Array, ""]

    def __init__(self, *, forgetting: ArrayLike = 0.98, uncertainty: ArrayLike = 1e3):
        rate = require_positive("EstimatedResponse", "forgetting", forgetting)
        rule = "`EstimatedResponse(forgetting=...)` needs at most 1"
        self.forgetting = require(rate, rate <= 1, rule, rate)
        self.uncertainty = require_positive("EstimatedResponse", "uncertainty", uncertainty)

    @property
    def sees_sets_move(self) -> bool:
        return True

    def memory(self, game: AbstractGame, theta: PyTree, x: Array) -> Response:
        del game
        flat = ravel_pytree(theta)[0].astype(x.dtype)
        spread = self.uncertainty.astype(x.dtype) * jnp.eye(flat.size, dtype=x.dtype)
        return Response(jnp.zeros((x.size, flat.size), x.dtype), spread, flat, x.ravel())

    def follow(
        self, game: AbstractGame, at: tuple[PyTree, Array], cotangent: Array, step: _Step
    ) -> tuple[PyTree, Response]:
        del game
        (theta, x), known = at, step.memory
        flat, unravel = ravel_pytree(theta)
        moved, seen = flat.astype(x.dtype) - known.theta, x.ravel() - known.x
        forgetting = self.forgetting.astype(x.dtype)
        toward = known.spread @ moved
        gain = toward / (forgetting + moved @ toward)
        slope = known.slope + jnp.outer(seen - known.slope @ moved, gain)
        spread = (known.spread - jnp.outer(gain, toward)) / forgetting
        # What is not seen for long must not be believed to be anything at all.
        most = self.uncertainty.astype(x.dtype) * flat.size
        trace = jnp.trace(spread)
        spread = spread * jnp.minimum(1, most / jnp.where(trace > 0, trace, 1))
        found = unravel((cotangent.ravel() @ slope).astype(flat.dtype))
        return found, Response(slope, spread, flat.astype(x.dtype), x.ravel())
