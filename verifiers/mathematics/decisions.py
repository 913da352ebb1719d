"""What a comparison decided, how decisions about parts add up, and what structures may ask for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .nodes import Node
from .scalars import Decision, ScalarOptions

TIERS = ("text", "structure", "rational", "identity", "numeric", "symbolic", "undecided")
"""In the order of their cost; a decision about several parts carries the dearest tier."""

SAME = Decision(True, "structure", "")


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as equal."""

    scalars: ScalarOptions = field(default_factory=ScalarOptions)
    units: str = "optional"
    ordered: bool = False
    degrees: bool = True
    """Whether 45° equals a plain 45, as well as π/4."""
    either_percent: bool = False
    """Whether 50% equals a plain 50, as well as 1/2."""


class Judge(Protocol):
    """Compares parts of structures by the same rules as the whole."""

    rules: Rules

    def same(self, one: Node, other: Node) -> Decision:
        """Compare two trees of any kind."""
        ...

    def near(self, one: Node, other: Node) -> Decision:
        """Return whether a number, written as an approximation, rounds from another one."""
        ...

    def matched(
        self,
        some: Sequence[Any],
        others: Sequence[Any],
        compare: Callable[[Any, Any], Decision] | None = None,
    ) -> Decision:
        """Match the parts of one side with those of the other, in any order."""
        ...


def different(reason: str) -> Decision:
    """Return that a structure differs, and in what."""
    return Decision(False, "structure", reason)


def every(parts: Iterable[Decision]) -> Decision:
    """All must be equal: the first difference decides, else anything open leaves it open."""
    dearest, left = SAME, None
    for part in parts:
        if part.equal is False:
            return part
        if part.equal is None:
            left = part
        elif TIERS.index(part.tier) > TIERS.index(dearest.tier):
            dearest = part
    return left or dearest


def some(parts: Iterable[Decision]) -> Decision:
    """One must be equal: the first equality decides, else anything open leaves it open."""
    last, left = different("different value"), None
    for part in parts:
        if part.equal:
            return part
        if part.equal is None:
            left = part
        last = part
    return left or last
