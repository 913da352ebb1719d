"""Exact arithmetic on trees, under a budget.

`fold` replaces every part that is rational by its value and leaves the rest (variables, π, √2)
standing, and with it what is over the budget: `9^9^9^9` and `(10^9)!` are never expanded. Products
inside products and sums inside sums are opened, so that like things stand side by side.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from ..numerals import Unreadable
from .exact_functions import Budget, exact_angle, exact_call, size, written_out
from .nodes import (
    SCALARS,
    Applied,
    Based,
    Big,
    Call,
    Constant,
    Degree,
    Matrix,
    Node,
    Number,
    Percent,
    PlusMinus,
    Power,
    Product,
    Root,
    Sum,
    Symbol,
    Tuple,
    children,
)

MAX_ROOT_BITS = 512
"""Bits of a number whose cube or higher root is looked for; larger ones are left standing."""
MAX_TERMS = 100
"""Terms of a sum or product with whole bounds that is written out."""
_HUNDREDTH = Fraction(1, 100)
_ZERO = Number(Fraction(0))
_ONE = Number(Fraction(1))
_I = Constant("i")
_TENS = {10**k: k for k in range(64)}


def fold(node: Node) -> Node:
    """Return a scalar tree with its rational parts computed; a structure as it is.

    A decimal numeral times a power of ten, or in percent, stays a decimal numeral.

    Raises:
        Unreadable: It has no value (a division by zero, the logarithm of 0).

    Example:
        >>> fold(Power(Number(Fraction(2)), Number(Fraction(-2)))).value
        Fraction(1, 4)
    """
    return node if isinstance(node, Number | Symbol) else _fold(node, Budget())


def _fold(node: Node, budget: Budget) -> Node:
    handler = _FOLDS.get(type(node))
    return handler(node, budget) if handler else node


def _folded(nodes: Sequence[Node], budget: Budget) -> list[Node]:
    return [
        each if isinstance(each, Number | Symbol | Constant) else _fold(each, budget)
        for each in nodes
    ]


def _fold_percent(node: Percent, budget: Budget) -> Node:
    operand = _fold(node.operand, budget)
    if isinstance(operand, Number) and operand.places is not None:
        return Number(operand.value * _HUNDREDTH, operand.places + 2, operand.digits)
    return _product([operand, Number(_HUNDREDTH)], budget)


def _fold_degree(node: Degree, budget: Budget) -> Node:
    operand = _fold(node.operand, budget)
    return _product([operand, Number(Fraction(1, 180)), Constant("pi")], budget)


def _fold_sum(node: Sum, budget: Budget) -> Node:
    total, rest = Fraction(0), []
    for term in _opened(_folded(node.terms, budget), Sum):
        if isinstance(term, Number) and budget.allows(max(size(total), size(term.value))):
            total += term.value
        else:
            rest.append(term)
    if not rest:
        return Number(total)
    parts = (Number(total), *rest) if total else tuple(rest)
    return parts[0] if len(parts) == 1 else Sum(parts)


def _opened(nodes: Sequence[Node], kind: type[Sum] | type[Product]) -> Sequence[Node]:
    if not any(isinstance(node, kind) for node in nodes):
        return nodes
    flat: list[Node] = []
    for node in nodes:
        if isinstance(node, Sum) and kind is Sum:
            flat.extend(node.terms)
        elif isinstance(node, Product) and kind is Product:
            flat.extend(node.factors)
        else:
            flat.append(node)
    return flat


def _product(factors: Sequence[Node], budget: Budget) -> Node:
    total, rest, numerals = Fraction(1), [], []
    for factor in _opened(factors, Product):
        if isinstance(factor, Number) and budget.allows(size(total) + size(factor.value)):
            total *= factor.value
            numerals.append(factor)
        else:
            rest.append(factor)
    if not rest:
        return _scaled(total, numerals)
    parts = (Number(total), *rest) if total != 1 else tuple(rest)
    return parts[0] if len(parts) == 1 else Product(parts)


def _scaled(total: Fraction, numerals: Sequence[Number]) -> Number:
    """Return a product of numbers: 2.50 · 10^-3 is the decimal numeral 0.00250."""
    decimals = [each for each in numerals if each.places is not None]
    if len(decimals) != 1:
        return Number(total)
    (numeral,) = decimals
    places = numeral.places or 0
    for other in numerals:
        if other is not numeral:
            top = _TENS.get(abs(other.value.numerator))
            bottom = _TENS.get(other.value.denominator)
            if top is None or bottom is None:
                return Number(total)
            places += bottom - top
    return Number(total, places, numeral.digits)


def _fold_power(node: Power, budget: Budget) -> Node:
    return _power(_fold(node.base, budget), _fold(node.exponent, budget), budget)


def _power(base: Node, exponent: Node, budget: Budget) -> Node:
    if not isinstance(exponent, Number):
        if base == _ZERO:
            raise Unreadable("a power of 0 whose exponent may be 0")
        return _unit_power(base, exponent)
    power = exponent.value
    if power == 1:
        return base
    if base == _I and power.denominator == 1:
        return (_ONE, _I, Number(Fraction(-1)), Product((Number(Fraction(-1)), _I)))[
            power.numerator % 4
        ]
    if not isinstance(base, Number):
        return Power(base, exponent)
    if not base.value and power <= 0:
        raise Unreadable("0^0" if not power else "a division by zero")
    if power.denominator == 1:
        return _whole_power(base, power.numerator, budget)
    root = _root(base, power.denominator)
    if isinstance(root, Number):
        return _power(root, Number(Fraction(power.numerator)), budget)
    return Power(base, exponent)


def _whole_power(base: Number, power: int, budget: Budget) -> Node:
    if abs(base.value) in (0, 1):  # small whatever the exponent
        return Number(base.value ** (power if not base.value else power % 2))
    if abs(power) > 1 << 32 or not budget.allows(size(base.value) * abs(power)):
        return Power(base, Number(Fraction(power)))
    return Number(base.value**power)


def _unit_power(base: Node, exponent: Node) -> Node:
    """Return e^(iqπ) where that is ±1 or ±i."""
    if base != Constant("e") or not isinstance(exponent, Product):
        return Power(base, exponent)
    rest = [factor for factor in exponent.factors if factor != _I]
    if len(rest) + 1 != len(exponent.factors):
        return Power(base, exponent)
    turns = _pi_multiple(rest[0] if len(rest) == 1 else Product(tuple(rest)))
    if turns is None or turns.denominator > 2:
        return Power(base, exponent)
    return _power(_I, Number(2 * turns), Budget())


def _pi_multiple(node: Node) -> Fraction | None:
    """Return the q of qπ."""
    match node:
        case Constant("pi"):
            return Fraction(1)
        case Product((Number(value), Constant("pi"))):
            return value
        case Number(value) if not value:
            return value
    return None


def _fold_root(node: Root, budget: Budget) -> Node:
    operand, degree = _fold(node.operand, budget), _fold(node.degree, budget)
    if not isinstance(degree, Number):
        return Root(operand, degree)
    if not degree.value:
        raise Unreadable("a root of degree 0")
    if degree.value.denominator != 1 or degree.value < 2:
        return _power(operand, Number(1 / degree.value), budget)
    return _root(operand, degree.value.numerator)


def _root(operand: Node, degree: int) -> Node:
    standing = Root(operand, Number(Fraction(degree)))
    if not isinstance(operand, Number):
        return standing
    value = operand.value
    if value < 0 and degree == 2:
        root = _root(Number(-value), 2)
        return _I if root == _ONE else Product((root, _I))
    if value < 0 and degree % 2 == 0:
        return standing
    top = _whole_root(abs(value.numerator), degree)
    bottom = _whole_root(value.denominator, degree)
    if top is None or bottom is None:
        return standing
    return Number(Fraction(top if value >= 0 else -top, bottom))


def _whole_root(value: int, degree: int) -> int | None:
    """Return the exact root of a whole number, or `None`."""
    if value < 2:
        return value
    if degree == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    if value.bit_length() > MAX_ROOT_BITS or degree >= value.bit_length():
        return None
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= value:
            low = middle
        else:
            high = middle - 1
    return low if low**degree == value else None


def _fold_call(node: Call, budget: Budget) -> Node:
    if node.name in ("det", "norm") and not isinstance(node.args[0], SCALARS):
        found = written_out(node)
        return _inside(node, budget) if found is None else _fold(found, budget)
    args = _folded(node.args, budget)
    if node.name == "exp":
        return _power(Constant("e"), args[0], budget)
    numbers = [each.value for each in args if isinstance(each, Number)]
    value = None
    if len(numbers) == len(args):
        value = exact_call(node.name, numbers, budget)
    elif len(args) == 1:
        turns = _pi_multiple(args[0])
        value = None if turns is None else exact_angle(node.name, turns)
    return Call(node.name, tuple(args)) if value is None else Number(value)


def _inside(node: Call, budget: Budget) -> Node:
    match node.args[0]:
        case Matrix(rows):
            return Call(node.name, (Matrix(tuple(tuple(_folded(row, budget)) for row in rows)),))
        case Tuple(items, opening, closing):
            return Call(node.name, (Tuple(tuple(_folded(items, budget)), opening, closing),))
    return node


def _fold_big(node: Big, budget: Budget) -> Node:
    """Write a short sum or product out; fold the parts of every other one."""
    lower = node.lower and _fold(node.lower, budget)
    upper = node.upper and _fold(node.upper, budget)
    body = _fold_inside(node.body, budget)
    standing = Big(node.kind, node.variable, lower, upper, body)
    if node.kind not in ("sum", "product") or _binds(body, node.variable):
        return standing
    if not (isinstance(lower, Number) and isinstance(upper, Number)):
        return standing
    count = upper.value - lower.value + 1
    if count.denominator != 1 or lower.value.denominator != 1 or not 0 <= count <= MAX_TERMS:
        return standing
    budget.steps -= count.numerator * nodes_in(body)
    if budget.steps < 0:
        return standing
    terms = tuple(
        substituted(body, node.variable.name, Number(lower.value + index))
        for index in range(count.numerator)
    )
    return (
        _fold_sum(Sum(terms), budget)
        if node.kind == "sum"
        else _fold_product(Product(terms), budget)
    )


def _fold_inside(body: Node, budget: Budget) -> Node:
    try:
        return _fold(body, budget)
    except Unreadable:  # 1/(k − k) has no value, but the sum over no k has
        return body


def _fold_product(node: Product, budget: Budget) -> Node:
    return _product(_folded(node.factors, budget), budget)


_FOLDS: dict[type, Callable[..., Node]] = {
    Percent: _fold_percent,
    Degree: _fold_degree,
    Sum: _fold_sum,
    Product: _fold_product,
    Power: _fold_power,
    Root: _fold_root,
    Call: _fold_call,
    Big: _fold_big,
    Based: lambda node, budget: Number(Fraction(node.value)),
    Applied: lambda node, budget: Applied(node.name, tuple(_folded(node.args, budget))),
    PlusMinus: lambda node, budget: PlusMinus(_fold(node.operand, budget), node.flipped),
}


def nodes_in(node: Node) -> int:
    """Return how many nodes a tree has."""
    return 1 + sum(map(nodes_in, children(node)))


def rewritten(node: Node, change: Callable[[Node], Node]) -> Node:
    """Return a scalar tree with a change made to each node, from the leaves up."""

    def all_of(nodes: Sequence[Node]) -> tuple[Node, ...]:
        return tuple(rewritten(each, change) for each in nodes)

    match node:
        case Sum(terms):
            node = Sum(all_of(terms))
        case Product(factors):
            node = Product(all_of(factors))
        case Power(base, exponent):
            node = Power(*all_of((base, exponent)))
        case Root(operand, degree):
            node = Root(*all_of((operand, degree)))
        case Call(name, args):
            node = Call(name, all_of(args))
        case Applied(name, args):
            node = Applied(name, all_of(args))
        case Percent(operand) | Degree(operand):
            node = type(node)(rewritten(operand, change))
        case Big(kind, variable, lower, upper, body):
            ends = [end and rewritten(end, change) for end in (lower, upper)]
            node = Big(kind, variable, ends[0], ends[1], rewritten(body, change))
    return change(node)


def substituted(node: Node, name: str, value: Node) -> Node:
    """Return a scalar tree with a variable replaced; no `Big` in it may bind the name."""
    return rewritten(node, lambda each: value if each == Symbol(name) else each)


def _binds(node: Node, variable: Symbol) -> bool:
    if isinstance(node, Big) and node.variable == variable:
        return True
    return any(_binds(child, variable) for child in children(node))
