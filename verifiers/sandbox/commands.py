"""Engines that start a tool of the system for each run: what they share.

Every run starts processes, so it costs several times what a run in a `Pool` does; they are for what
a `Pool` does not do, other languages and a kernel of their own.
"""

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .connection import KILLED, Job, judge, memory_file, read_output
from .inside import wire
from .outcome import Cost, Ended, Limits, Options, Outcome, SandboxError, cores
from .survey import Survey

LOOK = 0.02
"""Seconds between two looks at how much was printed."""
GIVEN = "/given"
"""Where the program and its files are shown, read-only, to be copied to a folder of their own."""
START = f'cp -R {GIVEN}/. /tmp/ && exec "$@"'


class CommandEngine:
    """Runs one command for each program, so many at a time."""

    kind: str
    """The `tier` of its outcomes."""
    tool: str
    """The path of what it starts."""
    survey: Survey

    def __init__(self, size: int | None) -> None:
        """Let `size` programs run at a time, or one for each core."""
        self.turns = threading.Semaphore(size or cores())

    def run(
        self,
        program: str | bytes,
        *,
        stdin: bytes = b"",
        files: dict[str, bytes] | None = None,
        limits: Limits | None = None,
        options: Options | None = None,
        share: str = "",
    ) -> Outcome:
        """Run a program to its end, first come, first served, whatever the `share`."""
        job = Job.of(program, stdin, files, limits, options)
        if job.options.sockets or job.options.preload:
            raise UsageError(
                f"{type(self).__name__} has sockets always, a network never, and preloads nothing; "
                "leave sockets and preload out"
            )
        with self.turns:
            outcome = self._run(job)
            return self._killed_again(job) if outcome.reason == KILLED else outcome

    def _killed_again(self, job: Job) -> Outcome:
        """Run a program anew that was killed, or did as if: a tool shows both as status 137."""
        outcome = self._run(job)
        if outcome.reason != KILLED:
            return outcome
        reason = "it was killed, or left with status 137, twice: for its memory, or by itself"
        return replace(outcome, ended=Ended.CRASH, reason=reason)

    async def arun(self, program: str | bytes, **given: Any) -> Outcome:
        """Run a program in a thread of its own."""
        return await asyncio.to_thread(self.run, program, **given)

    def _run(self, job: Job) -> Outcome:
        raise NotImplementedError

    def describe(self) -> Survey:
        """Say what walls stand."""
        return self.survey

    def close(self) -> None:
        """Nothing is kept between runs."""


@dataclass(frozen=True)
class Ending:
    """What is known once a command has ended."""

    cause: int
    code: int
    stdout: bytes
    stderr: bytes
    flood: bool
    cost: Cost

    def outcome(self, limits: Limits, kind: str) -> Outcome:
        """Name how the program ended; a status over 128 stands for a signal."""
        code = 128 - self.code if self.code > 128 else self.code
        ended, reason = judge(self.cause, code, self.flood, self.cost, limits)
        exit_status = code if code >= 0 else None
        return Outcome(ended, self.stdout, self.stderr, exit_status, reason, kind, self.cost)

    def failure(self, reason: str, kind: str) -> Outcome:
        """The tool's own failure."""
        return Outcome(Ended.INFRA, reason=reason.strip() or "it failed", tier=kind)


def find_tool(name: str, how: str) -> str:
    """Return the path of a tool.

    Raises:
        SandboxError: It is not installed; says how it is had.
    """
    found = shutil.which(name)
    if found is None:
        raise SandboxError(
            f"{name} is not installed; install {how}, or use Pool, which needs nothing"
        )
    return found


def asked(words: Sequence[str], seconds: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """Run a tool that answers at once."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"{words[0]} does not answer: {error}") from error


@contextlib.contextmanager
def laid_out(job: Job, name: str) -> Iterator[str]:
    """Write the program and its files to a folder that any user may read, for a while."""
    with tempfile.TemporaryDirectory(prefix="rlvr-sandbox-") as folder:
        os.chmod(folder, 0o755)
        for path, content in {**job.files, name: job.source()}.items():
            place = Path(folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        yield folder


def watch(words: Sequence[str], job: Job, held: Sequence[int] = ()) -> Ending:
    """Run a command with files for its streams; end it at its time, or when it prints too much."""
    limits = job.limits
    streams = [memory_file("stdin", job.stdin), memory_file("stdout"), memory_file("stderr")]
    start = time.monotonic()
    try:
        process = subprocess.Popen(
            words,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            pass_fds=held,
            start_new_session=True,
        )
        cause = _wait(process.pid, start + limits.wall_seconds, streams[1:], limits.output)
        if cause is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        cost = Cost(
            usage.ru_utime + usage.ru_stime, time.monotonic() - start, usage.ru_maxrss * 1024
        )
        stdout, stderr, flood = read_output(streams[1], streams[2], limits.output)
    finally:
        for fd in streams:
            os.close(fd)
    return Ending(cause or wire.ENDED, code, stdout, stderr, flood, cost)


def _wait(pid: int, deadline: float, printed: Sequence[int], most: int) -> int | None:
    """Wait for the end; returns why it must be ended, `None` if it ended by itself."""
    fd = os.pidfd_open(pid)
    try:
        ready = select.poll()
        ready.register(fd, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if ready.poll(1000 * max(0.0, min(left, LOOK))):
                return None
            if any(os.fstat(stream).st_size > most for stream in printed):
                return wire.ENDED
            if left <= 0:
                return wire.WALL
    finally:
        os.close(fd)
