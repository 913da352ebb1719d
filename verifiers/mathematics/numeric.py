"""Comparison by values: doubles at random points to reject, many digits to accept.

What counts as equal for trees with variables. They are compared at random positive points, and
then with one variable at a time negative. Where at least one of the two values is real they must
agree; where both are complex the point says nothing (ln x + ln y and ln xy), unless a tree
contains i, or is complex wherever it was looked at. Hence √(x²) is |x| and not x, ln(x²) is
ln|x|·2 and not 2 ln x, while √a/√b is √(a/b) and √x·√x is x. Points with two negative variables
are not looked at: lengths and masses are positive, and √(ab)/b for √(a/b) is what people write.
Variables that a factorial, an index or a power of −1 needs whole are whole.

A rejection is always a proof up to the error bounds. An acceptance means agreement in about 50
digits at points that nobody could foresee, with no term so small that it would not show.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from ..numerals import TooLarge
from .double_functions import NoPoint, is_real
from .doubles import approximate
from .draws import Draw
from .nodes import Node
from .precise import Evaluator, NoValue, OutOfUnits, TooBig
from .traits import Traits

BITS = 230
"""Binary digits of the first comparison that may accept."""
MAX_BITS = 2_000
"""Binary digits of the second one, which is made where small terms could hide."""
UNITS = 1_200.0
"""Arithmetic operations at `BITS` in one comparison: about 10 ms."""
NODES = 8_000
"""Nodes evaluated in doubles in one comparison: about 10 ms."""
FREE_TALLY = 100
"""Bits of smallness that the first comparison can see through."""
MAX_NEGATIVE = 6
"""Variables that are tried with the other sign."""
_RANGES = ((0.1, 0.9), (1.0, 4.0), (5.0, 40.0))
"""Where positive points lie: arcsin x needs x below 1, √(x − 5) above 5."""
_POINTS = 6
_STRATA = 24
_WHOLE = (2, 30)
_EDGES = (1, 2, 3, 4, 8, 9, 16)
"""Values at which roundings step: floor(log2 n) does at the powers of 2."""
_BEYOND = (Fraction(-2), Fraction(-1, 2), Fraction(1, 2), Fraction(2))
_MAX_LEVELS = 12
"""Numbers of the trees around which steps are looked for."""
_PIECEWISE = frozenset(["floor", "ceil", "mod", "min", "max", "abs", "sgn", "gcd", "lcm"])


def same(one: Node, other: Node, seen: Traits, draw: Draw, scale: int = 1) -> bool | None:
    """Compare two folded trees by their values.

    Args:
        one: A scalar, as `fold` leaves it.
        other: Another one.
        seen: The traits of the two.
        draw: The source of the points.
        scale: How many times the usual budget may be spent.

    Returns:
        Whether they are equal; `None` if it stays open.

    Raises:
        TooLarge: A value is out of any range that could be evaluated.
    """
    return _Comparison(one, other, seen, draw, scale).decide()


class _Comparison:
    """The points, the budget and what was seen so far."""

    def __init__(self, one: Node, other: Node, seen: Traits, draw: Draw, scale: int) -> None:
        self.one, self.other, self.draw = one, other, draw
        self.names = sorted(seen.names)
        self.whole = seen.whole
        self.units = UNITS * scale
        self.nodes = NODES * scale
        self.size = seen.nodes
        self.complex = "i" in seen.kinds
        self.piecewise = bool(seen.kinds & _PIECEWISE) or bool(seen.whole)
        self.branched = seen.branched
        self.levels = sorted(seen.levels)[:_MAX_LEVELS]
        self.stepped = bool(self.names) and bool(seen.kinds & _PIECEWISE)
        self.evaluable = not seen.has_big()
        self.too_big = self.evaluated = False

    def decide(self) -> bool | None:
        if not self.evaluable:
            return None
        points = [self._point(index) for index in range(_POINTS if self.names else 1)]
        telling, silent = [], []
        for point in points:
            seen = self._in_doubles(point)
            if seen is False:
                return False
            (telling if seen else silent).append(point)
        if any(self._in_doubles(point) is False for point in self._negatives(points)):
            return False
        if self.branched and any(self._in_doubles(at) is False for at in self._strata()):
            return False
        if self.stepped and any(self._differs(at) for at in self._edges()):
            return False
        wanted = 1 if not self.names else 4 if self.piecewise else 2
        accepted = self._accepted([*telling, *silent], wanted)
        if accepted is None and self.too_big and not self.evaluated:
            raise TooLarge("a value out of any range that is evaluated")
        return accepted

    def _point(self, index: int, negative: str = "") -> dict[str, float]:
        at: dict[str, float] = {}
        for place, name in enumerate(self.names):
            label = f"point {index} {negative} {name}"
            if name in self.whole:
                at[name] = float(self.draw.integer(label, *_WHOLE))
                continue
            # neighbours take turns, so that small and large values meet
            low, high = _RANGES[(index + (place if index >= len(_RANGES) else 0)) % len(_RANGES)]
            value = self.draw.real(label, low, high)
            at[name] = -value if name == negative else value
        return at

    def _negatives(self, points: list[dict[str, float]]) -> Iterator[dict[str, float]]:
        names = [name for name in self.names if name not in self.whole]
        for name in names[:MAX_NEGATIVE]:
            for index in range(2):
                yield self._point(index + len(points), name)

    def _strata(self) -> Iterator[dict[str, float]]:
        """Yield points that leave no wide gap: arcsin(2x√(1 − x²)) is 2 arcsin x up to √½."""
        free = [name for name in self.names if name not in self.whole]
        for index in range(_STRATA):
            at = self._point(index + 2 * _POINTS)
            for place, name in enumerate(free):
                # each variable runs through the layers in its own order
                layer = (index * (2 * place + 1) + 7 * place) % _STRATA
                share = self.draw.real(f"stratum {index} {name}", layer, layer + 1) / _STRATA
                at[name] = share if index % 2 else 10 ** (6 * share - 3)
            yield at
            if free:
                name = free[index // 2 % len(free)]
                yield {**at, name: -at[name]}

    def _edges(self) -> Iterator[dict[str, float]]:
        """Yield points on steps, and on either side of every number that the trees hold.

        max(x, −10⁹) is x unless x is looked at below −10⁹.
        """
        for index, name in enumerate(self.names):
            around = self._point(index + 3 * _POINTS)
            beyond = [level * factor for level in self.levels for factor in _BEYOND]
            free = name not in self.whole
            for value in (*_EDGES, *(float(one) for one in beyond if free and abs(one) < 10**300)):
                yield {**around, name: float(value)}

    def _differs(self, at: Mapping[str, float]) -> bool:
        """Return whether a point on a step tells the trees apart, where doubles say nothing too."""
        seen = self._in_doubles(at)
        if seen is None:
            try:
                agree, real = self._in_digits(at)
            except (OutOfUnits, TooBig, NoValue):
                return False
            return agree is False and real
        return not seen

    def _in_doubles(self, at: Mapping[str, float]) -> bool | None:
        """Return `False` for a difference, `True` for none seen, `None` for nothing seen."""
        self.nodes -= self.size
        if self.nodes < 0:
            return None
        try:
            left, right = approximate(self.one, at), approximate(self.other, at)
        except NoPoint:
            return None
        gap = abs(left[0] - right[0])
        real = is_real(left) or is_real(right)
        if gap <= 4 * (left[1] + right[1]):
            return True if real or self.complex else None
        return False if real or self.complex or not self.names else None

    def _accepted(self, points: list[dict[str, float]], wanted: int) -> bool | None:
        """Compare in many digits until enough points agree."""
        real, imaginary = 0, 0
        for point in points:
            try:
                seen, is_telling = self._in_digits(point)
            except OutOfUnits:
                return None
            except TooBig:
                self.too_big = True
                continue
            except NoValue:
                continue
            self.evaluated = True
            if seen is None:
                continue
            telling = is_telling or self.complex or not self.names
            if not seen and telling:
                return False
            real += telling
            imaginary += not telling and seen
            if real >= wanted:
                return True
        return True if not real and imaginary >= wanted + 1 else None

    def _in_digits(self, at: Mapping[str, float]) -> tuple[bool | None, bool]:
        """Return whether two values agree, and whether one of them is real."""
        left, right, tally = self._values(BITS, at)
        gap, size = abs(left - right), max(abs(left), abs(right))
        real = _may_be_real(left) or _may_be_real(right)
        if tally <= FREE_TALLY and gap <= size * 2.0**-170:
            return True, real
        hidden = int(tally)
        bits = 300 + 2 * hidden
        if bits > MAX_BITS:
            return None, real
        again, size = self._gap(bits, at)
        if again <= _scaled(size, -150 - hidden) or again <= _scaled(gap, BITS + 40 - bits):
            # what shrinks with the rounding is rounding
            return True, real
        if not _stays(gap, again):
            gap, again = again, self._gap(bits + 170, at)[0]
        # what stays is a difference
        return (False if _stays(gap, again) else None), real

    def _gap(self, bits: int, at: Mapping[str, float]) -> tuple[Any, Any]:
        left, right, _ = self._values(bits, at)
        return abs(left - right), max(abs(left), abs(right))

    def _values(self, bits: int, at: Mapping[str, float]) -> tuple[Any, Any, float]:
        evaluator = Evaluator(bits, self.units)
        try:
            left = evaluator.evaluate(self.one, at)
            right = evaluator.evaluate(self.other, at)
        finally:
            self.units = evaluator.units
        return left, right, evaluator.tally


def _scaled(value: Any, bits: int) -> Any:
    return value.context.ldexp(value, bits)


def _stays(gap: Any, again: Any) -> bool:
    return bool(gap) and abs(again - gap) <= _scaled(gap, -20)


def _may_be_real(value: Any) -> bool:
    return not value.imag or abs(value.imag) <= abs(value) * 2.0**-150


def bounds(node: Node, *, precise: bool = False) -> tuple[Fraction, Fraction] | None:
    """Return two rationals between which the value of a constant tree lies.

    Args:
        node: A folded tree without variables.
        precise: Whether to go beyond double precision.

    Returns:
        `None` if it is not real or cannot be evaluated.
    """
    if not precise:
        try:
            value, error = approximate(node, {})
        except NoPoint:
            return None
        if not is_real((value, error)):
            return None
        middle, margin = Fraction(value.real), Fraction(2 * error)
        return middle - margin, middle + margin
    evaluator = Evaluator(BITS, UNITS)
    try:
        found = evaluator.evaluate(node, {})
    except (NoValue, TooBig, OutOfUnits):
        return None
    if not _may_be_real(found):
        return None
    middle = evaluator.exact(found.real)
    margin = abs(middle) / 2**120 + Fraction(1, 2**200)
    return middle - margin, middle + margin
