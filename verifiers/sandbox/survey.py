"""The self-test: which walls stand here, found out by running into them.

A tier is taken only if a program inside it fails at everything that the tier promises to stop.
"""

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UsageError, unknown
from . import cgroups
from .connection import Connection, Job, ServerGone
from .outcome import Ended, Limits, Options, Outcome, SandboxError
from .process import TIERS, Profile, ServerProcess, Tier
from .waiting import drive

PROBE = """
import json, os, sys

def refused(action):
    try:
        action()
    except (OSError, MemoryError, RuntimeError):
        return True
    return False

def names(path):
    try:
        return set(os.listdir(path))
    except OSError:
        return set()

def write(path):
    with open(path, "w") as file:
        file.write("x")

def fill():
    try:
        with open("big", "wb") as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
    finally:
        os.unlink("big")

def fork():
    if os.fork() == 0:
        os._exit(0)

def sock(family):
    import _socket
    _socket.socket(family, _socket.SOCK_DGRAM)

def thread_works():
    import threading
    seen = []
    thread = threading.Thread(target=seen.append, args=(1,))
    thread.start()
    thread.join()
    return seen == [1]

def temporary_works():
    write("a")
    os.unlink("a")
    return True

canary, parent = sys.argv[1:]
print(json.dumps({
    "secret": refused(lambda: open(canary).read()),
    "outside": refused(lambda: write(canary)),
    "proc": not names("/proc"),
    "root": not names("/home") and not names("/etc") and not names("/var"),
    "pid": os.getpid() == 1,
    "signal": refused(lambda: os.kill(int(parent), 0)),
    "fork": refused(fork),
    "exec": refused(lambda: os.execv(sys.executable, [sys.executable, "-c", "1"])),
    "socket": refused(lambda: sock(2)) and refused(lambda: sock(1)),
    "disk": refused(fill),
    "memory": refused(lambda: bytearray(1 << 31)),
    "user": os.geteuid() != 0,
    "threads": thread_works(),
    "folder": temporary_works(),
}))
"""

LIMITS = Limits(cpu=20.0, disk=8 << 20)
MEANING = {
    "secret": ("files of this machine cannot be read", "a program can read files of this machine"),
    "outside": ("files of this machine cannot be written", "a program can change files"),
    "proc": ("no /proc", "a program can see other processes and their memory"),
    "root": ("an empty root, read-only", "names and some files of this machine can be seen"),
    "pid": ("process ids of its own", "process ids of this machine can be seen"),
    "signal": ("no signals to other processes", "a program can end processes of its user"),
    "fork": ("no new processes unless asked for", "a program can start processes"),
    "exec": ("no other programs", "a program can start other programs"),
    "socket": ("no network, no sockets", "a program can use the network"),
    "disk": ("a private folder of limited size", "a program can fill the disk"),
    "memory": ("limited memory", "a program can use up the memory"),
    "user": ("not root", "a program is root"),
    "threads": ("threads work inside", "honest programs with threads fail"),
    "folder": ("temporary files work inside", "honest programs with temporary files fail"),
}
"""Check → (what holds when it passes, what may happen when it does not)."""

PROMISED: dict[Tier, frozenset[str]] = {
    "ns": frozenset(MEANING),
    "flat": frozenset(MEANING) - {"root", "pid"},
    "none": frozenset(),
}
"""What each tier promises; one that does not keep it is not taken."""


@dataclass(frozen=True)
class Row:
    """One wall.

    Example:
        `Row("socket", True, "no network, no sockets")`
    """

    name: str
    active: bool
    meaning: str


@dataclass(frozen=True)
class Survey:
    """What stands around programs here; prints as a table."""

    tier: Tier
    rows: tuple[Row, ...]
    python: str = ""
    why_not: str = ""
    """Why stronger tiers were not taken."""

    def __str__(self) -> str:
        """One line for each wall."""
        lines = [f"tier: {self.tier}" + (f" ({self.why_not})" if self.why_not else "")]
        lines += [
            f"  {'yes' if row.active else 'NO':<5}{row.name:<12}{row.meaning}" for row in self.rows
        ]
        return "\n".join(lines)


@contextlib.contextmanager
def _canary() -> Iterator[str]:
    """A file that anybody may read and write, where a program must not reach it."""
    with tempfile.TemporaryDirectory(prefix="rlvr-canary-") as folder:
        os.chmod(folder, 0o777)
        path = os.path.join(folder, "canary")
        with open(path, "w") as file:
            file.write("canary")
        os.chmod(path, 0o666)
        yield path


