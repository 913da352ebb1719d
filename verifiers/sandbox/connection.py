"""A caller's connection to a server: start runs, hear how they end."""

import collections
import contextlib
import marshal
import os
import re
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import UsageError
from . import cgroups
from .inside import wire
from .outcome import (
    Cost,
    Ended,
    Limits,
    Options,
    Outcome,
    SandboxError,
    check_files,
    ended_by_signal,
)
from .waiting import IN, Steps, Wait

STDERR_KEPT = 64 << 10
"""Bytes of the end of standard error that an outcome holds."""
_POOLS_OF_THREADS = re.compile(rb"\bThreadPool\b|\bmultiprocessing[. \t]+(?:import[ \t]+)?dummy\b")
"""What makes locks in /dev/shm, which is a folder of the run's own where there is a need for it."""
FLAT_THREADS = 1 << 14
"""Threads in the `flat` tier, where the kernel counts all of the user's: so many that a trainer's
own are no matter, and half of what a machine has by default.
"""
KILLED = "it was killed from outside"
"""Why a run failed that the kernel ended for reasons of its own."""
GRACE = 60.0
"""Seconds that a server may be late with its word on a run before it is taken to hang."""


class ServerGone(SandboxError):
    """The server ended or hangs: says nothing about the run, which `Pool` redoes."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A program and what it is given."""

    program: str | bytes
    stdin: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        """Refuse wrong types here, where the caller can be named."""
        if not isinstance(self.program, (str, bytes)):
            raise UsageError(f"program is {type(self.program).__name__}; expected str or bytes")
        if not isinstance(self.stdin, bytes):
            raise UsageError(
                f"stdin is {type(self.stdin).__name__}; expected bytes (text.encode())"
            )
        check_files(self.files)

    @classmethod
    def of(
        cls,
        program: str | bytes,
        stdin: bytes,
        files: dict[str, bytes] | None,
        limits: Limits | None,
        options: Options | None,
    ) -> "Job":
        """Return the job of an engine's `run`, with the defaults for what was left out."""
        return cls(
            program=program,
            stdin=stdin,
            files=files or {},
            limits=limits or Limits(),
            options=options or Options(),
        )

    def source(self) -> bytes:
        """The program as bytes; half characters stay for the compiler to refuse."""
        if isinstance(self.program, bytes):
            return self.program
        return self.program.encode("utf-8", "surrogatepass")


class Usage(NamedTuple):
    """What a run has used so far, in seconds."""

    cpu: float
    wall: float
    queued: float
    """Ready to run and waiting for a core."""


def payload(job: Job) -> bytes:
    """Encode what the run reads first."""
    source, files = job.source(), job.files
    if b"/dev/stdin" in source:
        files = {".stdin": job.stdin, **files}
    if _POOLS_OF_THREADS.search(source):
        files = {".shm/.keep": b"", **files}
    argv = [job.options.name, *job.options.argv]
    parts = {"program": source, "files": files, "argv": argv, "name": job.options.name}
    return marshal.dumps(parts, 2)


