import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import incentax as ix
from incentax import _files
from incentax.cli import main
from incentax.cli._folder import run_kept
from incentax.cli._replay import compared
from incentax.experiments import liu2022_figure1, ready_problem

FAST = ["--set", "paths=2", "--steps", "60"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


def test_list(capsys):
    for arguments in (["--no-cache", "list"], ["list", "--no-cache"], ["list"]):
        assert main(arguments) == 0
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
        "distance of the agents",
        "seconds to the first steps",
        "The equilibrium is exact.",
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
        "checkpoint",
        "figure.png",
        "report.html",
        "result.json",
        "result.npz",
        "run.json",
    ]
    assert main(["replay", str(folder)]) == 0
    assert "bit by bit" in capsys.readouterr().out


def test_what_a_replay_finds():
    here = {"versions": {"jax": "1"}, "python": "3", "dtype": "float64", "device": "cpu",
            "devices": 1, "machine": "mine"}  # fmt: skip
    theta = np.array([1.0, 2.0, np.nan])
    near, far = theta + 1e-9, theta + 1e-3
    assert compared({"theta": theta}, {"theta": theta}, here, here)[1]
    assert not compared({"theta": theta}, {"theta": near}, here, here)[1]
    other = {**here, "machine": "another"}
    rows, fine = compared({"theta": theta}, {"theta": near}, other, here)
    assert fine
    assert ("machine then", "another") in rows
    assert not compared({"theta": theta}, {"theta": far}, other, here)[1]
    assert not compared({"theta": theta}, {"theta": np.nan_to_num(theta)}, other, here)[1]
    assert not compared({"theta": theta}, {"theta": theta[:2]}, other, here)[1]


_OWN = """
import jax.numpy as jnp, optax
import incentax as ix

game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.zeros(2), 4.0))
problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Box(jnp.zeros(2), 5.0))
play = ix.DesignAndPlay(optax.adam(0.01), play_step=0.5, feedback=ix.noise.Gaussian(0.1))
mine = ix.problems.Instance(
    problem=problem, theta0=jnp.ones(2), x0=jnp.ones(2), description="mine", schemes={"play": play}
)
"""


def test_a_run_that_was_not_begun_is_no_run_to_go_on_with(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "lock").touch()  # interrupted while it compiled
    about = {"name": "mine", "set": {}, "scheme": "play", "seeds": 1}
    assert not run_kept(tmp_path, about, 100, resume=False, force=False).resume
    (tmp_path / "checkpoint" / "run-000000000100.ckpt").touch()
    with pytest.raises(ValueError, match="--resume goes on with it, --force begins anew"):
        run_kept(tmp_path, about, 100, resume=False, force=False)
    with pytest.raises(ValueError, match="of one with scheme play"):
        run_kept(tmp_path, {**about, "scheme": "other"}, 100, resume=True, force=False)
    kept = run_kept(tmp_path, about, 100_000, resume=True, force=False)
    assert kept.every == 1  # as the run that is there
    assert run_kept(tmp_path, about, 100_000, resume=False, force=True).every == 250
    assert not list((tmp_path / "checkpoint").glob("run-*"))


def test_an_interrupt_after_the_steps_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(_OWN)
    command = ["run", f"{tmp_path / 'mine.py'}:mine", "--steps", "10", "--out", str(tmp_path / "o")]

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ready_problem, "begun_from_seeds", interrupted)
    assert main(command) == 130
    assert "interrupted; nothing was written yet" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(ready_problem, "certify", interrupted)
    with jax.numpy_dtype_promotion("standard"):  # of optax's Adam
        assert main(command) == 130
    assert "interrupted; the same command with --resume goes on from there" in (
        capsys.readouterr().err
    )
    monkeypatch.undo()
    with jax.numpy_dtype_promotion("standard"):
        assert main([*command, "--resume"]) == 0


