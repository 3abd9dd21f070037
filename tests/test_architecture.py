"""The floors: a module imports only from lower ones, or from its own package."""

import ast
from pathlib import Path

import incentax

ROOT = Path(incentax.__file__).parent

FLOORS = {
    "_results": 0,
    "_cache": 0,
    "_checkpoint": 0,
    "_description": 0,
    "_devices": 0,
    "_environment": 0,
    "callbacks": 1,
    "_checks": 0,
    "_compile": 0,
    "_tree": 0,
    "_gather": 0,
    "_linear": 0,
    "_files": 0,
    "sets": 1,
    "schedules": 1,
    "noise": 1,
    "graphs": 1,
    "geometry": 2,
    "smoothing": 2,
    "games": 2,
    "dynamics": 3,
    "sensitivity": 4,
    "equilibrium": 5,
    "design": 6,
    "diagnostics": 7,
    "assumptions": 7,
    "traffic": 7,
    "problems": 8,
    "plots": 8,
    "experiments": 9,
    "bench": 10,
    "cli": 11,
    "__main__": 12,
}


def _concept(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _files():
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def _imports(path: Path):
    """First name under `incentax` of every relative import, wherever it stands in the file."""
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                yield name.split(".")[0]
        elif isinstance(node, ast.ImportFrom | ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("incentax"), f"{path}: absolute import"


def test_every_module_has_a_floor():
    assert {_concept(path) for path in _files()} == set(FLOORS)


def test_imports_go_down():
    for path in _files():
        own = _concept(path)
        for name in _imports(path):
            allowed = name == own or FLOORS[name] < FLOORS[own] or FLOORS[own] == 0
            assert allowed, f"{path.relative_to(ROOT)} imports {name}, which is not below it"


def test_nothing_prints_or_touches_what_is_not_its_own():
    for path in _files():
        text = path.read_text()
        assert "equinox.internal" not in text, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert call != "print", path
                # The command line is an application: it alone may ask for double precision. A
                # user's call alone switches the cache on.
                assert call != "jax.config.update" or _concept(path) in ("cli", "_cache"), path


def test_files_hold_one_concept():
    for path in _files():
        assert len(path.read_text().splitlines()) <= 400, path


def _functions():
    for path in _files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield path, node


def test_functions_fit_on_a_page():
    """80 lines without the docstring."""
    for path, node in _functions():
        text = node.body[0] if ast.get_docstring(node) else None
        documented = text.end_lineno - text.lineno + 1 if text else 0
        lines = node.end_lineno - node.lineno + 1 - documented
        assert lines <= 80, f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"


def test_at_most_five_arguments_are_positional():
    for path, node in _functions():
        names = [one.arg for one in node.args.posonlyargs + node.args.args]
        number = len([name for name in names if name not in ("self", "cls")])
        assert number <= 5, f"{path.relative_to(ROOT)}: {node.name}"


def test_half_of_the_files_are_short():
    lengths = sorted(len(path.read_text().splitlines()) for path in _files())
    assert lengths[len(lengths) // 2] <= 150
