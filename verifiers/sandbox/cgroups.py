"""Control groups, where this process may make some: one limit for all processes of a run together.

A bonus, needed only by runs with `Options.processes`: without a group, limits of memory hold for
each process alone. The caller makes a group, hands the run a descriptor to enter it by, and removes
it after the run. What a caller left that was killed, the next one to look here removes.
"""

import contextlib
import functools
import itertools
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .outcome import Limits

NEEDED = ("memory", "pids")
ROOT = Path("/sys/fs/cgroup")
PREFIX = "rlvr-run"
_ENTER = 'for place; do echo 0 > "$place" || exit 1; done'
_counter = itertools.count()
_left: list[Path] = []
"""Folders that could not be removed yet because something in them was still ending."""


@dataclass(frozen=True)
class Groups:
    """Where groups can be made, or why they cannot.

    Example:
        `Groups(1, {"memory": Path("/sys/fs/cgroup/memory/job"), ...})`
    """

    version: int = 0
    folders: Mapping[str, Path] = field(default_factory=dict)
    """Controller → folder of the group in which new ones are made; one and the same in version
    2."""
    why_not: str = ""

    @property
    def places(self) -> list[Path]:
        """The folders, each once."""
        return list(dict.fromkeys(self.folders.values()))


def look(root: Path, membership: str) -> Groups:
    """Find the groups that this process may make others in.

    Args:
        root: Where control groups are mounted.
        membership: The text of `/proc/self/cgroup`.
    """
    own: dict[str, str] = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        own |= dict.fromkeys(names.split(","), path)
    if (root / "cgroup.controllers").exists():
        return _second(root, own.get("", "/"))
    return _first(root, own)


def _second(root: Path, path: str) -> Groups:
    """The nearest group above that hands its controllers on and may be written."""
    start = root / path.strip("/")
    reason = f"{start} is not there"
    for folder in (start, *start.parents):
        if not folder.is_relative_to(root):
            break
        given = _read(folder / "cgroup.subtree_control").split()
        missing = [name for name in NEEDED if name not in given]
        if not missing and os.access(folder, os.W_OK):
            return Groups(2, dict.fromkeys(NEEDED, folder))
        fault = f"does not hand on {' and '.join(missing)}" if missing else "may not be written"
        reason = f"{folder} {fault}"
    return Groups(why_not=reason)


def _first(root: Path, own: Mapping[str, str]) -> Groups:
    """A folder for each controller; a container sees its own group as the top."""
    folders: dict[str, Path] = {}
    for name in NEEDED:
        tops = [root / name, *sorted(path for path in root.glob(f"*{name}*") if path.is_dir())]
        places = [top / own[name].strip("/") for top in tops if name in own] + tops
        there = [place for place in places if (place / "cgroup.procs").exists()]
        if not there:
            return Groups(why_not=f"no controller '{name}' is mounted at {root}")
        if not os.access(there[0], os.W_OK):
            return Groups(why_not=f"{there[0]} may not be written")
        folders[name] = there[0]
    return Groups(1, folders)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@functools.lru_cache(maxsize=1)
def here() -> Groups:
    """Look on this machine, and try: a group is made, entered by a process and removed."""
    groups = look(ROOT, _read(Path("/proc/self/cgroup")))
    if not groups.version:
        return groups
    sweep(groups)
    try:
        group = Group(groups, Limits())
    except OSError as error:
        return Groups(why_not=f"a group could not be made: {error}")
    try:
        words = [
            "/bin/sh",
            "-c",
            _ENTER,
            "sh",
            *(str(path / "cgroup.procs") for path in group.paths),
        ]
        done = subprocess.run(words, capture_output=True, check=False)
    finally:
        group.close()
    return groups if done.returncode == 0 else Groups(why_not="a process could not enter a group")


class Group:
    """The group of one run.

    Raises:
        OSError: It could not be made.
    """

    def __init__(self, groups: Groups, limits: Limits) -> None:
        """Make the folders, set the limits and open the doors."""
        name = f"{_prefix()}-{os.getpid()}-{_born(os.getpid())}-{next(_counter)}"
        self.version = groups.version
        self.paths = [place / name for place in groups.places]
        self.doors: list[int] = []
        # files in memory count too: the private folder and what is printed
        memory = limits.memory + limits.disk + 2 * limits.output
        try:
            for path in self.paths:
                path.mkdir()
            for controller, place in groups.folders.items():
                for file, value in _settings(controller, groups.version, memory, limits.threads):
                    _write(place / name / file, value)
            for path in self.paths:
                self.doors.append(os.open(path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            self.close()
            raise

    def ran_out(self) -> bool:
        """Return whether the kernel ended a process here for want of memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        for path in self.paths:
            words = _read(path / name).split()
            if "oom_kill" in words and words[words.index("oom_kill") + 1] != "0":
                return True
        return False

    def close(self) -> None:
        """Remove the group, or note it for later while its last process is still ending."""
        for door in self.doors:
            os.close(door)
        self.doors.clear()
        _left.extend(self.paths)
        self.paths = []
        remove_left()


def _settings(controller: str, version: int, memory: int, threads: int) -> list[tuple[str, int]]:
    """File → value; a leading `?` marks what a kernel may lack."""
    if controller == "pids":
        return [("pids.max", threads)]
    if version == 2:
        return [("memory.max", memory), ("?memory.swap.max", 0), ("?memory.oom.group", 1)]
    return [("memory.limit_in_bytes", memory), ("?memory.memsw.limit_in_bytes", memory)]


def _write(path: Path, value: int) -> None:
    optional = path.name.startswith("?")
    try:
        path.with_name(path.name.removeprefix("?")).write_text(str(value))
    except OSError:
        if not optional:
            raise


def remove_left() -> None:
    """Remove the folders of runs that are over."""
    for path in list(_left):
        with contextlib.suppress(OSError):
            path.rmdir()
        if not path.exists() and path in _left:
            _left.remove(path)


def sweep(groups: Groups) -> None:
    """Remove what callers left that are gone; those of other process-id namespaces are not ours."""
    for place in groups.places:
        for path in place.glob(f"{_prefix()}-*"):
            pid, born = path.name.split("-")[-3:-1]
            if _born(int(pid)) != born:
                with contextlib.suppress(OSError):
                    path.rmdir()


def _prefix() -> str:
    return f"{PREFIX}-{os.stat('/proc/self/ns/pid').st_ino}"


def _born(pid: int) -> str:
    """When a process started, in ticks since the machine did; empty if it is gone."""
    return (_read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() or [""] * 20)[19]
