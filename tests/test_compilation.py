"""Programs: none calls back to the host, few traces, few compilations, and none is for ever."""

import functools
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix
from incentax import _compile


@pytest.fixture
def programs(monkeypatch):
    """The text of every program that runs, by the name of its function."""
    made, texts, seen = _compile._new_program, {}, set()

    @functools.cache
    def noted(function, *rest):
        run = made(function, *rest)

        def call(arrays):
            if call not in seen:  # its other calls run the same program
                seen.add(call)
                texts[function.__qualname__] = run.lower(arrays).as_text()
            return run(arrays)

        return call

    monkeypatch.setattr(_compile, "_program", noted)
    return texts


def _operator(theta, x):
    return jnp.array([2 * x[0] + x[1], x[0] + 2 * x[1]]) - 10 + theta


def _objective(theta, x):
    return jnp.sum(x**2) / 2 - 8 * jnp.sum(x) + theta @ theta / 20


GAME = ix.Game(_operator, ix.Box(jnp.zeros(2), jnp.full(2, 8.0)))
PROBLEM = ix.DesignProblem(GAME, _objective, ix.Box(jnp.full(2, -5.0), 5.0))
SHARES = ix.Game(_operator, ix.Simplex(2))
QUANTAL = ix.QuantalResponse(SHARES, 0.1)
FIRMS = ix.AtomicGame(lambda theta, x: x * (x.sum() - 10 + theta), ix.Box(0.0, 8.0 + jnp.zeros(2)))
TAX = ix.DesignProblem(FIRMS, None, ix.Box(0.0, 5.0 + jnp.zeros(())))
CAP = ix.DesignProblem(
    ix.Game(_operator, lambda theta: ix.Box(jnp.zeros(2), 3 + theta)), _objective, ix.Box(-2.0, 2.0)
)
T, X, KEY = jnp.zeros(2), jnp.ones(2), jax.random.key(0)


def _design(problem, scheme, theta=T):
    key = KEY if scheme.needs_key else None
    return ix.design(problem, theta, scheme, steps=6, key=key)


