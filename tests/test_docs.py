"""The site: its reference is that of the docstrings, its programs run, its links lead somewhere."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = [
    path
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if not {"reference", "_build", "notebooks"} & set(path.relative_to(ROOT).parts)
]
# These compile several designs.
_LONG = (
    "my-own-game",
    "my-own-network",
    "several-equilibria",
    "a-simulator",
    "a-policy-as-a-module",
    "scenarios",
    "constraints",
    "tolls-for-a-city",
)


def _maker():
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs" / "make.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    return maker


def test_reference_is_up_to_date():
    pages = _maker().pages()
    assert {path.name for path in REFERENCE.iterdir()} == set(pages)
    for name, text in pages.items():
        assert (REFERENCE / name).read_text() == text, "run `python docs/make.py`"


def test_the_page_of_benchmarks_is_of_their_rows():
    text = (ROOT / "BENCHMARKS.md").read_text()
    assert text == _maker().benchmarks(), "run `python docs/make.py`"


def test_every_example_of_the_reference_is_one_that_the_doctests_run():
    sources = "\n".join(
        re.sub(r"^ +", "", path.read_text(), flags=re.MULTILINE)
        for path in sorted((ROOT / "incentax").rglob("*.py"))
    )
    for page in REFERENCE.iterdir():
        blocks = re.findall(r"```(\w+)\n(.*?)```", page.read_text(), flags=re.DOTALL)
        assert {kind for kind, _ in blocks} <= {"text", "pycon"}
        for kind, block in blocks:
            if kind == "pycon":
                assert re.sub(r"^ +", "", block, flags=re.MULTILINE).strip() in sources


def _programs(path):
    return "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.stem in _LONG), id=path.stem)
        for path in [ROOT / "README.md", *PAGES]
        if _programs(path)
    ],
)
def test_the_programs_of_a_page_run_and_print_what_it_says(page, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _programs(page)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for shown in re.findall(r"```python\n.*?```\n+```text\n(.*?)```", page.read_text(), re.DOTALL):
        assert shown in done.stdout


def test_every_method_has_an_entry():
    page = (REFERENCE / "traffic.md").read_text()
    for text in (".link_flows(x)", ".link_times(flows, theta)", ".total_travel_time(theta, x)"):
        assert f"`{text}`" in page
    assert "ix.traffic.TOLLED_LINKS" in page


@pytest.mark.parametrize(
    "page",
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
        *PAGES,
        *sorted(REFERENCE.iterdir()),
    ],
    ids=lambda path: path.stem,
)
def test_every_link_leads_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!http)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        other = page.parent / target if target else page
        assert other.exists(), f"{page.name}: {target}"
        if anchor:
            text = other.read_text()
            for included in re.findall(r"\{include\} (\S+)", text):
                text += (other.parent / included).read_text()
            headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings]
            assert re.sub(r"-\d$", "", anchor) in slugs, f"{page.name}: {target}#{anchor}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
