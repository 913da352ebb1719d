"""User code that the command line brings in: files, and entry points of installed packages."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from ..verifiers import UsageError

GROUP = "rlvr.plugins"
"""Entry-point group whose modules are imported at start: they register tasks and verifiers."""


def load_plugins(files: Sequence[str] = ()) -> None:
    """Import the plugins of installed packages, then the given files.

    Args:
        files: Python files that register environments or verifiers.

    Raises:
        UsageError: One cannot be imported; names it and the reason.
    """
    importlib.import_module("..agents", __package__)  # which registers the verifiers that it has
    for plugin in entry_points(group=GROUP):
        try:
            plugin.load()
        except Exception as error:
            raise UsageError(
                f"the plugin '{plugin.name}' ({plugin.value}) cannot be imported: "
                f"{type(error).__name__}: {error}; mend it or uninstall its package"
            ) from error
    load_files(files)


def load_files(files: Sequence[str]) -> None:
    """Import Python files that register environments or verifiers, each once.

    Raises:
        UsageError: One cannot be imported; names it and the reason.
    """
    for file in files:
        _load_file(Path(file).absolute())


def _load_file(path: Path) -> None:
    if not path.is_file() or path.suffix != ".py":
        raise UsageError(f"--import needs a Python file, got '{path}', which is none")
    name = f"rlvr_import_{path.stem}"
    if getattr(sys.modules.get(name), "__file__", None) == str(path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"'{path}' cannot be imported: {type(error).__name__}: {error}") from error
