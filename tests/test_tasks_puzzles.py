"""Countdown and sorted words: recomputed, and attacked."""

import ast
import itertools
import re
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest

from rlvr.envs.tasks.countdown import (
    MAX_DEPTH,
    Countdown,
    Unreadable,
    evaluate,
    reaches_target,
)
from rlvr.envs.tasks.sort_words import SortWords, sorted_list
from rlvr.verifiers import Status, TaskError, UsageError, verify

TRUTH = {"numbers": [3, 4, 5, 7], "target": 24}


def by_syntax_tree(text: str) -> Fraction:
    """Compute with Python's parser instead of ours."""

    def walk(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int)
            return Fraction(node.value)
        assert isinstance(node, ast.BinOp)
        left, right = walk(node.left), walk(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        return left * right if isinstance(node.op, ast.Mult) else left / right

    return walk(ast.parse(text, mode="eval").body)


@pytest.mark.parametrize(
    "settings", [{}, {"count": 2, "size": 100}, {"count": 6, "operators": "+*"}]
)
def test_every_target_is_reached_with_the_numbers_shown(settings: dict[str, Any]) -> None:
    for task in Countdown(**{"size": 150, **settings}):
        assert task.solution is not None
        used = Counter(int(n) for n in re.findall(r"\d+", task.solution))
        shown = re.search(r"numbers ([\d, ]+), each .* equals (\d+)\.", str(task.prompt))
        assert shown
        assert Counter(int(n) for n in shown[1].split(", ")) == used
        assert by_syntax_tree(task.solution) == int(shown[2]) == task.truth["target"]
        assert task.truth["target"] not in task.truth["numbers"]
        assert 10 <= task.truth["target"] <= 100


def test_our_reader_computes_what_pythons_does() -> None:
    for shape in itertools.product("+-*/", repeat=3):
        text = "(7 {} 2) {} 3 {} 5".format(*shape)
        assert evaluate(text)[0] == by_syntax_tree(text)


@pytest.mark.parametrize(
    "completion",
    [
        "20 + 4",  # 20 is not given
        "4 * (7 - 3 / 3)",  # 3 is given once
        "24",
        "24 * (3 - 3) + 24",
    ],
)
def test_a_right_value_from_wrong_numbers_is_wrong(completion: str) -> None:
    assert evaluate(completion)[0] == 24
    assert reaches_target(completion, TRUTH).status is Status.WRONG


@pytest.mark.parametrize(
    "completion",
    [
        "3 * (4 + 7) - 5",
        "3 * 4 + 7 + 5 + 3 - 3",
        "7 + 5",
        "3 * 4 + 7 + 5 = 23",
        "3 * 4 + 7 + 5 = 24 = 24",
        "24 = 3 * 4 + 7 + 5",
        "<answer>24</answer>",
    ],
)
def test_shortcuts_do_not_pay(completion: str) -> None:
    assert reaches_target(completion, TRUTH).reward == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        "3*4+7+5",
        " 3 * 4 + 7 + 5 = 24 ",
        "<think>24? 3*4=12</think><answer>3 * 4 + 7 + 5</answer>",
        r"So \boxed{(3 * 4) + (7 + 5)}",
        "The answer is 3 * 4 + 5 + 7.",
    ],
)
def test_right_expressions_are_right_wherever_they_stand(completion: str) -> None:
    assert reaches_target(completion, TRUTH).status is Status.CORRECT


def test_not_all_numbers_need_be_used_and_fractions_on_the_way_are_exact() -> None:
    # 8 / (3 - 8/3) = 8 / (1/3) = 24
    truth = {"numbers": [8, 3, 8, 3, 9], "target": 24}
    assert reaches_target("8 / (3 - 8 / 3)", truth).reward == 1.0
    assert reaches_target("3 * 8", truth).reward == 1.0
    assert reaches_target("3 - 9 + 8 * 3 + 6", truth).reward == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "", "()", "1 +", "+ 1", "1 2", "2(3)", "(1", "1)", "1 / 0", "1 / (2 - 2)", "2 ** 3",
        "2 ^ 3",
        "1.5", "1e3", "x", "5!", "-3", "1_0", "٣ + ١", "²", "__import__('os')", "1 if 1 else 2",
        "9" * 13, "1+" * 400 + "1", "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "(" * 499,
    ],
)  # fmt: skip
def test_what_is_no_expression_of_the_game_is_not_read(text: str) -> None:
    with pytest.raises(Unreadable):
        evaluate(text)
    assert verify(reaches_target, text, TRUTH).status is Status.UNPARSED


def test_a_long_completion_costs_little() -> None:
    assert reaches_target("(" * 1_000_000, TRUTH).status is Status.UNPARSED
    assert reaches_target("<answer>" * 200_000, TRUTH).reward == 0.0


@pytest.mark.parametrize(
    "truth", [None, 24, {}, {"numbers": "34"}, {"numbers": [1.5], "target": 2}]
)
def test_a_broken_truth_is_unscored(truth: Any) -> None:
    with pytest.raises(TaskError, match="the truth is"):
        reaches_target.check_truth(truth)
    assert verify(reaches_target, "1", truth).status is Status.BAD_TRUTH


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 1}, "count must be from 2"),
        ({"low": 0}, "low must be from 1"),
        ({"target_low": 50, "target_high": 40}, "target_high must be from 50"),
        ({"operators": "^"}, "operators must be some of"),
    ],
)
def test_countdown_settings_out_of_range_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Countdown(**settings)


def test_a_countdown_that_nothing_reaches_is_given_up() -> None:
    tasks = Countdown(count=2, low=1, high=2, target_low=50, target_high=60, size=3)
    with pytest.raises(UsageError, match="lower `size` or widen the settings"):
        tasks[0]


@pytest.mark.parametrize("settings", [{}, {"count": 50}, {"count": 2, "syllables": 1}])
def test_the_words_are_those_shown_in_order(settings: dict[str, Any]) -> None:
    for task in SortWords(size=150, **settings):
        shown = str(task.prompt).removeprefix("Sort these words alphabetically: ").split(", ")
        assert len(set(shown)) == len(shown) == settings.get("count", 4)
        assert Counter(task.truth) == Counter(shown)
        assert all(a < b for a, b in itertools.pairwise(task.truth))
        assert shown != task.truth


WORDS = ["ba", "ki", "tu"]


@pytest.mark.parametrize(
    "completion",
    ["ba, ki, tu", "ba ki tu", "ba,ki,tu\n", "<think>ki, ba</think><answer>ba, ki, tu</answer>"],
)
def test_a_list_may_be_written_with_commas_or_spaces(completion: str) -> None:
    assert sorted_list(completion, WORDS).status is Status.CORRECT


@pytest.mark.parametrize(
    "completion",
    [
        "ki, ba, tu",
        "ba, ki",
        "ba, ki, tu, tu",
        "Sure! ba, ki, tu",
        "BA, KI, TU",
        "ba; ki; tu",
        "bakitu",
    ],
)
def test_any_other_list_is_wrong(completion: str) -> None:
    assert sorted_list(completion, WORDS).status is Status.WRONG


def test_sorting_an_empty_or_endless_answer_scores_zero() -> None:
    assert sorted_list(" ,, ", WORDS).status is Status.UNPARSED
    assert sorted_list("ba " * 100_000, WORDS).status is Status.LIMIT
    assert verify(sorted_list, "ba", "ba").status is Status.BAD_TRUTH


@pytest.mark.parametrize(
    "settings", [{"count": 1}, {"count": 51}, {"syllables": 0}, {"count": 11, "syllables": 1}]
)
def test_word_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be from"):
        SortWords(**settings)