@functools.lru_cache(maxsize=16)
def survey(tier: Tier, python: str) -> Survey:
    """Start a server of a tier and let a program run into its walls.

    Raises:
        SandboxError: The tier cannot be had, or does not keep what it promises.
    """
    server = ServerProcess(Profile(tier=tier, python=python))
    try:
        found = _probe(server)
    except ServerGone as error:
        raise SandboxError(f"tier '{tier}': its server ended during the self-test") from error
    finally:
        server.close()
    broken = sorted(name for name in PROMISED[tier] if not found[name])
    if broken:
        raise SandboxError(
            f"tier '{tier}' does not hold: {'; '.join(MEANING[n][1] for n in broken)}"
        )
    rows = [Row(name, ok, MEANING[name][0 if ok else 1]) for name, ok in found.items()]
    rows += [_seccomp_row(tier), _cgroup_row(tier)]
    rows.append(
        Row(
            "landlock",
            tier == "flat",
            f"version {server.ready['landlock']} of Landlock "
            + ("encloses each run" if tier == "flat" else "is not needed in this tier"),
        )
    )
    return Survey(tier, tuple(rows), python)


def _seccomp_row(tier: Tier) -> Row:
    on = tier != "none"
    meaning = "system calls by an allow-list" if on else "all system calls are open"
    return Row("seccomp", on, meaning)


def _cgroup_row(tier: Tier) -> Row:
    groups = cgroups.here()
    if tier == "ns" and groups.version:
        meaning = f"version {groups.version}; a run with processes has one limit for all of them"
        return Row("cgroup", True, meaning)
    if tier == "ns":
        why = f"with processes, each has the limit of memory for itself: {groups.why_not}"
    else:
        why = "not needed: no processes in this tier" if tier == "flat" else "no limits at all"
    return Row("cgroup", False, why)


def _probe(server: ServerProcess) -> dict[str, bool]:
    """Run the probe and read what it found.

    Twice, with a program between that leaves everything as it was: namespaces are made for the
    first, and what the second runs in was kept.
    """
    if server.profile.tier == "none":
        return dict.fromkeys(MEANING, False) | {"threads": True, "folder": True}
    connection = Connection(server.connect(), server.profile.tier)
    found = dict.fromkeys(MEANING, True)
    try:
        with _canary() as path:
            options = Options(argv=(path, str(os.getpid())))
            for program in (PROBE, "print('{}')", PROBE):
                outcome = _run(connection, Job(program=program, options=options, limits=LIMITS))
                held = json.loads(outcome.stdout)
                found |= {name: found[name] and bool(value) for name, value in held.items()}
    finally:
        connection.close()
    return found


def _run(connection: Connection, job: Job) -> Outcome:
    started = connection.start(job)
    try:
        outcome = drive(started.wait())
    finally:
        started.close()
    if outcome.ended is not Ended.OK:
        raise SandboxError(
            f"tier '{connection.tier}': the self-test ended with '{outcome.ended}' "
            f"{outcome.reason}: {outcome.errors[-500:]}"
        )
    return outcome


def choose(python: str, tier: Tier | None, require: Tier | None, unsafe: bool) -> Survey:
    """Take the strongest tier that works, or the one asked for; never a weaker one in silence."""
    for name, given in (("tier", tier), ("require", require)):
        if given is not None and given not in TIERS:
            raise unknown(name, str(given), TIERS)
    if unsafe:
        if require not in (None, "none") or tier not in (None, "none"):
            raise UsageError("unsafe_no_isolation=True contradicts tier or require; give one")
        return survey("none", python)
    if tier == "none" or require == "none":
        raise UsageError("no isolation is had by unsafe_no_isolation=True alone")
    wanted: tuple[Tier, ...] = (tier,) if tier else ("ns", "flat")
    if require is not None:
        wanted = tuple(name for name in wanted if TIERS.index(name) <= TIERS.index(require))
        if not wanted:
            raise UsageError(f"tier='{tier}' is weaker than require='{require}'")
    failures = []
    for name in wanted:
        try:
            found = survey(name, python)
        except SandboxError as error:
            failures.append(str(error))
            continue
        return Survey(found.tier, found.rows, python, "; ".join(failures))
    raise SandboxError(
        f"no sandbox here: {'; '.join(failures)}. Run where user namespaces or Landlock are "
        "allowed, use a remote sandbox, or, for programs you trust, unsafe_no_isolation=True"
    )
