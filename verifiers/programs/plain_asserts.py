"""Assertions that compare one call with one literal: decided here, without a sandbox for the tests.

`assert f(1, [2]) == (3, "x")` needs no tests' process: the call goes to the program, and the tree
that comes back is compared with the literal's as Python's `==` would compare the values. What such
a comparison cannot decide for certain (an object, a Decimal, a set of other spellings) is `None`:
then the assertion runs where all others do, and is handed the answer that is there already.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import TaskError
from .comparison import canonical, is_number, show
from .encoding import Tagged, floating, integer, is_float, tree_of
from .guest.codec import TooDeep, encode, quoted


@dataclass(frozen=True, kw_only=True)
class PlainAssert:
    """One call, and the literal that it must equal.

    Example:
        `PlainAssert(question='"call","f",[2],{"dict":[]},false', expected=4, shown="f(2)")`
    """

    question: str
    """The call as a line to the program, without its number."""
    expected: Any
    """The literal, as a tree."""
    shown: str
    """The call as evidence shows it."""


def plain_asserts(tests: Sequence[str], names: Sequence[str]) -> tuple[PlainAssert, ...]:
    """Read tests of which every one compares a call of a name with a literal; else none.

    Example:
        >>> [one.shown for one in plain_asserts(["assert f(2, k=1) == 4"], ["f"])]
        ['f(2)']
        >>> plain_asserts(["assert f(2) == 4", "assert abs(f(2)) == 4"], ["f"])
        ()
    """
    found = []
    for test in tests:
        one = _plain(test, names)
        if one is None:
            return ()
        found.append(one)
    return tuple(found)


def _plain(test: str, names: Sequence[str]) -> PlainAssert | None:
    try:
        (statement,) = ast.parse(test).body
        if not isinstance(statement, ast.Assert) or statement.msg is not None:
            return None
        compared = statement.test
        if not isinstance(compared, ast.Compare) or not isinstance(compared.ops[0], ast.Eq):
            return None
        call, (literal,) = compared.left, compared.comparators
        if not isinstance(call, ast.Call):
            call, literal = literal, call
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            return None
        if call.func.id not in names or any(word.arg is None for word in call.keywords):
            return None
        args = [ast.literal_eval(one) for one in call.args]
        named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        name, given = call.func.id, f"{encode(args, _refuse)},{encode(named, _refuse)}"
        return PlainAssert(
            question=f'"call",{quoted(name)},{given},false',
            expected=tree_of(ast.literal_eval(literal)),
            shown=f"{name}({show(tree_of(args), 280)[1:-1]})",
        )
    except (ValueError, SyntaxError, TypeError, TaskError, TooDeep, RecursionError, MemoryError):
        return None


def _refuse(value: Any) -> str:
    raise ValueError(f"no plain data: {type(value).__name__}")


def equal(got: Any, expected: Any) -> bool | None:
    """Return whether Python's `==` holds between the values of two trees; `None` if unsure.

    Args:
        got: Any tree.
        expected: A literal's.

    Example:
        >>> equal([1.0, True], [1, 1]), equal([1], Tagged("tuple", [1]))
        (True, False)
        >>> equal(Tagged("decimal", "1"), 1) is None
        True
    """
    kind, other = _kind(got), _kind(expected)
    if not kind or not other:
        return None
    if kind != other:
        return False
    if kind == "number":
        return _number(got) == _number(expected)
    if kind in ("list", "tuple"):
        return _items(*(t.given if type(t) is Tagged else t for t in (got, expected)))
    if kind in ("set", "dict"):
        text = canonical(expected)
        return True if canonical(got) == text and '"nan"' not in text else None
    if kind == "bytes":
        return got.given == expected.given
    return got == expected


_KINDS = {
    "int": "number", "float": "number", "tuple": "tuple", "set": "set", "frozenset": "set",
    "dict": "dict", "ordered": "dict", "counter": "dict", "bytes": "bytes", "bytearray": "bytes",
}  # fmt: skip
"""Tag → kind. Values of two kinds are never equal; other tags may equal anything."""


def _kind(tree: Any) -> str:
    """Return what a tree may be equal to; empty if that is not known."""
    if type(tree) is Tagged:
        return _KINDS.get(tree.tag, "")
    if tree is None:
        return "none"
    if type(tree) is bool or is_number(tree):
        return "number"
    return type(tree).__name__


def _number(tree: Any) -> float:
    if type(tree) is bool:
        return tree
    return floating(tree) if is_float(tree) else integer(tree)


def _items(got: list[Any], expected: list[Any]) -> bool | None:
    if len(got) != len(expected):
        return False
    unsure = False
    for one, other in zip(got, expected, strict=True):
        same = equal(one, other)
        if same is False:
            return False
        unsure |= same is None
    return None if unsure else True