def memory_file(name: str, content: bytes = b"") -> int:
    """Make an anonymous file and put its position at the start."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    if content:
        os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read_output(stdout: int, stderr: int, most: int) -> tuple[bytes, bytes, bool]:
    """Read the beginning of one file and the end of the other, and whether either is too long."""
    size, errors = os.fstat(stdout).st_size, os.fstat(stderr).st_size
    kept = os.pread(stdout, min(size, most), 0)
    tail = os.pread(stderr, STDERR_KEPT, max(0, errors - STDERR_KEPT))
    return kept, tail, max(size, errors) > most


class Started:
    """A run under way and the descriptors of its output."""

    group: "cgroups.Group | None" = None
    """What holds the processes of the run together, where there may be several."""

    def __init__(self, connection: "Connection", job: Job, number: int) -> None:
        """Make the files that the run prints to."""
        self.connection = connection
        self.job = job
        self.number = number
        self.stdout = memory_file("stdout")
        self.stderr = memory_file("stderr")
        self.deadline = time.monotonic() + job.limits.patience + GRACE

    def has_ended(self, seconds: float) -> "Steps[bool]":
        """Wait a while for the word that it has ended."""
        deadline = time.monotonic() + seconds
        return (yield from self.connection.has_heard(wire.DONE, self.number, deadline))

    def wait(self) -> "Steps[Outcome]":
        """Wait for the end."""
        answer = yield from self.connection.hear(wire.DONE, self.number, self.deadline)
        return self._outcome(answer)

    def close(self) -> None:
        """Let the files go."""
        for fd in (self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = -1
        if self.group is not None:
            self.group.close()

    def _outcome(self, answer: "tuple[int | float, ...]") -> Outcome:
        """Read the files and name how the run ended."""
        _, _, cause, status, cpu, wall, _, memory = answer
        limits = self.job.limits
        cost = Cost(float(cpu), float(wall), int(memory))
        stdout, stderr, flood = read_output(self.stdout, self.stderr, limits.output)
        code = os.waitstatus_to_exitcode(int(status))
        ended, reason = judge(int(cause), code, flood, cost, limits)
        if code == -9 and self.group is not None and self.group.ran_out():
            ended, reason = Ended.MEMORY, "its processes together needed more memory than allowed"
        if cause == wire.BROKEN:
            reason = f"its walls could not be raised: {stderr.decode('utf-8', 'replace')}"
        tier = self.connection.tier
        return Outcome(ended, stdout, stderr, code if code >= 0 else None, reason, tier, cost)


def judge(cause: int, code: int, flood: bool, cost: Cost, limits: Limits) -> tuple[Ended, str]:
    """Name how a run ended, from what the server and the kernel say.

    Example:
        >>> judge(wire.ENDED, 3, False, Cost(), Limits())
        (<Ended.ERROR: 'error'>, 'exit status 3')
    """
    if cause == wire.CPU or (code < 0 and cost.cpu >= limits.cpu):
        return Ended.TIMEOUT, f"it used more than {limits.cpu:g} s of CPU time"
    if cause == wire.WALL:
        return Ended.TIMEOUT, f"it took longer than {limits.wall_seconds:g} s"
    if cause == wire.STARVED:
        return Ended.INFRA, f"it got too little of a core in {cost.wall:.0f} s"
    if cause in (wire.KILLED, wire.BROKEN):
        return (Ended.STOPPED if cause == wire.KILLED else Ended.INFRA), "ended by its caller"
    if flood:
        return Ended.OUTPUT, f"it printed more than {limits.output} bytes"
    if code == wire.MEMORY_EXIT or (code == -9 and 2 * cost.memory > limits.memory):
        return Ended.MEMORY, f"it needed more than {limits.memory} bytes of memory"
    if code == -9:
        return Ended.INFRA, KILLED
    if code < 0:
        return Ended.CRASH, ended_by_signal(-code)
    return (Ended.OK, "") if code == 0 else (Ended.ERROR, f"exit status {code}")


class Connection:
    """A socket to one server, used by one caller at a time."""

    def __init__(self, near: socket.socket, tier: str) -> None:
        """Take the socket over."""
        self.socket = near
        self.socket.setblocking(False)
        self.owner = os.getpid()
        self.tier = tier
        self.number = 0
        self.heard: collections.defaultdict[tuple[int, int], list[tuple[int | float, ...]]]
        self.heard = collections.defaultdict(list)

    def start(self, job: Job, channel: socket.socket | None = None) -> Started:
        """Hand a job to the server; returns at once."""
        self.number += 1
        started = Started(self, job, self.number)
        flags = wire.PROCESSES * job.options.processes | wire.SOCKETS * job.options.sockets
        fds = [memory_file("program", payload(job)), started.stdout, started.stderr]
        mine = [fds[0]]
        if job.stdin:
            flags |= wire.STDIN
            mine.append(memory_file("stdin", job.stdin))
            fds.append(mine[-1])
        if channel is not None:
            flags |= wire.CHANNEL
            fds.append(channel.fileno())
        try:
            if job.options.processes and self.tier == "ns":
                started.group = _group(job.limits)
                for at, door in enumerate(started.group.doors if started.group else ()):
                    flags |= wire.GROUPS[at]
                    fds.append(door)
            message = request(self.number, flags, job.limits, self.tier)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"={len(fds)}i", *fds))
            self.socket.sendmsg([message], [rights], socket.MSG_NOSIGNAL)
        except OSError as error:
            started.close()
            raise ServerGone(str(error)) from error
        finally:
            for fd in mine:
                os.close(fd)
        return started

    def order(self, kind: int, number: int) -> None:
        """Send a short message about a run."""
        try:
            self.socket.send(wire.HEAD.pack(kind, number), socket.MSG_NOSIGNAL)
        except OSError as error:
            raise ServerGone(str(error)) from error

    def hear(self, kind: int, number: int, deadline: float) -> "Steps[tuple[int | float, ...]]":
        """Wait for a message about a run; what comes for others is kept for them."""
        while not self.heard.get((kind, number)):
            yield from self._listen(deadline)
        return self.heard.pop((kind, number))[0]

    def has_heard(self, kind: int, number: int, deadline: float) -> "Steps[bool]":
        """Wait for a message about a run until a deadline, and leave it to be heard."""
        while not self.heard.get((kind, number)):
            if not (yield Wait(self.socket.fileno(), IN, deadline)):
                return False
            self._take_in()
        return True

    def _listen(self, deadline: float) -> "Steps[None]":
        """Take in one message."""
        if not (yield Wait(self.socket.fileno(), IN, deadline)):
            raise ServerGone("it is silent")
        self._take_in()

    def _take_in(self) -> None:
        try:
            data = self.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            raise ServerGone(str(error)) from error
        if not data:
            raise ServerGone("it closed the connection")
        answer = wire.ANSWER.unpack(data)
        self.heard[answer[0], answer[1]].append(answer)

    def usage(self, number: int) -> "Steps[Usage | None]":
        """Ask what a run has used; `None` if it has ended."""
        if self.heard.get((wire.DONE, number)):
            return None
        self.order(wire.LOOK, number)
        deadline = time.monotonic() + GRACE
        while not self.heard.get((wire.USAGE, number)):
            if self.heard.get((wire.DONE, number)):
                return None
            yield from self._listen(deadline)
        answer = self.heard.pop((wire.USAGE, number))[0]
        return Usage(float(answer[4]), float(answer[5]), float(answer[6]))

    def close(self) -> None:
        """Let go; the server ends what still runs, a thread that waits here wakes up."""
        if os.getpid() == self.owner:  # a forked child would end its parent's runs
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def _group(limits: Limits) -> "cgroups.Group | None":
    """Make a control group where that can be done."""
    groups = cgroups.here()
    return cgroups.Group(groups, limits) if groups.version else None


def request(number: int, flags: int, limits: Limits, tier: str) -> bytes:
    """Encode the limits of a run; one with a channel waits for its caller, who bounds the waits."""
    kept_open = bool(flags & wire.CHANNEL)
    return wire.REQUEST.pack(
        wire.RUN,
        number,
        flags,
        limits.cpu,
        limits.patience if kept_open else limits.wall_seconds,
        limits.patience,
        limits.memory,
        limits.disk,
        max(limits.output + 1, limits.disk),
        limits.stack,
        limits.inodes,
        {"ns": limits.threads, "flat": FLAT_THREADS}.get(tier, 0xFFFFFFFF),
        limits.open_files,
    )
