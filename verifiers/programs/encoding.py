"""What comes out of a sandbox, read strictly and built into nothing.

A line is JSON in which every object is a tag (`guest.codec` lists them). It is read into a *tree*:
`None`, `bool`, `int`, `float`, `str`, lists of trees, and `Tagged`. No set or dict is built and
nothing is hashed, so that chosen collisions cost nothing; no pickle; no class is looked up by name.
Integers and floats are bounded in length, nesting in depth, the line in bytes by who received it.
"""

import json
import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

from ..errors import TaskError
from .guest.codec import MAX_DEPTH, NAMED, TooDeep, encode

MAX_BRACKETS = 3 * MAX_DEPTH + 8
"""Levels of brackets in a line: up to three for one of the value (a dict), and the message's."""
_SUSPECT = re.compile(r"[0-9]{20}|[eE]\+?[0-9]{3}")
"""Where this is not found, no number can be too long or too large."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?')
"""Possessive, and with a last one that may be open: never a second look at the same character."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_HEX = re.compile(r"-?[0-9a-f]+")
_BYTES = re.compile(r"(?:[0-9a-f]{2})*")
_DECIMAL = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?(?:E[+-]?[0-9]{1,6})?|Infinity|s?NaN[0-9]*)")
_WHEN = re.compile(r"[0-9T:. +-]{1,40}")


class Malformed(ValueError):
    """A line that is not of the form agreed on."""


class Tagged(NamedTuple):
    """A value that JSON has no form for.

    Example:
        `Tagged("tuple", [1, 2])`
    """

    tag: str
    given: Any


def _is_list(given: Any) -> bool:
    return type(given) is list


def _is_pairs(given: Any) -> bool:
    return type(given) is list and all(type(pair) is list and len(pair) == 2 for pair in given)


def _is_integers(count: int) -> Callable[[Any], bool]:
    return lambda given: type(given) is list and len(given) == count and all(map(is_integer, given))


