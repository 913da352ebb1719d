"""Whether two scalars are equal: the tiers, cheapest first.

1. `rational`: both are exact fractions.
2. `structure`: the two trees are the same, once their rational parts are computed.
3. `identity`: random points of two prime fields; decides what is a rational function, a huge power
   or a factorial, and recognises most rewritings of the rest.
4. `numeric`: doubles to reject, many digits to accept.
5. `symbolic`: sympy, in a worker only.

A tier that cannot tell leaves the pair to the next; no tier may guess.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

from ..numerals import TooLarge
from . import identity, numeric
from .draws import Draw
from .nodes import Based, Call, Node, Number
from .rational import fold, rewritten
from .traits import traits

__all__ = ["Decision", "Draw", "ScalarOptions", "compare", "fold"]

MIN_TRUTH_DIGITS = 3
"""Significant digits from which a decimal truth stands for what rounds to it: 0.3 is not 1/3."""
MIN_CUT_DIGITS = 5
"""Significant digits from which a decimal truth also stands for what it cuts off: 41.494 is
17 + 10√6 = 41.49489…"""
MIN_ANSWER_DIGITS = 10
"""Significant digits from which a decimal answer stands for what it rounds or cuts off."""
DOUBLE_DIGITS = 15
"""Significant digits above which a decimal may be a double as programs print it: it stands for all
values to which that double is the nearest."""
PROVING_SCALE = 25
"""How many times the usual budgets a worker may spend."""
_TEN = Number(Fraction(10))


@dataclass(frozen=True, slots=True)
class ScalarOptions:
    """What counts as equal beyond exact equality."""

    decimals: str = "rounded"
    """`"exact"`: 0.667 is 667/1000 and nothing else. `"rounded"`: where one side is a decimal
    numeral and the other an irrational or non-terminating value, a truth of 3 and more significant
    digits equals what is rounded or cut off to it (6.46 = 84/13, 41.494 = 17 + 10√6), and an
    answer of 10 and more equals the value whose digits they are (0.0833333333333333 = 1/12)."""
    absolute: Fraction = Fraction(0)
    """How far a number may be off."""
    relative: Fraction = Fraction(0)
    """How far it may be off as a part of the truth."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a tier decided: `equal` is `None` when it is left open."""

    equal: bool | None
    tier: str
    """The tier that decided; `undecided` where none did."""
    reason: str = ""


_OPEN = Decision(None, "undecided", "equality could not be decided")


def compare(
    answer: Node, truth: Node, options: ScalarOptions, draw: Draw, *, prove: bool
) -> Decision:
    """Compare two scalars.

    Args:
        answer: What the policy wrote.
        truth: What is right.
        options: What counts as equal beyond exact equality.
        draw: The source of random points.
        prove: Whether sympy may be asked and larger budgets spent: set in a worker only.

    Returns:
        The decision, with `equal=None` for what is left open.

    Raises:
        Unreadable: A side has no value (1/0, log 0).
        TooLarge: A side is out of any range that could be decided.

    Example:
        >>> half, third = Number(Fraction(1, 2)), Number(Fraction(1, 3))
        >>> compare(half, third, ScalarOptions(), Draw("1/2", "1/3"), prove=False).equal
        False
    """
    try:
        return _compare(answer, truth, options, draw, prove)
    except RecursionError:
        raise TooLarge("an expression nested too deeply") from None


def _compare(
    answer: Node, truth: Node, options: ScalarOptions, draw: Draw, prove: bool
) -> Decision:
    if isinstance(answer, Based) or isinstance(truth, Based):
        return Decision(answer == truth, "structure", "" if answer == truth else "different base")
    if answer == truth:
        return Decision(True, "structure")
    one, other = fold(answer), fold(truth)
    if isinstance(one, Number) and isinstance(other, Number):
        return _numbers(one, other, options)
    if one == other:
        return Decision(True, "structure")
    seen = traits(one, other)
    if "oo" in seen.kinds:
        return Decision(False, "structure", "an infinity")
    near = None if seen.names else _near(one, other, options)
    if near is not None:
        return near
    if "log()" in seen.kinds:
        return _by_bases(one, other, draw, prove)
    return _general(one, other, draw, prove)


def _numbers(answer: Number, truth: Number, options: ScalarOptions) -> Decision:
    if answer.value == truth.value:
        return Decision(True, "rational")
    if options.absolute or options.relative:
        bound = max(options.absolute, options.relative * abs(truth.value))
        if abs(answer.value - truth.value) <= bound:
            return Decision(True, "rational", "within the tolerance")
    if options.decimals == "rounded":
        for decimal, value in ((truth, answer), (answer, truth)):
            spread = _spread(decimal, decimal is truth)
            if spread and value.places is None and not _terminates(value.value):
                return _rounding(spread[0] <= value.value <= spread[1], "rational")
    return Decision(False, "rational")


