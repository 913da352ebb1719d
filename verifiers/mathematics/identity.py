"""Identity testing: two trees have the same value at a random point of two prime fields at once.

The two fields are one ring, the integers modulo p·q. In it a rational function, a huge power and a
factorial cost a few multiplications, and two rational functions that differ anywhere differ at a
random point but for a chance of about 2^-59 for each degree.

What is not rational (π, e, i, √2, sin x, an unknown f(x), an integral) is an *atom*: a random
value that belongs to its name and to the values of its arguments. Two trees that agree then are
equal, for they agree whatever the atoms are; two that differ may still be equal, and are left to
the next tier. Where no atom entered, a difference is a proof.

Variables are sampled at positive integers, so 2^(n+1) is 2·2^n here; those that a factorial, an
index or the power of a negative number needs to be small are small, and then several points must
agree.
"""

import math
from collections.abc import Callable
from fractions import Fraction

from .draws import Draw
from .fields import NoValue, OutOfSteps, Point
from .nodes import (
    Applied,
    Big,
    Call,
    Constant,
    Node,
    Number,
    Power,
    Product,
    Root,
    Sum,
    Symbol,
    children,
)
from .rational import nodes_in, rewritten
from .traits import Traits, traits

MAX_STEPS = 15_000
"""Nodes visited and factors multiplied in one comparison: about 10 ms."""
_POWER_STEPS = 20
"""What a power with a long exponent costs."""
SMALL_POINTS = 6
"""Points that must agree where variables are small integers."""
SMALL_TRIALS = 40
"""Points tried for them: (n − k)! has no value at half of all points."""

_RATIOS = {
    "tan": ("sin", "cos"), "cot": ("cos", "sin"), "sec": ("", "cos"), "csc": ("", "sin"),
    "tanh": ("sinh", "cosh"), "coth": ("cosh", "sinh"), "sech": ("", "cosh"), "csch": ("", "sinh"),
}  # fmt: skip
"""Functions that are written through two others."""
_UNORDERED = frozenset(["min", "max", "gcd", "lcm"])


def identical(
    one: Node, other: Node, draw: Draw, scale: int = 1, seen: Traits | None = None
) -> bool | None:
    """Compare two folded trees.

    Args:
        one: A scalar, as `fold` leaves it.
        other: Another one.
        draw: The source of the point.
        scale: How many times the usual budget may be spent.
        seen: The traits of the two, where they are known.

    Returns:
        `True` if they are equal, `False` if they provably differ, `None` if it stays open.

    Example:
        >>> x, two = Symbol("x"), Number(Fraction(2))
        >>> identical(Sum((x, x)), Product((two, x)), Draw("", ""))
        True
    """
    small = (seen or traits(one, other)).whole
    wanted, trials = (SMALL_POINTS, SMALL_TRIALS) if small else (1, 3)
    steps, agreed, pure = MAX_STEPS * scale, 0, False
    try:
        for trial in range(trials):
            point = Point(draw, small, trial, steps)
            try:
                same = value(point, one) == value(point, other)
            except NoValue:
                continue
            finally:
                steps = point.steps
            pure = not point.atoms
            if not same:
                return False if pure else None
            agreed += 1
            if agreed == wanted:
                return True
    except OutOfSteps:
        return None
    return None


def with_names(one: Node, other: Node, seen: Traits, draw: Draw) -> tuple[Node, Node] | None:
    """Replace each value of an unknown function, f(x + 1), by a variable that stands for it.

    Returns:
        The two trees; `None` if it cannot be told which of those values are the same.
    """
    if "applied" not in seen.kinds:
        return one, other
    point = Point(draw, seen.whole, 0, MAX_STEPS)

    def named(node: Node) -> Node:
        if not isinstance(node, Applied):
            return node
        return Symbol(" ".join([node.name, *(str(value(point, each)) for each in node.args)]))

    try:
        pair = rewritten(one, named), rewritten(other, named)
    except (NoValue, OutOfSteps):
        return None
    return None if point.atoms else pair


def value(point: Point, node: Node) -> int:
    """Return the value of a tree at a point.

    Raises:
        NoValue: It has none.
        OutOfSteps: The comparison is over its budget.
    """
    point.spend(1)
    return _VALUES.get(type(node), _no_value)(point, node)


def _no_value(point: Point, node: Node) -> int:
    raise OutOfSteps  # no scalar that `fold` leaves


def _number(point: Point, node: Number) -> int:
    number = node.value
    if number.denominator == 1:
        return number.numerator % point.modulus
    return number.numerator * point.inverse(number.denominator) % point.modulus


def _sum(point: Point, node: Sum) -> int:
    return sum(value(point, each) for each in node.terms) % point.modulus


def _product(point: Point, node: Product) -> int:
    result = 1
    for factor in node.factors:
        result = result * value(point, factor) % point.modulus
    return result


def _power(point: Point, node: Power) -> int:
    base = value(point, node.base)
    if isinstance(node.exponent, Number):
        return _fraction_power(point, base, node.exponent.value)
    exact = point.exact(node.exponent)
    if exact is not None:
        parts = _divisor(node.exponent)
        if parts > 1:  # (x²)^(n/2) is not xⁿ, also where the n drawn is even
            base, exact = point.atom("root", base, parts), exact * parts
        return _fraction_power(point, base, exact)
    exponent = point.exponent(node.exponent)
    if exponent is not None:
        return _whole_power(point, base, exponent)
    above = value(point, node.exponent)
    mirrored = point.modulus - above
    if above <= mirrored:
        return point.atom("power", base, above)
    return point.inverse(point.atom("power", base, mirrored))


