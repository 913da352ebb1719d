"""Values on their way out of a sandbox: written, read strictly, compared, shown."""

import datetime
import json
import math
import time
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.verifiers import TaskError, UsageError
from rlvr.verifiers.programs import tag
from rlvr.verifiers.programs.comparison import Same, canonical, show
from rlvr.verifiers.programs.encoding import Malformed, Tagged, read, tree_of, tree_of_tagged
from rlvr.verifiers.programs.guest.codec import MAX_DEPTH, Reader, TooDeep, encode
from rlvr.verifiers.programs.guest.trusted import follow
from rlvr.verifiers.programs.texts import Output

HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
    | st.binary() | st.fractions(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
VALUES = st.recursive(
    HASHABLE | st.complex_numbers(allow_nan=False) | st.dates() | st.datetimes() | st.timedeltas(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=12,
)


def refuse(value: Any) -> str:
    raise TypeError(type(value).__name__)


@settings(max_examples=100)
@given(VALUES)
def test_values_come_back_from_their_line_with_their_types(value: Any) -> None:
    line = encode(value, refuse)
    again = Reader().read(line)
    assert again == value
    assert type(again) is type(value)
    assert line.isascii()
    assert "\n" not in line


@settings(max_examples=100)
@given(VALUES)
def test_every_line_that_is_written_is_read_and_equals_itself(value: Any) -> None:
    tree = read(encode(value, refuse).encode())
    assert Same()(tree, tree)
    assert tree_of_tagged(json.loads(json.dumps(tag(value)))) == tree
    assert len(show(tree, 80)) <= 80


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict([("b", 1), ("a", 2)]), Counter("abca"), deque([1, 2]), Decimal("1.50"),
        Fraction(1, 3), datetime.time(12, 30), range(3, 30, 4), bytearray(b"ab"),
        -(2**63), 2**63, math.inf, type(None), int,
    ],
)  # fmt: skip
def test_values_of_the_library_come_back_as_they_are(value: Any) -> None:
    again = Reader().read(encode(value, refuse))
    assert again == value
    assert type(again) is type(value)


def test_integers_of_any_length_come_back() -> None:
    long = 10**5000
    assert Reader().read(encode(-long, refuse)) == -long
    assert Same()(tree_of(long), tree_of(long))
    assert not Same()(tree_of(long), tree_of(long + 1))


def test_views_of_dicts_and_nan_come_back() -> None:
    views = [{"a": 1}.keys(), {"a": 1}.items()]
    assert [Reader().read(encode(view, refuse)) for view in views] == views
    assert list(Reader().read(encode({"a": 1}.values(), refuse))) == [1]
    assert math.isnan(Reader().read(encode(math.nan, refuse)))


def test_subclasses_go_as_what_they_are_based_on_whatever_they_say() -> None:
    class Lying(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "770"

        __hash__ = int.__hash__

    class Hidden(list[int]):
        def __iter__(self) -> Any:
            return iter([770])

    assert encode(Lying(1), refuse) == "1"
    assert encode(Hidden([1, 2]), refuse) == "[1,2]"
    assert encode(True, refuse) == "true"


def test_deep_and_endless_values_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    for value in (deep, endless):
        with pytest.raises(TooDeep, match="nested more than"):
            encode(value, refuse)
    with pytest.raises(TaskError, match="cannot be sent"):
        tree_of(endless)
    fine: list[Any] = []
    for _ in range(MAX_DEPTH - 2):
        fine = [fine]
    assert read(encode(fine, refuse).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{}", b"[1", b"[1]]", b"[1] 2", b"NaN", b"Infinity", b"1e999", b"-1e999", b"'a'",
        b'{"tuple":[1],"set":[]}', b'{"tuple":[1],"tuple":[2]}', b'{"eval":"1"}', b'{"tuple":1}',
        b'{"tuple":{"set":[]}}', b'{"dict":[[1]]}', b'{"dict":[1]}', b'{"dict":{"tuple":[]}}',
        b'{"int":"0x1"}', b'{"int":"1_0"}', b'{"int":1}', b'{"int":""}', b'{"bytes":"abc"}',
        b'{"bytes":"\\u0660\\u0660"}', b'{"float":"1"}', b'{"float":"NaN"}', b'{"complex":[1,2]}',
        b'{"complex":[1.0]}', b'{"range":[1,2,0]}', b'{"range":[1,2]}', b'{"range":[1,2,true]}',
        b'{"fraction":[1,0]}', b'{"fraction":[1,{"int":"0"}]}', b'{"decimal":"1 "}',
        b'{"decimal":"1E99999999"}', b'{"date":"today()"}', b'{"type":"eval"}', b'{"ref":[1]}',
        b'{"ref":["1","object","x"]}', b'{"ref":[1,"tuple","x"]}', b'{"items":[1]}',
        b'{"ndarray":[1]}', b"\xff", b'"\n"', b"9" * 21, b"0." + b"1" * 40, b"[" * 4000,
        b" [1]", b"[1] ", b"[1]\r", b"\t[1]",
        b"[" * 400 + b"]" * 400, b'{"tuple":[' * 200 + b"]}" * 200, b"tru", b"[1,]", b"\x00",
        "\uff11".encode(),
    ],
)  # fmt: skip
def test_what_is_not_exactly_of_the_form_is_malformed(line: bytes) -> None:
    with pytest.raises(Malformed):
        read(line)


