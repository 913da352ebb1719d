"""What of the machine's files a run may see: the interpreter's library, shared libraries, packages.

Never the folder of installed packages as a whole: installed environments ship their hidden tests.
"""

import functools
import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from .outcome import SandboxError

PACKAGES = "/packages"
"""Where allow-listed packages stand in the root of the `ns` tier."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
DATA = ("/usr/share/zoneinfo", "/usr/lib/locale/C.utf8")
"""Folders that the standard library reads: time zones, and the locale that every run is in."""
_ASK = """
import sys, sysconfig, os
print(os.path.realpath(sys.executable))
print(os.path.realpath(sysconfig.get_path("stdlib")))
print("%d.%d" % sys.version_info[:2])
for line in open("/proc/self/maps"):
    path = line.split(None, 5)[-1].strip()
    if path.startswith("/") and ".so" in path: print(os.path.realpath(path))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python as found on the machine."""

    executable: str
    """Its real path."""
    library: str
    """The folder of its standard library."""
    version: str
    """Such as `3.11`."""
    shared: tuple[str, ...]
    """Shared libraries it has loaded."""


def default_python() -> str:
    """The interpreter of this process, or the one that its virtual environment was made from."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


@functools.lru_cache(maxsize=8)
def interpreter(executable: str) -> Interpreter:
    """Ask an interpreter where its parts are."""
    command = [executable, "-S", "-P", "-s", "-E", "-c", _ASK]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        detail = str(getattr(error, "stderr", "") or error).strip()
        raise SandboxError(
            f"cannot run {executable!r}: {detail}; give the path of a Python of 3.11 or newer that "
            "this user may run as python=..."
        ) from error
    path, library, version, *shared = done.stdout.splitlines()
    return Interpreter(path, library, version, tuple(dict.fromkeys(shared)))


def package_paths(names: tuple[str, ...], version: str) -> list[str]:
    """Find the top-level files and folders of installed distributions.

    Raises:
        UsageError: One is not installed here, or belongs to another version of Python.
    """
    if names and version != f"{sys.version_info[0]}.{sys.version_info[1]}":
        raise UsageError(
            f"packages={names!r} are installed for Python {sys.version_info[0]}."
            f"{sys.version_info[1]}, the sandbox runs {version}; use one version for both"
        )
    paths: dict[str, None] = {}
    for name in names:
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise UsageError(
                f"no distribution '{name}' is installed here; install it or leave it out"
            ) from None
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", ".")}
        for top in sorted(tops - {"__pycache__"}):
            path = Path(str(found.locate_file(top)))
            if path.exists() and not top.endswith(".pth"):
                paths[os.path.realpath(path)] = None
    return list(paths)


def module_names(paths: list[str]) -> set[str]:
    """Name the modules that stand at the paths of packages.

    Example:
        >>> sorted(module_names(["/p/six.py", "/p/six-1.0.dist-info", "/p/attr"]))
        ['attr', 'six']
    """
    stems = {os.path.basename(path).partition(".")[0] for path in paths}
    return {stem for stem in stems if stem.isidentifier()}


def system_folders(python: Interpreter) -> tuple[list[str], list[str]]:
    """The folders of shared libraries, and single libraries elsewhere."""
    system = [path for path in python.shared if os.path.basename(path).startswith(("libc.", "ld-"))]
    folders = list(dict.fromkeys(os.path.dirname(path) for path in system))
    known = [*folders, python.library]
    single = [
        path for path in python.shared if not any(path.startswith(place + "/") for place in known)
    ]
    return folders, single


def _data() -> list[str]:
    """The folders of data that are here."""
    return [path for path in DATA if os.path.isdir(path)]


def root_places(python: Interpreter, packages: list[str]) -> dict[str, list[object]]:
    """What is bound into the empty root, linked there and hidden."""
    folders, single = system_folders(python)
    same = [python.library, *folders, *single, python.executable, *DEVICES, *_data()]
    binds = [(path, path) for path in dict.fromkeys(same)]
    binds += [(path, f"{PACKAGES}/{os.path.basename(path)}") for path in packages]
    links = [("/tmp/.stdin", "/dev/stdin"), ("/tmp/.shm", "/dev/shm")]
    for path in ("/lib", "/lib64", "/usr/lib64", "/bin", "/usr/local/lib"):
        if os.path.islink(path):
            links.append((os.readlink(path), path))
    for loader in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"):
        if os.path.exists(loader):
            folder, name = os.path.split(loader)
            links.append((os.path.realpath(loader), f"{os.path.realpath(folder)}/{name}"))
    hidden = [f"{python.library}/{name}" for name in ("site-packages", "dist-packages")]
    return {"binds": [*binds], "links": [*links], "hidden": [*hidden]}


def readable_places(python: Interpreter, packages: list[str]) -> dict[str, list[str]]:
    """What the `flat` tier may read.

    `fine` names the library entry by entry, so that installed packages stay out; it is laid around
    the server once. `coarse` is laid around each run inside it. `listed` may only be listed.
    """
    hidden = {"site-packages", "dist-packages"}
    inner = [entry.path for entry in os.scandir(python.library) if entry.name not in hidden]
    folders, single = system_folders(python)
    rest = [*folders, *single, *packages, *_data()]
    return {"fine": [*inner, *rest], "coarse": [python.library, *rest], "listed": [python.library]}
