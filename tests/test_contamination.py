"""Evaluation tasks among training tasks: copies are found, a shared template is none."""

import time

import pytest

import rlvr.envs as envs
from rlvr.envs import contamination
from rlvr.verifiers import Task, UsageError

STORY = (
    "On Monday Mia sold {} red balloons at the harbour market, twice as many on Tuesday, and she "
    "gave the last {} to her brother; how many balloons did she bring along in the beginning?"
)


def tasks(prompts: list[str], name: str) -> list[Task]:
    return [Task(id=f"{name}-{i}", prompt=prompt, truth="") for i, prompt in enumerate(prompts)]


def test_the_same_prompt_is_exact_and_named() -> None:
    found = contamination(tasks(["a?", "b?", "c?"], "t"), tasks(["x?", "b?"], "e"))
    assert (found.train, found.evaluation, found.exact, found.overlapping) == (3, 2, 1, 0)
    assert found.examples == (("e-1", "t-1"),)
    assert found.share == 0.5
    assert found
    assert "1 of 2 evaluation prompts are training prompts" in str(found)


def test_nothing_in_common_is_nothing_found() -> None:
    found = contamination(tasks(["a?"], "t"), tasks(["b?"], "e"))
    assert not found
    assert found.examples == ()


def test_long_prompts_match_whatever_their_case_space_and_punctuation() -> None:
    story = STORY.format(3, 4)
    changed = "  " + story.upper().replace(",", " ,").replace(" ", "\n ") + "!!"
    assert contamination(tasks([story], "t"), tasks([changed], "e")).exact == 1


def test_in_short_prompts_punctuation_is_the_problem() -> None:
    found = contamination(
        tasks(["12 + 7 = ?", "Is a = b"], "t"), tasks(["12 - 7 = ?", "Is A = b"], "e")
    )
    assert not found


def test_thirteen_words_in_a_row_overlap_and_twelve_do_not() -> None:
    words = [f"w{i}" for i in range(40)]
    fresh = [f"v{i}" for i in range(40)]
    train = tasks([" ".join(words)], "t")
    for shared, expected in ((13, 1), (12, 0)):
        evaluation = tasks([" ".join(fresh[:10] + words[5 : 5 + shared] + fresh[10:20])], "e")
        found = contamination(train, evaluation)
        assert (found.exact, found.overlapping) == (0, expected)


def test_n_can_be_set() -> None:
    words = [f"w{i}" for i in range(10)]
    train, evaluation = tasks([" ".join(words)], "t"), tasks([" ".join([*words[:5], "z"])], "e")
    assert contamination(train, evaluation, n=5).overlapping == 1
    assert contamination(train, evaluation, n=6).overlapping == 0


@pytest.mark.parametrize("id", ["rlvr/Countdown-v0", "rlvr/LinearEquation-v0", "rlvr/SortWords-v0"])
def test_two_problems_of_one_template_are_no_copies(id: str) -> None:
    train, test = (envs.load_tasks(id, split=split, size=200) for split in ("train", "test"))
    assert not contamination(train, test)


def test_a_copy_among_problems_of_one_template_is_found() -> None:
    train = tasks([STORY.format(i, 3 * i) for i in range(100)], "t")
    evaluation = tasks([STORY.format(i, 7 * i + 1) for i in range(100, 150)], "e")
    assert not contamination(train, evaluation)
    found = contamination(train, [*evaluation, train[41]])
    assert (found.exact, found.examples) == (1, (("t-41", "t-41"),))


def test_a_sample_of_the_training_tasks_is_spread_evenly() -> None:
    train = tasks([f"{i}?" for i in range(1000)], "t")
    found = contamination(train, tasks(["0?", "999?", "500?"], "e"), max_train=3)
    # three of a thousand, evenly: 0, 499 (499.5 cut off) and 999
    assert (found.train, found.exact) == (3, 2)
    assert contamination(train, tasks(["500?"], "e"), max_train=None).exact == 1


def test_system_messages_are_no_evidence() -> None:
    system = {"role": "system", "content": " ".join(f"w{i}" for i in range(30))}
    one, other = (
        Task(id=text, prompt=(system, {"role": "user", "content": text}), truth="")  # pyright: ignore
        for text in ("a?", "b?")
    )
    assert not contamination([one], [other])


def test_it_is_quick_enough_to_run_before_every_training() -> None:
    train = tasks([STORY.format(i, 3 * i) for i in range(5000)], "t")
    evaluation = tasks([STORY.format(i, 7 * i) for i in range(5000, 5500)], "e")
    start = time.process_time()
    contamination(train, evaluation)
    assert time.process_time() - start < 3


def test_nothing_to_compare_is_refused() -> None:
    some = tasks(["a?"], "t")
    for train, evaluation in (([], some), (some, [])):
        with pytest.raises(UsageError, match="one of them is empty"):
            contamination(train, evaluation)
    with pytest.raises(UsageError, match="n must be an integer from 2"):
        contamination(some, some, n=1)
    with pytest.raises(UsageError, match="max_train must be at least 1"):
        contamination(some * 2, some, max_train=0)
