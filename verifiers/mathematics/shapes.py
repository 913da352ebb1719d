"""One form for the many ways of writing the same list, name or sign.

`shape` runs once on a tree as it was read, before anything is compared: ± becomes two values, lists
inside lists become one, `n = 1, 2` names both its values, `(5)` is 5.
"""

from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from typing import Any

from ..numerals import Unreadable
from .nodes import (
    KINDS,
    Applied,
    Based,
    Call,
    Choice,
    Items,
    Matrix,
    Member,
    NamedSet,
    Node,
    Number,
    PlusMinus,
    Product,
    Quantity,
    Ratio,
    Relation,
    SetBuilder,
    SetOf,
    Symbol,
    Text,
    Tuple,
    children,
    negated,
    symbols,
    walk,
)

EQUALITIES = frozenset({"=", "~"})
DECLARED = "integer "
"""What stands before the name of a variable that a text declares to be any integer."""
_NAMING_CALLS = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "abs", "norm", "det"})


def rewrite(node: Node, visit: Callable[[Node], Node | None]) -> Node:
    """Return a tree with the nodes replaced for which `visit` returns one."""
    found = visit(node)
    if found is not None:
        return found
    if not children(node):
        return node
    kind: Any = type(node)
    return kind(*(_rewritten(getattr(node, each.name), visit) for each in fields(node)))


def _rewritten(value: Any, visit: Callable[[Node], Node | None]) -> Any:
    if isinstance(value, tuple):
        return tuple(_rewritten(part, visit) for part in value)
    return rewrite(value, visit) if type(value) in KINDS else value


def substitute(node: Node, values: dict[str, Node]) -> Node:
    """Return a tree with variables replaced."""
    return rewrite(node, lambda each: values.get(each.name) if isinstance(each, Symbol) else None)


def holds(node: Node, *kinds: type) -> bool:
    """Return whether a node of one of some kinds stands in a tree, itself included."""
    return not frozenset(kinds).isdisjoint(map(type, walk(node)))


def is_name(node: Node) -> bool:
    """Return whether a tree can name a value: `x`, `f(x)`, `AB`, `(x, y)`, `Maximum`, `sin A`."""
    match node:
        case Symbol() | Applied() | Text():
            return True
        case Product(factors):
            return all(isinstance(each, Symbol) and each.name[:1].isupper() for each in factors)
        case Call(name, args):
            return name in _NAMING_CALLS and all(map(is_name, args))
        case Tuple(parts) | Ratio(parts):
            return all(map(is_name, parts))
        case Quantity():
            return False
    return False


def naming(node: Node) -> tuple[Node, tuple[Node, ...]] | None:
    """Return the name and the values of `x = a ≈ b`, or `None` for what names nothing."""
    if not isinstance(node, Relation) or not EQUALITIES.issuperset(node.operators):
        return None
    first, *rest = node.sides
    if is_name(first) and not _mentions(rest, first):
        return first, tuple(rest)
    if len(rest) == 1 and is_name(rest[0]) and not _mentions([first], rest[0]):
        return rest[0], (first,)
    return None


def _mentions(values: list[Node], name: Node) -> bool:
    if isinstance(name, Symbol):
        return any(name.name in symbols(value) for value in values)
    if isinstance(name, Applied):
        return any(_applies(value, name.name) for value in values)
    if isinstance(name, Product | Call):
        return any(symbols(value) for value in values)
    return False


def _applies(node: Node, name: str) -> bool:
    if isinstance(node, Applied) and node.name == name:
        return True
    return any(_applies(child, name) for child in children(node))


def shape(node: Node) -> Node:
    """Return a tree in the one form that the comparisons expect."""
    match node:
        case Items(items, joined):
            return _list(items, joined)
        case Choice(letter, value):
            return Choice(letter, shape(value))
        case SetOf(items):
            inner = _list(items)
            return SetOf(inner.items if isinstance(inner, Items) else (inner,) if items else ())
        case Quantity(value, unit):
            return _quantity(shape(value), unit)
        case Tuple((item,)):
            return shape(item)
        case Based(value, 10):
            return Number(Fraction(value))
        case Tuple(items, opening, closing):
            return _signed(Tuple(tuple(map(_part, items)), opening, closing))
        case Member(element, SetOf() as values, False) if is_name(element):
            return shape(Relation((element, values), ("=",)))
        case Relation():
            return _relation(_signed(node))
        case SetBuilder():
            return _family(node) or node
        case Product(factors) if any(isinstance(factor, Member) for factor in factors):
            return _without_declared_factors(factors)
        case Matrix(((entry,),)):
            return shape(entry)
    return _signed(node)


def _family(node: SetBuilder) -> Node | None:
    """Return `{kπ | k ∈ Z}` and `{x | x = kπ, k ∈ Z}` as kπ."""
    element, *rest = _without_declarations([node.element, *node.conditions])
    if not rest:
        return shape(element)
    named = naming(rest[0])
    if len(rest) == 1 and named and named[0] == element and len(node.conditions) > 1:
        return shape(named[1][0])
    return None