@pytest.mark.slow  # a process each
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_goes_on_bit_by_bit(tmp_path, number):
    (tmp_path / "mine.py").write_text(_OWN)

    def command(name, *options):
        arguments = ["run", f"{tmp_path / 'mine.py'}:mine", "--steps", "400000", *options]
        return [sys.executable, "-m", "incentax", *arguments, "--out", tmp_path / name]

    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    how = {"capture_output": True, "text": True, "env": environment}
    whole = subprocess.run(command("whole"), check=True, **how)
    assert "Wrote result.json" in whole.stdout
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment["FORCE_COLOR"] = "1"  # a bar that moves
    with subprocess.Popen(command("ended"), env=environment, **pipes) as process:
        shown = b""
        while b"of 400000 steps" not in shown:
            shown += os.read(process.stdout.fileno(), 1000)
            assert process.poll() is None
        process.send_signal(number)
        told = process.communicate(timeout=60)[1].decode()
    del environment["FORCE_COLOR"]
    assert process.returncode in ((1,) if number == signal.SIGINT else (143,)), told
    assert "--resume goes on from there" in told
    again = subprocess.run(command("ended"), check=False, **how)
    assert again.returncode == 2
    assert "--resume goes on with it, --force begins anew" in again.stderr
    subprocess.run(command("ended", "--resume"), check=True, **how)
    with (
        np.load(tmp_path / "whole" / "result.npz") as one,
        np.load(tmp_path / "ended" / "result.npz") as other,
    ):
        for name in one:
            np.testing.assert_array_equal(other[name], one[name])
    more = command("ended", "--resume")
    more[more.index("400000")] = "401000"
    subprocess.run(more, check=True, **how)
    other = subprocess.run(command("ended", "--resume", "--seeds", "3"), check=False, **how)
    assert "of one with seeds 1" in other.stderr


