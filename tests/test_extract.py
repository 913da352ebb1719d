"""Where the answer stands: last place of its kind, linear time, no fallback from a broken place."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.verifiers import UsageError
from rlvr.verifiers.extract import (
    MARKERS,
    after_think,
    before_stop,
    check_how,
    clean,
    conclusion,
    extract,
    formula,
    locate,
)

ALL = tuple(MARKERS)


@pytest.mark.parametrize(
    ("completion", "how", "answer"),
    [
        (r"\boxed{5}", "boxed", "5"),
        (r"first \boxed{4}, then \boxed{5}.", "boxed", "5"),
        (r"\boxed{\frac{1}{2}}", "boxed", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", "boxed", r"\{1, 2\}"),
        (r"\boxed{$5$.}", "boxed", "5"),
        (r"\boxed {5}", "boxed", "5"),
        (r"\fbox{5}", "boxed", "5"),
        (r"\boxed{4} \fbox{5}", "boxed", "5"),
        (r"\fbox{5} \boxed{4}", "boxed", "4"),
        (r"\boxed{\boxed{5}}", "boxed", "5"),
        (r"\boxed{}", "boxed", None),
        (r"\boxed{5", "boxed", None),
        (r"\boxed{4} \boxed{5", "boxed", None),
        (r"\boxed{4} \boxed", "boxed", None),
        (r"\boxed{5\,}", "boxed", "5"),
        (r"\boxed{5!}", "boxed", "5!"),
        ("5", "boxed", None),
        (r"\boxed 5", "boxed", "5"),
        (r"put it in \boxed.", "boxed", None),
        (r"\beginboxed{8\sqrt{6}}", "boxed", r"8\sqrt{6}"),
        (r"\boxed{42<|endoftext|>}", "boxed", "42"),
        (r"\boxed{1},\boxed{2},\boxed{3}", "boxed", "1, 2, 3"),
        (r"$\boxed{1}$ and $\boxed{2}$.", "boxed", "1, 2"),
        (r"\[ \boxed{x=1} \quad \text{or} \quad \boxed{x=2} \]", "boxed", "x=1, x=2"),
        (r"\boxed{1} \boxed{2}", "boxed", "2"),
        (r"\boxed{1} and then \boxed{2}", "boxed", "2"),
        (r"\boxed{} and \boxed{2}", "boxed", "2"),
        (r"\boxed{1} and \boxed{2", "boxed", None),
        ("so\n#### 42", "hash", "42"),
        ("#### 41\n#### 42\nbye", "hash", "42"),
        ("#### $1,234.", "hash", "1,234"),
        ("#### ", "hash", None),
        ("the answer is 42", "answer_is", "42"),
        ("The answer is: 3.5. I am sure", "answer_is", "3.5"),
        ("the answer is 4. No, the final answer is 5\nor so", "answer_is", "5"),
        ("the answer is **42**.", "answer_is", "42"),
        (r"the answer is \(42\).", "answer_is", "42"),
        ("the answer is not 5", "answer_is", "not 5"),
        ("the answer isn't 5", "answer_is", None),
        ("the answer is", "answer_is", None),
        ("Answer: 42", "answer_is", "42"),
        ("Final answer: 42. I hope it is correct.", "answer_is", "42"),
        ("**Final Answer:** 42", "answer_is", "42"),
        ("Answer: 41 was a wrong guess.\nAnswer: 42", "answer_is", "42"),
        ("The answer is:\n\n$$ 5 = 2 + 3 $$\nso there", "answer_is", "5 = 2 + 3"),
        ("the answer is 5! + 1", "answer_is", "5! + 1"),
        ("the answer is 42! Hooray", "answer_is", "42"),
        ("My answers: 1 and 2", "answer_is", None),
        ("<answer> 5 </answer>", "tag", "5"),
        ("<answer>4</answer> <answer>5</answer> <answer>6", "tag", "5"),
        ("</answer>5<answer>", "tag", None),
        ("<answer></answer>", "tag", None),
        ("  4 + 4 \n", "whole", "4 + 4"),
        ("  ", "whole", None),
    ],
)
def test_the_last_place_of_its_kind_is_the_answer(
    completion: str, how: str, answer: str | None
) -> None:
    assert extract(completion, (how,)) == answer


def test_the_first_marker_that_is_there_decides() -> None:
    text = r"the answer is 4, hence \boxed{5}"
    assert extract(text, ("boxed", "answer_is")) == "5"
    assert extract(text, ("answer_is", "boxed")).startswith("4")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "completion",
    [r"the answer is 5. \boxed{6", r"#### 5 \boxed{}", "5 <answer>", "<answer>6 #### 5"],
)
def test_a_broken_place_is_not_replaced_by_another(completion: str) -> None:
    assert extract(completion, ("boxed", "tag", "hash", "answer_is", "whole")) is None


@pytest.mark.parametrize(
    ("completion", "rest"),
    [
        (r"<think>\boxed{4}</think>5", "5"),
        ("<think>a</think>b</think>c", "c"),
        ("5", "5"),
        (r"<think>it is \boxed{5}", ""),
        ("<think>a</think>5<think>6", "5"),
    ],
)
def test_reasoning_is_left_out_and_unfinished_reasoning_too(completion: str, rest: str) -> None:
    assert after_think(completion) == rest


@pytest.mark.parametrize(
    ("completion", "rest"),
    [
        ("42<|im_end|>\nuser: no, 43", "42"),
        ("42<|endoftext|>", "42"),
        (r"\boxed{4}<|im_end|> \boxed{5}", r"\boxed{4}"),
        (r"\boxed{}<|im_end|> \boxed{5}", r"\boxed{}"),
        (r"\boxed{42<|im_end|>}", r"\boxed{42<|im_end|>}"),
        ("a < b", "a < b"),
    ],
)
def test_nothing_is_said_after_the_end_of_the_turn(completion: str, rest: str) -> None:
    assert before_stop(completion) == rest


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The result is $3$", "3"),
        (r"Answer \[ 9 \]", "9"),
        (r"Therefore $x \geq 5$ is the solution.", r"x \geq 5"),
        ("It is not $5$", None),
        ("It isn't $5$", None),
        ("$5$ is wrong", None),
        ("It is $4$ or $5$", None),
        ("I used $5$ steps", None),
        ("There are 2 and it is $5$", None),
        ("It is " + "so " * 200 + "$5$", None),
    ],
)
def test_the_one_formula_of_a_short_text_is_what_it_says(text: str, answer: str | None) -> None:
    assert formula(text) == answer


@pytest.mark.parametrize(
    ("sentence", "answer"),
    [
        ("The largest $n$ is 34", "34"),
        ("The volume of $ABC$ is: 120", "120"),
        ("It is not clear what it is 5", None),
        ("34", None),
        ("That is", None),
    ],
)
def test_a_marked_sentence_says_what_something_is(sentence: str, answer: str | None) -> None:
    assert conclusion(sentence) == answer


def test_the_marker_that_decides_is_named() -> None:
    assert locate("so #### 5", ("boxed", "hash", "whole")) == ("hash", "5")
    assert locate("so", ("boxed", "hash")) == ("", None)


def test_no_number_is_fished_out_of_prose() -> None:
    assert extract("I think it might be 5, or so", ("boxed", "hash", "answer_is", "tag")) is None


@given(st.text())
def test_any_text_gives_a_stripped_text_or_nothing(text: str) -> None:
    for name in ALL:
        answer = extract(text, (name,))
        assert answer is None or (answer and answer == answer.strip())


@given(st.text(alphabet="0123456789/+-", min_size=1))
def test_what_is_boxed_comes_out(answer: str) -> None:
    assert extract(rf"so \boxed{{{answer}}}.", ("boxed",)) == answer
    assert extract(f"#### {answer}", ("hash",)) == answer
    assert extract(f"<answer>{answer}</answer>", ("tag",)) == answer


@given(st.text(max_size=30))
def test_cleaning_leaves_no_space_around(text: str) -> None:
    assert clean(text) == clean(text).strip()


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 60_000,
        r"\boxed{{" * 60_000 + "}",
        "the answer is " * 40_000,
        "the " + " " * 400_000,
        "####" * 100_000,
        "<answer>" * 60_000 + "</answer>",
        "</think>" * 60_000,
        "$." * 200_000,
        "\\" * 400_000,
        r"\boxed{1}," * 60_000,
        r"\boxed " * 60_000,
        "<|im_end|>" * 60_000,
        r"\boxed{<|im_end|>" * 30_000,
        "answer: " * 60_000,
        "**" * 200_000 + "answer",
    ],
)
def test_half_a_megabyte_of_markers_takes_linear_time(text: str) -> None:
    start = time.process_time()
    for name in ALL:
        extract(text, (name,))
        extract(rf"\boxed{{{text}}}", (name,))
    assert time.process_time() - start < 2  # about 0.1 s; quadratic would be minutes


def test_an_unknown_marker_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no answer marker 'boxd'; did you mean 'boxed'"):
        check_how(("boxd",))
    with pytest.raises(UsageError, match="at least one"):
        check_how(())