def _without_declared_factors(factors: tuple[Node, ...]) -> Node:
    """Drop what stands in brackets behind a value: `kπ (k ∈ Z)`."""
    kept = [factor for factor in factors if not isinstance(factor, Member)]
    value = kept[0] if len(kept) == 1 else Product(tuple(kept))
    members = [factor for factor in factors if isinstance(factor, Member)]
    left = _without_declarations([value, *members])
    if len(left) > 1:
        raise Unreadable("a membership inside a product")
    return shape(left[0])


def _part(node: Node) -> Node:
    shaped = shape(node)
    return node if isinstance(shaped, Items) else shaped


def _signed(node: Node) -> Node:
    """Expand ± into two: all signs of a tree change together."""
    if not holds(node, PlusMinus) or isinstance(node, Items | SetOf):
        return node
    return Items((_choose(node, False), _choose(node, True)))


def _choose(node: Node, minus: bool) -> Node:
    def visit(each: Node) -> Node | None:
        if not isinstance(each, PlusMinus):
            return None
        inner = _choose(each.operand, minus)
        return negated(inner) if minus != each.flipped else inner

    return rewrite(node, visit)


def _quantity(value: Node, unit: str) -> Node:
    if isinstance(value, Items):
        return Items(tuple(_quantity(item, unit) for item in value.items))
    if isinstance(value, Relation):
        return Relation((*value.sides[:-1], _quantity(value.sides[-1], unit)), value.operators)
    return value if isinstance(value, Quantity) else Quantity(value, unit)


def _relation(node: Node) -> Node:
    """Spread `x = {1, 2}` and `(x, y) = (1, 2) or (3, 4)` over their values."""
    if isinstance(node, Items):
        return _list(node.items)
    named = naming(node)
    if named is None:
        return node
    name, values = named
    shaped = tuple(map(shape, values))
    if len(shaped) == 1 and isinstance(shaped[0], Items):
        return Items(tuple(Relation((name, value), ("=",)) for value in shaped[0].items))
    operators = node.operators if isinstance(node, Relation) else ("=",)
    return Relation((name, *shaped), operators)


def _list(items: tuple[Node, ...], joined: str = "") -> Node:
    flat: list[Node] = []
    nested = sum(isinstance(item, Items) for item in items) > 1
    for item in items:
        if nested and isinstance(item, Items) and (record := _record(item.items)):
            flat.append(record)
            continue
        inner = shape(item)
        flat += inner.items if isinstance(inner, Items) else (inner,)
    flat = _without_declarations(flat)
    flat = _named_on(flat)
    flat = _records(flat)
    return flat[0] if len(flat) == 1 else Items(tuple(flat), joined)


def _without_declarations(items: list[Node]) -> list[Node]:
    """Drop `k ∈ Z` next to what depends on `k`, and mark `k` there as an integer."""
    for item in items:
        others = [other for other in items if other is not item]
        if isinstance(item, Member) and _declares(item, others):
            return _without_declarations([_declared(other, item) for other in others])
    return items


def _declares(item: Member, others: list[Node]) -> bool:
    """Return whether a membership only says what a variable is: `x > 0, x ∈ Z` says more."""
    letters = symbols(item.element)
    about = [other for other in others if letters & symbols(other)]
    if item.negated or not isinstance(item.of, NamedSet) or not about:
        return False
    return not any(other == item.element or _is_inequality(other) for other in about)


def _is_inequality(node: Node) -> bool:
    return isinstance(node, Relation) and not EQUALITIES.issuperset(node.operators)


def _declared(node: Node, by: Member) -> Node:
    if by.of != NamedSet("Z") or not isinstance(by.element, Symbol):
        return node
    named = naming(node)
    if named and named[0] == by.element:
        return node
    return substitute(node, {by.element.name: Symbol(DECLARED + by.element.name)})


def _named_on(items: list[Node]) -> list[Node]:
    """Give the name of the first to the bare values behind it: `n = 1, 2, 3`."""
    named = naming(items[0]) if items else None
    if named is None or any(isinstance(item, Relation | Text) for item in items[1:]):
        return items
    return [items[0], *(Relation((named[0], item), ("=",)) for item in items[1:])]


def _record(items: tuple[Node, ...]) -> Node | None:
    """Return `p = 5, q = 2` as `(p, q) = (5, 2)`."""
    pairs = [naming(item) for item in items]
    if len(pairs) < 2 or not all(pair and len(pair[1]) == 1 for pair in pairs):
        return None
    names = tuple(pair[0] for pair in pairs if pair)
    if len(set(names)) < len(names):
        return None
    values = tuple(shape(pair[1][0]) for pair in pairs if pair)
    return Relation((Tuple(names, "(", ")"), Tuple(values, "(", ")")), ("=",))


def _records(items: list[Node]) -> list[Node]:
    """Group `x = 1, y = 2, x = 3, y = 4` by its repeating names."""
    names = [pair[0] if (pair := naming(item)) else None for item in items]
    period = names.index(names[0], 1) if names and names[0] in names[1:] else 0
    if period < 2 or len(names) % period or names[period:] != names[:-period]:
        return items
    groups = [_record(tuple(items[at : at + period])) for at in range(0, len(items), period)]
    return [group for group in groups if group] if all(groups) else items
