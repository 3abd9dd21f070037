import itertools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix


def _simplex_by_enumeration(y, total):
    """Projection by trying every support: the KKT point among all candidates."""
    best = None
    for r in range(1, y.size + 1):
        for support in itertools.combinations(range(y.size), r):
            x = np.zeros(y.size)
            s = list(support)
            x[s] = y[s] - (y[s].sum() - total) / r
            if x.min() >= 0 and (best is None or np.sum((x - y) ** 2) < np.sum((best - y) ** 2)):
                best = x
    return best


def test_ragged_simplex_projection_against_enumeration():
    sizes, totals = (1, 4, 5), (0.5, 1.0, 3.0)
    simplex = ix.Simplex(sizes, total=jnp.array(totals))
    for seed in range(20):
        y = np.random.default_rng(seed).normal(size=10) * 2
        blocks = np.split(y, [1, 5])
        expected = np.concatenate([_simplex_by_enumeration(*pair) for pair in zip(blocks, totals)])
        np.testing.assert_allclose(simplex.project(jnp.asarray(y)), expected, atol=1e-13)


@pytest.mark.parametrize(
    "strategy_set",
    [
        ix.Box(-jnp.ones(6), jnp.array([0.0, 0.5, 1.0, 2.0, jnp.inf, jnp.inf])),
        ix.NonNegative(),
        ix.Reals((6,)),
        ix.Simplex(6),
        ix.Simplex([3, 3], total=2.0),
        ix.Simplex([1, 2, 3], total=jnp.array([1.0, 2.0, 3.0])),
    ],
    ids=str,
)
def test_projection_is_the_nearest_point(strategy_set):
    """`<y - Py, z - Py> <= 0` for points z of the set, Py inside, and the derivative is right."""
    draws = jax.random.normal(jax.random.key(0), (30, 6)) * 2
    projected = jax.vmap(strategy_set.project)(draws)
    assert jax.vmap(strategy_set.violation)(projected).max() < 1e-14
    products = jnp.einsum("ai,abi->ab", draws - projected, projected[None] - projected[:, None])
    assert products.max() < 1e-12
    assert strategy_set.violation(strategy_set.centre() * jnp.ones(6)) < 1e-15
    y, direction = draws[0], draws[1]
    _, moved = jax.jvp(strategy_set.project, (y,), (direction,))
    difference = strategy_set.project(y + 1e-7 * direction) - strategy_set.project(
        y - 1e-7 * direction
    )
    np.testing.assert_allclose(moved, difference / 2e-7, atol=1e-6)
    cotangent = jax.grad(lambda y: strategy_set.project(y) @ draws[2])(y)
    np.testing.assert_allclose(cotangent @ direction, moved @ draws[2], rtol=1e-10)


def test_simplex_projection_follows_its_total():
    def first(total):
        return ix.Simplex(3, total=total).project(jnp.array([1.0, 0.5, -2.0]))[0]

    assert jax.grad(first)(1.0) == pytest.approx(0.5)


def test_equal_blocks_and_ragged_blocks_agree():
    """The matrix form of equal blocks against the segments of ragged ones."""
    y = jax.random.normal(jax.random.key(1), (12,))
    equal = ix.Simplex([4, 4, 4])
    ragged = ix.Simplex([4, 4, 4, 1])
    longer = jnp.append(y, 0.3)
    np.testing.assert_allclose(equal.project(y), ragged.project(longer)[:-1], atol=1e-15)
    np.testing.assert_allclose(
        equal.normalise_log(y)[1], ragged.normalise_log(longer)[1][:-1], atol=1e-14
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ix.Box(2.0, 1.0), ["lower <= upper", "lower=2.0", "upper=1.0"]),
        (
            lambda: ix.Box(jnp.zeros(4), jnp.array([1, 1, 1, -3.0])),
            ["lower <= upper", "upper=-3.0 at index 3"],
        ),
        (lambda: ix.Box(jnp.nan, 1.0), ["lower <= upper", "nan"]),
        (lambda: ix.Box(jnp.zeros(2), jnp.zeros(3)), ["broadcast", "(2,)", "(3,)"]),
        (lambda: ix.Simplex([]), ["at least one block"]),
        (lambda: ix.Simplex([2, 0]), [">= 1", "got 0 at index 1"]),
        (lambda: ix.Simplex([2, -1]), [">= 1", "got -1 at index 1"]),
        (lambda: ix.Simplex(3, total=0.0), ["total", "> 0", "0.0"]),
        (lambda: ix.Simplex([1, 2], total=jnp.ones(3)), ["total", "(2,)", "(3,)"]),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as error:
        make()
    for word in words:
        assert word in str(error.value)


def test_refusals_of_kind():
    with pytest.raises(TypeError, match="whole numbers"):
        ix.Simplex([1.5])
    with pytest.raises(TypeError, match="pytree of sets"):
        ix.Product({"toll": 3.0})


