"""Equality of what is not rational, by sympy; runs in a worker that can be killed.

The sympy objects are built from our own tree, node by node; no text reaches sympy. Variables stand
for complex numbers: √(x²) is not x. An equality is accepted only when it is proved, and refused
only when the two sides differ by more than the rounding at some point; the rest is undecided.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import sympy
from sympy.core import random as sympy_random

from ..numerals import Unreadable
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

DIGITS = 30
"""Significant digits to which differences are evaluated."""
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}
_POINTS = ((7, 5), (-11, 13), (23, 17), (-5, 7))
"""Starting points (numerator, denominator) at which two expressions in variables are compared;
the negative ones tell √(x²) from x."""


def build(node: Node) -> Any:
    """Return the sympy expression of a tree.

    Raises:
        Unreadable: The tree is an equation, or has no finite value.
    """
    match node:
        case Number(value):
            return sympy.Rational(value.numerator, value.denominator)
        case Symbol(name):
            return sympy.Symbol(name)
        case Constant(name):
            return _CONSTANTS[name]
        case Sum(terms):
            return sympy.Add(*map(build, terms))
        case Product(factors):
            return _finite(sympy.Mul(*map(build, factors)))
        case Power(base, exponent):
            return _finite(sympy.Pow(build(base), build(exponent)))
        case Root(operand, degree):
            return _real_root(build(operand), degree)
        case Factorial(operand):
            return _finite(sympy.factorial(build(operand)))
        case Percent(operand):
            return build(operand) / 100
        case Equation():
            raise Unreadable("an equation inside an expression")


def _finite(value: Any) -> Any:
    if value.has(sympy.zoo, sympy.nan, sympy.oo, sympy.S.NegativeInfinity):
        raise Unreadable("a division by zero")
    return value


def _real_root(value: Any, degree: int) -> Any:
    if degree % 2 and value.is_negative:
        return -sympy.root(-value, degree)
    return sympy.root(value, degree)


def same(left: Node, right: Node) -> bool | None:
    """Return whether two trees have the same value everywhere, `None` if that stays open."""
    sympy_random.seed(0)  # `Expr.equals` draws points: the same ones on every run
    one, other = build(left), build(right)
    if one == other:
        return True
    difference = one - other
    symbols = sorted(difference.free_symbols, key=str)
    points = _POINTS if symbols else _POINTS[:1]
    gaps = [_differs(difference.subs(_values(symbols, point))) for point in points]
    if any(gaps):
        return False
    if all(gap is None for gap in gaps):
        # not undecided: a policy could write such answers to escape from being scored
        raise Unreadable("no value at any point")
    return _proved(difference)


def _values(symbols: Sequence[Any], point: tuple[int, int]) -> dict[Any, Any]:
    numerator, denominator = point
    sign = 1 if numerator > 0 else -1
    return {
        # the step keeps the sign and lets no two variables, nor a variable and a number, coincide
        symbol: sympy.Rational(numerator + 2 * place * sign, denominator + 3 * place)
        for place, symbol in enumerate(symbols)
    }


def _differs(number: Any) -> bool | None:
    """Return whether a number is certainly not zero; `None` if it has no finite value."""
    if number.is_Rational:
        return bool(number != 0)
    parts = sympy.N(number, DIGITS).as_real_imag()
    if not all(part.is_Float or part.is_Rational for part in parts):
        return None
    # a Float of precision 1 is what is left when all digits cancelled
    return any(part != 0 and (part.is_Rational or part._prec > 1) for part in parts)


def _proved(difference: Any) -> bool | None:
    for rewrite in (sympy.expand, sympy.radsimp, sympy.simplify):
        if rewrite(difference) == 0:
            return True
    return difference.equals(0)


def close(left: Node, right: Node, absolute: Fraction, relative: Fraction) -> bool:
    """Return whether two numbers differ by at most the tolerances, to 50 digits.

    Raises:
        Unreadable: A side has variables, or is not real.
    """
    one, other = (sympy.N(build(side), 50) for side in (left, right))
    if not (one.is_Float or one.is_Rational) or not (other.is_Float or other.is_Rational):
        raise Unreadable("a tolerance is for real numbers")
    bounds = (sympy.Rational(bound.numerator, bound.denominator) for bound in (absolute, relative))
    flat, scaled = bounds
    return bool(abs(one - other) <= max(flat, scaled * abs(other)))