VERBS = {
    "solve_equilibrium": lambda: ix.solve_equilibrium(GAME, T),
    "solve_equilibrium, tol": lambda: ix.solve_equilibrium(GAME, T, tol=1e-6),
    "solve_equilibrium, Newton": lambda: ix.solve_equilibrium(GAME, T, method=ix.Newton()),
    "solve_equilibrium, quantal": lambda: ix.solve_equilibrium(QUANTAL, T),
    "solve_equilibrium, extragradient": lambda: ix.solve_equilibrium(
        GAME, T, method=ix.Extragradient()
    ),
    "solve_equilibrium, mirror descent": lambda: ix.solve_equilibrium(
        GAME, T, method=ix.MirrorDescent(0.1)
    ),
    "solve_equilibrium, a set that moves": lambda: ix.solve_equilibrium(CAP.game, T),
    "equilibria": lambda: ix.equilibria(GAME, T, key=KEY, starts=4),
    "quantal_path": lambda: ix.quantal_path(SHARES, T, jnp.array([1.0, 0.1])),
    "directional_derivative": lambda: ix.directional_derivative(GAME, T, jnp.ones(2)),
    "best_response": lambda: ix.best_response(FIRMS, jnp.zeros(()), X),
    "gap": lambda: ix.gap(GAME, T, X),
    "hypergradient": lambda: ix.hypergradient(PROBLEM, T, X),
    "design": lambda: ix.design(PROBLEM, T),
    "design, quantal": lambda: ix.design(
        ix.DesignProblem(QUANTAL, _objective, ix.Box(-T, T + 1)), T
    ),
    "design, social cost": lambda: ix.design(TAX, jnp.zeros(())),
    "design, a set that moves": lambda: ix.design(CAP, T),
    "design, optimistic": lambda: ix.design(
        ix.DesignProblem(GAME, _objective, PROBLEM.incentive_set, selection="optimistic"),
        T,
        starts=2,
    ),
    "design-and-play": lambda: _design(PROBLEM, ix.DesignAndPlay(optax.sgd(0.01), play_step=0.1)),
    "design-and-play, noise": lambda: _design(
        PROBLEM,
        ix.DesignAndPlay(optax.sgd(0.01), play_step=0.1, feedback=ix.noise.Gaussian(0.1)),
    ),
    "double loop": lambda: _design(PROBLEM, ix.DoubleLoop(optax.sgd(0.01))),
    "double loop, unrolled": lambda: _design(
        PROBLEM,
        ix.DoubleLoop(optax.sgd(0.01), play_step=0.1, sensitivity=ix.Unrolled(20)),
    ),
    "regulator": lambda: _design(
        TAX, ix.ZerothOrderRegulator(smoothing=0.1, step_size=0.01), jnp.zeros(())
    ),
    "certify": lambda: ix.certify(PROBLEM, T, X),
    "certify, quantal": lambda: ix.certify(
        ix.DesignProblem(QUANTAL, _objective, ix.Box(-T, T + 1)), T, X / 2
    ),
    "diagnose": lambda: ix.diagnose(PROBLEM, T),
    "goldstein_measure": lambda: ix.goldstein_measure(PROBLEM, T, smoothing=0.1, key=KEY),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_program_calls_back(programs, verb):
    VERBS[verb]()
    assert programs or verb in ("gap",)
    for name, text in programs.items():
        assert "callback" not in text, name


def test_the_users_functions_are_traced_a_few_times():
    counts = dict.fromkeys(("operator", "objective"), 0)

    def operator(theta, x):
        counts["operator"] += 1
        return _operator(theta, x)

    def objective(theta, x):
        counts["objective"] += 1
        return _objective(theta, x)

    game = ix.Game(operator, GAME.strategy_set)
    problem = ix.DesignProblem(game, objective, PROBLEM.incentive_set)
    ix.solve_equilibrium(game, T)
    assert 1 <= counts["operator"] <= 5
    found = ix.design(problem, T)
    assert counts["operator"] <= 15
    assert 1 <= counts["objective"] <= 5
    ix.certify(problem, found.theta, found.x)
    assert counts["operator"] <= 25


def _count_compilations():
    compilations = []

    def listen(event, seconds, **_):
        if "backend_compile" in event:
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return compilations


class _Affine(eqx.Module):
    constant: jax.Array

    def __call__(self, theta, x):
        return _operator(theta, x) + self.constant


def test_other_numbers_in_the_same_functions_compile_nothing():
    compilations = _count_compilations()
    numbers = jax.random.normal(KEY, (101, 2))
    for number, constant in enumerate(numbers):
        game = ix.Game(_Affine(constant), GAME.strategy_set)
        found = ix.design(ix.DesignProblem(game, _objective, PROBLEM.incentive_set), T)
        assert found.result == ix.RESULTS.successful
        if number == 0:  # what a first kink needs is compiled when it is met
            compilations.clear()
    assert len(compilations) <= 10


class _Unhashable:
    __hash__ = None

    def __call__(self, theta, x):
        return _operator(theta, x)


def test_functions_need_no_hash_and_may_print(capfd):
    game = ix.Game(_Unhashable(), GAME.strategy_set)
    expected = ix.solve_equilibrium(GAME, T).x
    np.testing.assert_allclose(ix.solve_equilibrium(game, T).x, expected)

    def printing(theta, x):
        jax.debug.print("x is {}", x)
        return _operator(theta, x)

    found = ix.solve_equilibrium(ix.Game(printing, GAME.strategy_set), T)
    np.testing.assert_allclose(found.x, expected)
    jax.effects_barrier()
    assert "x is" in capfd.readouterr().out


def test_a_function_of_the_same_name_is_another_one():
    answers = []
    for constant in (0.0, 1.0):  # as in a cell that is run again
        scope = {"ix": ix, "_operator": _operator, "constant": constant}
        exec("def cost(theta, x):\n    return _operator(theta, x) + constant", scope)
        game = ix.Game(scope["cost"], GAME.strategy_set)
        answers.append(ix.solve_equilibrium(game, T).x)
    np.testing.assert_allclose(answers[0] - answers[1], 1 / 3, atol=1e-10)


def test_what_is_prepared_compiles_nothing_more():
    scheme = ix.DesignAndPlay(optax.sgd(0.02), play_step=0.1)
    game = ix.Game(_Affine(jnp.zeros(2)), GAME.strategy_set)
    problem = ix.DesignProblem(game, _objective, PROBLEM.incentive_set)
    ix.prepare(ix.design, problem, T, scheme, steps=50)
    compilations = _count_compilations()
    ix.design(problem, T + 1, scheme, steps=50)
    assert not compilations
    with pytest.raises(ValueError, match="steps"):
        ix.prepare(ix.design, problem, T, scheme, steps=0)


_FRESH = """
import sys, jax, jax.numpy as jnp, incentax as ix
misses = []
jax.monitoring.register_event_listener(
    lambda event, **_: misses.append(event) if event.endswith("cache_misses") else None)
jax.config.update("jax_enable_x64", True)
print(ix.enable_cache(sys.argv[1]))
game = ix.Game(lambda t, x: x - t, ix.Box(jnp.zeros(2), 8.0))
problem = ix.DesignProblem(game, lambda t, x: ((x - 1) ** 2).sum(), ix.Box(0.0, jnp.full(2, 2.0)))
misses.clear()
found = ix.design(problem, jnp.zeros(2))
ix.certify(problem, found.theta, found.x)
print(len(misses), found.theta.round(6))
"""


def _fresh_process(folder):
    command = [sys.executable, "-W", "default", "-c", _FRESH, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, last = ran.stdout.strip().splitlines()
    assert last.endswith("[1. 1.]")
    return kept, int(last.split()[0]), ran.stderr


def test_a_second_process_compiles_nothing(tmp_path):
    kept, misses, _ = _fresh_process(tmp_path / "kept")
    assert kept == str(tmp_path / "kept")
    assert misses > 5
    assert _fresh_process(kept)[1] == 0
    for file in (tmp_path / "kept").iterdir():
        file.write_bytes(b"damaged")
    _, _, told = _fresh_process(kept)
    assert "persistent compilation cache" not in told
    occupied = tmp_path / "file"
    occupied.write_text("")
    kept, _, told = _fresh_process(occupied)
    assert kept == "None"
    assert told.count("programs are not kept") == 1


def _maps():
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)


def _use(number):
    """Solves, designs and certifies a problem of its own."""
    game = ix.Game(lambda theta, x: _operator(theta, x) - number / 100, GAME.strategy_set)
    problem = ix.DesignProblem(game, _objective, PROBLEM.incentive_set)
    ix.solve_equilibrium(game, T)
    found = ix.design(problem, T, steps=50, starts=2)
    ix.certify(problem, found.theta, found.x)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="memory maps are counted there")
