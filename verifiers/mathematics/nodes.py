"""The tree that a mathematical text is read into: small, immutable, and not yet a value.

Two levels. *Scalars* are one value each: numbers, symbols, functions of them. *Structures* are what
answers are made of: lists, sets, tuples, intervals, relations, matrices, quantities, words.
Subtraction is a sum with a factor −1, division a product with a power −1: fewer kinds of node for
every pass that follows.
"""

from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

# --- scalars --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Number:
    """An exact rational."""

    value: Fraction
    places: int | None = field(default=None, compare=False)
    """Digits behind the point, where the text was a decimal numeral: `2.50` has 2, `1.5e-3` has 4;
    `None` for whole numbers and for results of arithmetic."""
    digits: int = field(default=0, compare=False)
    """Significant digits written, leading zeros left out; 0 for results of arithmetic."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, with its subscript and accents: `x`, `a_1`, `\\vec{v}` is `vec v`."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """One of `pi`, `e`, `i`, `oo` (infinity)."""

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
    """The root of a degree from 2 up: √x, ∛x; real for a negative operand and an odd degree."""

    operand: "Node"
    degree: "Node"
    """Nearly always a `Number`."""


@dataclass(frozen=True, slots=True)
class Call:
    """A known function of scalars: one of `FUNCTIONS`."""

    name: str
    args: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Applied:
    """An unknown function of scalars: `f(x)`, `P(1, 2)`."""

    name: str
    args: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Big:
    """A sum, product, integral, limit or derivative; `kind` is one of `BIG`."""

    kind: str
    variable: Symbol
    lower: "Node | None"
    """First index, lower bound, or the point of a limit."""
    upper: "Node | None"
    body: "Node"


@dataclass(frozen=True, slots=True)
class PlusMinus:
    """`± operand`; all signs of a tree change together, `flipped` ones (∓) the other way."""

    operand: "Node"
    flipped: bool = False


@dataclass(frozen=True, slots=True)
class Percent:
    """`operand%`, a hundredth of the operand."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Degree:
    """`operand°`, π/180 of the operand."""

    operand: "Node"


@dataclass(frozen=True, slots=True)
class Based:
    """A whole number written in a base from 2 to 36: `204_5`."""

    value: int
    base: int


# --- structures -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value with a unit: `5 cm`, `$5` (unit `$`). Only at the top or as an item."""

    value: "Node"
    unit: str
    """As written, white space squeezed, without braces and commands: `cm^2`, `square units`."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """`2 : 3 : 5`; two or more parts."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day or a length of time, in whole seconds; `12:05`, `8:34 pm`."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Date:
    """A day, perhaps without its year (0): `March 5, 2020`."""

    year: int
    month: int
    day: int


@dataclass(frozen=True, slots=True)
class Text:
    """Words, normalised: case folded, marks and commands gone, white space squeezed."""

    words: str


@dataclass(frozen=True, slots=True)
class Items:
    """A bare list: `1, 2 and 3`, `x = 1 or x = 2`, `a; b`. Two or more items, in writing order."""

    items: "tuple[Node, ...]"
    joined: str = ""
    """`and` or `or` between conditions such as `x > 1`: there it makes a difference."""


@dataclass(frozen=True, slots=True)
class SetOf:
    """`{1, 2, 3}`, or `∅` with no items."""

    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Tuple:
    """A bracketed list: `(1, 2)`, `[0, 1)`, `⟨1, 2⟩`. A pair may be a point or an interval."""

    items: "tuple[Node, ...]"
    opening: str
    """`(`, `[` or `<`."""
    closing: str
    """`)`, `]` or `>`."""


@dataclass(frozen=True, slots=True)
class NamedSet:
    """One of `R`, `Q`, `Z`, `N`, `C`; `Z+` and the like with their sign."""

    name: str


