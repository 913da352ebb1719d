"""An engine for other languages: any command under bubblewrap (`bwrap`), where it is installed.

Every run starts a process, so it costs several times what a run in a `Pool` does. There is no
filter of system calls and no quota on files; see `describe`.
"""

import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from typing import Any

from ..errors import UsageError
from .connection import Job, judge, memory_file, read_output
from .inside import wire
from .outcome import Cost, Ended, Limits, Options, Outcome, SandboxError, cores
from .survey import Row, Survey

ROWS = (
    Row("root", True, "only /usr and what it needs, read-only; an empty /tmp"),
    Row("pid", True, "process ids of its own; the whole tree ends with the run"),
    Row("socket", True, "a network of its own without a way out"),
    Row("memory", True, "limited memory of each process"),
    Row("output", True, "output is cut off at its limit, and the run ended"),
    Row("disk", True, "each file is limited"),
    Row("inodes", False, "a program can fill memory with files in its /tmp"),
    Row("seccomp", False, "all system calls are open that an ordinary user has"),
    Row("library", False, "packages installed under /usr can be read"),
)


class Bubblewrap:
    """Runs `command` with the program as a file.

    Args:
        command: Words; `{program}` becomes the program's path inside.
        name: The program's file name.
        binds: Further folders to show read-only, such as a compiler's.
        size: Runs at a time; the number of cores if not given.

    Raises:
        SandboxError: `bwrap` is not installed or does not work here.

    Example:
        `Bubblewrap(("sh", "{program}"), name="program.sh").run("echo $((6 * 7))").text`
    """

    def __init__(
        self,
        command: tuple[str, ...] = ("python3", "-I", "-S", "{program}"),
        *,
        name: str = "program.py",
        binds: tuple[str, ...] = (),
        size: int | None = None,
    ) -> None:
        """Look for the tool and try it."""
        tool = shutil.which("bwrap")
        if tool is None:
            raise SandboxError(
                "bwrap is not installed; install bubblewrap (apt install bubblewrap), or use Pool, "
                "which needs nothing"
            )
        self.tool = tool
        self.command = command
        self.name = name
        self.binds = binds
        self.turns = threading.Semaphore(size or cores())
        done = subprocess.run(
            [*self._walls(), "true"], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise SandboxError(f"bwrap does not work here: {done.stderr.strip()}")

    def _walls(self) -> list[str]:
        words = [self.tool, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
        for path in ("/bin", "/lib", "/lib64", "/sbin"):
            if os.path.islink(path):
                words += ["--symlink", os.readlink(path), path]
            elif os.path.isdir(path):
                words += ["--ro-bind", path, path]
        for path in ("/usr", "/etc/alternatives", *self.binds):
            if os.path.exists(path):
                words += ["--ro-bind", path, path]
        words += ["--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp", "--cap-drop", "ALL"]
        for name, value in (("PATH", "/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")):
            words += ["--setenv", name, value]
        if os.geteuid() == 0:
            words += ["--uid", "61357", "--gid", "61357"]
        return words

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
        if job.options.sockets:
            raise UsageError("Bubblewrap has sockets always, a network never; leave sockets out")
        with self.turns:
            return self._run(job)

    async def arun(self, program: str | bytes, **given: Any) -> Outcome:
        """Run a program in a thread of its own."""
        return await asyncio.to_thread(self.run, program, **given)

    def _run(self, job: Job) -> Outcome:
        laid_out = {**job.files, self.name: job.source()}
        words, held = self._walls(), []
        try:
            for name, content in laid_out.items():
                held.append(memory_file("file", content))
                words += ["--file", str(held[-1]), f"/tmp/{name}"]
            inner = [word.replace("{program}", f"/tmp/{self.name}") for word in self.command]
            return _watch([*words, *_limited(job.limits), *inner, *job.options.argv], job, held)
        finally:
            for fd in held:
                os.close(fd)

    def describe(self) -> Survey:
        """Say what walls stand."""
        return Survey("none", ROWS, why_not="bubblewrap")

    def close(self) -> None:
        """Nothing is kept between runs."""


def _limited(limits: Limits) -> list[str]:
    """Put the limits of memory and time on the program alone, not on bwrap."""
    return [
        "prlimit",
        f"--as={limits.memory}",
        f"--cpu={int(limits.cpu) + 1}",
        f"--fsize={max(limits.output + 1, limits.disk)}",
        f"--nofile={limits.open_files}",
        "--core=0",
        "--",
    ]


def _watch(words: list[str], job: Job, held: list[int]) -> Outcome:
    """Run bwrap with files for its streams, and end it at its time."""
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
        cause = _wait(process.pid, start + limits.wall_seconds)
        if cause != wire.ENDED:
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
    if code > 128:
        code = 128 - code  # bwrap passes a signal on as 128 + its number
    ended, reason = judge(cause, code, flood, cost, limits)
    if ended is Ended.ERROR and stderr.startswith(b"bwrap: "):
        ended, reason = Ended.INFRA, stderr.decode("utf-8", "replace").strip()
    return Outcome(ended, stdout, stderr, code if code >= 0 else None, reason, "bubblewrap", cost)


def _wait(pid: int, deadline: float) -> int:
    """Wait until a process has ended, or the time is over."""
    fd = os.pidfd_open(pid)
    try:
        ready = select.poll()
        ready.register(fd, select.POLLIN)
        left = max(0.0, deadline - time.monotonic())
        return wire.ENDED if ready.poll(left * 1000) else wire.WALL
    finally:
        os.close(fd)
