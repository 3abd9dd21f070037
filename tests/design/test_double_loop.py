"""The double loops beside the accurate designer, and table 1 from the command line."""

import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import incentax as ix
from incentax.cli import main

N = 10


@pytest.fixture(scope="module")
def tax():
    instance = ix.problems.emission_tax(N)
    return instance, ix.design(instance.problem, instance.theta0, starts=1)


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("unrolled", [True, False])
def test_double_loops_reach_the_optimum(tax, unrolled, warm):
    instance, best = tax
    sensitivity = ix.Unrolled(200) if unrolled else ix.Implicit()
    scheme = ix.DoubleLoop(
        optax.sgd(1e-3),
        play_step=1.9 / (N + 1),
        sensitivity=sensitivity,
        inner_tol=1e-9,
        warm=warm,
    )
    run = ix.design(instance.problem, instance.theta0, scheme, x0=instance.x0, steps=300)
    np.testing.assert_allclose(run.theta, best.theta, rtol=1e-6)
    assert run.residual < 1e-8
    assert run.history.info.gradient_residual.max() < 1e-6
    assert (run.history.info.inner_steps[:3] > 10).all()


def test_too_few_iterations_show_in_the_residual(tax):
    instance, _ = tax
    scheme = ix.DoubleLoop(
        optax.sgd(1e-3), play_step=1.9 / (N + 1), sensitivity=ix.Unrolled(3), inner_tol=1e-9
    )
    run = ix.design(instance.problem, instance.theta0, scheme, x0=instance.x0, steps=20)
    assert run.history.info.gradient_residual.min() > 1e-2


def test_inner_problem_by_the_accurate_solver(tax):
    instance, best = tax
    scheme = ix.DoubleLoop(optax.sgd(1e-3))
    run = ix.design(instance.problem, instance.theta0, scheme, x0=instance.x0, steps=300)
    np.testing.assert_allclose(run.theta, best.theta, rtol=1e-6)


def test_emission_tax_without_tax_and_its_closed_form():
    instance = ix.problems.emission_tax()
    free = ix.solve_equilibrium(instance.problem.game, instance.theta0)
    assert float(free.x.sum()) == pytest.approx(97.525, abs=5e-4)
    assert -float(instance.problem.objective(instance.theta0, free.x)) == pytest.approx(
        -725.215, abs=5e-4
    )
    best = ix.design(instance.problem, instance.theta0)
    welfare = 50 * jnp.sum(best.theta**2) - best.objective
    assert float(welfare) == pytest.approx(-549.98, abs=5e-3)
    assert float(best.x.min()) == pytest.approx(0.742, abs=5e-4)
    assert float(best.x.max()) == pytest.approx(1.285, abs=5e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ix.DoubleLoop(sensitivity=ix.Unrolled(5)), "play_step"),
        (lambda: ix.DoubleLoop(inner_tol=0.0), "inner_tol > 0"),
        (lambda: ix.DoubleLoop(inner_steps=0), "inner_steps >= 1, got 0"),
        (lambda: ix.Unrolled(0), "steps >= 1, got 0"),
        (lambda: ix.Neumann(0), "terms >= 1, got 0"),
        (lambda: ix.problems.emission_tax(tax="poll"), "'unit interval'(.|\n)*'poll'"),
        (lambda: ix.problems.emission_tax(0), "n >= 1, got 0"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.slow
def test_table1_writes_what_it_shows(tmp_path):
    sizes = ["--sizes", "5", "10", "--firms", "10"]
    assert main(["reproduce", "table1", *sizes, "--steps", "800", "--out", str(tmp_path)]) == 0
    table = json.loads((tmp_path / "table1.json").read_text())
    rows = {row["method"]: row for row in table["rows"]}
    assert len(rows) == 5
    for name in ("double loop, AD", "double loop, ID", "design-and-play"):
        assert rows[name]["reached"]
        assert rows[name]["gap"] <= 1e-8
        assert rows[name]["milliseconds_per_iteration"] > 0
        assert rows[name]["objective"] == pytest.approx(
            table["settings"]["objective_at_optimum"], rel=1e-4
        )
    assert "The design is stationary" in table["certificate"]["verdict"]
    assert {row["n"] for row in table["growth"]} == {5, 10}
    assert (tmp_path / "table1.png").stat().st_size > 10_000
    assert "| design-and-play |" in (tmp_path / "table1.md").read_text()
