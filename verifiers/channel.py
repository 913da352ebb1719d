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
from .worker import ENDING, HEADER, MAX_REPLY, SETTINGS, TARGET

START_SECONDS = 120.0
"""A start with its imports may take this long; it does not count against any call."""
PROBE_SECONDS = 0.005
"""Calls shorter than this are not looked at in /proc."""
RENEW_SECONDS = 10.0
"""A copy that takes over from a killed one is there within this time, or not at all."""
RECHECK = 0.25
"""Share of the limit between two looks at a starved worker, at most."""
RECHECK_SECONDS = 0.005
"""Seconds between two looks, at least."""


class Crashed(Exception):
    """The worker ended, or broke the protocol, before it replied."""


class Expired(Exception):
    """The work used up its limit."""


class Starved(Exception):
    """The work did not get its time, because the machine is loaded."""


class Worker:
    """A process that serves one target; used by one thread at a time."""

    def __init__(self, memory: int | None, *, copies: bool = False) -> None:
        """Start the process; `load` makes it ready.

        Args:
            memory: Bytes of address space; `None` sets no limit.
            copies: Whether copies of the process serve, so that `renew` takes milliseconds.
        """
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
        self.renewing = False
        self.serving = self.process.pid
        self.token = os.urandom(16) if copies and sys.platform == "linux" else b""
        WORKERS.add(self)
        settings = {
            "path": [place or os.getcwd() for place in sys.path],
            "memory": memory,
            "token": self.token.hex(),
        }
        self.send(SETTINGS, json.dumps(settings).encode(), time.monotonic() + START_SECONDS)

    def load(self, target: bytes) -> dict[str, Any]:
        """Send the pickled target and return the reply: ready, or what is missing."""
        deadline = time.monotonic() + START_SECONDS
        self.send(TARGET, target, deadline)
        reply = self.receive(deadline)
        if reply is None:
            raise WorkerError(f"a worker process was not ready after {START_SECONDS:g} s")
        self.serving = reply.get("pid", self.serving)
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
        self.starved = 0.0
        start = time.monotonic()
        self.send(kind, data, start + allowance)
        reply = self.receive(start + min(PROBE_SECONDS, limit))
        before = None if reply else usage(self.serving)
        deadline = start + limit
        while reply is None:
            reply = self.receive(deadline)
            if reply is None:
                wait = self._judge(time.monotonic() - start, limit, allowance, before)
                deadline = time.monotonic() + wait
        return reply

    def _judge(self, wall: float, limit: float, allowance: float, before: Usage | None) -> float:
        """Raise if the work is at fault or the patience with the load is over.

        Returns:
            Seconds after which to look again: what the work still has of its limit.
        """
        now = usage(self.serving)
        cause = blame(wall, limit, before, now)
        self.starved = now.queued - before.queued if now and before else 0.0
        if cause == "work":
            raise Expired(f"the check took longer than {limit:g} s")
        if cause == "stopped" or wall >= allowance:
            raise Starved(f"the check got too little of a processor in {wall:.1f} s")
        left = limit - wall + self.starved
        return min(max(left, RECHECK_SECONDS), RECHECK * limit) if left > 0 else RECHECK * limit

    def send(self, kind: int, data: bytes, deadline: float) -> None:
        """Write a frame, waiting for the process to take it in."""
        self.sent = False
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
        self.sent = True

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
            if self.token and self.token in self.buffer:
                raise Crashed(self.obituary())
            reply = self._frame()
            if reply is not None:
                return reply

    buffer = b""
    starved = 0.0
    """Seconds that a call over its limit waited for a processor."""
    sent = False
    """Whether the last frame was written in full: its rest would be read as another one."""

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

    def renew(self) -> bool:
        """Kill the copy that serves; return whether another takes over, which `renewed` awaits."""
        here = not self.closed and os.getpid() == self.owner
        if not (self.token and self.sent and here and self.process.poll() is None):
            return False
        self.renewing = True
        if self.token not in self.buffer:  # else it has ended by itself
            with contextlib.suppress(OSError):
                os.killpg(self.serving, signal.SIGKILL)
        return True

    def renewed(self) -> bool:
        """Wait for the copy that takes over; return whether there is one."""
        deadline = time.monotonic() + RENEW_SECONDS
        length = len(self.token) + ENDING.size
        while (at := self.buffer.find(self.token)) < 0 or len(self.buffer) < at + length:
            left = deadline - time.monotonic()
            if left <= 0 or not self.readable.poll(left * 1000):
                return False
            data = os.read(self.replies, 1 << 16)
            if not data:
                return False
            self.buffer += data
        self.buffer = self.buffer[at + length :]
        try:
            reply = self._frame() or self.receive(deadline)
        except Crashed:
            return False
        if reply is None or "pid" not in reply:
            return False
        self.serving, self.renewing = reply["pid"], False
        return True

    def is_idle(self) -> bool:
        """Return whether the process is there and silent."""
        return not self.closed and not self.readable.poll(0)

    def obituary(self) -> str:
        """Say how the process ended, leaving it to be reaped by `kill`."""
        _, found, ending = self.buffer.partition(self.token or b"\0")
        if self.token and found and len(ending) >= ENDING.size:
            (status,) = ENDING.unpack_from(ending)
            return _ended(os.WIFEXITED(status), os.waitstatus_to_exitcode(status))
        for _ in range(50):
            with contextlib.suppress(OSError, AttributeError):
                end = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
                if end is not None:
                    return _ended(end.si_code == os.CLD_EXITED, end.si_status)
            time.sleep(0.01)
        return "the worker process closed its pipes"

    def abort(self) -> None:
        """End the process from another thread; the thread that uses it sees that and cleans up."""
        if not self.closed and os.getpid() == self.owner:
            self._signal()

    def kill(self) -> None:
        """End the process and all of its group; in a forked child only let go of it."""
        if self.closed:
            return
        self.closed = True
        if os.getpid() == self.owner:
            self._signal()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        else:
            self.process.returncode = 0  # another process's child: nothing to wait for
        with contextlib.suppress(OSError):
            os.close(self.lifeline)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _signal(self) -> None:
        """Kill the process before the copy that serves: it would make another one."""
        for group in dict.fromkeys((self.process.pid, self.serving)):
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)


def _ended(exited: bool, number: int) -> str:
    if exited:
        return f"the worker process exited with status {number}"
    return f"the worker process was ended by {signal.Signals(abs(number)).name}"


WORKERS: "weakref.WeakSet[Worker]" = weakref.WeakSet()
"""Every worker of this process, so that a forked child can let go of all of them."""
