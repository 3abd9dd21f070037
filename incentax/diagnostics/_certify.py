"""The verb `certify`: the evidence for a design, everything recomputed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._checks import is_inside, is_traced, unknown
from .._compile import compiled
from .._results import ENDINGS, RESULTS
from .._tree import tree_norm
from ..design import (
    at_kinks,
    DesignProblem,
    drawn_at,
    evaluate_hypergradient,
    examine,
    is_judgeable,
    judge,
    judge_constrained,
    ScenarioProblem,
)
from ..equilibrium import (
    Equilibrium,
    gap,
    known_entropic,
    largest_regret,
    other_equilibria,
    solve_equilibrium,
)
from ..games import AbstractGame
from ..sensitivity import Implicit
from ._certificate import Certificate
from ._samples import constants_near, Differences, differences_around


def certify(
    problem: DesignProblem,
    theta: PyTree,
    x: Array | None = None,
    *,
    key: PRNGKeyArray | None = None,
) -> Certificate:
    """Recomputes what can be known of a design: a [`Certificate`][].

    The equilibrium is solved anew from the centre of the strategy set (from `x` where the game is
    so that play selects among several; give it), the gradient is checked against central
    differences of the re-solved objective, and the game's constants are estimated.

    **Arguments:**

    - `problem`, `theta`: the problem and an incentive of its set.
    - `x`: the strategy that is claimed to be its equilibrium, if any. With the selection
      [`Nearest`][] the game is that of the last vanishing weight.
    - `key`: for the directions and samples; a fixed one when left out.

    **Raises** `ValueError` when `theta` or `x` is no point of its set.

    !!! example

        >>> import incentax as ix, jax.numpy as jnp
        >>> game = ix.Game(lambda theta, x: x - theta, ix.Box(0.0, 4.0))
        >>> problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Reals())
        >>> print(ix.certify(problem, jnp.array([3.0])).verdict)
        The equilibrium is exact. The design is stationary: the gradient vanishes (0.0e+00).
    """
    given = x is not None
    theta, x = problem.at_door("certify", ("theta", "x"), theta, x)
    key = jax.random.key(0) if key is None else key
    if problem.selection == "nearest":
        problem = drawn_at(problem, theta, x)
    game = problem.game
    # Where the set does not say the shape of x, the given one does.
    centre = _centre(game, theta, x) if given else x
    found = solve_equilibrium(game, theta, centre, throw=False)
    if given:
        # From the given strategy too: of several equilibria it is that one which is certified.
        near = solve_equilibrium(game, theta, x, throw=False)
        closer = jnp.max(jnp.abs(near.x - x)) < jnp.max(jnp.abs(found.x - x))
        take = (near.result == RESULTS.successful) & closer
        take = take | (found.result != RESULTS.successful)
        found = jax.tree.map(lambda a, b: jnp.where(take, a, b), near, found)
    given_x = x if given else found.x
    entropic = known_entropic(game)
    known = not is_inside(problem, theta, given_x, key)
    at_risk = isinstance(problem, ScenarioProblem) and problem.has_kinks
    constrained = bool(problem.constraints) or at_risk
    proving = known and not constrained and is_judgeable(problem, theta, found.x, entropic)
    differences = differences_around(problem, theta, found.x, key)
    certificate = _certify(
        problem,
        theta,
        given_x,
        found,
        key,
        differences=differences,
        probing=None if proving or constrained else (entropic,),
    )
    if proving:
        certificate = _proved(certificate, problem, theta, found.x)
    if constrained:
        certificate = _within_constraints(certificate, problem, theta, found.x, known)
    elif not proving:
        nobody = unknown(certificate.objective)
        certificate = eqx.tree_at(lambda c: c.least_slope, certificate, nobody)
    if known:
        outside = game.outside(theta, found.x)
        told = jnp.asarray(jnp.nan if outside is None else outside, found.x.dtype)
        certificate = eqx.tree_at(lambda c: c.outside, certificate, told)
    if is_traced(certificate) or certificate.monotone or certificate.result != RESULTS.successful:
        return certificate
    others = other_equilibria(game, theta, found.x, jax.random.fold_in(key, 1))
    values = jnp.stack([problem.objective(theta, x) for x in [found.x, *map(jnp.asarray, others)]])
    close = 1e-9 * (1 + jnp.abs(values[0]))
    selected = jnp.asarray(True)
    if problem.selection == "optimistic":
        selected = values[0] <= jnp.min(values) + close
    elif problem.selection == "pessimistic":
        selected = values[0] >= jnp.max(values) - close
    number = jnp.int32(len(others))
    return eqx.tree_at(lambda c: (c.others, c.selected), certificate, (number, selected))


@compiled
def _centre(game: AbstractGame, theta: PyTree, like: Array) -> Array:
    return jnp.broadcast_to(game.strategies(theta).centre(), like.shape).astype(like.dtype)


@compiled
def _certify(
    problem: DesignProblem,
    theta: PyTree,
    given: Array,
    found: Equilibrium,
    key: PRNGKeyArray,
    *,
    differences: Differences,
    probing: tuple[bool | None] | None,
) -> Certificate:
    """All but what linear programs prove; with `probing` by probes, and known to be entropic."""
    game, x = problem.game, found.x
    _, key_pairs, key_shifts, key_probes = jax.random.split(key, 4)
    flat, _ = ravel_pytree(theta)
    gradient = evaluate_hypergradient(problem, theta, x, Implicit())
    slope, _ = ravel_pytree(gradient.value)

    direct, _ = ravel_pytree(jax.grad(problem.objective)(theta, x))
    # At an optimum the two cancel: their sum is no measure of what rounding leaves.
    parts = jnp.abs(direct) + jnp.abs(slope - direct)

    eps = float(jnp.finfo(flat.dtype).eps)

    here = gradient.objective
    seen, told = differences.slope(here), differences.motion @ slope
    values = jnp.stack([differences.first, differences.second])
    # At an optimum both are nearly nothing: then what the objective changes by is the measure, and
    # what rounding makes of its value is no error.
    changed = jnp.sum(jnp.abs(values - here), axis=0)
    rounding = 100 * eps * jnp.maximum(jnp.abs(here), jnp.max(jnp.abs(values), axis=0))
    size = jnp.abs(differences.motion) @ parts + changed
    wrong = jnp.maximum(jnp.abs(seen - told) - rounding, 0) / jnp.where(size > 0, size, 1)
    wrong = jnp.where(jnp.any(jnp.isnan(values), axis=0), 0, wrong)

    monotonicity, lipschitz = constants_near(game, theta, x, key_pairs)
    # At an optimum the derivative may vanish; everywhere it does not, unless x is ignored.
    shifts = jax.random.normal(key_shifts, (3, *x.shape), x.dtype)
    slopes = jax.vmap(lambda shift: jax.grad(problem.objective, 1)(theta, x + 1e-3 * shift))(shifts)
    examined = None if probing is None else examine(problem, theta, x, key_probes, *probing)
    return Certificate(
        objective=gradient.objective,
        equilibrium_residual=found.residual,
        equilibrium_error=jnp.max(jnp.abs(given - x)),
        gap=gap(game, theta, x),
        stationarity=gradient.objective if examined is None else examined.stationarity,
        gradient=tree_norm(gradient.value),
        derivative_error=jnp.max(wrong),
        linear_residual=gradient.residual,
        complementarity_margin=_margin(game, theta, x),
        least_slope=gradient.objective,
        regret=largest_regret(game, theta, x),
        strong_monotonicity=monotonicity,
        lipschitz=lipschitz,
        degenerate=gradient.degenerate,
        insensitive=jnp.all(slopes == 0),
        others=jnp.int32(0),
        selected=jnp.asarray(True),
        ending=ENDINGS.undecided if examined is None else examined.ending,
        result=found.result,
    )


def _proved(
    certificate: Certificate, problem: DesignProblem, theta: PyTree, x: Array
) -> Certificate:
    """With what linear programs prove of the design."""
    found = judge(problem, theta, x)
    dtype = certificate.objective.dtype
    if found is None:
        nobody = unknown(certificate.objective)
        return eqx.tree_at(lambda c: (c.stationarity, c.least_slope), certificate, (nobody,) * 2)
    return eqx.tree_at(
        lambda c: (c.stationarity, c.least_slope, c.degenerate, c.ending),
        certificate,
        (
            jnp.asarray(found.stationarity, dtype),
            jax.device_put(np.asarray(found.least_slope, dtype)),
            np.int32(found.degenerate),
            found.ending,
        ),
    )


def _within_constraints(
    certificate: Certificate, problem: DesignProblem, theta: PyTree, x: Array, known: bool
) -> Certificate:
    """With multipliers, where values are known, and what they prove."""
    at_risk = isinstance(problem, ScenarioProblem) and problem.has_kinks
    judged = at_kinks if at_risk else judge_constrained
    found = judged(problem, theta, x) if known else None
    nobody = unknown(certificate.objective)
    figures: tuple = (nobody, nobody, certificate.degenerate, ENDINGS.undecided, {})
    if found is not None:
        figures = (
            jnp.asarray(found.stationarity, nobody.dtype),
            jnp.asarray(found.least_slope, nobody.dtype),
            jnp.int32(found.degenerate),
            found.ending,
            found.multipliers,
        )
    return eqx.tree_at(
        lambda c: (
            c.stationarity,
            c.least_slope,
            c.degenerate,
            c.ending,
            c.multipliers,
            c.violation,
        ),
        certificate,
        (*figures, problem.violation(theta, x)),
        is_leaf=lambda leaf: isinstance(leaf, dict),
    )


def _margin(game: AbstractGame, theta: PyTree, x: Array) -> Array:
    margin = game.strategies(theta).pairs(x, game.operator(theta, x)).margin
    # Costs that rise without bound at the boundary keep every strategy in use.
    return margin if game.entropic is None else jnp.where(game.entropic, jnp.inf, margin)
