"""Assertions of a call and a literal: decided as Python would, or handed on with their answer."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.verifiers import Status
from rlvr.verifiers.programs import ProgramTests
from rlvr.verifiers.programs.encoding import tree_of
from rlvr.verifiers.programs.plain_asserts import equal, plain_asserts

JUDGE = ProgramTests()

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([0.0, -0.0, 1.0, 2.0**53, 2**53, 2**53 + 1, 1 + 0j, b"a", bytearray(b"a")])
    | st.sampled_from([Fraction(1), Decimal(1), range(2), float("inf")])
    | st.builds(float, st.just("nan"))  # a new one each time: lists hold what is the same for equal
    | st.text("ab1", max_size=2)
)
HASHABLE = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["a", 1.0, (1,), b"a"])


def _more(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.lists(inner, max_size=3)
    return (
        items
        | items.map(tuple)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
    )


VALUES = st.recursive(LEAVES, _more, max_leaves=6)


@settings(max_examples=300)
@given(VALUES, VALUES)
def test_what_is_decided_is_what_python_says(one: Any, other: Any) -> None:
    assert equal(tree_of(one), tree_of(other)) in (None, one == other)


@settings(max_examples=100)
@given(st.recursive(st.integers(-2, 2) | st.text("ab", max_size=1), st.lists, max_leaves=5))
def test_lists_of_numbers_and_texts_are_always_decided(value: Any) -> None:
    assert equal(tree_of(value), tree_of(value)) is True
    assert equal(tree_of([value]), tree_of([value, 1])) is False


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1) == 2, 'why'",
        "assert f(1) != 2",
        "assert f(1) == g(1)",
        "assert f(1) == 2 == 2",
        "assert f(*[1]) == 2",
        "assert f(**{'n': 1}) == 2",
        "assert f(n) == 2",
        "assert f(1).x == 2",
        "assert abs(f(1)) == 2",
        "assert f(1)",
        "assert f(1) == 2; f = 3",
        "assert f(1) == ...",
        "x = f(1)",
    ],
)
def test_other_tests_are_none_of_these(test: str) -> None:
    assert plain_asserts(["assert f(1) == 2", test], ["f", "g"]) == ()


def test_a_call_is_sent_with_its_literals() -> None:
    (one,) = plain_asserts(["assert (1, {2}) == f(-1, [b'x'], k={'a': None})"], ["f"])
    assert one.question == (
        '"call","f",[-1,[{"bytes":"78"}]],{"dict":[["k",{"dict":[["a",null]]}]]},false'
    )
    assert one.shown == "f(-1, [b'x'])"


PROGRAMS = {
    "right": "def f(n):\n    return [n, n + 1]",
    "other numbers": "def f(n):\n    return [float(n), n + 1]",
    "a tuple": "def f(n):\n    return (n, n + 1)",
    "wrong": "def f(n):\n    return [n, n]",
    "raises": "def f(n):\n    raise KeyError('x')",
    "raises what ends loops": "def f(n):\n    raise StopIteration",
    "a class of its own": "class A(list):\n    def __eq__(self, other):\n        return True\n"
    "def f(n):\n    return A([n])",
    "equal to all": "class A:\n    def __eq__(self, other):\n        return True\n"
    "def f(n):\n    return A()",
    "leaves": "def f(n):\n    import os\n    os._exit(0)",
    "is missing": "def g(n):\n    return [n, n + 1]",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_verdict_is_that_of_a_sandbox_for_the_tests(name: str) -> None:
    tests = ["assert f(1) == [1, 2]", "assert f(2) == [2, 3]"]
    program = f"```python\n{PROGRAMS[name]}\n```"
    short = JUDGE(program, {"tests": tests})
    long = JUDGE(program, {"tests": tests, "setup": "pass"})
    assert (short.reward, short.status) == (long.reward, long.status)
    assert (short.reward == 1.0) == (name in ("right", "other numbers"))
    shown, other = short.evidence.get("failed", {}), long.evidence.get("failed", {})
    assert shown.get("input") == other.get("input")
    assert shown.get("got") == other.get("got")
    assert (short.cost["runs"], long.cost["runs"]) == (1 + (name == "equal to all"), 2) or (
        name == "is missing"
    )


def test_an_answer_that_is_no_plain_data_is_judged_by_the_tests_without_asking_again() -> None:
    program = (
        "from fractions import Fraction\ncount = 0\ndef f(n):\n    global count\n    count += 1\n"
        "    return Fraction(count * n)"
    )
    tests = ["assert f(1) == 1", "assert f(1) == 2", "assert f(1) == 3"]
    verdict = JUDGE(program, {"tests": tests})
    assert verdict.reward == 1.0
    assert verdict.cost["runs"] == 2
    assert JUDGE(program, {"tests": [*tests, "assert f(1) == 5"]}).status is Status.WRONG


def test_a_right_answer_after_a_wrong_one_comes_too_late() -> None:
    program = (
        "seen = []\ndef f(n):\n    seen.append(n)\n    return n * n if len(seen) > 1 else object()"
    )
    tests = ["assert f(3) == 9", "assert f(3) == 9"]
    verdict = ProgramTests(reward="fraction")(program, {"tests": tests})
    assert verdict.reward == 0.5