@pytest.mark.slow  # many programs
def test_programs_of_problems_that_are_gone_are_given_back(monkeypatch):
    kept = functools.lru_cache(maxsize=8)(_compile._new_program)
    monkeypatch.setattr(_compile, "_program", kept)
    _use(0)
    after_one = _maps()
    for number in range(1, 4):
        _use(number)
    assert kept.cache_info().currsize <= 8
    assert _maps() - after_one < 300


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="memory maps are counted there")
def test_150_problems_in_one_process():
    before, most = _maps(), 0  # whatever other tests have compiled for themselves
    for number in range(150):
        _use(number)
        most = max(most, _maps())
    assert most - before <= 20_000


CAPTURING = {
    "solve_equilibrium": lambda game, problem: ix.solve_equilibrium(game, T).x,
    "hypergradient": lambda game, problem: ix.hypergradient(problem, T, X).value,
    "gap": lambda game, problem: ix.gap(game, T, X),
    "certify": lambda game, problem: ix.certify(problem, T, X).stationarity,
    "design": lambda game, problem: ix.design(problem, T).x,
    "design-and-play": lambda game, problem: (
        _design(problem, ix.DesignAndPlay(optax.sgd(0.01), play_step=0.1)).theta
    ),
}


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(verb, marks=[pytest.mark.slow] * (verb in ("certify", "design")))
        for verb in CAPTURING
    ],
)
def test_a_value_that_functions_have_captured(verb):
    """Known outside of a program of the caller's, traced within it: the answer is the same."""

    def answer(cost):
        game = ix.Game(lambda theta, x: _operator(theta, x) + cost * x, GAME.strategy_set)
        problem = ix.DesignProblem(game, _objective, PROBLEM.incentive_set)
        return CAPTURING[verb](game, problem)

    costs = jnp.array([0.3, 0.5])
    known = jnp.stack([answer(cost) for cost in costs])
    assert jnp.any(known[0] != known[1])
    close = {"atol": 1e-7, "rtol": 0.0}
    np.testing.assert_allclose(jax.jit(answer)(costs[0]), known[0], **close)
    np.testing.assert_allclose(jax.vmap(answer)(costs), known, **close)
    if verb not in ("design", "certify"):
        slope = jax.grad(lambda cost: jnp.sum(answer(cost)))(costs[0])
        step = 1e-5
        ends = jnp.sum(answer(costs[0] + step)), jnp.sum(answer(costs[0] - step))
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), atol=1e-6)


