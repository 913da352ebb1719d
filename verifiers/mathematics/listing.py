"""Lists put together: groups of answers, cut units joined again, integer parameters dropped."""

from .nodes import Items, Member, NamedSet, Node, Number, Quantity, Relation, Symbol, Text, symbols
from .units import canonical


def listed(items: list[Node], strengths: list[int], joined: str) -> Node:
    """Return the items as one list; groups of one length between ; or "or" stay together."""
    items, strengths = _joined(items, strengths)
    if len(items) == 1:
        return items[0]
    if len(items) > 2 and _is_free_integer(items[-1], items[:-1]):
        items, strengths = items[:-1], strengths[:-1]
    elif len(items) == 2 and _is_free_integer(items[1], items[:1]):
        return items[0]
    strongest = max(strengths)
    if strongest >= 2 and min(strengths[1:]) < strongest:
        groups: list[list[Node]] = []
        for item, strength in zip(items, strengths, strict=True):
            if strength == strongest or not groups:
                groups.append([])
            groups[-1].append(item)
        alike = len({len(group) for group in groups}) == 1
        relations = all(isinstance(item, Relation) for item in items)
        if alike and (strongest == 3 or relations):
            return Items(tuple(Items(tuple(group)) for group in groups))
    return Items(tuple(items), joined if _are_conditions(items) else "")


def _are_conditions(items: list[Node]) -> bool:
    """Return whether items say where one thing lies: `x > 1`, `x ∈ A`, with perhaps an `x = 0`."""
    if not all(isinstance(item, Relation | Member) for item in items):
        return False
    return not all(isinstance(item, Relation) and item.operators == ("=",) for item in items)


def _joined(items: list[Node], strengths: list[int]) -> tuple[list[Node], list[int]]:
    """Join what commas and "and" cut: the words of a unit, hours and minutes."""
    kept, marks = [items[0]], [0]
    for item, strength in zip(items[1:], strengths[1:], strict=True):
        last = kept[-1]
        if isinstance(last, Quantity) and isinstance(item, Text) and strength == 0:
            kept[-1] = Quantity(last.value, f"{last.unit}, {item.words}")
        elif (total := _together(last, item)) is not None and strength == 0:
            kept[-1] = total
        else:
            kept.append(item)
            marks.append(strength)
    return kept, marks


def _together(larger: Node, smaller: Node) -> Node | None:
    """Return `1 hour and 30 minutes` as one quantity; `None` for other pairs."""
    if not isinstance(larger, Quantity) or not isinstance(smaller, Quantity):
        return None
    one, other = canonical(larger.unit), canonical(smaller.unit)
    if one is None or other is None or one[0] != other[0] or one[1] <= other[1]:
        return None
    if not isinstance(larger.value, Number) or not isinstance(smaller.value, Number):
        return None
    if larger.value.value.denominator > 1 or not 0 < smaller.value.value < one[1] / other[1]:
        return None
    total = larger.value.value * one[1] / other[1] + smaller.value.value
    return Quantity(Number(total), smaller.unit)


def _is_free_integer(item: Node, others: list[Node]) -> bool:
    """Return whether an item only says that a letter of the others is an integer."""
    match item:
        case Member(Symbol(name), NamedSet("Z"), False):
            # `x > 0, x ∈ Z` says something about x itself
            bare = any(isinstance(o, Relation) and item.element in o.sides for o in others)
            return not bare and any(name in symbols(other) for other in others)
    return False
