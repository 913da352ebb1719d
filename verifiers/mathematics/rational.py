"""Exact arithmetic on trees, under a budget.

`fold` replaces every part that is rational by its value and leaves the rest (variables, π, √2)
standing. The budget bounds time and memory, so this runs in the caller's process: `9^9^9^9` and
`(10^9)!` are over it before a digit is computed.
"""

import math
from fractions import Fraction

from ..numerals import TooLarge, Unreadable
from .nodes import (
    Constant,
    Equation,
    Factorial,
    Node,
    Number,
    Percent,
    Power,
    Product,
    Root,
    Sum,
    Symbol,
)

MAX_BITS = 32_768
"""Bits of one value (about 9,800 digits): one operation stays under a few milliseconds."""
MAX_ROOT_BITS = 512
"""Bits of a number whose cube or higher root is looked for here; larger ones are left to sympy."""
MAX_TOTAL_BITS = 16 * MAX_BITS
"""Bits of all results of one tree: the whole stays under about 50 ms."""


class _Budget:
    """The bits that one tree may still produce."""

    def __init__(self) -> None:
        self.left = MAX_TOTAL_BITS

    def spend(self, bits: float) -> None:
        """Refuse a result before it is computed."""
        self.left -= min(bits, MAX_TOTAL_BITS + 1.0)
        if bits > MAX_BITS or self.left < 0:
            raise TooLarge(f"a number of more than {MAX_BITS} bits")


def fold(node: Node) -> Node:
    """Return the tree with its rational parts computed.

    Raises:
        TooLarge: A value is over the budget.
        Unreadable: It has no value (a division by zero, the factorial of a fraction).

    Example:
        >>> fold(Power(Number(Fraction(2)), Number(Fraction(-2))))
        Number(value=Fraction(1, 4))
    """
    return node if isinstance(node, Number) else _fold(node, _Budget())


def _fold(node: Node, budget: _Budget) -> Node:
    match node:
        case Number() | Symbol() | Constant():
            return node
        case Equation(left, right):
            return Equation(_fold(left, budget), _fold(right, budget))
        case Percent(operand):
            hundredth = Number(Fraction(1, 100))
            return _product([_fold(operand, budget), hundredth], budget)
        case Sum(terms):
            return _sum([_fold(term, budget) for term in terms], budget)
        case Product(factors):
            return _product([_fold(factor, budget) for factor in factors], budget)
        case Power(base, exponent):
            return _power(_fold(base, budget), _fold(exponent, budget), budget)
        case Root(operand, degree):
            return _root(_fold(operand, budget), degree)
        case Factorial(operand):
            return _factorial(_fold(operand, budget), budget)


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _sum(terms: list[Node], budget: _Budget) -> Node:
    total, rest = Fraction(0), []
    for term in terms:
        if isinstance(term, Number):
            budget.spend(_bits(total) + _bits(term.value))
            total += term.value
        else:
            rest.append(term)
    if not rest:
        return Number(total)
    parts = (Number(total), *rest) if total else tuple(rest)
    return parts[0] if len(parts) == 1 else Sum(parts)


def _product(factors: list[Node], budget: _Budget) -> Node:
    total, rest = Fraction(1), []
    for factor in factors:
        if isinstance(factor, Number):
            budget.spend(_bits(total) + _bits(factor.value))
            total *= factor.value
        else:
            rest.append(factor)
    if not rest:
        return Number(total)
    parts = (Number(total), *rest) if total != 1 else tuple(rest)
    return parts[0] if len(parts) == 1 else Product(parts)


def _power(base: Node, exponent: Node, budget: _Budget) -> Node:
    if not isinstance(exponent, Number):
        return Power(base, exponent)
    if exponent.value == 1:
        return base
    if not isinstance(base, Number):
        return Power(base, exponent)
    if not base.value and exponent.value <= 0:
        raise Unreadable("0^0" if not exponent.value else "a division by zero")
    if exponent.value.denominator == 1:
        # 1 and −1 stay small whatever the exponent; the exponent itself is within the budget
        size = _bits(base.value) if abs(base.value) not in (0, 1) else 0
        budget.spend(size * abs(exponent.value.numerator))
        return Number(base.value**exponent.value.numerator)
    if exponent.value.denominator == 2:
        root = _root(base, 2)
        if isinstance(root, Number):
            return _power(root, Number(exponent.value * 2), budget)
    return Power(base, exponent)


def _root(operand: Node, degree: int) -> Node:
    if not isinstance(operand, Number):
        return Root(operand, degree)
    value = operand.value
    if value < 0 and degree % 2 == 0:
        return Root(operand, degree)
    top = _whole_root(abs(value.numerator), degree)
    bottom = _whole_root(value.denominator, degree)
    if top is None or bottom is None:
        return Root(operand, degree)
    return Number(Fraction(top if value >= 0 else -top, bottom))


def _whole_root(value: int, degree: int) -> int | None:
    """Return the exact root of a whole number, or `None`."""
    if degree == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    if value.bit_length() > MAX_ROOT_BITS:
        return None
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= value:
            low = middle
        else:
            high = middle - 1
    return low if low**degree == value else None


def _factorial(operand: Node, budget: _Budget) -> Node:
    if not isinstance(operand, Number):
        return Factorial(operand)
    if operand.value.denominator != 1 or operand.value < 0:
        raise Unreadable("the factorial of a number that is not whole")
    whole = operand.value.numerator
    budget.spend(whole * whole.bit_length())
    return Number(Fraction(math.factorial(whole)))
