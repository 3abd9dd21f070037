import json
import os
import subprocess
import sys

import numpy as np
import pytest

import incentax as ix
from incentax import _files, figure1, toll_run
from incentax.cli import main

FAST = ["--paths", "2", "--steps", "60"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def test_list(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert "incentax run sioux-falls" in text
    assert "incentax reproduce figure1" in text


def test_run_writes_and_shows_its_evidence(folder, capsys):
    assert main(["run", "sioux-falls", "--out", str(folder), "--seeds", "2", *FAST]) == 0
    shown = capsys.readouterr().out
    for words in (
        "Solving: second-best tolls",
        "total travel time without tolls",
        "share of the gap captured",
        "left to gain",
        "residual of play",
        "seconds to compile",
    ):
        assert words in shown
    result = json.loads((folder / "result.json").read_text())
    assert result["certificate"]["equilibrium_residual"] <= 1e-8
    assert result["certificate"]["linear_residual"] < 1e-8
    assert result["certificate"]["derivative_error"] < 1e-6
    assert "equilibrium is exact" in result["certificate"]["verdict"]
    times = result["total_travel_time"]
    assert times["system_optimum_on_these_paths"] < times["with_tolls"] < times["without_tolls"]
    captured = (times["without_tolls"] - times["with_tolls"]) / (
        times["without_tolls"] - times["system_optimum_on_these_paths"]
    )
    assert result["gap_captured"] == pytest.approx(captured)
    assert len(result["tolls_by_link"]) == 20
    with np.load(folder / "result.npz") as arrays:
        assert arrays["objective"].shape == (2, arrays["step"].size)
        assert arrays["step"][-1] == 60
        assert np.isfinite(arrays["objective"]).all()
        assert list(result["tolls_by_link"].values()) == arrays["theta"].tolist()
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == [
        "figure.png",
        "result.json",
        "result.npz",
    ]


@pytest.mark.slow
def test_one_path_a_pair_and_an_uneven_number_of_steps(folder):
    assert main(["run", "sioux-falls", "--out", str(folder), "--paths", "1", "--steps", "45"]) == 0
    assert json.loads((folder / "result.json").read_text())["gap_captured"] is None
    with np.load(folder / "result.npz") as arrays:
        assert arrays["step"].tolist() == list(range(1, 46))
        assert np.isfinite(arrays["gradient"]).all()


@pytest.mark.slow
def test_an_interrupted_run_is_certified_as_far_as_it_got():
    def interrupt(what, share):
        if what == "design-and-play" and share > 0.3:
            raise KeyboardInterrupt

    instance = ix.problems.second_best_tolls(eta=1.0, paths=2)
    scheme = instance.schemes["design-and-play"]
    run = toll_run.run_tolls(instance, scheme, steps=60, seeds=1, report=interrupt)
    done = int(run.arrays["step"][-1])
    assert 0 < done < 60
    assert run.summary["result"] == f"interrupted after step {done} of 60"
    assert run.summary["certificate"]["equilibrium_residual"] <= 1e-8
    assert np.isfinite(run.arrays["objective"]).all()


@pytest.mark.slow
def test_figure1(folder, capsys, monkeypatch):
    # Two paths a pair cost less than ten: play steps must be longer still to make exp underflow.
    curves = (
        ("A", "A", ix.Entropic(), 0.1),
        ("C", "C", ix.Entropic(), 0.1),
        ("D, product form", "D", ix.EntropicProduct(), 20.0),
        ("D, logarithm", "D", ix.Entropic(), 20.0),
    )
    monkeypatch.setattr(figure1, "CURVES", curves)
    arguments = ["reproduce", "figure1", "--out", str(folder), "--seeds", "2", *FAST]
    assert main(arguments) == 0
    content = json.loads((folder / "figure1.json").read_text())
    assert (folder / "figure1.png").read_bytes().startswith(b"\x89PNG")
    settings = content["settings"]
    # With long steps the product form divides 0 by 0 at once; the logarithm does not.
    assert settings["D, product form"]["finite_runs"] == 0
    assert settings["D, logarithm"]["finite_runs"] == 2
    assert settings["A"]["upper_gap_mean"][-1] < settings["C"]["upper_gap_mean"][-1]
    assert content["certificate"]["ending"].startswith("stationary")
    assert content["largest_residual_of_reference_equilibria"] < 1e-6
    assert any("what fails is the arithmetic" in text for text in content["findings"])
    assert "Figure 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "atlantis"], "sioux-falls"),
        (["run", "sioux-falls", "--eta", "-1"], "got -1"),
        (["run", "sioux-falls", "--steps", "abc"], "whole number >= 1, got abc"),
        (["run", "sioux-falls", "--steps", "0"], "got 0"),
        (["run", "sioux-falls", "--seeds", "0"], "got 0"),
        (["run", "sioux-falls", "--noise", "-2"], "got -2"),
        (["run", "sioux-falls", "--setting", "E"], "'E'"),
        (["reproduce", "figure9"], "figure1"),
        (["fly"], "fly"),
    ],
)
def test_wrong_arguments(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["run", "sioux-falls", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_half_written_file_never_replaces_a_good_one(tmp_path):
    path = tmp_path / "result.json"
    _files.write_json(path, {"value": float("nan"), "array": np.arange(2)})
    good = path.read_text()
    assert json.loads(good) == {"value": None, "array": [0, 1]}

    def broken(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        _files.write_whole(path, broken)
    assert path.read_text() == good
    assert os.listdir(tmp_path) == ["result.json"]


def test_missing_extras_are_told(tmp_path):
    """In an interpreter where matplotlib and rich cannot be imported."""
    program = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['rich'] = None\n"
        "from incentax.cli import main\n"
        f"sys.exit(main(['run', 'sioux-falls', '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'pip install "incentax[plot]"' in done.stderr


def test_importing_the_library_loads_nothing_heavy():
    program = (
        "import sys, incentax\n"
        "heavy = {'matplotlib', 'rich', 'networkx', 'scipy.optimize'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_rates(folder, capsys):
    arguments = ["reproduce", "rates", "--out", str(folder), "--rate-seeds", "4"]
    assert main([*arguments, "--rate-steps", "1000"]) == 0
    written = json.loads((folder / "rates.json").read_text())
    assert (folder / "rates.png").read_bytes().startswith(b"\x89PNG")
    first = written["design_and_play"]["Algorithm 1, emission tax"]
    assert first["lower"]["low"] <= first["lower"]["exponent"] <= first["lower"]["high"]
    assert len(first["upper"]["mean"]) == len(first["step"])
    assert "Partial information" in written["findings"][-1]
    assert "Algorithm 1" in capsys.readouterr().out
    assert main([*arguments, "--rate-steps", "50"]) == 2