def _rounding(equal: bool, tier: str) -> Decision:
    return Decision(equal, tier, "equal as a rounded decimal" if equal else "")


def _terminates(value: Fraction) -> bool:
    rest = value.denominator
    rest >>= (rest & -rest).bit_length() - 1
    # 5^k with 5^k ≥ rest is a multiple of rest exactly if rest is a power of 5
    return pow(5, rest.bit_length(), rest) == 0 if rest > 1 else True


def _spread(decimal: Node, is_truth: bool) -> tuple[Fraction, Fraction] | None:
    """Return the values that a decimal numeral may stand for."""
    if not isinstance(decimal, Number) or decimal.places is None:
        return None
    if decimal.digits < (MIN_TRUTH_DIGITS if is_truth else MIN_ANSWER_DIGITS):
        return None
    value, unit = decimal.value, Fraction(10) ** -decimal.places
    low, high = value - unit / 2, value + unit / 2
    if decimal.digits > DOUBLE_DIGITS:
        nearest = float(value)
        gap = Fraction(math.ulp(nearest)) / 2
        low, high = min(low, Fraction(nearest) - gap), max(high, Fraction(nearest) + gap)
    return (low, max(high, value + unit)) if value >= 0 else (min(low, value - unit), high)


def _near(one: Node, other: Node, options: ScalarOptions) -> Decision | None:
    """Decide by rounding or tolerance where one side is a numeral and the other a constant."""
    ranges: list[tuple[Node, tuple[Fraction, Fraction]]] = []
    if options.decimals == "rounded":
        for decimal, value in ((other, one), (one, other)):
            spread = _spread(decimal, decimal is other)
            if spread:
                ranges.append((value, spread))
    for value, (low, high) in ranges:
        inside = _inside(value, low, high)
        if inside is not None:
            return _rounding(inside, "numeric")
    if options.absolute or options.relative:
        return _tolerated(one, other, options)
    return None


def _inside(value: Node, low: Fraction, high: Fraction) -> bool | None:
    for precise in (False, True):
        found = numeric.bounds(value, precise=precise)
        if found is not None:
            if low <= found[0] and found[1] <= high:
                return True
            if found[1] < low or high < found[0]:
                return False
    return None


def _tolerated(one: Node, other: Node, options: ScalarOptions) -> Decision | None:
    left, right = numeric.bounds(one, precise=True), numeric.bounds(other, precise=True)
    if left is None or right is None:
        return None
    bound = max(options.absolute, options.relative * min(map(abs, right)))
    if max(abs(left[1] - right[0]), abs(right[1] - left[0])) <= bound:
        return Decision(True, "numeric", "within the tolerance")
    return None


def _by_bases(one: Node, other: Node, draw: Draw, prove: bool) -> Decision:
    """Compare under each base that a logarithm without one may have, on both sides the same."""
    left = None
    for base in (None, _TEN):
        pair = fold(_with_base(one, base)), fold(_with_base(other, base))
        decision = Decision(True, "structure") if pair[0] == pair[1] else None
        decision = decision or _general(*pair, draw, prove)
        if decision.equal:
            return decision
        left = decision if left is None or decision.equal is None else left
    return left or _OPEN


def _with_base(node: Node, base: Node | None) -> Node:
    """Return a tree whose logarithms without a base are natural, or have the base given."""

    def based(found: Node) -> Node:
        if not (isinstance(found, Call) and found.name == "log" and len(found.args) == 1):
            return found
        return Call("ln", found.args) if base is None else Call("log", (*found.args, base))

    return rewritten(node, based)


def _general(one: Node, other: Node, draw: Draw, prove: bool) -> Decision:
    scale = PROVING_SCALE if prove else 1
    seen = traits(one, other)
    equal = identity.identical(one, other, draw, scale, seen)
    if equal is not None:
        return Decision(equal, "identity")
    named = identity.with_names(one, other, seen, draw)
    if named is not None:
        equal = numeric.same(*named, traits(*named), draw, scale)
        if equal is not None:
            return Decision(equal, "numeric")
    if not prove:
        return _OPEN
    from . import symbolic

    equal = symbolic.same(one, other)
    return _OPEN if equal is None else Decision(equal, "symbolic")
