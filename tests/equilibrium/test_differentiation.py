"""The equilibrium as a function: every derivative mode, on every set, against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix

MATRIX = jnp.array([[3.0, 1.0, 0.5], [-1.0, 2.0, 0.3], [0.2, -0.4, 2.5]])


def _operator(theta, x):
    return MATRIX @ x + 0.1 * x**3 - theta


def _aggregate():
    return ix.AggregativeGame(
        lambda theta, x, s: 2 * x + 0.1 * x**3 + s**2 - theta,
        lambda theta, x: x.sum() + 0.1 * (x**2).sum(),
        ix.Box(jnp.zeros(3), 0.6),
    )


def _cap(theta):
    return ix.Polyhedron(inequality=(jnp.array([[1.0, 1.0, 1.0]]), theta[:1]), lower=-1.0)


CASES = {
    "all of R": (ix.Game(_operator, ix.Reals((3,))), [1.0, 0.5, -0.3]),
    "box, two active": (ix.Game(_operator, ix.Box(jnp.zeros(3), 0.25)), [1.5, 0.1, -0.3]),
    "simplex, one unused": (ix.Game(_operator, ix.Simplex(3)), [1.5, 1.0, -2.0]),
    "polyhedron, row and bound active": (
        ix.Game(
            _operator,
            ix.Polyhedron(
                inequality=(jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, -1.0]]), jnp.array([0.5, 9.0])),
                lower=jnp.array([-9.0, -9.0, 0.0]),
            ),
        ),
        [2.0, 2.0, -1.0],
    ),
    "quantal response": (
        ix.QuantalResponse(ix.Game(_operator, ix.Simplex([1, 2])), 0.3),
        [0.2, 0.5, -0.3],
    ),
    "aggregate, a bound active": (_aggregate(), [2.0, 1.5, -0.5]),
    "bounds that move": (
        ix.Game(_operator, lambda t: ix.Box(-1 + 0 * t, 0.1 * t**2)),
        [1.5, 0.8, -0.3],
    ),
    "totals that move": (
        ix.Game(_operator, lambda t: ix.Simplex([2, 1], total=1 + 0.1 * t[:2] ** 2)),
        [0.5, 0.8, -0.3],
    ),
    "level that moves": (ix.Game(_operator, _cap), [0.4, 2.0, 1.0]),
    "rows that move": (
        ix.Game(
            _operator,
            lambda t: ix.Polyhedron(
                inequality=(jnp.stack([1 + 0.1 * t, jnp.ones(3)]), jnp.array([0.5, 9.0]))
            ),
        ),
        [2.0, 2.0, 1.0],
    ),
}
QUICK = ["box, two active", "quantal response", "bounds that move", "level that moves"]
# One of each kind; the others take as long to compile and say the same.
CURVED = [
    "box, two active",
    "quantal response",
    "aggregate, a bound active",
    "bounds that move",
    "rows that move",
]


def _value(game):
    weight = jnp.array([1.0, -2.0, 0.5])

    def value(theta):
        x = ix.solve_equilibrium(game, theta, tol=1e-13, throw=False).x
        return jnp.sum(weight * x + x**2) + theta @ x

    return value


def _differences(function, theta, step=1e-5):
    shifts = step * jnp.eye(theta.size)
    return jnp.stack([(function(theta + s) - function(theta - s)) / (2 * step) for s in shifts])


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]
)
def test_every_first_derivative_matches_differences(name):
    game, theta = CASES[name]
    theta = jnp.asarray(theta)
    value = jax.jit(_value(game))
    expected = _differences(value, theta)
    assert jnp.abs(expected).max() > 1e-2
    close = {"rtol": 1e-6, "atol": 1e-8}
    np.testing.assert_allclose(jax.grad(value)(theta), expected, **close)
    np.testing.assert_allclose(jax.jacfwd(value)(theta), expected, **close)
    problem = ix.DesignProblem(
        game,
        lambda t, x: jnp.sum(jnp.array([1.0, -2.0, 0.5]) * x + x**2) + t @ x,
        ix.Reals((3,)),
    )
    x = ix.solve_equilibrium(game, theta, tol=1e-12).x
    found = ix.hypergradient(problem, theta, x)
    assert found.residual < 1e-8
    np.testing.assert_allclose(found.value, expected, **close)


def test_jvp_and_lanes_of_gradients():
    game, theta = CASES["box, two active"]
    value, theta = _value(game), jnp.asarray(theta)
    gradient, tangent = jax.grad(value)(theta), jnp.array([1.0, 2.0, -1.0])
    _, along = jax.jvp(value, (theta,), (tangent,))
    np.testing.assert_allclose(along, gradient @ tangent, rtol=1e-10)
    lanes = jax.vmap(jax.grad(value))(jnp.stack([theta, theta + 1e-3]))
    np.testing.assert_allclose(lanes[0], gradient, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", CURVED)
def test_hessian_matches_differences_of_the_gradient(name):
    game, theta = CASES[name]
    value, theta = _value(game), jnp.asarray(theta)
    gradient = jax.jit(jax.grad(value))
    expected = _differences(gradient, theta)
    np.testing.assert_allclose(jax.hessian(value)(theta), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", ["dense", "krylov"])
def test_solvers_agree_in_both_modes(solver):
    game, theta = CASES["box, two active"]
    theta = jnp.asarray(theta)

    def answer(theta, sensitivity):
        return ix.solve_equilibrium(game, theta, sensitivity=sensitivity).x

    expected = jax.jacfwd(lambda t: answer(t, None))(theta)
    for mode in (jax.jacfwd, jax.jacrev):
        found = mode(lambda t: answer(t, ix.Implicit(solver)))(theta)
        np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.slow
def test_unrolled_and_neumann_tend_to_the_implicit_derivative():
    game, theta = CASES["box, two active"]
    theta = jnp.asarray(theta)

    def slope(sensitivity):
        return jax.grad(
            lambda t: jnp.sum(ix.solve_equilibrium(game, t, sensitivity=sensitivity).x ** 2)
        )(theta)

    exact = slope(None)
    method = ix.ProjectedGradient(0.2)
    for few, many in (
        (ix.Unrolled(2, method), ix.Unrolled(120, method)),
        (ix.Neumann(2), ix.Neumann(120)),
    ):
        np.testing.assert_allclose(slope(many), exact, rtol=1e-8, atol=1e-12)
        assert jnp.abs(slope(few) - exact).max() > 1e-4


def test_truncation_shows_in_the_residual():
    game, theta = CASES["box, two active"]
    theta = jnp.asarray(theta)
    problem = ix.DesignProblem(game, lambda t, x: x @ x, ix.Reals((3,)))
    x = ix.solve_equilibrium(game, theta).x
    for make in (ix.Neumann, lambda k: ix.Unrolled(k, ix.ProjectedGradient(0.2))):
        residuals = [
            ix.hypergradient(problem, theta, x, sensitivity=make(k)).residual for k in (2, 80)
        ]
        assert residuals[0] > 1e-3
        assert residuals[1] < 1e-6


def test_degenerate_points_are_counted():
    game = ix.Game(lambda theta, x: x - theta, ix.NonNegative())
    found = ix.solve_equilibrium(game, jnp.array([1.0, 0.0]))
    assert found.degenerate == 1
    assert ix.solve_equilibrium(game, jnp.array([1.0, -1.0])).degenerate == 0


def test_arrays_of_the_game_are_differentiated_too():
    def answer(upper):
        game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.zeros(2), upper))
        return ix.solve_equilibrium(game, jnp.array([0.5, 3.0])).x

    # A set that is given as a function of the differentiated argument follows it.
    def moving(upper):
        game = ix.Game(lambda u, x: x - jnp.array([0.5, 3.0]), lambda u: ix.Box(jnp.zeros(2), u))
        return ix.solve_equilibrium(game, upper).x

    upper = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(jax.jacobian(moving)(upper), jnp.diag(jnp.array([0.0, 1.0])))
    np.testing.assert_allclose(jax.jacobian(answer)(upper), jnp.diag(jnp.array([0.0, 1.0])))


def test_one_status_a_lane():
    game = ix.Game(lambda theta, x: theta * x - 1, ix.Box(jnp.zeros(1), jnp.inf))
    thetas = jnp.array([[1.0], [-1.0], [2.0]])
    found = jax.vmap(lambda t: ix.solve_equilibrium(game, t, max_steps=50, throw=False))(thetas)
    successful = found.result == ix.RESULTS.successful
    assert successful.tolist() == [True, False, True]
    np.testing.assert_allclose(found.x[jnp.array([0, 2]), 0], [1.0, 0.5])


def test_lanes_that_the_operator_has_captured_stand_within_a_gradient():
    def answer(demand, tax):
        game = ix.Game(lambda tax, x: x + tax - demand, ix.NonNegative((1,)))
        return ix.solve_equilibrium(game, tax).x.sum()

    demands = jnp.array([0.5, 2.0, 3.0])
    slope = jax.grad(lambda tax: jax.vmap(answer, (0, None))(demands, tax).sum())(jnp.ones(1))
    np.testing.assert_allclose(slope, [-2.0], atol=1e-9)


@pytest.mark.slow  # many programs
def test_a_value_that_the_operator_has_captured_is_differentiated():
    def total(slope):
        game = ix.Game(lambda t, x: slope * (x + x.sum()) - 10 + t, ix.NonNegative())
        return ix.solve_equilibrium(game, jnp.zeros(2)).x.sum()

    def by_aggregate(slope):
        game = ix.AggregativeGame(
            lambda t, x, s: slope * (x + s) - 10 + t, lambda t, x: x.sum(), ix.NonNegative()
        )
        return ix.solve_equilibrium(game, jnp.zeros(8)).x.sum()

    one = jnp.array(1.0)
    for function, value in ((total, 20 / 3), (by_aggregate, 80 / 9)):
        assert float(function(one)) == pytest.approx(value)
        for derivative in (jax.grad(function), jax.jacfwd(function), jax.jit(jax.grad(function))):
            assert float(derivative(one)) == pytest.approx(-value)


def test_where_a_sum_alone_is_unique_its_derivatives_exist():
    game = ix.Game(lambda t, x: jnp.full(3, x.sum()) - t, ix.NonNegative())

    def squared(t):
        return ix.solve_equilibrium(game, t).x.sum() ** 2

    t = jnp.array([2.0])
    np.testing.assert_allclose(jax.grad(squared)(t), [4.0])
    np.testing.assert_allclose(jax.hessian(squared)(t), [[2.0]])
    # Of what is not unique the least motion is returned, and the residual tells.
    problem = ix.DesignProblem(game, lambda t, x: x[0] ** 2, ix.Reals((1,)))
    found = ix.solve_equilibrium(game, t)
    assert ix.hypergradient(problem, t, found.x).residual > 0.1
    good = ix.DesignProblem(game, lambda t, x: x.sum() ** 2, ix.Reals((1,)))
    assert ix.hypergradient(good, t, found.x).residual < 1e-8


def test_one_lane_that_is_not_finite_leaves_the_others():
    game = ix.Game(lambda t, x: x - t, ix.NonNegative())
    lanes = jnp.array([[0.5], [jnp.nan], [2.0]])
    found = jax.vmap(lambda t: ix.solve_equilibrium(game, t, throw=False))(lanes)
    np.testing.assert_allclose(found.x[jnp.array([0, 2]), 0], [0.5, 2.0])
    assert (found.result == ix.RESULTS.successful).tolist() == [True, False, True]


_DEGENERATE = {
    # theta at a kink of x*, and directions along which it leaves it to either side
    "box": (ix.Game(_operator, ix.Box(jnp.zeros(3), 0.25)), [2.0, -0.25, -0.3]),
    "simplex": (ix.Game(lambda t, x: x - t, ix.Simplex(3)), [1.0, 0.25, 0.5]),
    "polyhedron": (
        ix.Game(
            lambda t, x: x - t,
            lambda t: ix.Polyhedron(
                inequality=(jnp.stack([1 + 0.1 * t[2] + 0 * t, t * 0 + 1]), jnp.array([1.0, 9.0])),
                lower=jnp.array([0.0, -9.0, -9.0]),
            ),
        ),
        [-1.0, 1.0, 0.0],
    ),
    "aggregate": (
        ix.AggregativeGame(
            lambda theta, x, s: 2 * x + s - theta, lambda theta, x: x.sum(), ix.NonNegative()
        ),
        [3.0, 1.0, 0.0, -0.5],
    ),
    "bounds that move": (
        ix.Game(lambda t, x: x - 1, lambda t: ix.Box(-1 + 0 * t, t)),
        [1.0, 0.5, 2.0],
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("box", "simplex") else pytest.param(n, marks=pytest.mark.slow)
        for n in _DEGENERATE
    ],
)
def test_one_sided_derivatives_where_the_active_set_changes(name):
    game, theta = _DEGENERATE[name]
    theta = jnp.asarray(theta)
    solve = jax.jit(lambda t: ix.solve_equilibrium(game, t, tol=1e-12).x)
    directions = jax.random.normal(jax.random.key(3), (6, theta.size))
    two_sided = 0
    for direction in jnp.concatenate([directions, -directions]):
        found = ix.directional_derivative(game, theta, direction)
        assert found.degenerate == 1
        step = 1e-7
        moved = (solve(theta + step * direction) - solve(theta)) / step
        np.testing.assert_allclose(found.value, moved, atol=2e-6)
        back = ix.directional_derivative(game, theta, -direction, found.x)
        two_sided += bool(jnp.allclose(back.value, -found.value, atol=1e-6))
        tiny = ix.directional_derivative(game, theta, 1e-9 * direction, found.x)
        np.testing.assert_allclose(tiny.value, 1e-9 * found.value, rtol=1e-6, atol=1e-18)
    assert two_sided < 12


@pytest.mark.parametrize(
    "name",
    [
        "box, two active",
        "quantal response",
        pytest.param("level that moves", marks=pytest.mark.slow),
    ],
)
def test_one_sided_derivatives_are_those_of_jvp_elsewhere(name):
    game, theta = CASES[name]
    theta, direction = jnp.asarray(theta), jnp.array([1.0, -0.5, 2.0])
    found = ix.directional_derivative(game, theta, direction)
    expected = jax.jvp(lambda t: ix.solve_equilibrium(game, t).x, (theta,), (direction,))[1]
    np.testing.assert_allclose(found.value, expected, atol=1e-9)
    assert found.degenerate == 0


def test_bounds_that_meet_and_open():
    game = ix.Game(lambda t, x: x + 1, lambda t: ix.Box(-t, t))
    opening = ix.directional_derivative(game, jnp.zeros(1), jnp.ones(1))
    np.testing.assert_allclose(opening.value, [-1.0])


def test_a_direction_of_another_shape_is_refused():
    game = ix.Game(lambda t, x: x - t, ix.NonNegative())
    with pytest.raises(ValueError, match=r"directional_derivative\(direction\)"):
        ix.directional_derivative(game, jnp.ones(2), jnp.ones(3))


@pytest.mark.parametrize("kind", ["box", pytest.param("polyhedron", marks=pytest.mark.slow)])
def test_a_lane_without_a_strategy_set_has_a_status_and_no_derivative(kind):
    def strategies(theta):
        if kind == "box":
            return ix.Box(jnp.zeros(2), theta * jnp.ones(2))
        return ix.Polyhedron(inequality=(jnp.ones((1, 2)), theta[None]), lower=0.0)

    game = ix.Game(lambda theta, x: x - 1, strategies)
    lanes = jnp.array([0.5, -1.0])

    def total(theta):
        found = ix.solve_equilibrium(game, theta, throw=False)
        return found.x.sum(), found.result

    slopes, results = jax.vmap(jax.grad(total, has_aux=True))(lanes)
    assert (results == ix.RESULTS.successful).tolist() == [True, False]
    assert (results == ix.RESULTS.empty_set).tolist() == [False, True]
    assert slopes[0] == pytest.approx(2.0 if kind == "box" else 1.0)
    assert jnp.isnan(slopes[1])
