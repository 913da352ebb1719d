"""Values as text: JSON in which every object is a tag, `{"tuple": [1, 2]}`.

Without a tag go `None`, `bool`, `str`, `list`, finite `float` and `int` below 2**63. Everything
else is an object with exactly one key out of `TAGS`. What has no form of its own is handed to
`keep`, which refuses it or leaves a number for it. Subclasses go as what they are based on.

The reader of this module builds the values and is for text that can be trusted; ours for the
other direction is `..encoding`, which builds none.
"""

from __future__ import annotations

from _json import encode_basestring_ascii as quoted
from _json import make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_DEPTH = 100
"""Levels of nesting."""
SMALL = 1 << 63
"""From here on integers go as hexadecimal text: reading decimal digits takes quadratic time."""


class TooDeep(ValueError):
    """A value is nested too deeply, or contains itself."""


def encode(value: Any, keep: Callable[[Any], str], depth: int = 0) -> str:
    """Write a value as one line of ASCII.

    Args:
        value: Anything.
        keep: Writes what has no form of its own, or raises.
        depth: Levels above it.

    Raises:
        TooDeep: It is nested more than `MAX_DEPTH` levels deep.

    Example:
        >>> encode([1, (2.5, None), {"a": b"x"}], repr)
        '[1,{"tuple":[2.5,null]},{"dict":[["a",{"bytes":"78"}]]}]'
    """
    kind = type(value)
    if kind is int:
        return int.__repr__(value) if -SMALL < value < SMALL else f'{{"int":"{value:x}"}}'
    if kind is str:
        return quoted(value)
    if value is None or kind is bool:
        return "null" if value is None else ("true" if value else "false")
    if kind is float:
        return float.__repr__(value) if value - value == 0 else f'{{"float":"{value!r}"}}'
    if depth >= MAX_DEPTH:
        raise TooDeep(f"nested more than {MAX_DEPTH} levels deep")
    if kind is list:
        return _items(value, keep, depth)
    write = WRITERS.get(kind)
    if write is not None:
        return write(value, keep, depth)
    return _unusual(value, kind, keep, depth)


def _items(values: Any, keep: Callable[[Any], str], depth: int) -> str:
    return "[" + ",".join([encode(value, keep, depth + 1) for value in values]) + "]"


def _tagged(tag: str) -> Callable[[Any, Callable[[Any], str], int], str]:
    return lambda value, keep, depth: f'{{"{tag}":{_items(value, keep, depth)}}}'


def _dict(value: Any, keep: Callable[[Any], str], depth: int) -> str:
    return '{"dict":' + _pairs(value, keep, depth) + "}"


def _pairs(value: Any, keep: Callable[[Any], str], depth: int) -> str:
    pairs = [
        f"[{encode(key, keep, depth + 1)},{encode(held, keep, depth + 1)}]"
        for key, held in dict.items(value)
    ]
    return "[" + ",".join(pairs) + "]"


WRITERS: dict[type, Callable[[Any, Callable[[Any], str], int], str]] = {
    tuple: _tagged("tuple"),
    set: _tagged("set"),
    frozenset: _tagged("frozenset"),
    dict: _dict,
    bytes: lambda value, keep, depth: f'{{"bytes":"{value.hex()}"}}',
    bytearray: lambda value, keep, depth: f'{{"bytearray":"{value.hex()}"}}',
    complex: lambda value, keep, depth: f'{{"complex":{_items(_parts(value), keep, depth)}}}',
    range: lambda value, keep, depth: (
        f'{{"range":{_items([value.start, value.stop, value.step], keep, depth)}}}'
    ),
    type({}.keys()): _tagged("keys"),
    type({}.values()): _tagged("values"),
    type({}.items()): _tagged("items"),
}
"""How values of the built-in types are written."""

