"""Reading rows: every malformed file is named with the place and the reason."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from rlvr.envs import filter_tasks, shuffled, split_tasks, subset
from rlvr.envs.sources import RowReader, file_tasks, read_rows
from rlvr.envs.templates import Template
from rlvr.verifiers import Task, TaskError, UsageError

GOOD = {"prompt": "p", "truth": "t"}


def written(folder: Path, content: str | bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_tolerated(tmp_path: Path) -> None:
    line = json.dumps(GOOD).encode()
    path = written(tmp_path, b"\xef\xbb\xbf" + line + b"\r\n\r\n   \n" + line + b"\n\n")
    assert [row for _, row in read_rows(path)] == [GOOD, GOOD]
    assert [where for where, _ in read_rows(path)] == [f"{path}, line 1", f"{path}, line 4"]


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    row = {"prompt": "a\u2028b\x85c", "truth": "t"}
    path = written(tmp_path, json.dumps(row, ensure_ascii=False))
    assert [found for _, found in read_rows(path)] == [row]


def test_a_compressed_file_reads_like_a_plain_one(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(json.dumps(GOOD).encode()), "rows.jsonl.gz")
    assert [task.id for task in file_tasks(path)] == ["rows-0"]


def test_reading_is_row_by_row(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(GOOD) + "\n{broken")
    rows = read_rows(path)
    assert next(rows)[1] == GOOD
    with pytest.raises(TaskError):
        next(rows)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"prompt": "p", }', "not JSON"),
        ("{'prompt': 'p'}", "not JSON: Expecting property name"),
        ("[1, 2]", "a row is an object with columns, got list"),
        ("null", "got NoneType"),
        ('{"truth": NaN}', "NaN is no JSON value"),
        ('{"truth": ' + "9" * 5000 + "}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (b'{"prompt": "\xff"}', "invalid start byte"),
    ],
)
def test_a_malformed_line_names_file_line_and_reason(
    tmp_path: Path, line: str | bytes, why: str
) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    path = written(tmp_path, json.dumps(GOOD).encode() + b"\n\n" + raw)
    with pytest.raises(TaskError, match=why) as error:
        file_tasks(path)
    assert f"{path}, line 3" in str(error.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"a": 1}', "holds an array of objects, got dict"),
        (f"[{json.dumps(GOOD)}, 3]", "item 1: a row is an object"),
        ("[\n1,\n]", "line 3, column 1"),
        ("", "not JSON"),
    ],
)
def test_a_malformed_json_file_says_why(tmp_path: Path, content: str, why: str) -> None:
    path = written(tmp_path, content, "rows.json")
    with pytest.raises(TaskError, match=why) as error:
        file_tasks(path)
    assert str(path) in str(error.value)


def test_a_broken_parquet_file_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "not parquet at all", "rows.parquet")
    with pytest.raises(TaskError, match="not readable as Parquet after row 0"):
        file_tasks(path)


def test_parquet_rows_keep_nested_messages(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "2 + 2?"}]
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"messages": chat, "answer": 4}]), path)
    assert file_tasks(path)[0] == Task(id="rows-0", prompt=tuple(chat), truth=4)  # pyright: ignore


def test_a_missing_column_names_the_columns_there_are(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(GOOD) + '\n{"prompt": "p", "label": 1}')
    with pytest.raises(TaskError) as error:
        file_tasks(path)
    assert str(error.value) == (
        f"{path}, line 2: no column 'truth' or 'answer' or 'ground_truth' or 'target' for the "
        "truth; the row has: prompt, label; name the right one with truth=…"
    )
    with pytest.raises(TaskError, match="no column 'question' for the prompt; the row has: prompt"):
        file_tasks(path, prompt="question")
    with pytest.raises(TaskError, match="no column 'gold' for the solution"):
        file_tasks(path, solution="gold")


def test_a_repeated_id_names_both_places(tmp_path: Path) -> None:
    line = json.dumps({**GOOD, "id": 7})
    path = written(tmp_path, f"{line}\n{line}")
    with pytest.raises(TaskError, match=r"line 2: id '7' was used at .*line 1; ids must differ"):
        file_tasks(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="rows has no rows"):
        file_tasks(written(tmp_path, "\n\n"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("absent.jsonl", "does not exist; give the path"),
        ("rows.csv", "ends in .jsonl, .jsonl.gz, .json, .parquet; got '.csv'"),
        ("rows", "got ''"),
    ],
)
def test_a_path_that_is_no_file_of_tasks_is_refused(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        list(read_rows(tmp_path / name))
    with pytest.raises(UsageError, match="path must be a text or a Path, got 5"):
        list(read_rows(5))  # pyright: ignore


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        list(read_rows(tmp_path / "x.jsonl"))


def test_prompt_and_template_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="not both"):
        RowReader(prompt="q", prompt_template="{q}")


def test_a_hub_that_cannot_be_reached_says_what_to_check() -> None:
    program = (
        "from rlvr.envs.sources import read_hub\n"
        "from rlvr.verifiers import UsageError\n"
        "try:\n    list(read_hub('nobody/nothing', 'main'))\n"
        "except UsageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (
        "data set 'nobody/nothing' (config main, split 'train') could not be loaded" in done.stdout
    )
    assert "give a local file with path=…" in done.stdout


def test_templates_leave_other_braces_alone() -> None:
    template = Template(r"{q} \boxed{} x^{2} \frac{1}{2} {{q}}", ["q"])
    assert template.fill({"q": "{why}"}) == r"{why} \boxed{} x^{2} \frac{1}{2} {q}"


TASKS = [Task(id=f"t{i}", prompt=f"{i}?", truth=i) for i in range(100)]


def test_subsets_are_views_in_the_order_asked_for() -> None:
    assert [task.truth for task in subset(TASKS, [5, 3, -1])] == [5, 3, 99]
    assert [task.truth for task in subset(TASKS, 3)] == [0, 1, 2]
    assert len(subset(TASKS, 1000)) == 100
    assert [task.truth for task in subset(TASKS, 10)[2:4]] == [2, 3]
    with pytest.raises(UsageError, match="no task 100: the 100 tasks have the indices 0 to 99"):
        subset(TASKS, [100])
    with pytest.raises(UsageError, match="at least 0"):
        subset(TASKS, -1)


def test_filters_keep_the_order_and_refuse_to_keep_nothing() -> None:
    assert [task.truth for task in filter_tasks(TASKS, lambda task: task.truth % 40 == 0)] == [
        0,
        40,
        80,
    ]
    with pytest.raises(UsageError, match="keeps none of 100 tasks"):
        filter_tasks(TASKS, lambda task: False)


def test_shuffles_follow_their_seed_and_lose_nothing() -> None:
    first = [task.truth for task in shuffled(TASKS, 1)]
    assert first == [task.truth for task in shuffled(TASKS, 1)]
    assert first != [task.truth for task in shuffled(TASKS, 2)]
    assert sorted(first) == list(range(100))
    with pytest.raises(UsageError, match="seed must be"):
        shuffled(TASKS, -1)


def test_a_split_depends_on_the_problem_and_not_on_the_list() -> None:
    test_side = {task.id for task in split_tasks(TASKS, "test")}
    backwards = {task.id for task in split_tasks(TASKS[::-1], "test")}
    assert test_side == backwards
    assert test_side.isdisjoint(task.id for task in split_tasks(TASKS, "train"))
    # 100 problems at 20 %: 20 ± 4 (one standard deviation), so 8 to 32 is three of them
    assert 8 <= len(test_side) <= 32
    with pytest.raises(UsageError, match="no split 'dev'"):
        split_tasks(TASKS, "dev")
    one = TASKS[:1]
    other = "test" if len(split_tasks(one, "train")) else "train"
    with pytest.raises(UsageError, match=f"falls on the side '{other}'"):
        split_tasks(one, other)
