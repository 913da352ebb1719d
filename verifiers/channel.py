"""One worker process as its parent sees it: start, send, wait up to a deadline, kill.

All pipes are non-blocking here: a worker that stops reading cannot hold up the parent.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from typing import Any

from . import worker as program
from .errors import WorkerError
from .starvation import Usage, blame, usage
from .worker import HEADER, MAX_REPLY, SETTINGS, TARGET

START_SECONDS = 120.0
"""A start with its imports may take this long; it does not count against any call."""
PROBE_SECONDS = 0.005
"""Calls shorter than this are not looked at in /proc."""
RECHECK = 0.25
"""Share of the limit between two looks at a starved worker."""


class Crashed(Exception):
    """The worker ended, or broke the protocol, before it replied."""


class Expired(Exception):
    """The work used up its limit."""


class Starved(Exception):
    """The work did not get its time, because the machine is loaded."""


class Worker:
    """A process that serves one target; used by one thread at a time."""

    def __init__(self, memory: int | None) -> None:
        """Start the process; `load` makes it ready."""
        self.owner = os.getpid()
        kept, self.lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", program.__file__, str(kept)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(kept,),
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError, TypeError) as error:
            os.close(self.lifeline)
            raise WorkerError(
                f"cannot start a worker process with {sys.executable!r}: {error}"
            ) from error
        finally:
            os.close(kept)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests = self.process.stdin.fileno()
        self.replies = self.process.stdout.fileno()
        os.set_blocking(self.requests, False)
        os.set_blocking(self.replies, False)
        self.readable = select.poll()
        self.readable.register(self.replies, select.POLLIN)
        self.closed = False
        WORKERS.add(self)
        settings = {"path": [place or os.getcwd() for place in sys.path], "memory": memory}
        self.send(SETTINGS, json.dumps(settings).encode(), time.monotonic() + START_SECONDS)

    def load(self, target: bytes) -> dict[str, Any]:
        """Send the pickled target and return the reply: ready, or what is missing."""
        deadline = time.monotonic() + START_SECONDS
        self.send(TARGET, target, deadline)
        reply = self.receive(deadline)
        if reply is None:
            raise WorkerError(f"a worker process was not ready after {START_SECONDS:g} s")
        return reply

    def call(self, kind: int, data: bytes, limit: float, allowance: float) -> dict[str, Any]:
        """Make one call.

        Args:
            kind: `JSON_CALL` or `PICKLED_CALL`.
            data: The encoded call.
            limit: Seconds that the work may take.
            allowance: Seconds of waiting while the work is starved, at least `limit`.

        Raises:
            Expired: The work used up its limit.
            Starved: The work did not get its time within the allowance.
            Crashed: The process ended, or its reply is none.
        """
        start = time.monotonic()
        self.send(kind, data, start + allowance)
        reply = self.receive(start + min(PROBE_SECONDS, limit))
        before = None if reply else usage(self.process.pid)
        deadline = start + limit
        while reply is None:
            reply = self.receive(deadline)
            if reply is None:
                self._judge(time.monotonic() - start, limit, allowance, before)
                deadline = time.monotonic() + RECHECK * limit
        return reply

    def _judge(self, wall: float, limit: float, allowance: float, before: Usage | None) -> None:
        """Raise if the work is at fault or the patience with the load is over."""
        cause = blame(wall, limit, before, usage(self.process.pid))
        if cause == "work":
            raise Expired(f"the check took longer than {limit:g} s")
        if cause == "stopped" or wall >= allowance:
            raise Starved(f"the check got too little of a processor in {wall:.1f} s")

    def send(self, kind: int, data: bytes, deadline: float) -> None:
        """Write a frame, waiting for the process to take it in."""
        frame = memoryview(HEADER.pack(kind, len(data)) + data)
        writable: select.poll | None = None
        while frame:
            try:
                frame = frame[os.write(self.requests, frame) :]
            except BlockingIOError:
                if writable is None:
                    writable = select.poll()
                    writable.register(self.requests, select.POLLOUT)
                left = deadline - time.monotonic()
                if left <= 0 or not writable.poll(left * 1000):
                    raise Starved("the worker did not take in the call") from None
            except OSError:
                raise Crashed(self.obituary()) from None

    def receive(self, deadline: float) -> dict[str, Any] | None:
        """Return the next reply, `None` at the deadline; a part that came is kept."""
        while True:
            left = deadline - time.monotonic()
            if not self.readable.poll(max(0.0, left * 1000)):
                return None
            try:
                data = os.read(self.replies, 1 << 16)
            except BlockingIOError:
                continue
            if not data:
                raise Crashed(self.obituary())
            self.buffer += data
            reply = self._frame()
            if reply is not None:
                return reply

    buffer = b""

    def _frame(self) -> dict[str, Any] | None:
        """Return the reply that the buffer holds in full, if it does."""
        if len(self.buffer) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self.buffer)
        if kind != program.REPLY or length > MAX_REPLY:
            raise Crashed("the worker broke the protocol")
        if len(self.buffer) < HEADER.size + length:
            return None
        body, self.buffer = self.buffer[HEADER.size : HEADER.size + length], b""
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            raise Crashed("the worker's reply is not JSON") from None
        if not isinstance(reply, dict):
            raise Crashed("the worker's reply is not an object")
        return reply

    def is_idle(self) -> bool:
        """Return whether the process is there and silent."""
        return not self.closed and not self.readable.poll(0)

    def obituary(self) -> str:
        """Say how the process ended, leaving it to be reaped by `kill`."""
        for _ in range(50):
            with contextlib.suppress(OSError, AttributeError):
                end = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
                if end is not None and end.si_code == os.CLD_EXITED:
                    return f"the worker process exited with status {end.si_status}"
                if end is not None:
                    name = signal.Signals(end.si_status).name
                    return f"the worker process was ended by {name}"
            time.sleep(0.01)
        return "the worker process closed its pipes"

    def kill(self) -> None:
        """End the process and all of its group; in a forked child only let go of it."""
        if self.closed:
            return
        self.closed = True
        if os.getpid() == self.owner:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        else:
            self.process.returncode = 0  # another process's child: nothing to wait for
        with contextlib.suppress(OSError):
            os.close(self.lifeline)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


WORKERS: "weakref.WeakSet[Worker]" = weakref.WeakSet()
"""Every worker of this process, so that a forked child can let go of all of them."""
