"""The shape of the package: layers, tables, and one name per file."""

import ast
import doctest
import functools
import importlib
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["verifiers", "envs", "agents", "rl_core"]
"""From the ground up: each may import those before it."""
HEAVY = {
    "torch",
    "transformers",
    "sympy",
    "jsonschema",
    "datasets",
    "pandas",
    "matplotlib",
    "jinja2",
}


def _modules() -> list[str]:
    names = []
    for layer in LAYERS:
        package = importlib.import_module(f"rlvr.{layer}")
        names.append(package.__name__)
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            names.append(module.name)
    return names


@functools.cache
def _imports(path: Path) -> list[tuple[int, str]]:
    """Every module that a file imports, as (level, dotted name)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found += [(node.level, node.module or alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_from_layers_below_it(layer: str) -> None:
    upward = set(LAYERS[LAYERS.index(layer) + 1 :])
    for path in (ROOT / layer).rglob("*.py"):
        depth = len(path.relative_to(ROOT).parts)
        for level, name in _imports(path):
            if level == depth:
                assert name.split(".")[0] not in upward, f"{path} imports {name}"
            if level == 0:
                parts = name.split(".")
                assert parts[0] not in LAYERS, f"{path} imports the bare name {name}"
                assert parts[0] != "rlvr", f"{path} imports {name} absolutely"


def test_the_ground_floor_knows_neither_gymnasium_nor_torch() -> None:
    for path in (ROOT / "verifiers").rglob("*.py"):
        names = {name.split(".")[0] for level, name in _imports(path) if level == 0}
        assert not names & {"gymnasium", "torch", "transformers"}, path


def test_pure_functions_import_torch_alone() -> None:
    for path in (ROOT / "rl_core" / "functional").glob("*.py"):
        outside = {name.split(".")[0] for level, name in _imports(path) if level == 0}
        assert outside <= {"torch", "math", "collections"}, path
        assert all(level <= 1 for level, _ in _imports(path)), path


def test_every_package_folder_is_listed_for_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        "rlvr." + ".".join(path.parent.relative_to(ROOT).parts)
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*.py")
    }
    assert found == set(listed)


def test_no_init_stands_at_the_root_or_in_the_tests() -> None:
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "tests" / "__init__.py").exists()


def test_every_layer_is_typed() -> None:
    for layer in LAYERS:
        assert (ROOT / layer / "py.typed").is_file()


def test_no_file_of_ours_is_loaded_under_two_names() -> None:
    for name in _modules():
        importlib.import_module(name)
    names: dict[str, set[str]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(Path(file).is_relative_to(ROOT / layer) for layer in LAYERS):
            names.setdefault(file, set()).add(name)
    doubled = {file: known for file, known in names.items() if len(known) > 1}
    assert not doubled


@pytest.mark.parametrize("name", _modules())
def test_examples_in_docstrings_hold(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


def test_every_public_name_has_a_docstring() -> None:
    for layer in LAYERS:
        package = importlib.import_module(f"rlvr.{layer}")
        for name in package.__all__:
            value = getattr(package, name)
            assert (getattr(value, "__doc__", "") or "").strip(), f"rlvr.{layer}.{name}"


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    modules = [
        *(f"rlvr.{layer}" for layer in LAYERS),
        "rlvr.rl_core.cli",
        "rlvr.rl_core.algorithms",
    ]
    code = (
        f"import importlib, sys\nfor name in {modules!r}:\n"
        f"    importlib.import_module(name)\n    print(name, *sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == modules


def test_every_shipped_verifier_environment_and_algorithm_can_be_made() -> None:
    from rlvr import envs, verifiers
    from rlvr.rl_core import TABLE, algorithm

    assert all(verifiers.describe(name) for name in verifiers.names())
    assert all(envs.options(name) for name in envs.TABLE)
    assert all(algorithm(name) == row for name, row in TABLE.items())


def test_the_version_stands_in_one_place() -> None:
    from importlib.metadata import version

    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version("rlvr") == stated
