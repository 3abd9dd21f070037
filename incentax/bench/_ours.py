"""The accurate designer and schemes, with defaults or such steps as their users would take."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from .._results import ENDINGS, RESULTS
from ..design import (
    AbstractScheme,
    design,
    DesignAndPlay,
    DesignProblem,
    DoubleLoop,
    ZerothOrderRegulator,
)
from ..equilibrium import natural_residual, solve_equilibrium
from ..games import AbstractGame
from ._answer import Answer

_STEPS = 3000


def accurately(problem: DesignProblem, theta0: Array):
    """Its success is a stationary point, proved or as near as it could tell."""

    def solve() -> Answer:
        found = design(problem, theta0, throw=False)
        fine = bool(found.result == RESULTS.successful)
        words = ENDINGS[found.ending] if fine else RESULTS[found.result]
        return Answer(found.theta, fine, words, found.x)

    return solve


def by_design_and_play(problem: DesignProblem, theta0: Array):
    """Play by half of what a bound on the operator's slope at the start allows."""
    step = 0.5 / _slope(problem.game, theta0)
    decay = optax.cosine_decay_schedule(0.1 * _size(theta0), _STEPS)
    return _scheme(problem, theta0, DesignAndPlay(optax.adam(decay), play_step=step))


def by_double_loop(problem: DesignProblem, theta0: Array):
    """Each step at an equilibrium solved to its default tolerance."""
    decay = optax.cosine_decay_schedule(0.1 * _size(theta0), _STEPS // 10)
    return _scheme(problem, theta0, DoubleLoop(optax.adam(decay)), _STEPS // 10)


def by_regulator(problem: DesignProblem, theta0: Array):
    """From values alone, at agents who settle: of the objective, one direction a step."""
    size, steps = _size(theta0), 2 * _STEPS // 3

    def falling(k: Array) -> Array:
        return 0.1 * size / (1 + 20 * k / steps)

    schedule: Any = falling
    scheme = ZerothOrderRegulator(smoothing=1e-5 * size, step_size=schedule)
    return _scheme(problem, theta0, scheme, steps)


def _scheme(
    problem: DesignProblem,
    theta0: Array,
    scheme: AbstractScheme,
    steps: int = _STEPS,
):
    def solve() -> Answer:
        key = jax.random.key(0)
        found = design(problem, theta0, scheme, steps=steps, record=steps, key=key, throw=False)
        left = float(natural_residual(problem.game, found.theta, found.x))
        # A scheme ends when its steps do: it calls nothing a success.
        return Answer(found.theta, False, f"residual of the agents {left:.1e}", found.x)

    return solve


def _slope(game: AbstractGame, theta: Array) -> float:
    """`||dF/dx||` at the equilibrium of the start, by power iteration."""
    x = solve_equilibrium(game, theta, throw=False).x
    _, pull = jax.vjp(lambda x: game.operator(theta, x), x)

    def one(v: Array, _: None) -> tuple[Array, Array]:
        _, moved = jax.jvp(lambda x: game.operator(theta, x), (x,), (v,))
        (back,) = pull(moved)
        size = jnp.linalg.norm(back)
        return back / jnp.where(size > 0, size, 1), jnp.sqrt(size)

    start = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    _, sizes = jax.lax.scan(one, start / jnp.linalg.norm(start), length=50)
    return max(float(sizes[-1]), 1e-6)


def _size(theta0: Array) -> float:
    return max(1.0, float(jnp.max(jnp.abs(theta0))))
