"""A special judge, in a sandbox of its own: decides on one output at a time."""

from __future__ import annotations

from .codec import Reader, encode
from .talk import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Load the judge and ask it about each output: `judge(input, output, expected)`."""
    line, reader = Line(), Reader()
    space: dict[str, Any] = {"__name__": "judge"}
    exec(compile(reader.read(line.receive()), "judge.py", "exec", dont_inherit=True), space)
    judge = space["judge"]
    line.receive()
    line.send("true")
    while True:
        given = reader.read(line.receive())
        try:
            line.send(encode([True, float(judge(*given))], str))
        except Exception as error:
            line.send(encode([False, f"{type(error).__name__}: {error}"[:300]], str))
