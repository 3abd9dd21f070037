"""One experiment at a time: runs from many seeds, gaps, and the exponents fitted to them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from .. import schedules
from .._compile import compiled
from ..design import design, DesignAndPlay, DesignProblem, Record, ZerothOrderRegulator
from ..diagnostics import fit_rate, RateFit
from ..dynamics import (
    ConsensusSeeking,
    DynamicsState,
    MirrorDescent,
    ProjectedGradient,
    seeking_constants,
)
from ..equilibrium import solve_equilibrium
from ..games import AbstractGame, AtomicGame, Game
from ..geometry import Euclidean, natural_mirror_map
from ..noise import Gaussian
from ..problems import ev_charging
from ..schedules import StepSizes
from ..sets import Box, Reals, Simplex

ROWS = 40


class _Affine(eqx.Module):
    matrix: Array

    def __call__(self, theta: Array, x: Array) -> Array:
        return self.matrix @ x - theta


class _Apart(eqx.Module):
    """`||x - x_best||^power / power + w ||theta - theta_best||^2 / 2`."""

    theta: Array
    x: Array
    power: int = eqx.field(static=True)
    weight: float = eqx.field(static=True)

    def __call__(self, theta: Array, x: Array) -> Array:
        own = jnp.sum((x - self.x) ** 2) ** (self.power // 2) / self.power
        return own + self.weight * jnp.sum((theta - self.theta) ** 2) / 2


def planted(matrix: list[list[float]], power: int, weight: float) -> tuple[DesignProblem, Array]:
    """`F = A x - theta` on R^2, best at `theta = A (1, -1)`."""
    a, x = jnp.asarray(matrix), jnp.asarray([1.0, -1.0])
    objective = _Apart(a @ x, x, power, weight)
    return DesignProblem(Game(_Affine(a), Reals((2,))), objective, Reals((2,))), a @ x


def measure(
    problem: DesignProblem,
    theta0: Array,
    best: Array,
    sizes: StepSizes,
    *,
    steps: int,
    seeds: int,
    noise: float = 0.5,
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, RateFit]]:
    """Steps, gaps (seeds by rows) and fits over the last two decades of one experiment.

    upper  ||theta_{k+1} - theta_*||^2 ,     lower  D(x~*(theta_{k+1}), x~_{k+1})
    """
    strategies = problem.game.strategies(theta0)
    simplex = isinstance(strategies, Simplex)
    scheme = DesignAndPlay(
        optax.sgd(sizes.design),
        play_step=sizes.play,
        mixing=sizes.mixing if simplex else None,
        feedback=Gaussian(noise),
    )
    every = max(1, steps // 1000)
    record = Record(every, observe=lambda theta, x: (theta, x))
    x0 = strategies.centre() if simplex else jnp.zeros(strategies.centre().shape)

    @jax.jit
    @jax.vmap
    def run(key):
        start = {"x0": x0, "steps": steps, "key": key, "record": record}
        return design(problem, theta0, scheme, throw=False, **start).history

    history = run(jax.random.split(jax.random.key(0), seeds))
    number = history.step.shape[1]
    rows = np.unique(np.round(np.geomspace(max(1, number / 100), number, ROWS)).astype(int)) - 1
    step = np.asarray(history.step[0])[rows]
    theta, x = jax.tree.map(lambda leaf: leaf[:, rows], history.observed)
    upper = np.asarray(jnp.sum((theta - best[None, None]) ** 2, axis=-1))
    mixing = np.asarray(sizes.mixing(step - 1)) if simplex else np.zeros(len(step))
    lower = np.asarray(_lower_gaps(problem, theta, x, jnp.asarray(mixing)))
    gaps = {"upper": upper, "lower": lower}
    return step, gaps, {name: fit_rate(step, gap) for name, gap in gaps.items()}


@compiled
def _lower_gaps(problem: DesignProblem, theta: Array, x: Array, mixing: Array) -> Array:
    mirror_map = natural_mirror_map(problem.game.strategies(theta[0, 0]))

    def one(lane):
        theta, x, share = lane
        exact = solve_equilibrium(problem.game, theta, x, throw=False).x
        exact = (1 - share) * exact + share * problem.game.strategies(theta).centre()
        return mirror_map.divergence(exact, x)

    seeds = theta.shape[0]
    flat = [leaf.reshape(-1, leaf.shape[-1]) for leaf in (theta, x)]
    return jax.lax.map(one, (*flat, jnp.tile(mixing, seeds))).reshape(theta.shape[:2])


class _Market(eqx.Module):
    """Quadratic costs of five firms that the regulator subsidises; the social cost is quadratic."""

    matrix: Array

    def __call__(self, theta: Array, x: Array) -> Array:
        others = self.matrix @ x - jnp.diagonal(self.matrix) * x
        return x**2 + x * others - theta * x + 0.5 * (theta - 1) ** 2 + 0.3 * x


class _Anew(MirrorDescent):
    """Agents who begin at 0 whenever the incentive changes, and stop early: what they have not gone
    yet depends on the incentive, and does not cancel between the two values of a comparison."""

    def resume(self, game: AbstractGame, theta: PyTree, state: DynamicsState) -> DynamicsState:
        return self.init(game, theta, jnp.zeros_like(state.operator_value))


# Step of play and the share of the way that is missing at first, where agents begin anew.
_SHORT, _MISSING = 0.02, 0.7


def regulator_rate(
    counts: tuple[int, ...], seeds: int, *, inexact: float | None, anew: bool = False
) -> tuple[np.ndarray, RateFit]:
    """Mean of `||∇F_delta||^2` over runs of `K` steps with `gamma = 1 / (2 sqrt(K))`, and its rate.

    Equilibria are exact to rounding, or such that the squared error is about `(k + 1)^(-a)`: agents
    go on from where they were and stop as soon as they reach that, or begin `anew` at every step
    and are given the iterations after which they do. The social cost is quadratic and its optimum
    inside, so that smoothing changes no gradient. Du, Meng, Hu (2025), corollaries 1 to 3: the
    exponent is `-min(1/2, a)`.
    """
    size = 5
    draw = np.random.default_rng(0).normal(size=(size, size))
    matrix = jnp.asarray(2 * np.eye(size) + 0.3 * draw)
    game = AtomicGame(_Market(matrix), Reals((size,)))
    problem = DesignProblem(game, None, Box(jnp.full(size, -50.0), 50.0))

    def social(theta: Array) -> Array:
        zero = jnp.zeros(size)
        system = jax.jacobian(lambda x: game.operator(theta, x))(zero)
        return problem.objective(theta, jnp.linalg.solve(system, -game.operator(theta, zero)))

    record = Record(1, observe=lambda theta, x: jnp.sum(jax.grad(social)(theta) ** 2))
    tol = 1e-12 if inexact is None else schedules.power(1.0, inexact / 2)
    settling = {"seeking": ProjectedGradient(0.3), "inner_steps": 400, "inner_tol": tol}
    if anew:
        assert inexact is not None
        own_slope = 2.0  # of a player's marginal cost

        def iterations(count: Array) -> Array:
            left = _MISSING * (jnp.asarray(count, float) + 1.0) ** (-inexact / 2)
            return -jnp.log(left) / (_SHORT * own_slope)

        agents = _Anew(step_size=_SHORT, mirror_map=Euclidean())  # pyright: ignore
        settling = {"seeking": agents, "inner_steps": iterations}
    # Errors that do not cancel are to be seen beside what is left of the way to the optimum.
    start = 3.0 if anew else 10.0
    means = []
    for count in counts:
        scheme = ZerothOrderRegulator(smoothing=0.1, step_size=0.5 / np.sqrt(count), **settling)

        def run(key, scheme=scheme, count=count):
            how = {"steps": count, "key": key, "record": record, "throw": False}
            return design(problem, jnp.full(size, start), scheme, **how).history.observed.mean()

        means.append(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), seeds)))
    found = np.stack(means, axis=1)
    return found, fit_rate(np.asarray(counts), found)


def seeking_factors(steps: np.ndarray) -> dict[str, np.ndarray]:
    """Contraction of equilibrium seeking on the charging game: the bound `rho`, and what is seen.

    Also the number of iterations to a millionth of the squared error, by the bound and seen.
    """
    instance = ev_charging()
    scheme = instance.schemes["regulator"]
    assert isinstance(scheme, ZerothOrderRegulator)
    assert isinstance(scheme.seeking, ConsensusSeeking)
    game, graph = instance.problem.game, scheme.seeking.graph
    theta = instance.theta0
    exact = solve_equilibrium(game, theta).x
    constants = seeking_constants(game, theta, exact)
    count = 60_000

    @jax.jit
    def errors(step: Array) -> Array:
        method = ConsensusSeeking(graph, step)

        def advance(state, number):
            state = method.step(game, theta, state, number)
            return state, jnp.sum((state - exact[None]) ** 2)

        state = method.init(game, theta, instance.x0)
        first = jnp.sum((state - exact[None]) ** 2)
        _, squares = jax.lax.scan(advance, state, jnp.arange(count))
        return jnp.concatenate([first[None], squares])

    rows: dict[str, list[float]] = {
        name: [] for name in ("bound", "seen", "iterations_bound", "iterations_seen")
    }
    for step in steps:
        curve = np.asarray(errors(jnp.asarray(step)))
        reached = np.flatnonzero(curve <= 1e-6 * curve[0])
        # The slope between a hundredth and a millionth, or over the second half of a slow run.
        begin = np.flatnonzero(curve <= 1e-2 * curve[0])
        low = int(begin[0]) if len(begin) and len(reached) else count // 2
        high = int(reached[0]) if len(reached) else count
        factor = (curve[high] / curve[low]) ** (1 / max(high - low, 1))
        bound = float(constants.contraction_factor(graph, step))
        rows["bound"].append(bound)
        rows["seen"].append(float(factor) if np.isfinite(factor) else np.inf)
        sure = constants.inner_steps(graph, step, curve[0], 1e-6 * curve[0])
        rows["iterations_bound"].append(float(sure) if bound < 1 else np.inf)
        rows["iterations_seen"].append(float(reached[0]) if len(reached) else np.inf)
    found = {name: np.asarray(values) for name, values in rows.items()}
    return {"step": np.asarray(steps), "known": np.asarray(constants.step_bound(graph)), **found}
