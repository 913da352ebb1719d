"""Equations: names with values, chains of equal numbers, curves.

A chain counts as its value only where every side has that value: `6 = 5` is no 5, and neither is
`5 = 5`, which computes nothing. An equation in variables is the curve that it describes: two are
equal if their differences of sides are proportional.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from .decisions import Decision, Judge, different, every, some
from .nodes import (
    SCALARS,
    Applied,
    Items,
    Node,
    Number,
    Product,
    Relation,
    Sum,
    Symbol,
    Tuple,
    negated,
    symbols,
)
from .sets import compare_regions, is_region, region
from .shapes import EQUALITIES, naming, substitute
from .tokens import GREEK

MIN_DIGITS = 3
"""Significant digits of the right side of `A ≈ B` from which the truth may be answered by B."""


def is_equation(node: Node) -> bool:
    """Return whether a tree is a chain of `=` and `≈`."""
    return isinstance(node, Relation) and EQUALITIES.issuperset(node.operators)


def against_value(relation: Relation, value: Node, judge: Judge) -> Decision:
    """Compare `x = a`, `a = b ≈ c` or `f(x) = a` with a value: every side must have it."""
    named = naming(relation)
    sides = list(named[1] if named else relation.sides)
    operators = relation.operators[-len(sides) + 1 :] if len(sides) > 1 else ()
    if len(set(sides)) < len(sides) and "~" not in operators:
        return different("different structure")
    if not named and any(map(symbols, sides)) and is_region(value):
        return different("different structure")
    decision = every(_sides(sides, operators, value, judge))
    if decision.equal is False and not named and any(map(symbols, sides)):
        return different("different structure")
    last = sides[-1]
    rounded = "~" in operators and isinstance(last, Number) and last.digits >= MIN_DIGITS
    if decision.equal is False and rounded and value == last:
        return every(judge.near(side, last) for side in sides[:-1])
    return decision


def _sides(
    sides: Sequence[Node], operators: Sequence[str], value: Node, judge: Judge
) -> Iterator[Decision]:
    """Compare each side with the value; what stands behind ≈ need only be near it."""
    exact = True
    for side, operator in zip(sides, ("=", *operators), strict=True):
        exact = exact and operator == "="
        yield judge.same(side, value) if exact else judge.near(value, side)


def compare_relations(one: Relation, other: Relation, judge: Judge) -> Decision:
    """Compare two relations."""
    if is_equation(one) and is_equation(other):
        return _equations(one, other, judge)
    if is_equation(one) or is_equation(other):
        return different("different structure")
    left, right = region(one), region(other)
    if left is not None and right is not None:
        return compare_regions(left, right, judge)
    return some(_written(one, other, judge))


def _equations(one: Relation, other: Relation, judge: Judge) -> Decision:
    left, right = naming(one), naming(other)
    if left and right:
        renamed = _same_name(left[0], right[0])
        if renamed is not None:
            return every(
                judge.same(substitute(value, renamed[0]), substitute(other_value, renamed[1]))
                for value in _exact(one, left[1])
                for other_value in _exact(other, right[1])
            )
        if not any(map(symbols, (*left[1], *right[1]))):
            return different("different variable")
    if len(one.sides) == len(other.sides) == 2 and all(map(_is_scalar, (*one.sides, *other.sides))):
        return _curves(one, other, judge)
    return some(_written(one, other, judge))


def _exact(relation: Relation, values: Sequence[Node]) -> Sequence[Node]:
    """Return the values of `x = a = b ≈ c` before the first ≈ behind a value."""
    behind = relation.operators[1:] if len(values) > 1 else ()
    return values[: behind.index("~") + 1] if "~" in behind else values


Renaming = tuple[dict[str, Node], dict[str, Node]]
_AS_IT_IS: Renaming = ({}, {})


def _same_name(one: Node, other: Node) -> Renaming | None:
    """Return how to rename each side's variables so that two names are the same, if they are.

    `f(t)` is `f(x)`, `x_1` is `x`, `y` is `f(x)`.
    """
    if one == other:
        return _AS_IT_IS
    if isinstance(one, Applied) and isinstance(other, Applied):
        return _parameters(one, other)
    if isinstance(one, Applied | Symbol) and isinstance(other, Applied | Symbol):
        if type(one) is not type(other):
            return _AS_IT_IS if Symbol("y") in (one, other) else None
        base = one.name.partition("_")[0], other.name.partition("_")[0]
        bare = one.name in base or other.name in base
        return _AS_IT_IS if bare and base[0] == base[1] else None
    return None


def _parameters(one: Applied, other: Applied) -> Renaming | None:
    if one.name != other.name or len(one.args) != len(other.args):
        return None
    renamed: Renaming = ({}, {})
    for place, pair in enumerate(zip(one.args, other.args, strict=True)):
        for argument, names in zip(pair, renamed, strict=True):
            if not isinstance(argument, Symbol):
                return None
            names[argument.name] = Symbol(f"parameter {place}")
    return renamed


def _is_scalar(node: Node) -> bool:
    return isinstance(node, SCALARS)


def _written(one: Relation, other: Relation, judge: Judge) -> Iterator[Decision]:
    """Compare side by side, as written and turned around."""
    flipped = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
    turned = tuple(flipped.get(operator, operator) for operator in reversed(other.operators))
    for sides, operators in ((other.sides, other.operators), (other.sides[::-1], turned)):
        if operators == one.operators:
            yield every(map(judge.same, one.sides, sides))
    if len(one.sides) == len(other.sides) == 2 and _is_linear_pair(one, other):
        yield from _moved(one, other, judge)


def _is_linear_pair(one: Relation, other: Relation) -> bool:
    return all(map(_is_scalar, (*one.sides, *other.sides)))


def _moved(one: Relation, other: Relation, judge: Judge) -> Iterator[Decision]:
    """Compare what is left when all terms are moved to the greater side."""
    if ("=" in one.operators[0]) != ("=" in other.operators[0]):
        return
    if one.operators[0] in _ORDERS and other.operators[0] in _ORDERS:
        yield judge.same(_gap(one), _gap(other))


_ORDERS = frozenset({"<", "<=", ">", ">="})


def _gap(relation: Relation) -> Node:
    """Return the left side less the right one, turned so that it is positive for `>`."""
    left, right = relation.sides
    if relation.operators[0] in ("<", "<="):
        left, right = right, left
    return Sum((left, negated(right)))


def _curves(one: Relation, other: Relation, judge: Judge) -> Decision:
    """Compare f = 0 with g = 0: f(p)·g(q) = g(p)·f(q) for all p, q."""
    f, g = _gap(one), _gap(other)
    straight = judge.same(f, g)
    if straight.equal:
        return straight
    letters = symbols(f) | symbols(g)
    if not letters or symbols(f) != symbols(g):
        return different("different structure")
    zero = Number(Fraction(0))
    if any(judge.same(side, zero).equal is not False for side in (f, g)):
        return different("different structure")
    elsewhere: dict[str, Node] = {name: Symbol(f"{name} elsewhere") for name in letters}
    return judge.same(
        Product((f, substitute(g, elsewhere))), Product((g, substitute(f, elsewhere)))
    )


def values_in_order(node: Node) -> tuple[Tuple, Tuple] | None:
    """Return the values of `x = 1, y = 2` as written and in the alphabetical order of their names.

    Returns:
        `None` for a list that is no such one: without names, of roots `x_1, x_2`, or of words.
    """
    if not isinstance(node, Items):
        return None
    pairs = [naming(item) for item in node.items]
    named = {_spelling(pair[0]): pair[1][-1] for pair in pairs if pair}
    if len(named) < len(pairs) or "" in named or len({n.partition("_")[0] for n in named}) == 1:
        return None
    written = Tuple(tuple(named.values()), "(", ")")
    return written, Tuple(tuple(named[name] for name in sorted(named)), "(", ")")


def _spelling(name: Node) -> str:
    """Return how a variable, a segment or a value of a function is spelled; empty for words."""
    match name:
        case Symbol(letters):
            base = letters.partition("_")[0]
            return letters if len(base) == 1 or "\\" + base in GREEK else ""
        case Applied(letter, arguments):
            return f"{letter} {arguments}"
        case Product(factors):
            return " ".join(factor.name for factor in factors if isinstance(factor, Symbol))
    return ""


def assigned(node: Node) -> dict[Node, Node] | None:
    """Return the values of `(x, y) = (1, 2)` or `x = 1, y = 2` by their names."""
    if isinstance(node, Items):
        pairs = [naming(item) for item in node.items]
        found = {pair[0]: pair[1][-1] for pair in pairs if pair and len(pair[1]) == 1}
        return found if len(found) == len(pairs) else None
    named = naming(node)
    if named is None or len(named[1]) != 1:
        return None
    name, value = named[0], named[1][0]
    if not isinstance(name, Tuple) or not isinstance(value, Tuple):
        return None
    values = value.items
    return dict(zip(name.items, values, strict=True)) if len(name.items) == len(values) else None