def test_tolls_of_a_network_from_files(folder, tmp_path, capsys):
    """Two roads to town: the toll on the short one leads some to the long one."""
    (tmp_path / "net.tntp").write_text(
        "<NUMBER OF ZONES> 2\n<NUMBER OF NODES> 3\n<FIRST THRU NODE> 3\n<NUMBER OF LINKS> 3\n"
        "<END OF METADATA>\n1 2 10 1 10 0.15 4 ;\n1 3 50 1 8 0.15 4 ;\n3 2 50 1 8 0.15 4 ;\n"
    )
    (tmp_path / "trips.tntp").write_text("<END OF METADATA>\nOrigin 1\n2 : 20;\n")
    (tmp_path / "nodes.tntp").write_text("1 0 0 ;\n2 2 0 ;\n3 1 1 ;\n")
    files = [f"--{name}={tmp_path / name}.tntp" for name in ("net", "trips", "nodes")]
    assert main(["tolls", *files, "--toll-links", "1-2", "--out", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "user equilibrium with these tolls" in shown
    assert "3 links, 1 pairs with trips" in shown
    rows = (folder / "tolls.csv").read_text().splitlines()
    assert rows[0] == "link,from,to,toll,flow,cost"
    assert float(rows[1].split(",")[3]) > 0
    assert rows[2].split(",")[3] == ""
    result = json.loads((folder / "result.json").read_text())
    assert result["logit"]["with_tolls"] < result["logit"]["without_tolls"]
    for name in ("tolls.geojson", "figure.png", "report.html"):
        assert (folder / name).stat().st_size > 500
    for arguments, words in (
        ([], "needs --net and --trips, or --city"),
        ([f"--net={tmp_path / 'nowhere'}", files[1]], "No such file"),
        ([*files, "--city", "3"], "in place of files"),
        ([*files, "--toll-links", "7"], r"rows in 1..3, or ends as in 1-2, got 7"),
        (["--city", "3"], "without another problem's results"),
    ):
        assert main(["tolls", *arguments, "--out", str(folder)]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_one_path_a_pair_and_an_uneven_number_of_steps(folder):
    assert (
        main(["run", "sioux-falls", "--out", str(folder), "--set", "paths=1", "--steps", "45"]) == 0
    )
    assert json.loads((folder / "result.json").read_text())["gap_captured"] is None
    with np.load(folder / "result.npz") as arrays:
        assert arrays["step"].tolist() == list(range(1, 46))
        assert np.isfinite(arrays["gradient"]).all()


@pytest.mark.slow
def test_an_interrupted_run_is_certified_as_far_as_it_got():
    def interrupt(what, share):
        if what.endswith("steps") and 0.3 < share < 1:
            raise KeyboardInterrupt

    instance = ix.problems.second_best_tolls(eta=1.0, paths=2)
    run = ready_problem.run(
        instance, "design-and-play", steps=60, seeds=1, starts=None, report=interrupt
    )
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
    monkeypatch.setattr(liu2022_figure1, "CURVES", curves)
    arguments = ["reproduce", "figure1", "--out", str(folder), "--seeds", "2", "--paths", "2"]
    assert main([*arguments, "--steps", "60"]) == 0
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
        (["run", "sioux-falls", "--set", "eta=-1"], "got -1"),
        (["run", "sioux-falls", "--set", "eta"], "key=value, got eta"),
        (["run", "sioux-falls", "--set", "tax=1"], "(eta, paths, max_toll, setting, noise)"),
        (["run", "coordination", "--set", "tax=1"], "(none), got tax"),
        (["run", "sioux-falls", "--steps", "abc"], "abc"),
        (["run", "sioux-falls", "--steps", "0"], "got 0"),
        (["run", "sioux-falls", "--seeds", "0"], "got 0"),
        (["run", "sioux-falls", "--set", "noise=-2"], "got -2"),
        (["run", "sioux-falls", "--set", "setting=E"], "'E'"),
        (["run", "sioux-falls", "--scheme", "best"], "accurate, design-and-play, got best"),
        (["run", "nowhere.py:problem"], "there is none at nowhere.py"),
        (["reproduce", "figure9"], "figure1"),
        (["reproduce", "rates", "--steps", "50"], "steps >= 100, got 50"),
        (["certify", "nowhere"], "without result.json"),
        (["fly"], "fly"),
    ],
)
def test_wrong_arguments(arguments, words, capsys):
    assert main(arguments) == 2
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
        "import sys; sys.modules['matplotlib'] = None; sys.modules['cyclopts'] = None\n"
        "from incentax.cli import main\n"
        f"sys.exit(main(['run', 'sioux-falls', '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'pip install "incentax[cli]"' in done.stderr


def test_importing_the_library_loads_nothing_heavy():
    program = (
        "import sys, incentax\n"
        "heavy = {'matplotlib', 'rich', 'networkx', 'scipy.optimize'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_laws(folder, capsys):
    arguments = ["reproduce", "laws", "--out", str(folder), "--steps", "400"]
    with jax.numpy_dtype_promotion("standard"):  # Adam of optax mixes precisions
        assert main(arguments) == 0
    written = json.loads((folder / "laws.json").read_text())
    assert (folder / "laws.png").read_bytes().startswith(b"\x89PNG")
    firms = written["problems"]["ten firms, a price each"]["laws"]
    for law in ("hypergradient", "adjoint step", "social gradient", "externality"):
        assert firms[law]["gap"] < 1e-2
    every = written["problems"]["Sioux Falls, all links, perceived time"]["laws"]
    assert every["externality"]["gap"] < 1e-2
    # Its guarantee does not reach to a price of the incentive itself.
    assert written["problems"]["emission tax, 10 firms"]["laws"]["social gradient"]["gap"] > 1
    assert "must know" in capsys.readouterr().out


@pytest.mark.slow
def test_rates(folder, capsys):
    arguments = ["reproduce", "rates", "--out", str(folder), "--seeds", "4"]
    assert main([*arguments, "--steps", "1000"]) == 0
    written = json.loads((folder / "rates.json").read_text())
    assert (folder / "rates.png").read_bytes().startswith(b"\x89PNG")
    first = written["design_and_play"]["Algorithm 1, emission tax"]
    assert first["lower"]["low"] <= first["lower"]["exponent"] <= first["lower"]["high"]
    assert len(first["upper"]["mean"]) == len(first["step"])
    assert "Partial information" in written["findings"][-1]
    assert "Algorithm 1" in capsys.readouterr().out


OWN = """
import incentax as ix
import jax.numpy as jnp

game = ix.Game(lambda theta, x: x - theta, ix.Box(0.0, 4.0 + jnp.zeros(2)))
problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Box(jnp.zeros(2), 2.0))
number = 3


def scaled(goal=3.0):
    def objective(theta, x):
        return jnp.sum((x - goal) ** 2)

    return ix.DesignProblem(game, objective, ix.Box(jnp.zeros(2), 2.0))
"""


def test_a_problem_of_ones_own(tmp_path, capsys):
    file, folder = tmp_path / "own.py", tmp_path / "out"
    file.write_text(OWN)
    assert main(["run", f"{file}:problem", "--out", str(folder)]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["incentive"] == pytest.approx([2.0, 2.0])
    assert result["objective"]["reached"] == pytest.approx(2.0)
    assert result["scheme"] == "accurate"
    capsys.readouterr()
    assert main(["certify", str(folder)]) == 0
    assert "stationary" in capsys.readouterr().out
    # Results of another problem are not replaced unasked.
    other = ["run", f"{file}:scaled", "--set", "goal=1", "--out", str(folder)]
    assert main(other) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*other, "--force"]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["set"] == {"goal": 1}
    assert result["incentive"] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert main(["diagnose", f"{file}:scaled"]) == 0
    assert "strong" in capsys.readouterr().out


def test_a_file_that_has_no_such_problem(tmp_path, capsys):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    for name, words in (("tax", "(problem, scaled), got tax"), ("number", "a int")):
        assert main(["run", f"{file}:{name}"]) == 2
        assert words in capsys.readouterr().err
    assert main(["run", f"{file}:problem", "--set", "goal=1"]) == 2
    assert "`--set` needs a function" in capsys.readouterr().err
    file.write_text("def broken():\n    return 1 / 0\n\n\nbroken()\n")
    assert main(["run", f"{file}:problem"]) == 2
    told = capsys.readouterr().err
    assert "in broken" in told
    assert "_chosen" not in told
    assert told.splitlines()[-1].endswith("own.py raised ZeroDivisionError: division by zero")


def test_an_interrupt_within_a_compiled_program_ends_in_a_sentence():
    """Python hears of it only when the program is done."""
    program = (
        "import sys, jax; from incentax.cli import _main; _main._PATIENCE = 1.0;"
        "_main.main = lambda: jax.jit(lambda: jax.lax.while_loop("
        "lambda i: i < 2**30, lambda i: jax.lax.fori_loop(0, 2**20, lambda k, a: a ^ k, i) % 7, 0"
        "))().block_until_ready() if print('on', flush=True) is None else 0; _main.entry()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "on\n"
        time.sleep(2)
        running.send_signal(signal.SIGINT)
        try:
            _, told = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 130
    assert "interrupted in a compiled program; nothing more was written" in told
    assert "Traceback" not in told


def test_an_interrupt_while_compiling_ends_in_a_sentence(folder, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ready_problem, "run", interrupted)
    assert main(["run", "coordination", "--out", str(folder)]) == 130
    assert "interrupted; nothing was written yet" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ix.problems.READY)
def test_every_ready_problem_runs(name, folder):
    assert main(["run", name, "--out", str(folder)]) == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["result"] == "successful"
    assert result["certificate"]["equilibrium_residual"] < 1e-6
    assert result["objective"]["reached"] <= result["objective"]["at_start"]
    assert result.get("left_to_gain", 0) < 1e-3


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_the_report_opens_in_a_browser(folder, tmp_path):
    assert main(["run", "coordination", "--out", str(folder)]) == 0
    quiet = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    page = subprocess.run(
        [
            "chromium",
            *quiet.split(),
            f"--user-data-dir={tmp_path / 'browser'}",
            f"--screenshot={tmp_path / 'page.png'}",
            "--window-size=1000,1600",
            "--dump-dom",
            (folder / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    for words in ("Verdict", "The equilibrium is exact.", "data:image/png;base64", "Environment"):
        assert words in page.stdout
    assert "http://" not in page.stdout.replace("http://www.w3.org", "")


def test_what_a_user_file_raises_has_its_own_traceback_by_a_relative_path(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "own.py").write_text("def made(a):\n    raise RuntimeError('boom')\n")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "own.py:made", "--set", "a=1"]) == 2
    told = capsys.readouterr().err
    assert "line 2, in made" in told
    assert "own.py raised RuntimeError: boom" in told
    assert main(["run", "own.py:made"]) == 2
    assert "give `--set a=...`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "emission-tax", "--set", "n=many"], "needs a number, got many"),
        (["run", "chicken", "--seeds", "3"], "`--seeds` needs a scheme"),
        (
            ["run", "emission-tax", "--scheme", "double-loop", "--starts", "3"],
            "`--starts` needs the accurate designer",
        ),
    ],
)
def test_options_that_would_be_ignored_are_refused(arguments, words, capsys):
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_folder_of_another_command_cannot_be_certified(tmp_path, capsys):
    (tmp_path / "result.json").write_text('{"name": "tolls on a city"}')
    np.savez(tmp_path / "result.npz", tolls=np.zeros(2))
    assert main(["certify", str(tmp_path)]) == 2
    assert "of another command: tolls on a city" in capsys.readouterr().err
    (tmp_path / "result.npz").write_bytes(b"cut")
    assert main(["certify", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.slow  # a design
def test_a_problem_with_constraints_shows_their_prices(tmp_path, capsys):
    (tmp_path / "own.py").write_text(
        "import incentax as ix, jax.numpy as jnp\n"
        "game = ix.Game(lambda tax, x: x + tax - 4, ix.NonNegative((1,)))\n"
        "floor = ix.Constraint(lambda tax, x: (tax * x).sum(), lower=3.0, name='revenue')\n"
        "problem = ix.DesignProblem(game, lambda tax, x: (tax**2).sum(),\n"
        "    ix.Box(0.0, jnp.full(1, 4.0)), constraints=[floor])\n"
    )
    named, out = f"{tmp_path / 'own.py'}:problem", str(tmp_path / "out")
    assert main(["run", named, "--out", out]) == 0
    told = capsys.readouterr().out
    assert "multiplier, revenue" in told
    assert "largest violation of a constraint" in told
    assert "gradient, less" not in told
    assert main(["certify", out]) == 0
    assert "multiplier, revenue" in capsys.readouterr().out
