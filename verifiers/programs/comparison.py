"""Are two values the same? Trees against trees, by exact type; nothing is hashed or called.

`bool` is not `int`, a tuple is no list, `1.0` is not `1`; the leniencies are named options. Sets
and the keys of dicts are matched by their text in a sorted order, so that there is one cost, n log
n, whatever they hold; a tolerance does not reach into them.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .encoding import Tagged, floating, integer, is_float, is_integer

Types = Literal["exact", "json"]
"""`json`: what JSON cannot tell apart is the same: a tuple is a list, `1.0` is `1`, and the keys of
dicts are compared as text."""


@dataclass(frozen=True, kw_only=True)
class Same:
    """When two trees are the same.

    Example:
        >>> Same(tolerance=1e-6)(0.3, 0.1 + 0.2)
        True
        >>> Same()(1, True)
        False
    """

    tolerance: float = 0.0
    """Floats may differ by this much, absolutely or relative to the larger."""
    types: Types = "exact"
    unordered: bool = False
    """Whether the outermost list or tuple may be in any order."""
    wrapped: bool = False
    """Whether an expected list of one item may stand for that item."""

    def __call__(self, got: Any, expected: Any) -> bool:
        """Compare two trees."""
        if self.wrapped and type(expected) is list and len(expected) == 1:
            return self._whole(got, expected[0]) or self._whole(got, expected)
        return self._whole(got, expected)

    def _whole(self, got: Any, expected: Any) -> bool:
        if self.unordered and _count(got) == _count(expected):
            got, expected = _sorted(got), _sorted(expected)
        return self.match(got, expected)

    def match(self, got: Any, expected: Any) -> bool:
        """Compare two trees in their order."""
        if self.types == "json":
            got, expected = _as_json(got), _as_json(expected)
        kind = type(expected)
        if kind is list:
            return type(got) is list and self._items(got, expected)
        if is_float(expected) and is_float(got):
            return self._near(floating(got), floating(expected))
        if self.types == "json" and is_number(expected) and is_number(got):
            return self._numbers(got, expected)
        if kind is Tagged:
            return type(got) is Tagged and got.tag == expected.tag and self._tagged(got, expected)
        return type(got) is kind and got == expected

    def _numbers(self, got: Any, expected: Any) -> bool:
        if is_integer(got) and is_integer(expected):
            return integer(got) == integer(expected)
        whole, part = (got, expected) if is_integer(got) else (expected, got)
        if self.tolerance == 0.0 or abs(integer(whole)) > 1 << 1000:
            return integer(whole) == floating(part)
        return self._near(float(integer(whole)), floating(part))

    def _near(self, got: float, expected: float) -> bool:
        if got == expected or (got != got and expected != expected):
            return True
        return self.tolerance > 0 and near(got, expected, self.tolerance)

    def _items(self, got: list[Any], expected: list[Any]) -> bool:
        return len(got) == len(expected) and all(map(self.match, got, expected))

    def _tagged(self, got: Tagged, expected: Tagged) -> bool:
        one, other = got.given, expected.given
        tag = expected.tag
        if tag in ("tuple", "deque", "values", "ordered", "complex", "ndarray"):
            return self.match(one, other)
        if tag in ("set", "frozenset", "keys", "items"):
            return len(one) == len(other) and _texts(one) == _texts(other)
        if tag in ("dict", "counter"):
            return self._dicts(one, other)
        if tag == "decimal":
            return one == other or _decimals(one, other)
        if tag in ("int", "range", "timedelta", "fraction"):
            return _texts([one]) == _texts([other])
        return tag not in ("ref", "function") and one == other

    def _dicts(self, got: list[Any], expected: list[Any]) -> bool:
        def key(pair: list[Any]) -> str:
            return canonical(pair[0])

        if len(got) != len(expected):
            return False
        return all(
            key(one) == key(other) and self.match(one[1], other[1])
            for one, other in zip(sorted(got, key=key), sorted(expected, key=key), strict=True)
        )


def _decimals(got: str, expected: str) -> bool:
    """Return whether two decimals are equal; asking one that is no number may raise."""
    from decimal import Decimal

    return "N" not in got + expected and Decimal(got) == Decimal(expected)


def near(got: float, expected: float, tolerance: float) -> bool:
    """Return whether two floats differ by the tolerance at most, absolutely or relatively."""
    return math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)


def is_number(tree: Any) -> bool:
    """Return whether a tree is an integer or a float."""
    return is_integer(tree) or is_float(tree)


def canonical(tree: Any) -> str:
    """Return a text that equal trees share, the order of sets aside.

    Example:
        >>> canonical(Tagged("set", [2, 1])) == canonical(Tagged("set", [1, 2]))
        True
    """
    if type(tree) is list:
        return f"[{','.join(map(canonical, tree))}]"
    if type(tree) is float:
        return repr(tree + 0.0)  # the two zeros are equal
    if type(tree) is not Tagged:
        return json.dumps(tree)
    tag = "set" if tree.tag == "frozenset" else tree.tag
    if tree.tag in _UNORDERED:
        return f'{{"{tag}":[{",".join(_texts(tree.given))}]}}'
    return f'{{"{tag}":{canonical(tree.given)}}}'


_UNORDERED = frozenset(["set", "frozenset", "dict", "counter", "keys", "items"])


def _texts(trees: list[Any]) -> list[str]:
    return sorted(map(canonical, trees))


def _count(tree: Any) -> int:
    """Return how many items a list or tuple has, -1 for anything else."""
    if type(tree) is Tagged and tree.tag == "tuple":
        return len(tree.given)
    return len(tree) if type(tree) is list else -1


def _sorted(tree: Any) -> Any:
    """Put the items of a list or tuple in the order of their texts."""
    if type(tree) is list:
        return sorted(tree, key=canonical)
    if type(tree) is Tagged and tree.tag == "tuple":
        return Tagged("tuple", sorted(tree.given, key=canonical))
    return tree


def _as_json(tree: Any) -> Any:
    """Return a tree as it would come back from JSON, at its top level."""
    if type(tree) is not Tagged:
        return tree
    if tree.tag in ("tuple", "deque"):
        return tree.given
    if tree.tag in ("dict", "ordered", "counter"):
        pairs = [[k if type(k) is str else canonical(k), v] for k, v in tree.given]
        return Tagged("dict", pairs)
    if tree.tag == "ndarray":
        return tree.given[1]
    return tree


MAX_SHOWN_LEVELS = 20
"""Levels of nesting that are shown: each takes frames of our stack."""


def show(tree: Any, limit: int = 200) -> str:
    """Show a tree as Python would write the value, cut to `limit` characters.

    Example:
        >>> show([1, Tagged("tuple", [2, Tagged("dict", [["a", None]])])])
        "[1, (2, {'a': None})]"
    """
    text = _shown(tree, [limit, MAX_SHOWN_LEVELS])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _shown(tree: Any, room: list[int]) -> str:
    """Show a tree, leaving off where the room, of characters or levels, is used up."""
    if room[0] <= 0 or room[1] <= 0:
        return "…"
    room[1] -= 1
    if type(tree) is list:
        text = f"[{_joined(tree, room)}]"
    elif type(tree) is Tagged:
        text = _SHOWN.get(tree.tag, _shown_plainly)(tree, room)
    else:
        text = repr(tree[:500]) if type(tree) is str else repr(tree)
        room[0] -= len(text)
    room[1] += 1
    return text


def _joined(trees: list[Any], room: list[int]) -> str:
    shown = []
    for tree in trees:
        if room[0] <= 0:
            shown.append("…")
            break
        shown.append(_shown(tree, room))
        room[0] -= 2
    return ", ".join(shown)


def _shown_plainly(tree: Tagged, room: list[int]) -> str:
    return f"{tree.tag}({_shown(tree.given, room)})"


def _shown_dict(tree: Tagged, room: list[int]) -> str:
    pairs = []
    for key, held in tree.given:
        if room[0] <= 0:
            pairs.append("…")
            break
        pairs.append(f"{_shown(key, room)}: {_shown(held, room)}")
    return "{" + ", ".join(pairs) + "}"


def _shown_tuple(tree: Tagged, room: list[int]) -> str:
    return f"({_joined(tree.given, room)}{',' if len(tree.given) == 1 else ''})"


_SHOWN: dict[str, Callable[[Tagged, list[int]], str]] = {
    "tuple": _shown_tuple,
    "dict": _shown_dict,
    "set": lambda tree, room: f"{{{_joined(tree.given, room)}}}" if tree.given else "set()",
    "int": lambda tree, room: f"{'-' * (tree.given[0] == '-')}0x{tree.given.lstrip('-')[:100]}",
    "float": lambda tree, room: tree.given,
    "bytes": lambda tree, room: repr(bytes.fromhex(tree.given[:1000])),
    "ref": lambda tree, room: f"<{tree.given[2]}>",
    "type": lambda tree, room: tree.given,
}
