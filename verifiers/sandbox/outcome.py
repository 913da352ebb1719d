"""What a run is given (`Limits`, `Options`) and what comes back (`Outcome`)."""

import os
from dataclasses import dataclass, field
from enum import StrEnum

from ..errors import UsageError, WorkerError

MIB = 1 << 20


class SandboxError(WorkerError):
    """The sandbox's fault: a tier that cannot be had, a server that does not start."""


class Ended(StrEnum):
    """How a run ended. Only a label: whether the answer is right, its output decides."""

    OK = "ok"
    """It left with exit status 0."""
    ERROR = "error"
    """An exception nobody caught, or another exit status."""
    TIMEOUT = "timeout"
    """Over its CPU or wall time, waits for a core not counted."""
    MEMORY = "memory"
    """It ended with MemoryError, or was killed near its limit of memory."""
    OUTPUT = "output"
    """It printed more than `Limits.output`; what was kept is its beginning."""
    CRASH = "crash"
    """A signal: a segmentation fault, an abort, a forbidden way into the kernel."""
    STOPPED = "stopped"
    """The caller ended it: a channel that was closed before its program ended."""
    INFRA = "infra"
    """The sandbox failed, or the machine was too loaded, again and again: says nothing about the
    program."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may use. Bytes and seconds.

    Example:
        >>> Limits(cpu=1.5).wall_seconds
        9.5
    """

    cpu: float = 5.0
    """Seconds of CPU, all threads together."""
    wall: float | None = None
    """Seconds from start to end, less what was spent waiting for a core: what a program may sleep.
    Not given: three times `cpu`, and 5 s."""
    memory: int = 1024 * MIB
    """Address space of a process."""
    disk: int = 64 * MIB
    """Its private folder, all files together (`flat`: each file)."""
    inodes: int = 4096
    """Files and folders in the private folder (`ns` only)."""
    output: int = 16 * MIB
    """Bytes of standard output, and as many of standard error."""
    threads: int = 128
    """Threads, and with `processes` processes and threads together (`ns` only)."""
    open_files: int = 256
    """Open descriptors per process."""
    stack: int = 64 * MIB
    """Stack of the main thread."""

    def __post_init__(self) -> None:
        """Refuse what no run could work under."""
        least = {
            "cpu": 0.001,
            "memory": 48 * MIB,
            "disk": 4096,
            "inodes": 2,
            "output": 0,
            "threads": 1,
            "open_files": 8,
            "stack": 256 << 10,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value:
                raise UsageError(f"limit {name}={value!r}; expected a number of at least {low}")
            if value >= 1 << 62 or (name != "cpu" and not isinstance(value, int)):
                raise UsageError(f"limit {name}={value!r}; expected a whole number below 2**62")
        if self.wall is not None and not 0.001 <= self.wall < 1e9:
            raise UsageError(f"limit wall={self.wall!r}; expected seconds, 0.001 or more")

    @property
    def wall_seconds(self) -> float:
        """The wall time: as given, or three times the CPU time and five seconds."""
        return self.wall if self.wall is not None else 3 * self.cpu + 5

    @property
    def patience(self) -> float:
        """Seconds after which a run that a loaded machine starves is given up and redone."""
        return 20 * max(self.wall_seconds, self.cpu) + 60


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the interpreter is started."""

    argv: tuple[str, ...] = ()
    """Arguments after the program's name."""
    name: str = "program.py"
    """The program's name in tracebacks and `sys.argv[0]`."""
    processes: bool = False
    """Allow fork and exec of the interpreter (`ns` only)."""
    sockets: bool = False
    """Allow sockets, in a network of the run's own with only a loopback (`ns` only)."""
    preload: tuple[str, ...] = ()
    """Modules that are to be there before the program starts, of the standard library or of allowed
    packages: they are imported once, in a server that is kept for later programs that ask for the
    same."""

    def __post_init__(self) -> None:
        """Refuse what is no name of a module."""
        for name in self.preload:
            if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
                raise UsageError(f"preload {name!r}; expected the name of a module")
        if not isinstance(self.preload, tuple):
            raise UsageError(f"preload={self.preload!r}; expected a tuple of names")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run used."""

    cpu: float = 0.0
    """Seconds on a core, user and system."""
    wall: float = 0.0
    """Seconds from fork to end."""
    memory: int = 0
    """Bytes resident at the peak, the interpreter's own included."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run.

    Example:
        `Outcome(ended=Ended.OK, stdout=b"4\\n", tier="ns")`
    """

    ended: Ended
    """How it ended."""
    stdout: bytes = b""
    """What it printed, up to `Limits.output`."""
    stderr: bytes = b""
    """The end of what it printed to standard error, 64 KiB at most."""
    exit: int | None = None
    """Exit status, `None` if a signal ended it."""
    reason: str = ""
    """One sentence on anything but `ok`."""
    tier: str = ""
    """The walls that stood around it."""
    cost: Cost = field(default=Cost(), compare=False)
    """What it used."""

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 become U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def errors(self) -> str:
        """The end of standard error as text."""
        return self.stderr.decode("utf-8", "replace")


def check_files(files: dict[str, bytes]) -> None:
    """Refuse names that are not plain relative paths."""
    for name, content in files.items():
        parts = name.split("/") if isinstance(name, str) else [".."]
        if any(part in ("", ".", "..") for part in parts) or "\0" in name:
            raise UsageError(f"file name {name!r}; expected a relative path without '..'")
        if not isinstance(content, bytes):
            raise UsageError(
                f"file {name!r} holds {type(content).__name__}; expected bytes (text.encode())"
            )


def ended_by_signal(number: int) -> str:
    """Name a signal.

    Example:
        >>> ended_by_signal(11)
        'ended by SIGSEGV'
    """
    import signal

    try:
        return f"ended by {signal.Signals(number).name}"
    except ValueError:
        return f"ended by signal {number}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
