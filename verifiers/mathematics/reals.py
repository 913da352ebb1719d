"""About where a number is on the real line: to order endpoints, never to call them equal."""

import math
from collections.abc import Callable
from fractions import Fraction

from .nodes import (
    Call,
    Constant,
    Degree,
    Node,
    Number,
    Percent,
    Power,
    Product,
    Root,
    Sum,
    Symbol,
    symbols,
)
from .shapes import substitute

_CONSTANTS = {"pi": math.pi, "e": math.e, "oo": math.inf}
_CALLS: dict[str, Callable[[float], float]] = {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
    "exp": math.exp,
    "ln": math.log,
    "log": math.log10,
    "abs": abs,
}


def real(node: Node) -> float | None:
    """Return about the value of a tree without variables; `None` if it is not seen at once."""
    try:
        value = _real(node)
    except (ValueError, OverflowError, ZeroDivisionError, KeyError, TypeError):
        return None
    return None if isinstance(value, complex) or math.isnan(value) else value


def _real(node: Node) -> float:
    match node:
        case Number(value):
            return float(value)
        case Constant(name):
            return _CONSTANTS[name]
        case Sum(terms):
            return sum(map(_real, terms))
        case Product(factors):
            return math.prod(map(_real, factors))
        case Power(base, exponent):
            return _real(base) ** _real(exponent)
        case Root(operand, degree):
            value, index = _real(operand), _real(degree)
            return (
                -((-value) ** (1 / index)) if value < 0 and index % 2 == 1 else value ** (1 / index)
            )
        case Percent(operand):
            return _real(operand) / 100
        case Degree(operand):
            return math.radians(_real(operand))
        case Call(name, (argument,)):
            return _CALLS[name](_real(argument))
    raise ValueError


def linear(node: Node, name: str) -> tuple[Node, Node] | None:
    """Return (a, b) such that the tree is a·name + b, with neither holding the variable.

    Returns:
        `None` if the tree is not written as such a sum of products.
    """
    if not _is_linear(node, name):
        return None
    zero = substitute(node, {name: Number(Fraction(0))})
    one = substitute(node, {name: Number(Fraction(1))})
    return Sum((one, Product((Number(Fraction(-1)), zero)))), zero


def _is_linear(node: Node, name: str) -> bool:
    if isinstance(node, Symbol) or name not in symbols(node):
        return True
    if isinstance(node, Sum):
        return all(_is_linear(term, name) for term in node.terms)
    if isinstance(node, Product):
        inside = [factor for factor in node.factors if name in symbols(factor)]
        return len(inside) == 1 and _is_linear(inside[0], name)
    return isinstance(node, Degree) and _is_linear(node.operand, name)