def _is_text(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda given: type(given) is str and pattern.fullmatch(given) is not None


def _is_fraction(given: Any) -> bool:
    return _is_integers(2)(given) and integer(given[1]) != 0


def _is_parts(given: Any) -> bool:
    return type(given) is list and len(given) == 2 and all(map(is_float, given))


def is_integer(tree: Any) -> bool:
    """Return whether a tree is an integer (`bool` is none)."""
    return type(tree) is int or (type(tree) is Tagged and tree.tag == "int")


def is_float(tree: Any) -> bool:
    """Return whether a tree is a float."""
    return type(tree) is float or (type(tree) is Tagged and tree.tag == "float")


def integer(tree: Any) -> int:
    """Return the integer that a tree is."""
    return tree if type(tree) is int else int(tree.given, 16)


def floating(tree: Any) -> float:
    """Return the float that a tree is."""
    return tree if type(tree) is float else float(tree.given)


SHAPES: dict[str, Callable[[Any], bool]] = {
    "int": _is_text(_HEX),
    "float": lambda given: given in ("nan", "inf", "-inf"),
    "tuple": _is_list,
    "set": _is_list,
    "frozenset": _is_list,
    "dict": _is_pairs,
    "bytes": _is_text(_BYTES),
    "bytearray": _is_text(_BYTES),
    "complex": _is_parts,
    "range": lambda given: _is_integers(3)(given) and integer(given[2]) != 0,
    "keys": _is_list,
    "values": _is_list,
    "items": lambda given: (
        _is_list(given)
        and all(type(p) is Tagged and p.tag == "tuple" and len(p.given) == 2 for p in given)
    ),
    "ordered": _is_pairs,
    "counter": _is_pairs,
    "deque": _is_list,
    "decimal": _is_text(_DECIMAL),
    "fraction": _is_fraction,
    "date": _is_text(_WHEN),
    "time": _is_text(_WHEN),
    "datetime": _is_text(_WHEN),
    "timedelta": _is_integers(3),
    "ndarray": lambda given: (
        type(given) is list and len(given) == 2 and type(given[0]) is str and len(given[0]) < 20
    ),
    "type": lambda given: given in NAMED,
    "ref": lambda given: (
        type(given) is list
        and len(given) == 3
        and type(given[0]) is int
        and given[1] in ("object", "iterator")
        and type(given[2]) is str
        and len(given[2]) <= 200
    ),
    "function": lambda given: type(given) is int,
}
"""Tag → whether what it holds is of the right form."""


def _tag(pairs: list[tuple[str, Any]]) -> Tagged:
    if len(pairs) != 1:
        raise Malformed("an object without exactly one key")
    tag, given = pairs[0]
    check = SHAPES.get(tag)
    if check is None:
        raise Malformed(f"the unknown tag {tag[:40]!r}")
    if not check(given):
        raise Malformed(f"a broken {tag}")
    return Tagged(tag, given)


def _int(text: str) -> int:
    if len(text) > 20:
        raise Malformed("a long integer that is not tagged")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if len(text) > 32 or number - number != 0:
        raise Malformed("a float that is not finite, or too long")
    return number


def _constant(text: str) -> Any:
    raise Malformed(f"{text}, which is no JSON")


_FAST = json.JSONDecoder(object_pairs_hook=_tag, parse_constant=_constant)
_CAREFUL = json.JSONDecoder(
    object_pairs_hook=_tag, parse_int=_int, parse_float=_float, parse_constant=_constant
)


def read(line: bytes) -> Any:
    """Read one line into a tree.

    Raises:
        Malformed: It is not exactly one value of the agreed form.

    Example:
        >>> read(b'[1, {"tuple": [2]}]')
        [1, Tagged(tag='tuple', given=[2])]
    """
    try:
        text = line.decode("ascii")
        if text != text.strip():
            raise Malformed("white space around it")
        _check_depth(text)
        return (_CAREFUL if _SUSPECT.search(text) else _FAST).decode(text)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{type(error).__name__}: {error!s:.100}") from None


def _check_depth(text: str) -> None:
    """Refuse brackets nested too deeply, before anything descends into them."""
    if text.count("[") + text.count("{") <= MAX_BRACKETS:
        return
    marks = _STRING.sub("", text).encode().translate(None, _NO_BRACKETS)
    if max(accumulate(map(_STEPS.__getitem__, marks)), default=0) > MAX_BRACKETS:
        raise Malformed(f"nested more than {MAX_DEPTH} levels deep")


def tag(value: Any) -> Any:
    """Write a Python value in the form that survives JSON, for truths with `"values": "tagged"`.

    Raises:
        TaskError: It has no form: a function, an instance of a class.

    Example:
        >>> tag({(1, 2): {3}})
        {'dict': [[{'tuple': [1, 2]}, {'set': [3]}]]}
    """
    return json.loads(encode(value, _refuse))


def tree_of(value: Any) -> Any:
    """Make the tree of a value that is trusted.

    Raises:
        TaskError: It has no form.
    """
    try:
        return read(encode(value, _refuse).encode())
    except (TooDeep, RecursionError) as error:
        raise TaskError(f"the value {value!r:.60} cannot be sent: {error}") from error


def tree_of_tagged(value: Any) -> Any:
    """Make the tree of what `tag` returned.

    Raises:
        TaskError: It is not of that form.
    """
    try:
        return read(json.dumps(value).encode())
    except (ValueError, RecursionError) as error:
        raise TaskError(f"the tagged value {value!r:.60} cannot be read: {error}") from error


def _refuse(value: Any) -> str:
    raise TaskError(
        f"a {type(value).__name__} cannot be sent to a program: {value!r:.60}; give plain data"
    )


__all__ = [
    "Malformed", "Tagged", "floating", "integer", "is_float", "is_integer", "read",
    "tag", "tree_of", "tree_of_tagged",
]  # fmt: skip
