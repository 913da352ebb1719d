"""The tree that a mathematical text is read into: small, immutable, and not yet a value.

Subtraction is a sum with a factor −1, division a product with a power −1: fewer kinds of node for
every pass that follows. A wider reader adds kinds here (lists, intervals, matrices) and a way to
compare them in `compare`.
"""

from dataclasses import dataclass
from fractions import Fraction

from ..numerals import show_fraction


@dataclass(frozen=True, slots=True)
class Number:
    """An exact rational."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, with its subscript: `x`, `a_1`."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """One of `pi`, `e`, `i`."""

    name: str


@dataclass(frozen=True, slots=True)
class Sum:
    """Two or more terms."""

    terms: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Product:
    """Two or more factors."""

    factors: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Power:
    """`base ^ exponent`."""

    base: "Node"
    exponent: "Node"


@dataclass(frozen=True, slots=True)
class Root:
    """The real root of a degree from 2 up: √x, ∛x."""

    operand: "Node"
    degree: int


@dataclass(frozen=True, slots=True)
class Factorial:
    """`operand!`."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Percent:
    """`operand%`, a hundredth of the operand."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Equation:
    """`left = right`; stands only at the top."""

    left: "Node"
    right: "Node"


Node = Number | Symbol | Constant | Sum | Product | Power | Root | Factorial | Percent | Equation

MINUS_ONE = Number(Fraction(-1))


def negated(node: Node) -> Node:
    """Return −node."""
    return Number(-node.value) if isinstance(node, Number) else Product((MINUS_ONE, node))


def inverse(node: Node) -> Node:
    """Return 1/node."""
    return Power(node, MINUS_ONE)


def show(node: Node) -> str:
    """Return one text per tree, with the parts of sums and products in a fixed order.

    Example:
        >>> show(Product((Symbol("x"), Number(Fraction(2)))))
        '(2*x)'
    """
    match node:
        case Number(value):
            return show_fraction(value)
        case Symbol(name) | Constant(name):
            return name
        case Sum(parts):
            return f"({'+'.join(sorted(map(show, parts)))})"
        case Product(parts):
            return f"({'*'.join(sorted(map(show, parts)))})"
        case Power(base, exponent):
            return f"({show(base)})^({show(exponent)})"
        case Root(operand, degree):
            return f"root{degree}({show(operand)})"
        case Factorial(operand):
            return f"({show(operand)})!"
        case Percent(operand):
            return f"({show(operand)})%"
        case Equation(left, right):
            return f"{show(left)}={show(right)}"