@dataclass(frozen=True, slots=True)
class SetOperation:
    """Two or more sets joined by `union`, `intersection` or `minus`."""

    kind: str
    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class SetBuilder:
    """`{x | condition}`; `element` may be any node, conditions are joined by `and`."""

    element: "Node"
    conditions: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Member:
    """`element ∈ of`, or with `negated` ∉."""

    element: "Node"
    of: "Node"
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """A chain: `0 < x ≤ 1` has three sides and the operators `<`, `<=`.

    Operators: `=`, `!=`, `<`, `<=`, `>`, `>=`, `~` (≈), `==` (≡).
    """

    sides: "tuple[Node, ...]"
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of equal length."""

    rows: "tuple[tuple[Node, ...], ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    """The letter and the text of one of the answers to choose from: `(B) 12`."""

    letter: str
    value: "Node"


@dataclass(frozen=True, slots=True)
class Cases:
    """A piecewise value: pairs of value and condition; a condition of `None` is "otherwise"."""

    branches: "tuple[tuple[Node, Node | None], ...]"


Node = (
    Number | Symbol | Constant | Sum | Product | Power | Root | Call | Applied | Big | PlusMinus
    | Percent | Degree | Based | Quantity | Ratio | Clock | Date | Text | Items | SetOf | Tuple
    | NamedSet | SetOperation | SetBuilder | Member | Relation | Matrix | Choice
    | Cases
)  # fmt: skip
KINDS: frozenset[type] = frozenset(Node.__args__)
SCALARS = (
    Number, Symbol, Constant, Sum, Product, Power, Root, Call, Applied, Big, PlusMinus, Percent,
    Degree, Based,
)  # fmt: skip

_FUNCTIONS = """sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh
coth sech csch arcsinh arccosh arctanh exp ln log abs floor ceil factorial double_factorial binomial
permutations gcd lcm mod min max re im conjugate arg sgn norm det"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Names a `Call` may have. `log` has two arguments (value, base), or one where the text names no
base; `mod` is the remainder of the first argument by the second; `binomial(n, k)`,
`permutations(n, k)` = n!/(n−k)!; `det` and `norm` take a matrix or tuple."""
BIG = frozenset({"sum", "product", "integral", "limit", "derivative"})
"""Kinds of `Big`; an integral without bounds has `lower` and `upper` `None`."""

MINUS_ONE = Number(Fraction(-1))


def negated(node: Node) -> Node:
    """Return −node."""
    if isinstance(node, Number):
        return Number(-node.value, node.places, node.digits)
    return Product((MINUS_ONE, node))


def inverse(node: Node) -> Node:
    """Return 1/node."""
    return Power(node, MINUS_ONE)


_PARTS: dict[type, tuple[str, ...]] = {
    kind: tuple(
        each.name for each in fields(kind) if "Node" in str(each.type) or each.type is Symbol
    )
    for kind in Node.__args__
}
"""The fields of each kind of node that hold nodes: asked for thousands of times a second."""


_NOTHING: frozenset[str] = frozenset()


def children(node: Node) -> list[Node]:
    """Return the nodes directly inside a node."""
    found: list[Node] = []
    for name in _PARTS[type(node)]:
        value = getattr(node, name)
        if type(value) is tuple:
            _flatten(value, found)
        elif value is not None:
            found.append(value)
    return found


def _flatten(parts: tuple[Any, ...], found: list[Node]) -> None:
    """Add nodes, or those of rows and branches, of which a condition may be missing."""
    if parts and type(parts[0]) is tuple:
        for row in parts:
            found += [part for part in row if part is not None]
    else:
        found += parts


def symbols(node: Node) -> frozenset[str]:
    """Return the names of the variables of a tree."""
    kind = type(node)
    if not _PARTS[kind]:
        return frozenset((node.name,)) if kind is Symbol else _NOTHING  # pyright: ignore
    return frozenset([each.name for each in walk(node) if type(each) is Symbol])


def walk(node: Node) -> list[Node]:
    """Return every node of a tree, itself first."""
    found: list[Node] = [node]
    for each in found:  # grows while it is walked through
        for name in _PARTS[type(each)]:
            value = getattr(each, name)
            if type(value) is tuple:
                _flatten(value, found)
            elif value is not None:
                found.append(value)
    return found
