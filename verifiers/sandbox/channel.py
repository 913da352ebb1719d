"""A run kept open: bytes in, bytes out, over descriptor 3 of the program.

Which bytes, the two ends agree on; nothing here reads them. Sizes are capped and waits bounded on
this side. Waiting for a program that has no core does not count against it.
"""

import socket
import time
from types import TracebackType

from .connection import Connection, Job, Started, Usage
from .inside import wire
from .outcome import Outcome
from .waiting import IN, OUT, Steps, Wait, adrive, drive

PIECE = 1 << 16


class ChannelError(Exception):
    """The program's fault: what came over the channel is not what was asked for."""


class ChannelClosed(ChannelError):
    """It closed its end, or has ended."""


class ChannelFull(ChannelError):
    """It sent more than may be taken in."""


class ChannelSlow(ChannelError):
    """It did not answer in time."""


class Channel:
    """The near end. Every method has an `a...` twin for event loops.

    Use as a context manager; `close` ends the run and says what became of it.
    """

    def __init__(self, connection: Connection, job: Job) -> None:
        """Start the run."""
        self.near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.near.setblocking(False)
        try:
            self.started: Started = connection.start(job, far)
        except BaseException:
            self.near.close()
            raise
        finally:
            far.close()
        self.buffer = bytearray()
        self.outcome: Outcome | None = None

    def send(self, data: bytes, seconds: float) -> None:
        """Send all of the data."""
        drive(self._send(data, seconds))

    async def asend(self, data: bytes, seconds: float) -> None:
        """Send all of the data."""
        await adrive(self._send(data, seconds))

    def receive_line(self, most: int, seconds: float) -> bytes:
        """Receive up to the next newline, which is cut off.

        Args:
            most: Bytes of a line at most.
            seconds: Time of the program's own that may pass.

        Raises:
            ChannelClosed: The end came first.
            ChannelFull: The line is longer.
            ChannelSlow: The time is over.
        """
        return drive(self._receive_line(most, seconds))

    async def areceive_line(self, most: int, seconds: float) -> bytes:
        """Receive up to the next newline, which is cut off."""
        return await adrive(self._receive_line(most, seconds))

    def receive(self, count: int, seconds: float) -> bytes:
        """Receive exactly so many bytes."""
        return drive(self._receive(count, seconds))

    async def areceive(self, count: int, seconds: float) -> bytes:
        """Receive exactly so many bytes."""
        return await adrive(self._receive(count, seconds))

    def usage(self) -> Usage | None:
        """What the run has used so far, `None` if it has ended."""
        return drive(self._usage())

    async def ausage(self) -> Usage | None:
        """What the run has used so far, `None` if it has ended."""
        return await adrive(self._usage())

    def join(self, seconds: float) -> Outcome | None:
        """Wait for the program to end by itself, or over a limit.

        The near end stays open: what the program sent can still be received.

        Args:
            seconds: Time to wait at most, by the clock.

        Returns:
            What became of it, `None` if it still runs.
        """
        return drive(self._join(seconds))

    async def ajoin(self, seconds: float) -> Outcome | None:
        """Wait for the program to end by itself, or over a limit."""
        return await adrive(self._join(seconds))

    def finish(self) -> Outcome:
        """Close the near end and wait until the program ends by itself, or over a limit."""
        return drive(self._finish(kill=False))

    async def afinish(self) -> Outcome:
        """Close the near end and wait until the program ends by itself, or over a limit."""
        return await adrive(self._finish(kill=False))

    def close(self) -> Outcome:
        """End the run, if it has not ended, and say what became of it."""
        return drive(self._finish(kill=True))

    async def aclose(self) -> Outcome:
        """End the run, if it has not ended, and say what became of it."""
        return await adrive(self._finish(kill=True))

    def __enter__(self) -> "Channel":
        """Return the channel."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run."""
        self.close()

    async def __aenter__(self) -> "Channel":
        """Return the channel."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run."""
        await self.aclose()

    def _usage(self) -> "Steps[Usage | None]":
        if self.outcome is not None:
            return None
        return (yield from self.started.connection.usage(self.started.number))

    def _wait(self, events: int, spent: list[float], seconds: float) -> "Steps[None]":
        """Wait until the near end is ready; time without a core is not the program's own.

        `spent` holds the seconds of its own so far, and grows.
        """
        start = time.monotonic()
        before: Usage | None = None
        if (yield Wait(self.near.fileno(), events, start + min(0.005, seconds))):
            return
        before = yield from self._usage()
        while True:
            left = seconds - spent[0]
            if (yield Wait(self.near.fileno(), events, time.monotonic() + max(left, 0.0))):
                spent[0] += min(time.monotonic() - start, left)
                return
            now = yield from self._usage()
            waited = time.monotonic() - start
            if before is None or now is None:
                # it has ended: what it sent is in the socket, and its end has been closed
                if not (yield Wait(self.near.fileno(), events, time.monotonic() + 1.0)):
                    raise ChannelClosed("the program has ended")
                return
            own = waited - (now.queued - before.queued)
            if spent[0] + own >= seconds or waited >= 20 * seconds + 60:
                raise ChannelSlow(f"no answer within {seconds:g} s")
            spent[0] += own
            start, before = time.monotonic(), now

    def _send(self, data: bytes, seconds: float) -> "Steps[None]":
        view, spent = memoryview(data), [0.0]
        while view:
            try:
                view = view[self.near.send(view, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                yield from self._wait(OUT, spent, seconds)
            except OSError:
                raise ChannelClosed("the program has closed its end") from None

    def _more(self, spent: list[float], seconds: float) -> "Steps[None]":
        """Take in what is there, waiting for it."""
        while True:
            try:
                piece = self.near.recv(PIECE)
            except BlockingIOError:
                yield from self._wait(IN, spent, seconds)
                continue
            except OSError:
                piece = b""
            if not piece:
                raise ChannelClosed("the program has closed its end")
            self.buffer += piece
            return

    def _receive_line(self, most: int, seconds: float) -> "Steps[bytes]":
        spent, looked = [0.0], 0
        while (end := self.buffer.find(b"\n", looked, most + 1)) < 0:
            if len(self.buffer) > most:
                raise ChannelFull(f"a line of more than {most} bytes")
            looked = len(self.buffer)
            yield from self._more(spent, seconds)
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line

    def _receive(self, count: int, seconds: float) -> "Steps[bytes]":
        spent = [0.0]
        while len(self.buffer) < count:
            yield from self._more(spent, seconds)
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def _join(self, seconds: float) -> "Steps[Outcome | None]":
        if self.outcome is None and (yield from self.started.has_ended(seconds)):
            self.outcome = yield from self.started.wait()
            self.started.close()
        return self.outcome

    def _finish(self, kill: bool) -> "Steps[Outcome]":
        if self.outcome is None and kill:  # first, lest it ends by itself at the end of its input
            self.started.connection.order(wire.KILL, self.started.number)
        self.near.close()
        if self.outcome is None:
            self.outcome = yield from self.started.wait()
            self.started.close()
        return self.outcome

    def abandon(self) -> None:
        """Let the descriptors go without a word; the connection's end ends the run."""
        self.near.close()
        self.started.close()
