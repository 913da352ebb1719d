"""How one test ended, and what is kept of it as evidence."""

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

MAX_SHOWN = 300
"""Characters of an input, an output or a value in the evidence."""
MAX_STDERR = 600
"""Characters of the end of standard error in the evidence."""
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


class End(StrEnum):
    """How a test ended."""

    PASSED = "passed"
    """The program did what the test asks for."""
    WRONG = "wrong"
    """It answered, and the answer is not right."""
    SYNTAX = "syntax"
    """It is no Python."""
    EXCEPTION = "exception"
    """It raised an exception, or left with an exit status other than 0."""
    TIMEOUT = "timeout"
    """It took too long."""
    MEMORY = "memory"
    """It needed too much memory."""
    OUTPUT = "output"
    """It printed or returned too much."""
    CRASH = "crash"
    """A signal ended it."""
    INCOMPLETE = "incomplete"
    """It ended, or closed its channel, before it had answered."""
    MALFORMED = "malformed"
    """What came from it is not of the form that an answer has."""
    SKIPPED = "skipped"
    """Not run: what came before decides, or took too long too often."""


STOPPED = frozenset([End.TIMEOUT, End.OUTPUT, End.MALFORMED])
"""After these the program was ended by us; what it had printed by then depends on the clock."""


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """How one test ended.

    Example:
        `TestResult(end=End.WRONG, test=2, input="3", expected="9", got="6")`
    """

    __test__ = False  # no class of tests, whatever its name suggests to pytest

    end: End
    test: int
    """Its place in the truth, from 0."""
    reason: str = ""
    input: str = ""
    expected: str = ""
    got: str = ""
    stderr: str = ""
    cpu: float = 0.0
    """Seconds of CPU of the program, where they were measured test by test."""
    memory: int = 0
    """Bytes at the peak."""
    share: float | None = None
    """What a special judge gave, between 0 and 1."""
    slept: bool = False
    """It ran out of time without using it: asleep, or held up by something outside."""

    @property
    def passed(self) -> bool:
        """Whether it passed."""
        return self.end is End.PASSED

    def evidence(self) -> dict[str, Any]:
        """Return what is worth keeping, as JSON values, the same on every run."""
        stderr = "" if self.end in STOPPED else self.stderr[-4 * MAX_STDERR :].strip()
        fields = {
            "test": self.test,
            "end": str(self.end),
            "reason": steady(self.reason, MAX_SHOWN),
            "input": steady(self.input, MAX_SHOWN),
            "expected": steady(self.expected, MAX_SHOWN),
            "got": steady(self.got, MAX_SHOWN),
            "stderr": steady(stderr, MAX_STDERR, tail=True),
        }
        return {name: value for name, value in fields.items() if value != ""}


@dataclass(kw_only=True)
class Results:
    """How all tests of a program ended, and what that took."""

    tests: list[TestResult] = field(default_factory=list)
    loaded: bool = True
    """Whether the program is Python and its top level ran to its end."""
    tier: str = ""
    cpu: float = 0.0
    memory: int = 0
    runs: int = 0

    @property
    def slept(self) -> bool:
        """Whether a test ran out of time without using it."""
        return any(test.slept for test in self.tests)

    @property
    def passed(self) -> int:
        """How many passed."""
        return sum(test.passed for test in self.tests)

    def attach(self, stderr: str) -> None:
        """Keep what the program printed to standard error with the last test, if that raised."""
        if not self.tests or self.tests[-1].stderr:
            return
        if self.tests[-1].end in (End.EXCEPTION, End.MEMORY):
            self.tests[-1] = replace(self.tests[-1], stderr=stderr)


def steady(text: str, limit: int, tail: bool = False) -> str:
    """Cut a text and take out the addresses, which differ from run to run.

    Example:
        >>> steady("<object at 0x7f3a5c0d1e50>", 100)
        '<object at 0x…>'
    """
    text = _ADDRESS.sub("0x…", text).encode("utf-8", "replace").decode()
    if len(text) <= limit:
        return text
    return "…" + text[1 - limit :] if tail else text[: limit - 1] + "…"
