"""Units: dropped where only one side has one, converted where both do.

A unit must not carry a second answer past the comparison: words that count, negate or offer a
choice are no unit.
"""

import re
from fractions import Fraction

from .decisions import SAME, Decision, Judge, different, every
from .nodes import Constant, Degree, Node, Number, Power, Product, Quantity, Symbol
from .shapes import rewrite
from .units import canonical

_MEANINGFUL = re.compile(
    r"""\b(?:or|not|no|never|wrong|incorrect|and|but|maybe|perhaps|either|plus|minus|times|over
    |divided|squared|cubed|half|third|quarter|dozen|one|two|three|four|five|six|seven|eight|nine
    |ten|eleven|twelve|(?:twen|thir|four|for|fif|six|seven|eigh|nine)t(?:y|een)|hundred|thousand
    |million|billion|trillion|percent
    |isn't|isnt|than|less|more|instead|else|other|otherwise|alternatively|versus|vs|roots?|pi
    |infinity|factorial|choose|mod|base|k
    |(?:thir|four|fif|six|seven|eigh|nin|ten|hundred|thousand)(?:d|th)s|halves)\b
    |[0-9=<>+*/\\|~±×÷√π∞≈≠≤≥?]|n't""",
    re.VERBOSE | re.IGNORECASE,
)
_DEGREE = Product((Constant("pi"), Number(Fraction(1, 180))))
_WORD = re.compile(r"[^\W\d_]+")


def compare_quantities(one: Node, other: Node, judge: Judge) -> Decision:
    """Compare two trees of which at least one has a unit."""
    (left, unit), (right, other_unit) = _split(one, other), _split(other, one)
    if "rad" in (_angle(unit), _angle(other_unit)):
        left, right = _in_radians(left), _in_radians(right)
    rule = judge.rules.units
    if rule != "ignore":
        if unit and other_unit:
            return _both(left, unit, right, other_unit, judge)
        if rule == "require":
            return different("unit")
    if not (_is_harmless(unit) and _is_harmless(other_unit)):
        return different("unit")
    return judge.same(left, right)


def _split(node: Node, opposite: Node) -> tuple[Node, str]:
    """Return value and unit; next to a length, the m of `5 m` is a metre and no variable."""
    if isinstance(node, Quantity):
        return node.value, node.unit
    if isinstance(node, Product) and isinstance(opposite, Quantity) and canonical(opposite.unit):
        places = [at for at, factor in enumerate(node.factors) if _unit_name(factor)]
        first = places[0] if places else 0
        unit = " ".join(map(_unit_name, node.factors[first:]))
        if first and canonical(unit):
            value = node.factors[:first]
            return (value[0] if first == 1 else Product(value)), unit
    return node, ""


def _angle(unit: str) -> str:
    return "rad" if unit.casefold() in ("rad", "rads", "radian", "radians") else ""


def _in_radians(node: Node) -> Node:
    """Write degrees out: beside radians, 30° is not 30."""
    return rewrite(
        node,
        lambda each: Product((each.operand, _DEGREE)) if isinstance(each, Degree) else None,
    )


def _unit_name(factor: Node) -> str:
    """Return how a variable is spelled as a unit: `m`, `s^-2`."""
    exponent = Fraction(1)
    while isinstance(factor, Power) and isinstance(factor.exponent, Number):
        exponent *= factor.exponent.value
        factor = factor.base
    if not isinstance(factor, Symbol):
        return ""
    return factor.name if exponent == 1 else f"{factor.name}^{exponent}"


def _is_harmless(unit: str) -> bool:
    return not unit or canonical(unit) is not None or not _MEANINGFUL.search(unit)


def _both(left: Node, unit: str, right: Node, other_unit: str, judge: Judge) -> Decision:
    scales = canonical(unit), canonical(other_unit)
    if scales[0] and scales[1]:
        if "unit" in scales[0][0] or "unit" in scales[1][0]:
            return judge.same(left, right)
        if scales[0][0] != scales[1][0]:
            return different("unit")
        if scales[0][1] != scales[1][1]:
            left, right = _scaled(left, scales[0][1]), _scaled(right, scales[1][1])
        return judge.same(left, right)
    return every((_same_words(unit, other_unit), judge.same(left, right)))


def _scaled(node: Node, factor: Fraction) -> Node:
    return Product((Number(factor), node))


def _same_words(one: str, other: str) -> Decision:
    """Words that are no unit agree if those of one are among those of the other."""
    if not (_is_harmless(one) and _is_harmless(other)):
        return SAME if one == other else different("unit")
    left, right = _stems(one), _stems(other)
    return SAME if left <= right or right <= left else different("unit")


def _stems(unit: str) -> set[str]:
    return {word.casefold().rstrip("s") for word in _WORD.findall(unit)}