LIBRARY: dict[tuple[str, str], Callable[[Any, Callable[[Any], str], int], str]] = {
    ("collections", "OrderedDict"): lambda value, keep, depth: (
        f'{{"ordered":{_pairs(value, keep, depth)}}}'
    ),
    ("collections", "Counter"): lambda value, keep, depth: (
        f'{{"counter":{_pairs(value, keep, depth)}}}'
    ),
    ("collections", "deque"): _tagged("deque"),
    ("decimal", "Decimal"): lambda value, keep, depth: f'{{"decimal":{quoted(str(value))}}}',
    ("fractions", "Fraction"): lambda value, keep, depth: (
        f'{{"fraction":{_items([value.numerator, value.denominator], keep, depth)}}}'
    ),
    ("datetime", "date"): lambda value, keep, depth: f'{{"date":{quoted(value.isoformat())}}}',
    ("datetime", "time"): lambda value, keep, depth: f'{{"time":{quoted(value.isoformat())}}}',
    ("datetime", "datetime"): lambda value, keep, depth: (
        f'{{"datetime":{quoted(value.isoformat())}}}'
    ),
    ("datetime", "timedelta"): lambda value, keep, depth: (
        f'{{"timedelta":{_items([value.days, value.seconds, value.microseconds], keep, depth)}}}'
    ),
    ("numpy", "ndarray"): lambda value, keep, depth: (
        f'{{"ndarray":[{quoted(str(value.dtype))},{encode(value.tolist(), keep, depth + 1)}]}}'
    ),
}
"""The same for types of the standard library and of numpy, by name: nothing is imported here."""

NAMED = ("int", "float", "complex", "bool", "str", "bytes", "list", "tuple", "dict", "set",
         "frozenset", "object", "type", "range", "NoneType")  # fmt: skip
"""Types that go as their name."""
BASES = (bool, int, float, str, bytes, bytearray, complex, list, tuple, dict, set, frozenset)


def _parts(value: complex) -> list[float]:
    return [value.real, value.imag]


def _unusual(value: Any, kind: type, keep: Callable[[Any], str], depth: int) -> str:
    """Write what is of no built-in type, where it has a form."""
    if kind is type and value.__name__ in NAMED and value.__module__ == "builtins":
        return f'{{"type":"{value.__name__}"}}'
    write = LIBRARY.get((kind.__module__, kind.__qualname__))
    if write is not None:
        return write(value, keep, depth)
    if kind.__module__ == "numpy" and hasattr(kind, "tolist"):
        return encode(value.tolist(), keep, depth + 1)
    for base in BASES:
        if issubclass(kind, base):
            return encode(_based(value, base), keep, depth + 1)
    return keep(value)


def _based(value: Any, base: type) -> Any:
    """Copy an instance of a subclass as its base, by the base's own ways of reading it."""
    if base is int:
        return int.__add__(value, 0)
    if base is str:
        return str.__str__(value)
    if base is float:
        return float.__add__(value, 0.0)
    if base is dict:
        return dict(dict.items(value))
    return base(base.__iter__(value)) if hasattr(base, "__iter__") else base(value)


def _day(name: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        import datetime

        return getattr(datetime, name).fromisoformat(text)

    return read


def _from(module: str, name: str) -> Callable[[Any], Any]:
    return lambda given: getattr(__import__(module), name)(given)


def _spread(module: str, name: str) -> Callable[[Any], Any]:
    return lambda given: getattr(__import__(module), name)(*given)


def _array(given: list[Any]) -> Any:
    try:
        import numpy  # pyright: ignore
    except ImportError:
        return given[1]
    return numpy.array(given[1], dtype=given[0])


def _type(name: str) -> Any:
    return type(None) if name == "NoneType" else vars(__import__("builtins"))[name]


TAGS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(*parts),
    "keys": lambda keys: dict.fromkeys(keys).keys(),
    "values": lambda values: dict(enumerate(values)).values(),
    "items": lambda pairs: dict(pairs).items(),
    "ordered": _from("collections", "OrderedDict"),
    "counter": lambda pairs: __import__("collections").Counter(dict(pairs)),
    "deque": _from("collections", "deque"),
    "decimal": _from("decimal", "Decimal"),
    "fraction": _spread("fractions", "Fraction"),
    "date": _day("date"),
    "time": _day("time"),
    "datetime": _day("datetime"),
    "timedelta": _spread("datetime", "timedelta"),
    "ndarray": _array,
    "type": _type,
}
"""Tag → how the value is built."""


class Reader:
    """Reads lines; the tags `ref` and `function` mean what its user says they do."""

    strict = True
    object_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float

    def __init__(self, **more: Callable[[Any], Any]) -> None:
        """Add tags."""
        self.tags = {**TAGS, **more}
        self.memo: dict[str, str] = {}
        self.object_pairs_hook = self._untag
        self._scan = make_scanner(self)  # pyright: ignore

    def read(self, text: str) -> Any:
        """Build the value of one line.

        Example:
            >>> Reader().read('[{"tuple":[1,{"float":"inf"}]},{"int":"-ff"}]')
            [(1, inf), -255]
        """
        return self._scan(text, 0)[0]

    def _untag(self, pairs: list[tuple[str, Any]]) -> Any:
        [(tag, given)] = pairs
        return self.tags[tag](given)