def _taxed(cost, theta, x):
    return cost + theta - (10 - x.sum() - x)


class _Taxed:
    def __init__(self, cost):
        self.cost = cost

    def __call__(self, theta, x):
        return _taxed(self.cost, theta, x)


class _Firms:
    def __init__(self, cost):
        self.cost = cost

    def operator(self, theta, x):
        return _taxed(self.cost, theta, x)


HOLDERS = {
    "partial": lambda cost: functools.partial(_taxed, cost),
    "object": _Taxed,
    "method": lambda cost: _Firms(cost).operator,
    "default": lambda cost: lambda theta, x, cost=cost: _taxed(cost, theta, x),
    "list": lambda cost: functools.partial(
        lambda held, theta, x: _taxed(held[0], theta, x), [cost]
    ),
    "jit": lambda cost: jax.jit(lambda theta, x: _taxed(cost, theta, x)),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_derivatives_in_what_an_operator_holds(holder):
    def answer(cost):
        return ix.solve_equilibrium(ix.Game(HOLDERS[holder](cost), ix.NonNegative((2,))), T).x

    slope = jax.jacobian(answer)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(slope, jnp.array([[-2.0, 1.0], [1.0, -2.0]]) / 3, atol=1e-9)


def test_derivatives_in_what_a_moving_set_and_a_quantal_response_hold():
    def capped(most):
        game = ix.Game(lambda theta, x: x - 3.0, lambda theta: ix.Box(jnp.zeros(2), most))
        return ix.solve_equilibrium(game, T).x

    np.testing.assert_allclose(jax.jacobian(capped)(jnp.array([1.0, 2.0])), jnp.eye(2))

    def shares(cost):
        game = ix.QuantalResponse(ix.Game(lambda theta, x: cost, ix.Simplex(2)), 0.5)
        return ix.solve_equilibrium(game, T).x

    def softmin(cost):
        return jax.nn.softmax(-cost / 0.5)

    cost = jnp.array([1.0, 1.2])
    slopes = jax.jacobian(shares)(cost), jax.jacobian(softmin)(cost)
    np.testing.assert_allclose(*slopes, atol=1e-9)


def test_no_answer_has_no_derivative():
    """A zero would look like one."""
    game = ix.Game(lambda theta, x: -theta, ix.NonNegative((2,)))  # no equilibrium
    value, slope = jax.value_and_grad(lambda theta: ix.solve_equilibrium(game, theta).x.sum())(X)
    assert np.isnan(value)
    assert np.isnan(slope).all()
    slope = jax.grad(lambda upper: ix.Box(0.0, upper).project(jnp.ones(())))(-1.0)
    assert np.isnan(slope)


def test_a_design_that_fails_in_a_program_has_no_objective():
    matrix = jnp.array([[1.0, 5.0], [-5.0, 1.0]])
    game = ix.Game(lambda theta, x: matrix @ x - theta, ix.Box(-10.0 * X, 10.0 * X))
    problem = ix.DesignProblem(
        game, lambda theta, x: (x**2).sum() + (theta**2).sum(), ix.Box(-X, X)
    )
    found = jax.jit(lambda theta: ix.design(problem, theta, steps=1))(jnp.array([1.0, 0.5]))
    assert found.result != ix.RESULTS.successful
    assert np.isnan(found.theta).all()
    assert np.isnan(found.objective)


def test_a_callers_own_derivative_sees_what_changed():
    class Weighted:
        weight = 1.0

        def __call__(self, theta, x):
            return self.weight * x.sum()

    weighted = Weighted()
    problem = ix.DesignProblem(GAME, weighted, PROBLEM.incentive_set)
    first = jax.grad(problem.objective, 1)(T, X)
    weighted.weight = 3.0
    np.testing.assert_allclose(jax.grad(problem.objective, 1)(T, X), 3 * first)


def test_a_first_import_inside_of_a_program():
    program = (
        "import jax\n"
        "@jax.jit\n"
        "def f(x):\n"
        "    import incentax\n"
        "    return x\n"
        "f(1.0)\n"
        "from incentax._checks import is_inside\n"
        "assert not is_inside()\n"
        "jax.jit(lambda x: [x, print(is_inside())][0])(1.0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_a_cache_folder_is_the_same_after_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match="needs a path, got 3"):
        ix.enable_cache(3)
    before = {
        name: getattr(jax.config, f"jax_{name}")
        for name in (
            "compilation_cache_dir",
            "persistent_cache_min_compile_time_secs",
            "persistent_cache_min_entry_size_bytes",
        )
    }
    try:
        assert ix.enable_cache("kept") == tmp_path / "kept"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "kept")
    finally:
        for name, value in before.items():
            jax.config.update(f"jax_{name}", value)


@pytest.mark.parametrize(
    "strategies",
    [
        ix.Box(jnp.zeros(4), 1.0),
        ix.Simplex([1, 3]),
        ix.Polyhedron(inequality=(jnp.ones((1, 4)), jnp.ones(1)), lower=jnp.zeros(4)),
    ],
    ids=["box", "blocks of two sizes", "polyhedron"],
)
def test_another_call_of_a_verb_compiles_nothing(strategies):
    """Not even for the checks of its arguments."""
    game = ix.Game(lambda theta, x: 2 * x + jnp.sum(x) - theta[0], strategies)
    problem = ix.DesignProblem(
        game,
        lambda theta, x: jnp.sum((x - 0.3) ** 2) + 0.1 * theta[0] ** 2,
        ix.Box(-5.0, jnp.ones(1)),
    )
    theta = jnp.array([1.0])
    x = ix.solve_equilibrium(game, theta).x
    verbs = (
        lambda: strategies.project(x),
        lambda: ix.solve_equilibrium(game, theta, x),
        lambda: ix.hypergradient(problem, theta, x),
        lambda: ix.gap(game, theta, x),
        lambda: ix.certify(problem, theta, x),
    )
    for verb in verbs:
        verb()
    compilations = _count_compilations()
    for verb in verbs:
        verb()
    assert not compilations