def _divisor(node: Node) -> int:
    """Return the common denominator of the numbers in an exponent."""
    if isinstance(node, Number):
        return node.value.denominator
    return math.lcm(*map(_divisor, children(node)))


def _fraction_power(point: Point, base: int, exponent: Fraction) -> int:
    if exponent.denominator != 1:
        base = point.atom("root", base, exponent.denominator)
    return _whole_power(point, base, exponent.numerator)


def _whole_power(point: Point, base: int, exponent: int) -> int:
    if not base and exponent <= 0:
        raise NoValue
    if -64 < exponent < 64:
        found = pow(base, abs(exponent), point.modulus)
        return found if exponent >= 0 else point.inverse(found)
    if base and math.gcd(base, point.modulus) != 1:
        raise NoValue
    point.spend(_POWER_STEPS)
    return pow(base, exponent % point.order, point.modulus) if base else 0


def _root(point: Point, node: Root) -> int:
    operand = value(point, node.operand)
    if isinstance(node.degree, Number):
        return _fraction_power(point, operand, 1 / node.degree.value)
    return point.atom("power", operand, point.inverse(value(point, node.degree)))


def _call(point: Point, node: Call) -> int:
    special = _CALLS.get(node.name)
    if special is not None:
        found = special(point, node)
        if found is not None:
            return found
    values = [value(point, each) for each in node.args]
    if node.name in _RATIOS:
        top, bottom = _RATIOS[node.name]
        below = point.inverse(point.signed_atom(bottom, values[0]))
        return below * (point.signed_atom(top, values[0]) if top else 1) % point.modulus
    if len(values) == 1:
        return point.signed_atom(node.name, values[0])
    return point.atom(node.name, *(sorted(values) if node.name in _UNORDERED else values))


def _factorial(point: Point, node: Call) -> int | None:
    whole = point.whole(node.args[0])
    return point.factorial(whole) if whole is not None and whole <= MAX_STEPS else None


def _double_factorial(point: Point, node: Call) -> int | None:
    whole = point.whole(node.args[0])
    if whole is None or whole > MAX_STEPS:
        return None
    if whole < -1:
        raise NoValue
    point.spend(max(whole, 0) // 2)
    result = 1
    for factor in range(whole, 1, -2):
        result = result * factor % point.modulus
    return result


def _falling(point: Point, node: Call) -> int | None:
    """Return n (n − 1) … (n − k + 1), over k! for a binomial; n may be any expression."""
    steps = point.whole(node.args[1])
    if steps is None or abs(steps) > MAX_STEPS:
        return None
    if steps < 0:
        return 0
    point.spend(steps)
    top, result = value(point, node.args[0]), 1
    for step in range(steps):
        result = result * (top - step) % point.modulus
    if node.name == "permutations":
        return result
    return result * point.inverse(point.factorial(steps)) % point.modulus


def _log(point: Point, node: Call) -> int | None:
    if len(node.args) == 1:
        return None
    top, bottom = (point.atom("ln", value(point, each)) for each in node.args)
    return top * point.inverse(bottom) % point.modulus


def _big(point: Point, node: Big) -> int:
    ends = (node.lower, node.upper)
    if node.kind in ("sum", "product") and None not in ends:
        first, last = (point.whole(end) for end in ends if end is not None)
        if first is not None and last is not None:
            if (last - first) * nodes_in(node.body) > point.steps:
                raise OutOfSteps
            return _total(point, node, first, last)
    bounds = [-1 if end is None else value(point, end) for end in ends]
    if node.kind == "derivative" or (node.kind == "integral" and None in ends):
        return point.atom(node.kind, node.variable.name, value(point, node.body), *bounds)
    return point.atom(node.kind, _under_binding(point, node), *bounds)


def _total(point: Point, node: Big, first: int, last: int) -> int:
    """Add or multiply up the values of a body."""
    if last < first - 1:
        raise NoValue
    name, result = node.variable.name, int(node.kind == "product")
    kept = point.bind(name, None)
    for index in range(first, last + 1):
        point.bind(name, index)
        found = value(point, node.body)
        result = (result * found if node.kind == "product" else result + found) % point.modulus
    point.bind(name, kept)
    return result


def _under_binding(point: Point, node: Big) -> int:
    """Return the value of a body; its bound variable stands for the depth of its binding."""
    point.depth += 1
    kept = point.bind(node.variable.name, point.bound(point.depth))
    found = value(point, node.body)
    point.depth -= 1
    point.bind(node.variable.name, kept)
    return found


_CALLS: dict[str, Callable[[Point, Call], int | None]] = {
    "factorial": _factorial,
    "double_factorial": _double_factorial,
    "binomial": _falling,
    "permutations": _falling,
    "log": _log,
}
_VALUES: dict[type, Callable[..., int]] = {
    Number: _number,
    Symbol: lambda point, node: point.variable(node.name),
    Constant: lambda point, node: point.atom("constant", node.name),
    Sum: _sum,
    Product: _product,
    Power: _power,
    Root: _root,
    Call: _call,
    Applied: lambda point, node: point.atom(
        "applied", node.name, *(value(point, each) for each in node.args)
    ),
    Big: _big,
}