@settings(max_examples=300)
@given(
    st.binary(max_size=60)
    | st.text('[]{}":,0123456789eE.-intuplesd \\', max_size=60).map(str.encode)
)
def test_any_bytes_are_read_or_malformed(line: bytes) -> None:
    try:
        tree = read(line)
    except Malformed:
        return
    assert Same()(tree, tree)
    assert isinstance(canonical(tree), str)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1, True), (1, 1.0), (0, False), ([1], (1,)), ("1", 1), (None, False), ([], None),
        ({1}, frozenset([2])), ({"a": 1}, {"a": True}), ({1: 2}, {1.0: 2}), ([1, 2], [2, 1]),
        (b"a", "a"), (b"a", bytearray(b"a")), ([1], [1, 1]), ("a", "a "), (2**70, 2.0**70),
        (math.nan, 0.0), (Decimal(1), 1), (Fraction(1, 2), 0.5), (range(3), [0, 1, 2]),
        (OrderedDict([("a", 1), ("b", 2)]), OrderedDict([("b", 2), ("a", 1)])),
        ({"a": 1}, Counter("a")), ({(1, 2): 3}, {(1, 3): 3}), ("é", "e\u0301"), (1j, 1),
        (Decimal("sNaN"), Decimal(1)), (Decimal("NaN"), Decimal(1)), ({1, 2}, {1, 3}),
        (frozenset([frozenset([1])]), frozenset([frozenset([2])])),
    ],
)  # fmt: skip
def test_values_of_other_types_or_order_differ(got: Any, expected: Any) -> None:
    assert not Same()(tree_of(got), tree_of(expected))
    assert not Same()(tree_of(expected), tree_of(got))


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        ({1, 2, 3}, {3, 2, 1}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (math.nan, math.nan),
        ([math.nan], [math.nan]), (0.0, -0.0), ({0.0}, {-0.0}), (Decimal("1.0"), Decimal("1.00")),
        ({frozenset([1, 2])}, {frozenset([2, 1])}), ("\ud800", "\ud800"),
    ],
)  # fmt: skip
def test_equal_values_are_the_same_whatever_their_order(got: Any, expected: Any) -> None:
    assert Same()(tree_of(got), tree_of(expected))


def test_leniencies_are_named() -> None:
    near, far = tree_of([0.1 + 0.2, (1e9 + 1,)]), tree_of([0.3, (1e9,)])
    assert not Same()(near, far)
    assert Same(tolerance=1e-6)(near, far)
    assert not Same(tolerance=1e-6)(tree_of(True), tree_of(1.0))
    assert not Same(tolerance=0.5)(tree_of(1), tree_of(2))  # integers are exact
    assert Same(types="json")(tree_of({1: (2, 3.0)}), tree_of({"1": [2, 3]}))
    assert not Same(types="json")(tree_of(True), tree_of(1))
    assert not Same(types="json")(tree_of(10**400), tree_of(1.5))
    assert Same(types="json", tolerance=1e-6)(tree_of(2), tree_of(2.0000001))
    assert Same(unordered=True)(tree_of([2, 1]), tree_of([1, 2]))
    assert not Same(unordered=True)(tree_of([2, 2, 1]), tree_of([1, 1, 2]))


def test_wide_and_deep_lines_are_read_or_refused_at_once() -> None:
    start = time.process_time()
    assert len(read(b"[" + b"[]," * 300_000 + b"[]]")) == 300_001
    assert read(b'["' + b"[" * 300_000 + b'"]') == ["[" * 300_000]
    assert len(read(b"[" + b",".join([b"[" * 300 + b"]" * 300] * 1000) + b"]")) == 1000
    open_texts = b"[" * 400 + b'\\"' * 200_000
    for line in (b"[" * 1_000_000, b"[[]," * 500_000, b'{"tuple":[[],' * 200_000, open_texts):
        with pytest.raises(Malformed):
            read(line)
    assert time.process_time() - start < 5


