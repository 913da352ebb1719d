"""What a program printed against what it should have printed: all of it, its length included."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from .comparison import near

Whitespace = Literal["lines", "tokens", "exact"]
"""`lines`: white space at the ends of lines and empty lines at the end do not count; `tokens`: only
what stands between white space counts; `exact`: every character counts."""

_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?"
)


@dataclass(frozen=True, kw_only=True)
class Output:
    """When two outputs are the same.

    Example:
        >>> Output()("1 2 \\n", "1 2")
        True
        >>> Output(tolerance=1e-3)("0.33333", "0.333")
        True
        >>> Output()("1", "1\\n2")
        False
    """

    whitespace: Whitespace = "lines"
    tolerance: float = 0.0
    """Numbers with a decimal point or an exponent in one of the two may differ by this much,
    absolutely or relatively."""
    unordered: bool = False
    """Whether the lines (for `tokens`, the tokens) may come in any order."""

    def __post_init__(self) -> None:
        """Refuse what cannot be decided."""
        if self.unordered and (self.tolerance or self.whitespace == "exact"):
            raise UsageError(
                "unordered=True goes with whitespace='lines' or 'tokens' and without a tolerance: "
                "which line belongs to which could not be said"
            )
        if self.whitespace == "exact" and self.tolerance:
            raise UsageError("a tolerance needs whitespace='lines' or 'tokens'")

    def __call__(self, got: str, expected: str) -> bool:
        """Compare two outputs."""
        if self.whitespace == "exact":
            return got == expected
        if self.whitespace == "tokens":
            one, other = got.split(), expected.split()
        else:
            one, other = lines(got), lines(expected)
        if self.unordered:
            return Counter(one) == Counter(other)
        if one == other or not self.tolerance:
            return one == other
        if len(one) != len(other):
            return False
        return all(map(self._line, one, other))

    def _line(self, got: str, expected: str) -> bool:
        one, other = got.split(), expected.split()
        return len(one) == len(other) and all(map(self._token, one, other))

    def _token(self, got: str, expected: str) -> bool:
        if got == expected:
            return True
        if not (_NUMBER.fullmatch(got) and _NUMBER.fullmatch(expected)):
            return False
        if not any(mark in got + expected for mark in ".eE"):
            return False
        return near(float(got), float(expected), self.tolerance)


def lines(text: str) -> list[str]:
    """Split into lines, without white space at their ends and without empty ones at the end.

    Example:
        >>> lines("a \\r\\n\\n b\\n\\n")
        ['a', '', ' b']
    """
    found = [line.rstrip(" \t\r\f\v") for line in text.split("\n")]
    while found and not found[-1]:
        found.pop()
    return found
