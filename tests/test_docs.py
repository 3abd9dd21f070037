"""The reference page is that of the docstrings, whose examples the doctests run."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _maker():
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs" / "make.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    return maker


def test_reference_is_up_to_date():
    assert (ROOT / "docs" / "api.md").read_text() == _maker().page(), "run `python docs/make.py`"


def test_every_example_of_the_reference_is_one_that_the_doctests_run():
    page = (ROOT / "docs" / "api.md").read_text()
    sources = "\n".join(
        re.sub(r"^ +", "", path.read_text(), flags=re.MULTILINE)
        for path in sorted((ROOT / "incentax").rglob("*.py"))
    )
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, flags=re.DOTALL)
    assert {kind for kind, _ in blocks} == {"text", "pycon"}
    for kind, block in blocks:
        if kind == "pycon":
            assert re.sub(r"^ +", "", block, flags=re.MULTILINE).strip() in sources


def test_the_programs_of_the_pages_run(capsys):
    text = (ROOT / "docs" / "compilation.md").read_text()
    known = {}
    for program in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(program, known)
    assert capsys.readouterr().out.split("\n")[-2] == "(3, 2) True"


def test_every_method_has_an_entry():
    page = (ROOT / "docs" / "api.md").read_text()
    for text in (".link_flows(x)", ".link_times(flows)", ".total_travel_time(theta, x)"):
        assert f"`{text}`" in page
    assert "ix.traffic.TOLLED_LINKS" in page
    assert "## incentax.plots" in page


def test_every_link_of_readme_and_reference_leads_somewhere():
    pages = ("README.md", "docs/api.md", "docs/compilation.md", "benchmarks/README.md")
    for page in (ROOT / name for name in pages):
        text = page.read_text()
        for target in re.findall(r"\]\((?!http)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for anchor in re.findall(r"\]\(#(api-\w+)\)", text):
            assert f'id="{anchor}"' in text, anchor
