"""Methods side by side: how answers are judged, and what becomes of processes that fail."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import incentax as ix
from incentax import bench
from incentax.bench import _runs
from incentax.cli import main
from incentax.problems.bank import BankDesign

NONE = {"report": lambda what, share: None}


def entry(best=0.0):
    """Agents go to `theta`, at least to -2; the best is 0, at 3."""
    game = ix.Game(lambda theta, x: x - theta, ix.Box(jnp.full(1, -2.0), 9.0))
    problem = ix.DesignProblem(game, lambda theta, x: jnp.sum((x - 3) ** 2), ix.Box(-5.0, 5.0))
    return BankDesign(lambda: (problem, jnp.zeros(1)), best, "a test")


@pytest.mark.parametrize(
    ("theta", "claims", "best", "status"),
    [
        (3.00001, True, 0.0, "solved"),  # within 1e-9
        (3.0, True, 0.0, "solved"),
        (3.0, False, 0.0, "solved"),
        (2.0, True, 0.0, "elsewhere, called a success"),
        (2.0, False, 0.0, "elsewhere"),
        (3.0, True, 0.5, "better than the best known"),
        (np.nan, True, 0.0, "not finite"),
    ],
)
def test_an_answer_is_judged_at_the_equilibrium_solved_anew(theta, claims, best, status):
    # The strategies that come with the answer are a start, and not believed.
    answer = bench.Answer(jnp.array([theta]), claims, "", jnp.array([3.0]))
    row = bench.judged(entry(best), answer)
    assert row["status"] == status
    if np.isfinite(theta):
        assert row["objective"] == pytest.approx((theta - 3) ** 2, abs=1e-12)


def test_what_lies_outside_of_its_set_is_moved_and_told():
    row = bench.judged(entry(4.0), bench.Answer(jnp.array([7.0]), True, ""))
    assert row["moved into the set"] == pytest.approx(2.0)
    assert row["status"] == "solved"


def test_names_of_the_bank():
    kinds = {one.kind for one in ix.problems.bank.designs.values()}
    assert {"networks", "oligopolies", "inverse", "capacities", "kinks"} <= kinds
    assert bench.problems_named(["all"]) == list(ix.problems.bank.designs)
    assert set(_runs.QUICK) <= set(ix.problems.bank.designs)
    assert bench.problems_named(["networks", "Pigou toll"])[0] == "Pigou toll"
    assert bench.problems_named(["Outrata"]) == [
        f"Outrata {n}" for n in ("1a", "1b", "1c", "1d", "1e", "2a", "2b", "2c")
    ]
    told = r"got 'Pigu' \(near it: 'Pigou toll'\); there are the sets 'quick'.*Outrata 1a"
    with pytest.raises(ValueError, match=told):
        bench.problems_named(["Pigu"])
    with pytest.raises(ValueError, match=r"got 'IPOPT'.*there are 'all', 'installed', 'design'"):
        bench.methods_named(["IPOPT"])
    with pytest.raises(ValueError, match=r"got 'slsqp' \(near it: 'SLSQP'\); there"):
        bench.methods_named(["slsqp"])


def test_profiles_are_ratios_to_the_fastest():
    rows = [
        {"method": m, "problem": p, "status": s, "seconds from start": t}
        for m, p, s, t in [
            ("A", "1", "solved", 2.0),
            ("B", "1", "solved", 6.0),
            ("A", "2", "elsewhere", 0.1),
            ("B", "2", "better than the best known", 5.0),
            ("C", "2", "solved", 10.0),  # tried on this one alone
            ("A", "3", "refused", None),
            ("B", "3", "elsewhere", 1.0),
        ]
    ]
    found = bench.ratios(rows, "seconds from start")
    np.testing.assert_allclose(found["A"], [1, np.inf])  # nobody solves the third
    np.testing.assert_allclose(found["B"], [3, 1])
    np.testing.assert_allclose(found["C"], [np.nan, 2])


def run(tmp_path, method, *problems, **how):
    return bench.run(problems or ["kink D1"], [method], tmp_path, **NONE, **how)


def test_processes_that_hang_or_eat_memory_have_rows(tmp_path):
    (late,) = run(tmp_path, "SLSQP", limits=bench.Limits(seconds=0.3))
    assert (late["status"], late["words"]) == ("out of time", "more than 0.3 seconds")
    # A row that is there is gone on with, and not computed again.
    more = run(tmp_path, "SLSQP", "kink D1", "kink D2", resume=True,
               limits=bench.Limits(megabytes=30.0))  # fmt: skip
    assert [row["status"] for row in more] == ["out of time", "out of memory"]
    with pytest.raises(ValueError, match=r"folder without rows, got .*--resume goes on with it"):
        run(tmp_path, "SLSQP")


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read there")
def test_what_a_process_has_started_ends_with_it_and_counts(tmp_path):
    started = tmp_path / "started"
    python = tmp_path / "python"
    program = f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); "
    program += "hold = b'1' * 10**8; time.sleep(60)"
    python.write_text(f'#!/bin/sh\n{sys.executable} -c "{program}" &\nwait\n')
    python.chmod(0o755)
    row = _runs._in_a_process(str(python), {}, bench.Limits(seconds=30.0, megabytes=90.0))
    assert row["status"] == "out of memory"
    time.sleep(0.5)
    assert _runs._megabytes(int(started.read_text())) == 0


def test_a_process_that_crashes_has_its_last_words(tmp_path):
    row = _runs._in_a_process(sys.executable, {"method": "no such"}, bench.Limits())
    assert row["status"] == "crashed"
    assert "problem" in row["words"]


def fake_environment(folder, **_):
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text("#!/bin/sh\necho 'no matching distribution' >&2\nexit 1\n")
    python.chmod(0o755)


def test_what_is_missing_is_told_and_what_does_not_install(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gone = bench.METHODS["SLSQP"]._replace(needs=("no-such-package-1",), modules=("no_such",))
    monkeypatch.setitem(bench.METHODS, "gone", gone)
    (row,) = run(tmp_path, "gone")
    assert row["status"] == "not installed"
    assert row["words"] == "no-such-package-1: --install makes an environment for it"
    monkeypatch.setattr(_runs.venv, "create", fake_environment)
    # A row of what was not installed is none to keep.
    (row,) = run(tmp_path, "gone", install=True, resume=True)
    assert row["words"] == "no-such-package-1 did not install: no matching distribution"


def test_one_method_on_one_problem(tmp_path):
    bench.solve_one("SLSQP", "kink D1", tmp_path / "row.json")
    row = json.loads((tmp_path / "row.json").read_text())
    assert row["status"] == "solved"
    assert row["objective"] == pytest.approx(-0.5, abs=1e-6)
    assert 0 < row["seconds after compilation"] < row["seconds from start"]
    assert row["megabytes"] > 50
    bench.solve_one("L-BFGS-B", "Outrata 1a", tmp_path / "row.json")
    assert json.loads((tmp_path / "row.json").read_text())["kind"] == "outrata"


@pytest.mark.slow  # each compiles its own
@pytest.mark.filterwarnings("ignore:`ZerothOrderRegulator:UserWarning")  # its steps begin large
@pytest.mark.parametrize(
    "method",
    ["design", "design-and-play", "double loop", "regulator", "SLSQP", "L-BFGS-B", "Nelder-Mead"],
)
def test_every_method_runs(tmp_path, method):
    with jax.numpy_dtype_promotion("standard"):  # as optax's Adam needs it
        bench.solve_one(method, "Bertrand taxes, 2 firms", tmp_path / "row.json")
    row = json.loads((tmp_path / "row.json").read_text())
    assert row["status"] == "solved", row


@pytest.mark.slow  # processes
def test_the_command_writes_its_files(tmp_path, capsys):
    arguments = ["bench", "--problems", "kink D1", "--methods", "SLSQP", "--certified"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "Wrote bench.json, bench.md and bench.png" in shown
    content = json.loads((tmp_path / "bench.json").read_text())
    (row,) = content["rows"]
    assert row["status"] == "solved"
    assert "equilibrium is exact" in row["certificate"]
    assert row["B-stationary"] == "yes"
    assert "| 1 of 1 |" in (tmp_path / "bench.md").read_text()
    assert content["environment"]["versions"]["jax"]
    assert "| kinks (1) | 1 |" in (tmp_path / "bench.md").read_text()
    assert (tmp_path / "bench.png").stat().st_size > 5000


def test_wrong_arguments_of_the_command(tmp_path, capsys):
    assert main(["bench", "--problems", "Pigu", "--out", str(tmp_path)]) == 2
    assert "needs names of the bank, got 'Pigu'" in capsys.readouterr().err
    assert main(["bench", "--seconds", "0", "--out", str(tmp_path)]) == 2
    assert "`--seconds` needs a number > 0, got 0" in capsys.readouterr().err
    assert main(["bench", "--problems", "--out", str(tmp_path)]) == 2
    assert "`--problems` needs at least one name, got none" in capsys.readouterr().err
    assert main(["bench", "--repeat", "1.5", "--out", str(tmp_path)]) == 2
    assert "needs a whole number, got 1.5" in capsys.readouterr().err


def _told(problem, method, status, after, **more):
    clocks = {"seconds from start": 1 + after, "seconds after compilation": after}
    kind = ix.problems.bank.designs[problem].kind
    row = {"method": method, "problem": problem, "kind": kind, "status": status, "megabytes": 300.0}
    return {**row, **clocks, "best": 1.0, "gap": 0.0, **more}


def test_runs_are_read_and_joined(tmp_path, capsys):
    """Later rows in place of earlier ones; the pages are the same whoever asks for them."""
    about = {"versions": {"jax": "1.2"}, "python": "3.11", "dtype": "float64", "device": "cpu"}
    pieces = [
        [_told("kink D1", "SLSQP", "solved", 0.2), _told("kink D2", "SLSQP", "elsewhere", 0.1)],
        [
            _told("kink D1", "design", "solved", 0.6, packages={"other": "3.4"}),
            _told("kink D2", "SLSQP", "solved", 0.3),
        ],
    ]
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, rows, git in zip(files, pieces, ("one commit", "another")):
        own = {**about, "processor": "fast", "git": git}
        file.write_text(json.dumps({"environment": own, "rows": rows}))
    out = tmp_path / "out"
    assert main(["bench", "--read", *map(str, files), "--out", str(out)]) == 0
    content = json.loads((out / "bench.json").read_text())
    assert [(row["problem"], row["method"]) for row in content["rows"]] == [
        ("kink D1", "design"), ("kink D1", "SLSQP"), ("kink D2", "SLSQP")
    ]  # fmt: skip
    page = (out / "bench.md").read_text()
    assert page == bench.page(content)
    assert "SLSQP solves 2 of 2." in page
    assert "jax 1.2, other 3.4; Python 3.11, float64, fast." in page
    assert content["environment"] == {**about, "processor": "fast"}
    assert "| kinks | SLSQP on 2 | 3 |" in page
    lines = bench.METHODS["design"].lines
    assert f"| design | 1 | 0 | 0 | 0 | 0 | 1.6 | 0.6 | 3.0 | 300 | {lines} |" in page
    # A method of another version has no adapter here.
    old = [_told("kink D1", "an old one", "solved", 0.2)]
    files[0].write_text(json.dumps({"environment": about, "rows": old}))
    assert main(["bench", "--read", str(files[0]), "--out", str(out)]) == 0
    assert "| an old one | 1 |" in (out / "bench.md").read_text()
    capsys.readouterr()
    bare = {"method": "SLSQP", "problem": "kink D1"}
    other = {**about, "device": "gpu"}
    for wrong, told in [
        ({}, "needs files that this command wrote, got"),
        ({"environment": about, "rows": [bare]}, "no 'kind'"),
        ({"environment": {"versions": {}}, "rows": old}, "no 'python'"),
        ({"environment": about, "rows": []}, "needs files with rows, got none in"),
        ({"environment": other, "rows": old}, "versions, device and limits, got device gpu in"),
        ({"environment": {**about, "processor": "slow"}, "rows": old}, "got processor slow in"),
        ({"environment": about, "rows": [{**old[0], "seconds from start": -1.0}]}, "seconds of -1"),
    ]:
        files[0].write_text(json.dumps(wrong))
        assert main(["bench", "--read", *map(str, files), "--out", str(out)]) == 2
        assert told in capsys.readouterr().err


def test_a_run_is_gone_on_with_as_it_was_begun(tmp_path, capsys, monkeypatch):
    """Its settings are kept; what an interrupt leaves is told; a damaged row is run again."""
    rows = []

    def few(problems, methods, out, *, begun, resume, **_):
        begun()
        rows.append(resume)
        (out / "rows").mkdir(exist_ok=True)
        (out / "rows" / "one.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "run", few)
    out = ["--out", str(tmp_path / "out")]
    assert main(["bench", "--seconds", "5", *out]) == 130
    told = "interrupted; the rows so far lie in"
    assert told in capsys.readouterr().err
    assert main(["bench", "--seconds", "7", "--resume", *out]) == 2
    assert "of one with seconds 5.0, now 7.0" in capsys.readouterr().err
    assert main(["bench", "--seconds", "5", "--resume", *out]) == 130
    assert rows == [False, True]
    about = {"versions": {"jax": "1.2"}, "python": "3.11", "dtype": "float64", "device": "cpu"}
    kept = {"environment": about, "rows": [_told("kink D1", "SLSQP", "solved", 0.2)]}
    (tmp_path / "bench.json").write_text(json.dumps(kept))
    capsys.readouterr()
    assert main(["bench", "--read", str(tmp_path / "bench.json"), *out]) == 2
    assert "needs a folder without rows of a run" in capsys.readouterr().err
    (tmp_path / "out" / "run.json").write_text("{broken")
    assert main(["bench", "--seconds", "5", "--resume", *out]) == 2
    assert "run.json as it was written" in capsys.readouterr().err
    for text in ("{broken", "{}", '{"method": "SLSQP", "status": "solved"}', "[]"):
        (tmp_path / "row.json").write_text(text)
        assert _runs._kept(tmp_path / "row.json") == {}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
@pytest.mark.slow  # processes
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_ends_its_child(tmp_path, by):
    command = [sys.executable, "-m", "incentax", "bench", "--problems", "kink D1"]
    command += ["--methods", "design-and-play", "--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        children, found = Path(f"/proc/{process.pid}/task/{process.pid}/children"), []
        while not found:  # git, which is asked for versions, is a child too
            time.sleep(0.1)
            assert process.poll() is None
            all_ = [Path("/proc") / number for number in children.read_text().split()]
            found = [one for one in all_ if b"incentax.bench" in (one / "cmdline").read_bytes()]
        process.send_signal(by)
        told = process.communicate(timeout=60)[1].decode()
    if by == signal.SIGTERM:
        assert process.returncode == 143
        assert "ended; the rows so far lie in" in told
    for _ in range(200):  # after a kill it looks every second
        if not found[0].exists():
            break
        time.sleep(0.1)
    assert not found[0].exists()


def test_lines_by_hand_are_counted():
    """With the helpers of their module, docstrings and comments apart."""
    lines = {name: method.lines for name, method in bench.METHODS.items()}
    assert lines["design"] == 7  # as anybody can count
    assert lines["design"] < lines["L-BFGS-B"] < lines["pympcc"]
    # Its eight penalties are written beside what both need.
    assert lines["NashOpt, best penalty"] > lines["NashOpt"] > 40
