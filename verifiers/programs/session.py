"""A conversation with a program in a sandbox: one line out, one line back, everything bounded.

Time is CPU time of the program, waits for a core left out; sleeping counts against a wall limit
several times as long. What goes wrong is told apart: the program's fault is a `Failed`, the
sandbox's a `Lost`, after which everything is run again.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..sandbox import (
    Channel,
    ChannelClosed,
    ChannelError,
    ChannelFull,
    ChannelSlow,
    Ended,
    Limits,
    Outcome,
    SandboxError,
    Slot,
)
from ..sandbox.connection import ServerGone
from .results import End

MIB = 1 << 20
GRACE = 0.05
"""Seconds of an answer within which nobody looks at the clock of the CPU."""
LAST_WORDS = 0.5
"""Seconds that a program whose channel has closed is given to end by itself."""


class Failed(Exception):
    """The program's fault, and how it ended."""

    def __init__(
        self, end: End, reason: str, outcome: Outcome | None = None, *, slept: bool = False
    ) -> None:
        """Keep what is needed for the evidence."""
        super().__init__(reason)
        self.end = end
        self.slept = slept
        self.reason = reason
        self.outcome = outcome


class Slept(ChannelSlow):
    """No answer came, and hardly any CPU time was used."""


class Lost(Exception):
    """The sandbox's fault: says nothing about the program."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a program may use for one test.

    Example:
        `Bounds(cpu=2.0, memory=512 << 20)`
    """

    cpu: float = 5.0
    """Seconds of CPU for one test."""
    memory: int = 1024 * MIB
    """Bytes of address space."""
    answer: int = 4 * MIB
    """Bytes of one answer, or of what one test prints."""

    @property
    def wall(self) -> float:
        """Seconds that a test may take when it sleeps."""
        return 2 * self.cpu + 2

    def limits(self, tests: int = 1) -> Limits:
        """Return the sandbox's limits for so many tests in one run."""
        cpu = self.cpu * tests + (1.0 if tests > 1 else 0.0)
        wall = self.wall if tests == 1 else None
        return Limits(cpu=cpu, wall=wall, memory=self.memory, output=self.answer)


class Partner:
    """A program in a sandbox that answers lines."""

    def __init__(self, slot: Slot, job: dict[str, Any], bounds: Bounds, tests: int) -> None:
        """Start it; `job` is what `guests.program` returns."""
        self.bounds = bounds
        try:
            limits = replace(bounds.limits(max(2, tests + 1)), output=16 * MIB)
            self.channel: Channel = slot.open(**job, limits=limits)
        except (ServerGone, SandboxError) as error:
            raise Lost(str(error)) from error

    def ask(self, line: str | bytes) -> bytes:
        """Send a line and wait for the next one.

        Raises:
            Failed: None came, or too much, or not in time.
            Lost: The sandbox failed.
        """
        self.tell(line)
        return self.hear()

    def tell(self, line: str | bytes) -> None:
        """Send a line."""
        data = line if isinstance(line, bytes) else line.encode("ascii")
        with self._blamed():
            self.channel.send(data + b"\n", self.bounds.wall)

    def hear(self) -> bytes:
        """Wait for a line."""
        with self._blamed():
            return self._receive()

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        """Say whose fault it is when the channel fails."""
        try:
            yield
        except ChannelError as error:
            raise self._failure(error) from None
        except (ServerGone, SandboxError) as error:
            raise Lost(str(error)) from error

    def _receive(self) -> bytes:
        """Wait for a line until the program has had its CPU time, or slept too long."""
        most, cpu, wall = self.bounds.answer, self.bounds.cpu, self.bounds.wall
        try:
            return self.channel.receive_line(most, min(GRACE, cpu))
        except ChannelSlow:
            before = self.channel.usage()
        start, queued = time.monotonic(), before.queued if before else 0.0
        used = 0.0
        while True:
            # what it has not used it may have slept: it gets that once more, up to the wall time
            try:
                return self.channel.receive_line(most, max(cpu - used, GRACE))
            except ChannelSlow:
                now = self.channel.usage()
            if now is None or before is None:
                raise ChannelClosed("the program has ended")
            used = now.cpu - before.cpu
            own = time.monotonic() - start - (now.queued - queued)
            # the first moment was not measured, and clocks tick: what is nearly all is all
            if used >= cpu - min(GRACE, cpu / 20):
                raise ChannelSlow(f"more than {cpu:g} s of CPU time")
            if own >= wall:
                raise Slept(f"more than {wall:g} s of time, asleep")

    def _failure(self, error: ChannelError) -> Failed:
        """Say what became of the program."""
        if isinstance(error, ChannelClosed):
            self._wait()
        outcome = self.close()
        end = FAILURES.get(outcome.ended)
        if isinstance(error, ChannelFull):
            return Failed(End.OUTPUT, f"an answer of more than {self.bounds.answer} bytes", outcome)
        if end is not None:
            return Failed(end, outcome.reason, outcome)
        if isinstance(error, ChannelSlow):
            slept = isinstance(error, Slept)
            return Failed(End.TIMEOUT, f"it took {error}", outcome, slept=slept)
        return Failed(End.INCOMPLETE, "it ended or closed its channel before it answered", outcome)

    def _wait(self) -> None:
        """Wait a moment for a program to end by itself, so that its end tells the reason."""
        deadline = time.monotonic() + LAST_WORDS
        try:
            while self.channel.usage() is not None and time.monotonic() < deadline:
                time.sleep(0.002)
        except (ServerGone, SandboxError) as error:
            raise Lost(str(error)) from error

    def close(self) -> Outcome:
        """End the program and say how it ended.

        Raises:
            Lost: The sandbox failed.
        """
        try:
            outcome = self.channel.close()
        except (ServerGone, SandboxError) as error:
            raise Lost(str(error)) from error
        if outcome.ended is Ended.INFRA:
            raise Lost(outcome.reason)
        return outcome


FAILURES: dict[Ended, End] = {
    Ended.TIMEOUT: End.TIMEOUT,
    Ended.MEMORY: End.MEMORY,
    Ended.OUTPUT: End.OUTPUT,
    Ended.CRASH: End.CRASH,
}
"""How a run ended → what that says about the test, where it says it all."""
