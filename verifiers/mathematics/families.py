"""Values with a free constant: `π/6 + kπ` for all integers k, `x²/2 + C` for any C."""

from collections.abc import Callable
from fractions import Fraction

from .decisions import Decision, every
from .nodes import (
    Constant,
    Degree,
    Node,
    Number,
    Product,
    Sum,
    Symbol,
    children,
    inverse,
    negated,
    symbols,
)
from .reals import linear, real
from .shapes import DECLARED, holds, substitute

MAX_STEPS = 1000
"""Periods between the starts of two families that may be the same."""
_INTEGERS = frozenset("kmnlj")
_FREE = frozenset("CcK")
_VARIABLES = frozenset({"x", "t", "u", "y", "z", "s", "theta"})
_ANY_INTEGER = Symbol(DECLARED)

Compare = Callable[[Node, Node], Decision]


def compare_families(one: Node, other: Node, compare: Compare) -> Decision | None:
    """Compare two expressions up to the name of a free constant; `None` if they have none."""
    letters = _integer(one), _integer(other)
    if letters[0] and letters[1]:
        declared = DECLARED in letters[0] + letters[1]
        if declared or (letters[0] != letters[1] and _is_angle(one) and _is_angle(other)):
            left = substitute(one, {letters[0]: _ANY_INTEGER})
            right = substitute(other, {letters[1]: _ANY_INTEGER})
            straight = compare(left, right)
            shifted = straight.equal is False and declared and _shifted(left, right, compare)
            return shifted or straight
    left_body, right_body = _without_constant(one), _without_constant(other)
    if left_body is None or right_body is None or left_body[1] != right_body[1]:
        return None
    if "C" not in (left_body[2], right_body[2]):
        return None
    return _same_derivative(left_body[0], right_body[0], left_body[1], compare)


def _integer(node: Node) -> str:
    """Return the one variable of a tree that may be any integer."""
    found = [name for name in symbols(node) if name in _INTEGERS or name.startswith(DECLARED)]
    return found[0] if len(found) == 1 else ""


def _is_angle(node: Node) -> bool:
    return holds(node, Degree) or _has_pi(node)


def _has_pi(node: Node) -> bool:
    return node == Constant("pi") or any(map(_has_pi, children(node)))


def _shifted(one: Node, other: Node, compare: Compare) -> Decision | None:
    """Compare start + k·period for all integers k: 2k + 1 and 2k − 1 are the same numbers."""
    parts, other_parts = linear(one, _ANY_INTEGER.name), linear(other, _ANY_INTEGER.name)
    if parts is None or other_parts is None:
        return None
    (period, start), (other_period, other_start) = parts, other_parts
    gap = Sum((start, negated(other_start)))
    steps, ratio = (real(Product((part, inverse(period)))) for part in (gap, other_period))
    if steps is None or ratio is None or not _is_near_whole(steps) or abs(round(ratio)) != 1:
        return None
    whole = Number(Fraction(round(steps)))
    turned = other_period if ratio > 0 else negated(other_period)
    return every((compare(period, turned), compare(gap, Product((whole, period)))))


def _is_near_whole(number: float) -> bool:
    return abs(number) < MAX_STEPS and abs(number - round(number)) < 1e-6


def _without_constant(node: Node) -> tuple[Node, str, str] | None:
    """Return what stands before `+ C`, its one variable, and the C.

    In `A + B + C` or `2RC + R + C` the letter is no constant of integration: those are paid as
    they stand, or `+ 1` would be free.
    """
    if not isinstance(node, Sum):
        return None
    free = [t.name for t in node.terms if isinstance(t, Symbol) and t.name in _FREE]
    kept = tuple(t for t in node.terms if not (isinstance(t, Symbol) and t.name in _FREE))
    letters = frozenset().union(*map(symbols, kept))
    if len(free) != 1 or len(letters) != 1 or not letters <= _VARIABLES:
        return None
    return kept[0] if len(kept) == 1 else Sum(kept), min(letters), free[0]


def _same_derivative(one: Node, other: Node, letter: str, compare: Compare) -> Decision:
    """Two antiderivatives are the same if they differ by a constant."""
    gap = Sum((one, negated(other)))
    return compare(gap, substitute(gap, {letter: Symbol(f"{letter} elsewhere")}))
