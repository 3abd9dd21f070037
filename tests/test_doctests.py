import doctest
import importlib
import pkgutil

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
