"""GSM8K: the rows as they are, the answer where it may stand."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import rlvr.envs as envs
from rlvr.envs.tasks.gsm8k import final_number
from rlvr.verifiers import Status, Task, TaskError, UsageError, verify

ROWS = [
    {"question": "Six times seven?", "answer": "6 * 7 = <<6*7=42>>42\n#### 42"},
    {"question": "A car's price?", "answer": "It costs $70,000.\n#### 70,000"},
    {"question": "Below zero?", "answer": "#### -5"},
]


def written(folder: Path, rows: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_row_becomes_a_task_with_the_number_as_its_truth(tmp_path: Path) -> None:
    tasks = envs.load_tasks("rlvr/GSM8K-v0", path=written(tmp_path, ROWS))
    assert [task.truth for task in tasks] == ["42", "70000", "-5"]
    assert tasks[0] == Task(
        id="gsm8k-0", prompt="Six times seven?", truth="42", solution=ROWS[0]["answer"]
    )


@pytest.mark.parametrize(
    "completion",
    [
        "42",
        "#### 42",
        "First 41, no.\n#### 42\n",
        r"\boxed{42}",
        r"$\boxed{42.0}$",
        "The answer is 42.",
        "the final answer is: $42",
        "<think>#### 41</think>#### 42",
    ],
)
def test_the_number_is_found_where_it_may_stand(completion: str) -> None:
    assert final_number(completion, "42").reward == 1.0  # pyright: ignore
    assert final_number(completion.replace("42", "43"), "42").reward == 0.0  # pyright: ignore


@pytest.mark.parametrize(
    "completion",
    ["", "I get 42", "#### 42 or 43", "#### 42\n#### 43", "42 42", "#### 6*7", "1 to 100", "####"],
)
def test_hedges_and_prose_score_zero(completion: str) -> None:
    assert final_number(completion, "42").reward == 0.0  # pyright: ignore


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "answer": "42"}, r"line 4: the answer must end in '#### number'"),
        ({"question": "?", "answer": "#### many"}, "must end in"),
        ({"question": "?"}, "needs the columns 'question' and 'answer'.*the row has: question"),
        ({"answer": "#### 1"}, "the row has: answer"),
        ({"question": "?", "answer": 5}, "needs the columns"),
    ],
)
def test_a_row_of_another_form_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        gymnasium.make("rlvr/GSM8K-v0", path=written(tmp_path, [*ROWS, row]))


def test_a_path_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"absent\.jsonl does not exist"):
        gymnasium.make("rlvr/GSM8K-v0", path="absent.jsonl")


def test_a_local_file_is_whole_unless_split(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(50)]
    path = written(tmp_path, rows)
    whole, train, test = (
        envs.load_tasks("rlvr/GSM8K-v0", path=path, split=split)
        for split in (None, "train", "test")
    )
    assert [task.truth for task in whole] == [str(i) for i in range(50)]
    assert len(train) + len(test) == 50
    assert not {task.id for task in train} & {task.id for task in test}
    assert len(envs.load_tasks("rlvr/GSM8K-v0", path=path, size=7)) == 7


def test_a_bad_truth_is_unscored() -> None:
    assert verify(final_number, "42", "many").status is Status.BAD_TRUTH
