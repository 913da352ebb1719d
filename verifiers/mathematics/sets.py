"""Sets of real numbers: intervals, unions, inequalities, set-builders, as one list of spans.

A set is a list of spans between endpoints that are trees, so that `[e/5, ∞)` and `kπ ≤ x` have a
place here too. Endpoints are ordered by their approximate values; that two of them are equal is
always left to the comparison of scalars. Where an order is needed and an endpoint has no
approximate value, only unions are understood.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction

from ..numerals import TooLarge
from .decisions import Decision, Judge, different, every
from .nodes import (
    Applied,
    Call,
    Constant,
    Items,
    Member,
    NamedSet,
    Node,
    Number,
    Product,
    Quantity,
    Relation,
    SetBuilder,
    SetOf,
    SetOperation,
    Sum,
    Symbol,
    Text,
    Tuple,
    inverse,
    negated,
    symbols,
)
from .reals import linear, real
from .shapes import shape

INEQUALITIES = frozenset({"<", "<=", ">", ">=", "!="})
MAX_SPANS = 64
"""Intervals of a set that is intersected with another one."""
ALL_REALS = frozenset(
    {"all real numbers", "all reals", "real numbers", "the real numbers", "all real x", "reals"}
)
_INFINITY = Constant("oo")
_MINUS_INFINITY = negated(_INFINITY)
_INFINITIES = (math.inf, -math.inf)


@dataclass(frozen=True, slots=True)
class Span:
    """The numbers from `low` to `high`."""

    low: Node
    high: Node
    with_low: bool
    with_high: bool
    ends: tuple[float, float] | None = field(init=False, compare=False)
    """About where it begins and ends, if that is known."""

    def __post_init__(self) -> None:
        """Find about where it lies; at infinity it is open however it was written."""
        low, high = real(self.low), real(self.high)
        object.__setattr__(self, "ends", None if low is None or high is None else (low, high))
        if self.with_low and low in _INFINITIES:
            object.__setattr__(self, "with_low", False)
        if self.with_high and high in _INFINITIES:
            object.__setattr__(self, "with_high", False)


@dataclass(frozen=True, slots=True)
class Region:
    """A set of reals; `subject` is what the text says is in it (`x` of `x > 1`)."""

    spans: tuple[Span, ...]
    subject: Node | None = None


_REALS = Region((Span(_MINUS_INFINITY, _INFINITY, False, False),))
_ZERO = Number(Fraction(0))
_ABOVE, _BELOW = Span(_ZERO, _INFINITY, False, False), Span(_MINUS_INFINITY, _ZERO, False, False)
_SIGNED_REALS = {
    "R": _REALS,
    "R+": Region((_ABOVE,)),
    "R0+": Region((replace(_ABOVE, with_low=True),)),
    "R-": Region((_BELOW,)),
    "R0-": Region((replace(_BELOW, with_high=True),)),
    "R*": Region((_BELOW, _ABOVE)),
}


def is_region(node: Node) -> bool:
    """Return whether a tree can only be read as a set of numbers or a condition on one."""
    if isinstance(node, Relation):
        return not INEQUALITIES.isdisjoint(node.operators)
    if isinstance(node, Items):
        return any(map(is_region, node.items))
    return isinstance(node, SetOperation | SetBuilder | NamedSet | Member)


def region(node: Node) -> Region | None:
    """Return a tree as a set of reals, `None` if it is not understood as one."""
    found = _region(node)
    return None if found is None else _merged(found)


def _region(node: Node) -> Region | None:
    match node:
        case NamedSet(name) if name in _SIGNED_REALS:
            return _SIGNED_REALS[name]
        case Text(words) if words in ALL_REALS:
            return _REALS
        case Tuple((low, high), opening, closing) if opening in "([" and closing in ")]":
            return Region((Span(low, high, opening == "[", closing == "]"),))
        case SetOf(items):
            return Region(tuple(Span(item, item, True, True) for item in items))
        case SetOperation(kind, parts):
            return _operation(kind, [_region(shape(part)) for part in parts])
        case Member(element, of, negative):
            return _member(element, _region(of), negative)
        case SetBuilder(Symbol() as element, conditions):
            return _conditions(element, conditions)
        case Relation():
            return _relation(node)
        case Items(items, joined):
            return _alternatives([_region(item) for item in items], joined)
        case Quantity(value, _):
            return _region(value)
    return None


def _member(element: Node, of: Region | None, negative: bool) -> Region | None:
    found = _complement(of) if negative and of else of
    return replace(found, subject=element) if found else None


def _conditions(element: Node, conditions: Iterable[Node]) -> Region | None:
    """Return where all conditions of a set-builder hold."""
    found: Region | None = _REALS
    for condition in conditions:
        part = _region(shape(condition))
        if part is None or found is None or part.subject not in (None, element):
            return None
        found = _intersection(found, part)
    return found and replace(found, subject=None)


def _alternatives(parts: list[Region | None], joined: str) -> Region | None:
    """Return `x < 1 or x > 3` as a union; conditions that overlap hold together: `x > 0, x ≠ 1`.

    Without a word between them, those that exclude each other are a union too.
    """
    if any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    subject = known[0].subject
    if any(part.subject != subject for part in known):
        return None
    union = Region(tuple(span for part in known for span in part.spans), subject)
    if subject is None:
        return union if any(map(_is_unbounded, union.spans)) else None
    if joined == "or":
        return union
    both = known[0]
    for part in known[1:]:
        meeting = _intersection(both, part)
        if meeting is None or not (meeting.spans or joined):
            return None if joined else union
        both = meeting
    return replace(both, subject=subject)


def _is_unbounded(span: Span) -> bool:
    """Return whether a pair can only be an interval: no point is (2, ∞)."""
    return span.ends is not None and math.inf in (-span.ends[0], span.ends[1])


def _operation(kind: str, parts: list[Region | None]) -> Region | None:
    if any(part is None for part in parts):
        return None
    first, *rest = [part for part in parts if part is not None]
    if kind == "union":
        return Region(tuple(span for part in (first, *rest) for span in part.spans))
    for part in rest:
        other = _complement(part) if kind == "minus" else part
        joined = other and _intersection(first, other)
        if joined is None:
            return None
        first = joined
    return first


def _complement(part: Region) -> Region | None:
    """Return what is not in a set of spans in ascending order."""
    merged = _merged(part)
    if len(merged.spans) > 1 and any(span.ends is None for span in merged.spans):
        return None
    low, with_low, spans = _MINUS_INFINITY, False, []
    for span in merged.spans:
        spans.append(Span(low, span.low, with_low, not span.with_low))
        low, with_low = span.high, not span.with_high
    spans.append(Span(low, _INFINITY, with_low, False))
    return Region(tuple(span for span in spans if not _is_empty(span)), part.subject)


def _is_empty(span: Span) -> bool:
    ends = span.ends
    if ends is None:
        return span.low == span.high and not (span.with_low and span.with_high)
    return ends[0] > ends[1] or (ends[0] == ends[1] and not (span.with_low and span.with_high))


def _intersection(one: Region, other: Region) -> Region | None:
    if one.spans == _REALS.spans:
        return other
    if other.spans == _REALS.spans:
        return one
    if max(len(one.spans), len(other.spans)) > MAX_SPANS:
        raise TooLarge(f"a set of more than {MAX_SPANS} intervals")
    spans = []
    for left in one.spans:
        for right in other.spans:
            if left.ends is None or right.ends is None:
                return None
            span = _overlap(left, right)
            if not _is_empty(span):
                spans.append(span)
    return Region(tuple(spans), one.subject or other.subject)


def _overlap(one: Span, other: Span) -> Span:
    """Return the numbers in both of two spans whose ends are known."""
    spans = one, other
    first = max(spans, key=lambda span: (_ends(span)[0], not span.with_low))
    last = min(spans, key=lambda span: (_ends(span)[1], span.with_high))
    return Span(first.low, last.high, first.with_low, last.with_high)


def _merged(part: Region) -> Region:
    """Sort the spans and join those that touch, where their order is known."""
    if len(part.spans) < 2 or any(span.ends is None for span in part.spans):
        return part
    ordered = sorted(part.spans, key=lambda span: (_ends(span), not span.with_low))
    spans = [ordered[0]]
    for span in ordered[1:]:
        last = spans[-1]
        end, (start, stop) = _ends(last)[1], _ends(span)
        if start > end or (start == end and not (last.with_high or span.with_low)):
            spans.append(span)
        elif stop > end or (stop == end and span.with_high):
            spans[-1] = Span(last.low, span.high, last.with_low, span.with_high)
    return replace(part, spans=tuple(spans))


def _ends(span: Span) -> tuple[float, float]:
    assert span.ends is not None
    return span.ends


_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!=", "=": "="}


def _relation(node: Relation) -> Region | None:
    """Return where a chain of comparisons holds for the one thing that it is about."""
    subject = _subject(node)
    if subject is None:
        return None
    found: Region | None = None
    for left, operator, right in zip(node.sides, node.operators, node.sides[1:], strict=False):
        part = _pair(left, operator, right, subject)
        found = part if found is None or part is None else _chained(found, part)
        if found is None:
            return None
    return found and replace(found, subject=_unwrapped(subject))


def _chained(one: Region, other: Region) -> Region | None:
    """Join the two halves of `a < x < b`; their order need not be known."""
    if not one.spans or not other.spans:
        return replace(one, spans=())
    left, right = one.spans[0], other.spans[-1]
    if len(one.spans) == len(other.spans) == 1:
        if left.low == _MINUS_INFINITY and right.high == _INFINITY:
            left, right = right, left
        if left.high == _INFINITY and right.low == _MINUS_INFINITY:
            span = Span(left.low, right.high, left.with_low, right.with_high)
            return Region(() if _is_empty(span) else (span,))
    return _intersection(one, other)


def _unwrapped(subject: Node) -> Node:
    return subject.args[0] if isinstance(subject, Call) else subject


def _subject(node: Relation) -> Node | None:
    """Return the variable, `f(x)` or `|x|` that a chain is about."""
    bare = [
        side
        for side in node.sides
        if isinstance(side, Symbol | Applied)
        or (isinstance(side, Call) and side.name == "abs" and isinstance(side.args[0], Symbol))
    ]
    letters = frozenset().union(*map(symbols, node.sides))
    if not bare and len(letters) == 1:
        return Symbol(*letters)
    for side in sorted(bare, key=_rank, reverse=True):
        others = [other for other in node.sides if other is not side]
        if all(symbols(side).isdisjoint(symbols(other)) for other in others):
            return side
    return Symbol(*letters) if len(letters) == 1 else None


def _rank(side: Node) -> tuple[bool, str]:
    """Of two variables the later letter is the subject: `x > a` is about x."""
    return not isinstance(side, Symbol), max(symbols(side), default="")


def _pair(left: Node, operator: str, right: Node, subject: Node) -> Region | None:
    if operator not in _FLIPPED:
        return None
    if right == subject:
        left, operator, right = right, _FLIPPED[operator], left
    if left == subject:
        if isinstance(subject, Call):
            return _absolute(operator, right)
        return _half(operator, right)
    if not isinstance(subject, Symbol):
        return None
    parts = linear(Sum((left, negated(right))), subject.name)
    factor = parts and real(parts[0])
    if not parts or not factor:
        return None
    bound = Product((negated(parts[1]), inverse(parts[0])))
    return _half(operator if factor > 0 else _FLIPPED[operator], bound)


def _half(operator: str, bound: Node) -> Region:
    """Return the numbers that stand in a relation to a bound."""
    below = Span(_MINUS_INFINITY, bound, False, operator == "<=")
    above = Span(bound, _INFINITY, operator == ">=", False)
    if operator == "=":
        return Region((Span(bound, bound, True, True),))
    if operator == "!=":
        return Region((below, above))
    return Region((below,) if operator in ("<", "<=") else (above,))


def _absolute(operator: str, bound: Node) -> Region | None:
    """Return the numbers whose absolute value stands in a relation to a positive bound."""
    size = real(bound)
    if size is None or size < 0:
        return None
    with_bound = operator in ("<=", ">=")
    if operator in ("<", "<="):
        return Region((Span(negated(bound), bound, with_bound, with_bound),))
    if operator in (">", ">="):
        below = Span(_MINUS_INFINITY, negated(bound), False, with_bound)
        return Region((below, Span(bound, _INFINITY, with_bound, False)))
    return None


def compare_regions(one: Region, other: Region, judge: Judge) -> Decision:
    """Compare two sets span by span."""
    if not _same_subject(one.subject, other.subject):
        return different("different variable")
    if not one.spans and not other.spans and one.subject and other.subject:
        return different("different structure")
    if len(one.spans) != len(other.spans):
        return different("different length")
    if all(span.ends for region in (one, other) for span in region.spans):
        return every(map(_compared(judge), one.spans, other.spans))
    return judge.matched(one.spans, other.spans, _compared(judge))


def _compared(judge: Judge) -> Callable[[Span, Span], Decision]:
    def compare(one: Span, other: Span) -> Decision:
        if (one.with_low, one.with_high) != (other.with_low, other.with_high):
            return different("different brackets")
        return every(
            judge.same(left, right)
            for left, right in ((one.low, other.low), (one.high, other.high))
        )

    return compare


def _same_subject(one: Node | None, other: Node | None) -> bool:
    """Two variables must be the same one; `f(x)` and `y` name the same thing."""
    both_letters = isinstance(one, Symbol) and isinstance(other, Symbol)
    return not both_letters or one == other
