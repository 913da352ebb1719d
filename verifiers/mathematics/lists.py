"""Lists, sets and tuples.

Bare lists are multisets and sets are sets, in any order; tuples are ordered, and the brackets of a
pair matter, because a pair may be an interval.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..numerals import TooLarge
from .decisions import SAME, Decision, Judge, different, every, some
from .nodes import KINDS, Items, Matrix, Node, Relation, SetOf, Tuple
from .reals import real
from .relations import assigned, values_in_order
from .shapes import naming

MAX_ITEMS = 300
"""Items of a list whose partners are looked for in any order."""
_OTHER_BRACKETS = different("different brackets")


def compare_lists(one: Node, other: Node, judge: Judge) -> Decision:
    """Compare two trees of which at least one is a list or a set."""
    left, right = assigned(one), assigned(other)
    if left is not None and right is not None and left.keys() == right.keys():
        return every(judge.same(left[name], right[name]) for name in left)
    for side, opposite in ((one, other), (other, one)):
        ordered = values_in_order(side)
        if isinstance(opposite, Tuple):
            return _in_order(ordered[1:], opposite, judge) if ordered else _OTHER_BRACKETS
        if isinstance(opposite, Matrix):
            return different("different structure")
        if ordered and isinstance(opposite, Items) and not any(map(naming, opposite.items)):
            return _in_order(ordered, Tuple(opposite.items, "(", ")"), judge)
    return _collections(one, other, judge)


def _in_order(orders: Sequence[Tuple], values: Tuple, judge: Judge) -> Decision:
    """Compare the values of named variables with bare ones, in one of the orders they may have."""
    return some(judge.same(order, values) for order in orders)


def _collections(one: Node, other: Node, judge: Judge) -> Decision:
    left, right = _parts(one), _parts(other)
    if any(map(is_collection, left)) != any(map(is_collection, right)):
        return different("different structure")
    if isinstance(one, SetOf) or isinstance(other, SetOf):
        if not left or not right:
            return SAME if not left and not right else different("different length")
        if len(left) != len(right):
            return every((_covered(left, right, judge), _covered(right, left, judge)))
    elif len(left) != len(right):
        return different("different length")
    if judge.rules.ordered and not isinstance(one, SetOf) and not isinstance(other, SetOf):
        return every(map(judge.same, left, right))
    return judge.matched(left, right)


def _parts(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Items | SetOf):
        return node.items
    named = naming(node)
    if named and len(named[1]) == 1 and isinstance(named[1][0], SetOf):
        return named[1][0].items
    return (node,)


def _covered(parts: Sequence[Node], others: Sequence[Node], judge: Judge) -> Decision:
    """Each part of one set must be in the other."""
    places = [real(other) for other in others]
    found = every(
        some(judge.same(part, others[column]) for column in _nearest(part, places))
        for part in parts
    )
    return different("different length") if found.equal is False else found


def match(
    parts: Sequence[Any], others: Sequence[Any], compare: Callable[[Any, Any], Decision]
) -> Decision:
    """Match two multisets of equal size.

    Each part takes the first free partner that is certainly equal. Only where that fails and
    another choice could matter (equality of rounded decimals is not transitive) are all pairs
    compared, and an augmenting path is looked for (Kuhn, 1955).
    """
    if len(parts) != len(others):
        return different("different length")
    if len(parts) > MAX_ITEMS:
        raise TooLarge(f"a list of {len(parts)} items; at most {MAX_ITEMS} are compared")
    places = [real(other) if type(other) in KINDS else None for other in others]
    taken: dict[int, Decision] = {}
    for part in parts:
        columns = _nearest(part, places)
        decisions = ((c, compare(part, others[c])) for c in columns if c not in taken)
        found = next(((c, decision) for c, decision in decisions if decision.equal), None)
        if found is None:
            if all(compare(part, other).equal is False for other in others):
                return different("different value")
            return _matched(parts, others, compare)
        taken[found[0]] = found[1]
    return every(taken.values())


def _nearest(part: Any, places: list[float | None]) -> Iterable[int]:
    """Return the columns in the order of their distance from a part, where it is known."""
    place = real(part) if type(part) in KINDS else None
    if place is None or None in places:
        return range(len(places))
    return sorted(range(len(places)), key=lambda column: abs((places[column] or 0.0) - place))


def _matched(
    parts: Sequence[Any], others: Sequence[Any], compare: Callable[[Any, Any], Decision]
) -> Decision:
    rows: list[dict[int, Decision]] = []
    taken: dict[int, int] = {}
    for place, part in enumerate(parts):
        found = ((column, compare(part, other)) for column, other in enumerate(others))
        rows.append({column: decision for column, decision in found if decision.equal is not False})
        if not _augment(place, rows, taken, set()):
            return different("different value")
    return every(rows[row][column] for column, row in taken.items())


def _augment(
    row: int, rows: list[dict[int, Decision]], taken: dict[int, int], seen: set[int]
) -> bool:
    """Find a partner for a row, moving others; free and certain partners are tried first."""
    columns = rows[row]
    for column in sorted(columns, key=lambda each: (each in taken, columns[each].equal is None)):
        if column in seen:
            continue
        seen.add(column)
        if column not in taken or _augment(taken[column], rows, taken, seen):
            taken[column] = row
            return True
    return False


def compare_tuples(one: Tuple, other: Tuple, judge: Judge) -> Decision:
    """Compare in order; the brackets count where a pair may be an interval."""
    if len(one.items) != len(other.items):
        return different("different length")
    if len(one.items) == 2 and not _same_brackets(one, other):
        return different("different brackets")
    return every(map(judge.same, one.items, other.items))


def _same_brackets(one: Tuple, other: Tuple) -> bool:
    if "<" in (one.opening, other.opening):
        return True
    return _brackets(one) == _brackets(other)


def _brackets(node: Tuple) -> tuple[str, str]:
    """Return the brackets of a pair, round at infinity."""
    infinite = [real(item) in (float("inf"), float("-inf")) for item in node.items]
    return "(" if infinite[0] else node.opening, ")" if infinite[1] else node.closing


def as_vector(node: Node) -> Tuple | None:
    """Return a column, a row or a tuple as a vector."""
    if isinstance(node, Tuple):
        return Tuple(node.items, "<", ">")
    if isinstance(node, Matrix):
        if len(node.rows) == 1:
            return Tuple(node.rows[0], "<", ">")
        if all(len(row) == 1 for row in node.rows):
            return Tuple(tuple(row[0] for row in node.rows), "<", ">")
    return None


def is_collection(node: Node) -> bool:
    """Return whether a tree is a list or a set, perhaps with a name."""
    if isinstance(node, Items | SetOf):
        return True
    if not isinstance(node, Relation):
        return False
    named = naming(node)
    return bool(named and len(named[1]) == 1 and isinstance(named[1][0], SetOf))
