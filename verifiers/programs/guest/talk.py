"""The sandbox's end of the channel: lines in and out."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHANNEL = 3
"""The descriptor of the channel."""
PIECE = 1 << 16


class Line:
    """Reads and writes lines on the channel."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self.buffer = bytearray()

    def receive(self) -> str:
        """Wait for a line; the end of the channel is the end of the process."""
        while (end := self.buffer.find(b"\n")) < 0:
            piece = os.read(CHANNEL, PIECE)
            if not piece:
                os._exit(0)
            self.buffer += piece
        line = self.buffer[:end].decode("ascii")
        del self.buffer[: end + 1]
        return line

    def send(self, text: str) -> None:
        """Send a line."""
        data = memoryview(text.encode("ascii") + b"\n")
        while data:
            data = data[os.write(CHANNEL, data) :]


def refuse(value: Any) -> str:
    """Write nothing that has no form."""
    raise TypeError(f"a {type(value).__name__} cannot be sent")