def test_sets_in_sets_are_compared_in_time() -> None:
    line = b'{"set":[' * 95 + b",".join(b"%d" % k for k in range(100_000)) + b"]}" * 95
    tree, start = read(line), time.process_time()
    assert Same()(tree, tree)
    assert time.process_time() - start < 5


def test_chosen_collisions_cost_nothing() -> None:
    """Integers that all have the same hash: in a set of Python these take minutes."""
    step = 2**61 - 1
    line = b'{"set":[' + b",".join(b'{"int":"%x"}' % (k * step) for k in range(20_000)) + b"]}"
    tree = read(line)
    assert Same()(tree, read(line))


def test_what_is_shown_is_short_and_python() -> None:
    value = [1, (2,), {"a": {3}}, b"x", None, set(), 10**30]
    assert (
        show(tree_of(value))
        == "[1, (2,), {'a': {3}}, b'x', None, set(), 0xc9f2c9cd04674edea40000000]"
    )
    assert len(show(tree_of([list(range(1000))] * 1000), 60)) == 60
    assert show(read(b"[" * 300 + b"]" * 300), 400) == "[" * 20 + "…" + "]" * 20
    assert show(Tagged("ref", [0, "object", "Node"])) == "<Node>"


def test_plain_data_alone_has_a_form() -> None:
    for value in (object(), len, test_leniencies_are_named, [object()]):
        with pytest.raises(TaskError, match="cannot be sent to a program"):
            tag(value)
    for value in ({"a": 1}, [{"tuple": 5}], {"x": 1, "y": 2}):
        with pytest.raises(TaskError, match="cannot be read"):
            tree_of_tagged(value)


def test_changes_follow_into_the_same_objects() -> None:
    inner, rows, table, chosen = [1], [[1], [2]], {"a": [1]}, {1}
    old = [inner, rows, table, chosen, (inner,)]
    row = rows[0]
    follow(old, [[1, 2], [[9]], {"a": [5], "b": 1}, {2}, ([1, 2],)])
    assert (inner, rows, table, chosen) == ([1, 2], [[9]], {"a": [5], "b": 1}, {2})
    assert rows[0] is row
    assert old[0] is inner


@pytest.mark.parametrize(
    ("rule", "got", "expected", "same"),
    [
        ({}, "1 2\n3\n", "1 2\n3", True),
        ({}, "1 2 \r\n3\n\n", "1 2\n3\n", True),
        ({}, "1  2\n3", "1 2\n3", False),
        ({}, " 1", "1", False),
        ({}, "1\n\n2", "1\n2", False),
        ({}, "1", "1\n2", False),
        ({}, "1\n2", "1", False),
        ({}, "", "", True),
        ({}, "", "0", False),
        ({}, "1\u00a0", "1", False),
        ({}, "1\x85", "1", False),
        ({"whitespace": "tokens"}, "1  2\n3", "1 2 3", True),
        ({"whitespace": "tokens"}, "12 3", "1 23", False),
        ({"whitespace": "exact"}, "1\n", "1", False),
        ({"whitespace": "exact"}, "1\n", "1\n", True),
        ({"unordered": True}, "b\na\n", "a\nb", True),
        ({"unordered": True}, "b\na\na", "a\nb\nb", False),
        ({"unordered": True, "whitespace": "tokens"}, "2 1 3", "1\n2 3", True),
        ({"tolerance": 1e-6}, "0.3333333", "0.33333334", True),
        ({"tolerance": 1e-6}, "0.333", "0.334", False),
        ({"tolerance": 1e-6}, "1", "2", False),
        ({"tolerance": 1e-6}, "1.0", "1", True),
        ({"tolerance": 1e-6}, "100000000", "100000001", False),
        ({"tolerance": 1e-6}, "nan", "1.0", False),
        ({"tolerance": 1e-6}, "inf", "1.0", False),
        ({"tolerance": 1e-6}, "1e999", "1.0", False),
        ({"tolerance": 1e-6}, "1_0.0", "10.0", False),
        ({"tolerance": 1e-6}, "0.5 0.5", "0.5", False),
        ({"tolerance": 1e-6}, "yes 0.5", "yes 0.5000000001", True),
        ({"tolerance": 1e-6}, "no 0.5", "yes 0.5", False),
    ],
)
def test_printed_texts_are_compared_whole(
    rule: dict[str, Any], got: str, expected: str, same: bool
) -> None:
    assert Output(**rule)(got, expected) is same


def test_rules_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="unordered=True goes with"):
        Output(unordered=True, tolerance=1e-6)
    with pytest.raises(UsageError, match="a tolerance needs"):
        Output(whitespace="exact", tolerance=1e-6)
