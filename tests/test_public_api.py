"""Every public name is documented, with an example that runs, and two clicks from the README."""

import inspect
from pathlib import Path

import jax.numpy as jnp
import pytest

import incentax as ix

README = Path(__file__).parents[1] / "README.md"


def _public():
    owners = (
        ix, ix.traffic, ix.problems, ix.schedules, ix.noise, ix.graphs, ix.smoothing,
        ix.diagnostics, ix.callbacks,
    )  # fmt: skip
    for owner in owners:
        for name, value in vars(owner).items():
            defined_here = getattr(value, "__module__", "").startswith("incentax")
            if not name.startswith("_") and defined_here and callable(value):
                yield owner.__name__, name, value


def test_every_public_name_has_a_docstring_with_an_example():
    # Answers and errors are shown by the verbs that return or raise them.
    without = {
        "DesignFailure", "DesignSolution", "Equilibrium", "History", "Hypergradient", "Instance",
        "RESULTS", "SchemeInfo", "PathSet", "Network", "Demand", "SystemOptimum",
        "LogitEquilibrium", "EvenPairs", "Graph", "RegulatorInfo", "RegulatedRun",
        "GoldsteinMeasure", "SeekingConstants", "Power", "StepSizes",
        "ENDINGS", "Certificate", "BestResponse", "DirectionalDerivative", "RateFit",
        "Equilibria", "QuantalPath", "Diagnosis", "Assignment", "Assumption", "DesignConstants",
        "Steps", "RegulatorConstants", "Stability", "Estimate", "LeadersSolution", "PolicyHistory",
        "TrainedPolicy", "Regions", "Info", "Ensemble", "Basin", "GlobalSolution",
    }  # fmt: skip
    for owner, name, value in _public():
        text = inspect.getdoc(value) or ""
        assert len(text) > 20, f"{owner}.{name} has no docstring"
        assert name in without or ">>>" in text, f"{owner}.{name} has no example"


def test_every_public_name_is_two_clicks_from_the_readme():
    root = README.parent
    assert "(docs/index.md)" in README.read_text()
    assert "(docs/reference/index.md)" in README.read_text()
    index = (root / "docs" / "reference" / "index.md").read_text()
    for _, name, _ in _public():
        assert f"[{name}](" in index, name


def test_names_of_the_contract():
    for name in (
        "Reals Box NonNegative Simplex Product Game AtomicGame AggregativeGame QuantalResponse "
        "solve_equilibrium MirrorDescent ProjectedGradient Extragradient DesignProblem "
        "hypergradient Implicit DesignAndPlay design RESULTS"
    ).split():
        assert hasattr(ix, name), name
    for name in "sioux_falls k_shortest_paths RoutingGame".split():
        assert hasattr(ix.traffic, name), name


def test_no_message_names_an_argument_that_is_not_there():
    """`x` may have any number of rows: nobody says how many."""
    game = ix.Game(lambda t, x: x[:, None] * jnp.ones(2), ix.Reals())
    problem = ix.DesignProblem(game, lambda t, x: jnp.sum(x**2), ix.Box(jnp.zeros(1), 1.0))
    rule = r"` needs a strategy set that has a shape"
    some = ix.assumptions
    verbs = [some.design_constants, some.regulator_constants, some.strong_monotonicity]
    for verb in (ix.diagnose, some.strong_stability, *verbs):
        with pytest.raises(ValueError, match=verb.__name__ + rule):
            verb(problem)
    with pytest.raises(ValueError, match="equilibria" + rule):
        ix.equilibria(game, jnp.zeros(1))
    with pytest.raises(ValueError, match=r"`design\(x0=...\)` needs a strategy"):
        ix.design(problem, jnp.zeros(1))
