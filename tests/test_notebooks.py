"""Every notebook runs from top to bottom, in its fast mode; its last cells are asserts."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


# These compile dozens of programs.
_LONG = (
    "01_second_best_tolls",
    "03_your_own_game",
    "04_charging_with_private_costs",
    "05_theory_measured",
    "06_several_equilibria",
    "07_budgets_and_fronts",
    "08_laws_side_by_side",
    "09_tolls_for_a_city",
)


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.slow) if p.stem in _LONG else p for p in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_notebook_runs(path, monkeypatch, tmp_path):
    monkeypatch.setenv("INCENTAX_FAST", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    assert "assert " in notebook.cells[-1].source
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
