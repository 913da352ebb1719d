"""Exact, choice, number, regex, JSON and format: what is paid, and what is not."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.verifiers import Status, TaskError, UsageError, make, verify
from rlvr.verifiers.forms import Format, Json, Regex, parse_json, same_json
from rlvr.verifiers.text import Choice, Exact, Number

CAPITALS = {"answer": "B", "options": {"A": "Rome", "B": "Paris", "C": "Bern"}}


@pytest.mark.parametrize(
    ("options", "completion", "truth", "reward"),
    [
        ({}, "Paris", "Paris", 1),
        ({}, " Paris\n", "Paris", 1),
        ({}, "paris", "Paris", 0),
        ({}, "Paris.", "Paris", 0),
        ({}, "4", 4, 1),
        ({}, "<think>Rome</think>Paris", "Paris", 1),
        ({"case": False}, "STRASSE", "straße", 1),
        ({"strip": False}, " Paris", "Paris", 0),
        ({"strip": False}, "Paris", "Paris", 1),
        ({}, "e\u0301", "\u00e9", 1),
        ({"normalise": False}, "e\u0301", "\u00e9", 0),
        ({"extract": "boxed"}, r"\boxed{Paris}", "Paris", 1),
        ({"extract": "boxed"}, "Paris", "Paris", 0),
        ({"extract": ("answer_is",)}, "the answer is yes.", "yes.", 1),
        ({}, "", "a", 0),
    ],
)
def test_exact_compares_character_by_character(
    options: dict[str, Any], completion: str, truth: Any, reward: int
) -> None:
    assert Exact(**options)(completion, truth).reward == reward


@pytest.mark.parametrize("truth", [None, "", "  ", True, ["a"]])
def test_an_exact_truth_that_no_answer_equals_is_refused(truth: Any) -> None:
    with pytest.raises(TaskError, match="exact truth"):
        Exact().check_truth(truth)
    assert Exact()("a", truth).status is Status.BAD_TRUTH


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("B", "correct"),
        ("(B)", "correct"),
        ("B.", "correct"),
        ("B)", "correct"),
        (r"\boxed{B}", "correct"),
        (r"\boxed{\text{B}}", "correct"),
        (r"\boxed{\textbf{(B)}}", "correct"),
        ("<answer>B</answer>", "correct"),
        ("The answer is (B).", "correct"),
        ("**B**", "correct"),
        ("B, B", "correct"),
        ("A", "wrong"),
        ("D", "wrong"),
        ("b", "wrong"),
        ("A B C D", "wrong"),
        ("A, B", "wrong"),
        ("A or B", "wrong"),
        ("A and B", "wrong"),
        ("(A) (B)", "wrong"),
        ("ABCD", "unparsed"),
        ("B because it is so", "unparsed"),
        ("not B", "unparsed"),
        ("B Paris", "unparsed"),
        ("Paris", "unparsed"),
        ("", "unparsed"),
        (r"\boxed{}", "unparsed"),
    ],
)
def test_a_choice_is_one_letter(completion: str, status: str) -> None:
    assert Choice()(completion, "B").status == status


@pytest.mark.parametrize(
    ("completion", "status"),
    [
        ("B) Paris", "correct"),
        ("(B) paris.", "correct"),
        ("B: Paris", "correct"),
        ("Paris", "correct"),
        ("A) Paris", "unparsed"),
        ("B) Rome", "unparsed"),
        ("Rome", "wrong"),
        ("Rome Paris Bern", "unparsed"),
        ("Oslo", "unparsed"),
    ],
)
def test_a_choice_may_be_named_by_its_text_where_the_truth_has_it(
    completion: str, status: str
) -> None:
    assert Choice()(completion, CAPITALS).status == status


def test_lower_case_letters_count_on_request() -> None:
    assert Choice(case=False)("(b)", "B").reward == 1.0


@pytest.mark.parametrize(
    "truth", [None, "", "AB", 1, "é", {"options": {}}, {"answer": "D", "options": {"A": "x"}}]
)
def test_a_choice_without_a_letter_is_refused(truth: Any) -> None:
    with pytest.raises(TaskError, match=r"choice"):
        Choice().check_truth(truth)


@pytest.mark.parametrize(
    ("completion", "truth", "status"),
    [
        ("42", 42, "correct"),
        ("#### 1,234.50", "1234.5", "correct"),
        ("-$5", -5, "correct"),
        ("1e3", 1000, "correct"),
        ("0.1", 0.1, "correct"),
        ("0.10000000000000001", 0.1, "wrong"),
        ("1,23", 123, "unparsed"),
        ("12,34,567", 1234567, "unparsed"),
        ("nan", 1, "unparsed"),
        ("inf", 1, "unparsed"),
        ("1/2", 0.5, "unparsed"),
        ("5 apples", 5, "unparsed"),
        ("٥", 5, "unparsed"),
        ("1e999999999", 1, "limit"),
        ("9" * 5000, 1, "limit"),
    ],
)
def test_a_number_is_read_exactly(completion: str, truth: Any, status: str) -> None:
    assert Number()(completion, truth).status == status


def test_tolerances_are_exact_and_inclusive() -> None:
    assert Number(absolute=0.1)("1.1", 1).reward == 1.0  # 1.1 - 1 = 0.1, which floats miss
    assert Number(absolute=0.1)("1.1000001", 1).reward == 0.0
    assert Number(relative=0.01)("101", 100).reward == 1.0
    assert Number(relative=0.01)("101.01", 100).reward == 0.0
    assert Number(relative=0.01)("-99", -100).reward == 1.0


@pytest.mark.parametrize("truth", [None, True, "five", float("nan"), [1], "huge"])
def test_a_truth_that_is_no_number_is_refused(truth: Any) -> None:
    with pytest.raises(TaskError, match="truth"):
        Number().check_truth(10**5000 if truth == "huge" else truth)


@pytest.mark.parametrize("options", [{"absolute": -1}, {"relative": float("nan")}])
def test_a_tolerance_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="tolerance of at least 0"):
        Number(**options)


def test_equal_numbers_vote_for_the_same_answer() -> None:
    answers = {Number()(text, 1).evidence["answer"] for text in ("0.5", ".50", "5e-1", "$0.5")}
    assert answers == {"1/2"}


@pytest.mark.parametrize(
    ("options", "completion", "truth", "reward"),
    [
        ({}, "42", r"[0-9]+", 1),
        ({}, "a 42", r"[0-9]+", 0),
        ({"search": True}, "a 42", r"[0-9]+", 1),
        ({"case": False}, "ABC", "abc", 1),
        ({"pattern": "a|b"}, "b", None, 1),
        ({}, "abc", "a.c", 1),
        ({}, ".*", "abc", 0),
    ],
)
def test_a_pattern_matches_the_whole_answer(
    options: dict[str, Any], completion: str, truth: Any, reward: int
) -> None:
    assert Regex(**options)(completion, truth).reward == reward


def test_a_pattern_that_backtracks_for_ever_times_out() -> None:
    start = time.monotonic()
    verdict = Regex(timeout=0.3)("a" * 60 + "b", r"(a+)+")
    assert verdict.status is Status.TIMEOUT
    assert time.monotonic() - start < 6
    assert Regex()("aaa", r"(a+)+").reward == 1.0


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(TaskError, match="no regular expression"):
        Regex().check_truth("(")
    with pytest.raises(UsageError, match="no regular expression"):
        Regex(pattern="[")
    with pytest.raises(TaskError, match="a pattern is a text"):
        Regex().check_truth(3)


SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "name": {"pattern": "^(a+)+$"}},
    "required": ["x"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("completion", "truth", "status"),
    [
        ('{"x": 1}', SCHEMA, "correct"),
        ('{"x": "1"}', SCHEMA, "wrong"),
        ('{"x": true}', SCHEMA, "wrong"),
        ("{}", SCHEMA, "wrong"),
        ('{"x": 1, "y": 2}', SCHEMA, "wrong"),
        ('{"x": 1, "x": 2}', SCHEMA, "unparsed"),
        ('{"x": 1} and more', SCHEMA, "unparsed"),
        ('{"x": NaN}', SCHEMA, "unparsed"),
        ("", SCHEMA, "unparsed"),
        ('<answer>{"x": 1}</answer>', SCHEMA, "correct"),
        ('{"x": 1}', {"equals": {"x": 1.0}}, "correct"),
        ('{"x": 1}', {"equals": {"x": True}}, "wrong"),
        ('{"x": 1}', {"schema": SCHEMA, "equals": {"x": 1}}, "correct"),
        ('{"x": 2}', {"schema": SCHEMA, "equals": {"x": 1}}, "wrong"),
        ("[" * 100_000, SCHEMA, "limit"),
        ("[" * 60 + "]" * 60, SCHEMA, "limit"),
        (f'"{"a" * 100_000}"', SCHEMA, "limit"),
        ("9" * 5000, SCHEMA, "unparsed"),
    ],
)
def test_a_document_fits_its_schema(completion: str, truth: Any, status: str) -> None:
    assert Json()(completion, truth).status == status


def test_a_schema_whose_pattern_backtracks_times_out() -> None:
    document = json.dumps({"x": 1, "name": "a" * 60 + "b"})
    assert Json(timeout=0.3)(document, SCHEMA).status is Status.TIMEOUT


@pytest.mark.parametrize(
    "truth",
    [
        None,
        "{}",
        {"type": "no such type"},
        {"schema": 3},
        {"$ref": "https://example.com/schema.json"},
        {"properties": {"a": {"$ref": "other.json"}}},
    ],
)
def test_a_schema_that_is_none_or_lies_elsewhere_is_refused(truth: Any) -> None:
    with pytest.raises(TaskError):
        Json().check_truth(truth)


def test_a_reference_inside_the_schema_is_followed() -> None:
    truth = {"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}
    Json().check_truth(truth)
    assert Json()("[1, 2]", truth).reward == 1.0
    assert Json()('["1"]', truth).reward == 0.0


@pytest.mark.parametrize(
    "truth", [{"$ref": "#/nowhere"}, {"$ref": "#"}, {"pattern": "("}, {"items": {"pattern": "["}}]
)
def test_a_schema_that_breaks_while_it_is_used_is_a_bad_truth(truth: dict[str, Any]) -> None:
    assert Json()('["a"]' if "items" in truth else '"a"', truth).status is Status.BAD_TRUTH


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_VALUES, JSON_VALUES)
def test_json_equality_is_reflexive_and_symmetric(one: Any, other: Any) -> None:
    assert same_json(one, one)
    assert same_json(one, other) == same_json(other, one)


@given(JSON_VALUES.filter(lambda value: value not in (float("inf"), float("-inf"))))
def test_what_is_written_as_json_is_read_back(value: Any) -> None:
    text = json.dumps(value)
    if "Infinity" not in text:
        assert same_json(parse_json(text), value)


GOOD = "<think>2 + 2</think>\n<answer>4</answer>"


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        (GOOD, 1),
        (f"\n{GOOD} \n", 1),
        (GOOD + GOOD, 0),
        ("x" + GOOD, 0),
        (GOOD + "x", 0),
        (GOOD.replace("\n", "x"), 0),
        (GOOD.replace("<think>", ""), 0),
        (GOOD.replace("</answer>", ""), 0),
        ("<answer>4</answer><think>2 + 2</think>", 0),
        ("<think><answer>4</answer></think>", 0),
        ("</think><think><answer>4</answer>", 0),
        ("<think> </think><answer></answer>", 0),
        ("<think>a</think><answer>4<answer></answer>", 0),
        ("", 0),
    ],
)
def test_the_form_is_exact(completion: str, reward: int) -> None:
    assert Format()(completion, None).reward == reward


def test_the_tags_are_an_option() -> None:
    plan = Format(tags=("plan", "code", "answer"), empty=True)
    assert plan("<plan></plan><code>x</code><answer>4</answer>", None).reward == 1.0
    assert plan(GOOD, None).reward == 0.0
    with pytest.raises(UsageError, match="list of different names"):
        Format(tags=("a", "a"))


CASES = [
    ("exact", {}, "4"),
    ("choice", {}, "B"),
    ("number", {}, 4),
    ("regex", {"pattern": "[0-9]"}, None),
    ("json", {}, {"equals": 4}),
    ("format", {}, None),
]


@pytest.mark.parametrize(("name", "options", "truth"), CASES)
@given(text=st.text())
def test_no_text_raises_or_is_unscored(
    name: str, options: dict[str, Any], truth: Any, text: str
) -> None:
    assert verify(make(name, **options), text, truth).scored
    assert verify(make(name, **options), f"<answer>{text}</answer>", truth).scored


@pytest.mark.parametrize("name", ["exact", "choice", "number", "regex", "json"])
def test_an_unknown_marker_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no answer marker 'box'"):
        make(name, extract="box")