def test_refusal_in_compiled_code_names_the_value():
    @eqx.filter_jit
    def inside(upper):
        return ix.Box(0.0, upper).project(jnp.ones(()))

    assert inside(jnp.array(2.0)) == 1.0
    assert jnp.isnan(inside(jnp.array(-2.5)))

    @eqx.filter_jit
    def raising(upper):
        with ix.compiled_errors():
            return ix.Box(0.0, upper).project(jnp.ones(()))

    with pytest.raises(RuntimeError, match=r"lower <= upper(.|\n)*-2\.5"):
        raising(jnp.array(-2.5))


def test_product_projects_leaf_by_leaf():
    product = ix.Product({"toll": ix.Box(0.0, 1.0), "share": ix.Simplex(2)})
    theta = {"toll": jnp.array([2.0, 0.5]), "share": jnp.array([1.0, 1.0])}
    projected = product.project(theta)
    np.testing.assert_allclose(projected["toll"], [1.0, 0.5])
    np.testing.assert_allclose(projected["share"], [0.5, 0.5])
    assert product.violation(theta) == 1.0
    assert product.centre()["toll"] == 0.5


def test_simplex_projection_of_huge_entries_stays_on_the_simplex():
    for values in ([1e17, 1e17], [-1e17, -1e17], [1e300, 0.0]):
        projected = ix.Simplex(2).project(jnp.array(values))
        assert projected.sum() == 1.0, values
    assert jnp.isnan(ix.Simplex(2).project(jnp.array([jnp.inf, 0.0]))).any()


def test_compiled_refusals_name_their_own_value():
    """Two programs with the same check: each reports what it received, run after run."""

    def bounded(scale):
        @eqx.filter_jit
        def run(upper):
            with ix.compiled_errors():
                return ix.Box(0.0, upper).project(jnp.ones(())) * scale

        return run

    first, second = bounded(1.0), bounded(2.0)
    for program, value in ((first, -1.0), (second, -2.0), (first, -3.0), (second, -4.0)):
        with pytest.raises(RuntimeError, match=rf"upper={value}"):
            program(jnp.array(value))


def test_a_box_of_one_pytree_leaf_does_not_excuse_another():
    game = ix.Game(lambda theta, x: x - theta["a"], ix.Reals())
    sets = ix.Product({"a": ix.Reals(), "b": ix.Box(0.0, 1.0)})
    problem = ix.DesignProblem(game, lambda theta, x: x.sum(), sets)
    theta = {"a": jnp.array([1e9]), "b": jnp.array([-10.0])}
    with pytest.raises(ValueError, match=r"theta=(.|\n)*-10\.0"):
        ix.hypergradient(problem, theta, jnp.ones(1))


def _polyhedron(a):
    rows = jnp.stack([jnp.array([1.0, 2.0, 3.0]) * a, jnp.array([0.3, -0.2, 1.0])])
    return ix.Polyhedron(inequality=(rows, jnp.array([1.0, 5.0])), lower=-1.0)


def test_projection_on_a_polyhedron_is_nearest_and_is_differentiated():
    a, y = jnp.array(1.3), jnp.array([1.0, 0.5, 2.0])
    found = _polyhedron(a).project(y)
    normal = jnp.array([1.0, 2.0, 3.0]) * a  # the only active constraint
    np.testing.assert_allclose(found, y - normal * (normal @ y - 1) / (normal @ normal), rtol=1e-9)
    step = 1e-6
    for move in (
        lambda t: _polyhedron(a).project(y + t * jnp.array([1.0, -1.0, 0.5])),
        lambda t: _polyhedron(a + t).project(y),
    ):
        difference = (move(step) - move(-step)) / (2 * step)
        np.testing.assert_allclose(jax.jacobian(move)(0.0), difference, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(jax.jacrev(move)(0.0), difference, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"inequality": ([[1.0, 1.0], [-1.0, -1.0]], [1.0, -2.0])}, "empty set"),
        ({"equality": ([[1.0, 1.0], [2.0, 2.0]], [1.0, 2.0])}, "rank 1 of 2 rows"),
        ({"equality": ([[1.0, 1.0], [2.0, 2.0]], [1.0, 3.0])}, "empty set"),
        ({"lower": 0.0}, "got none"),
        ({"lower": [0.0, 1.0], "inequality": ([[1.0]], [1.0])}, "inequality of 1, lower of 2"),
        ({"inequality": ([[1.0, float("nan")]], [1.0])}, "finite numbers"),
        ({"lower": [0.0, 2.0], "upper": 1.0}, "lower <= upper"),
    ],
)
def test_polyhedra_that_are_none(arguments, words):
    with pytest.raises(ValueError, match=words):
        ix.Polyhedron(**arguments)
