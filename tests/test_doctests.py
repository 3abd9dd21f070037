import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import incentax

MODULES = [
    module.name
    for module in pkgutil.walk_packages(incentax.__path__, "incentax.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run_as_printed(name):
    result = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0


def test_the_readmes_example_runs_as_printed():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for program in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL):
        subprocess.run([sys.executable, "-c", program], check=True)
