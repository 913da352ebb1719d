"""Environments by id: every kind of source in one call, and errors that help."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import rlvr.envs as envs
from rlvr.envs import Procedural, registration
from rlvr.envs.selection import side
from rlvr.envs.tasks import DIALOGUES, TABLE
from rlvr.envs.tasks.arithmetic import Arithmetic
from rlvr.verifiers import Task, TaskError, UsageError, Verdict, verifier


@verifier
def same(completion: str, truth: Any) -> bool:
    """Whether the completion is the truth."""
    return completion == str(truth)


ROWS = [{"question": f"{i}?", "answer": str(i), "level": i % 3} for i in range(50)]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give an id of the test's own and forget it afterwards."""
    id = f"test/{request.node.originalname}-v0"
    yield id
    registration._TABLE.pop(id, None)
    gymnasium.registry.pop(id, None)


def test_rows_become_an_environment_in_one_call(name: str) -> None:
    envs.register(name, tasks=ROWS, verifier=same, description="a test")
    env = gymnasium.make(name)
    prompt, info = env.reset(options={"index": 7})
    assert (prompt, info["task_id"]) == ("7?", f"{name}-7")
    assert env.step("7")[1] == 1.0
    assert env.unwrapped.tasks[7].metadata == {"level": 1}  # pyright: ignore
    assert envs.names()[name] == "a test"


def test_tasks_are_taken_as_they_are(name: str) -> None:
    tasks = [Task(id="a", prompt="?", truth="x"), Task(id="b", prompt="??", truth="y")]
    envs.register(name, tasks=iter(tasks), verifier=same)
    assert list(envs.load_tasks(name)) == tasks


def test_columns_have_options_at_registration_and_at_make(name: str) -> None:
    rows = [{"context": "C", "q": "Q", "gold": "G", "worked": "so G"}]
    envs.register(name, tasks=rows, verifier=same, prompt="q", truth="gold", solution="worked")
    assert envs.load_tasks(name)[0] == Task(
        id=f"{name}-0",
        prompt="Q",
        truth="G",
        solution="so G",
        metadata={"context": "C", "worked": "so G"},
    )
    changed = envs.load_tasks(name, prompt=None, prompt_template="{context}: {q}")
    assert changed[0].prompt == "C: Q"


def test_a_template_cannot_show_the_truth(name: str) -> None:
    envs.register(name, tasks=ROWS, verifier=same, prompt_template="{question} {answer}")
    with pytest.raises(UsageError, match="shows the truth"):
        gymnasium.make(name)


def test_a_function_that_draws_is_a_generator_with_splits(name: str) -> None:
    def doubles(rng: np.random.Generator, *, high: int = 500) -> dict[str, Any]:
        number = int(rng.integers(high))
        return {"prompt": f"2 * {number}", "truth": 2 * number}

    envs.register(name, tasks=doubles, verifier=same, high=400)
    train = envs.load_tasks(name, size=50)
    test = envs.load_tasks(name, size=50, split="test")
    assert envs.options(name)["high"] == 400
    assert not {t.prompt for t in train} & {t.prompt for t in test}
    assert len({t.prompt for t in train}) == 50
    assert all(t.truth == 2 * int(str(t.prompt)[4:]) for t in (*train, *test))
    with pytest.raises(
        UsageError, match=r"no option of environment .* 'hihg'; did you mean 'high'"
    ):
        gymnasium.make(name, hihg=3)


def test_a_function_that_draws_from_too_little_says_so(name: str) -> None:
    def coin(rng: np.random.Generator) -> dict[str, Any]:
        return {"prompt": f"{rng.integers(20)}", "truth": 0}

    envs.register(name, tasks=coin, verifier=same)
    everything = [envs.load_tasks(name, split=split) for split in ("train", "test")]
    assert sum(map(len, everything)) == 20
    env = gymnasium.make(name, size=30)
    with pytest.raises(UsageError, match="lower `size` or widen the settings"):
        env.reset(options={"index": 29})


def test_a_generator_class_is_configured_by_make(name: str) -> None:
    envs.register(name, tasks=Arithmetic, verifier=same, digits=1)
    env = gymnasium.make(name, size=20, seed=3, prompt="{compact}=")
    assert isinstance(env.unwrapped.tasks, Procedural)  # pyright: ignore
    assert env.unwrapped.tasks.config.high == 9  # pyright: ignore
    assert len(env.unwrapped.tasks) == 20  # pyright: ignore


def test_a_loader_function_is_called_with_its_options(name: str) -> None:
    def load(*, level: int = 1) -> Iterator[Task]:
        for i in range(30):
            yield Task(id=f"{level}-{i}", prompt=f"{i}", truth=str(i))

    envs.register(name, tasks=load, verifier=same)
    assert envs.load_tasks(name, level=2, size=5)[4].id == "2-4"
    both = [envs.load_tasks(name, split=split) for split in ("train", "test")]
    assert sorted(t.id for tasks in both for t in tasks) == sorted(f"1-{i}" for i in range(30))


def test_an_endless_loader_ends_at_the_size(name: str) -> None:
    def load() -> Iterator[dict[str, Any]]:
        number = 0
        while True:
            yield {"prompt": f"{number}", "truth": number}
            number += 1

    envs.register(name, tasks=load, verifier=same)
    assert len(envs.load_tasks(name, size=12)) == 12


def test_a_place_is_imported_when_the_environment_is_made(name: str) -> None:
    envs.register(name, tasks="no_such_module:tasks", verifier="no_such_module:judge")
    with pytest.raises(UsageError, match="nothing at 'no_such_module:tasks'"):
        gymnasium.make(name)
    envs.register(name, tasks="rlvr.envs.tasks.gcd:GCD", verifier="math", replace=True, size=7)
    assert len(envs.load_tasks(name)) == 7


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_a_file_keeps_its_order_and_is_whole_unless_split(
    name: str, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    elif kind == "json":
        path.write_text(json.dumps(ROWS))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    envs.register(name, tasks=str(path), verifier=same)
    whole = envs.load_tasks(name)
    assert [task.prompt for task in whole] == [row["question"] for row in ROWS]
    assert whole[3].id == "rows-3"
    for split in ("train", "test"):
        expected = [row["question"] for row in ROWS if side(row["question"]) == split]
        assert [task.prompt for task in envs.load_tasks(name, split=split)] == expected
    assert [task.prompt for task in envs.load_tasks(name, size=4)] == ["0?", "1?", "2?", "3?"]


def test_a_hub_folder_is_read_through_datasets(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for split, rows in (("train", ROWS[:3]), ("test", ROWS[3:5])):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    envs.register(name, tasks=f"hf:{folder}", verifier=same)
    assert [task.prompt for task in envs.load_tasks(name)] == ["0?", "1?", "2?"]
    assert [task.prompt for task in envs.load_tasks(name, split="test")] == ["3?", "4?"]
    with pytest.raises(UsageError, match=r"split 'dev'\) could not be loaded"):
        envs.load_tasks(name, split="dev")


def test_tasks_are_loaded_once_and_again_when_the_file_changes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]))
    envs.register(name, tasks=path, verifier=same)
    first = gymnasium.make(name).unwrapped.tasks  # pyright: ignore
    assert gymnasium.make(name).unwrapped.tasks is first  # pyright: ignore
    path.write_text("\n".join(map(json.dumps, ROWS[:2])))
    assert len(gymnasium.make(name).unwrapped.tasks) == 2  # pyright: ignore


def test_tasks_do_not_travel_in_the_spec(name: str) -> None:
    envs.register(name, tasks=ROWS, verifier=same)
    assert gymnasium.spec(name).kwargs == {"env_id": name}
    assert json.loads(gymnasium.make(name, size=5).unwrapped.spec.to_json())["kwargs"] == {  # pyright: ignore
        "env_id": name,
        "size": 5,
    }


def test_truths_are_read_once_for_many_environments(name: str) -> None:
    class Counting:
        calls = 0

        def check_truth(self, truth: Any) -> None:
            self.calls += 1

        def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
            return Verdict.wrong()

    judge = Counting()
    envs.register(name, tasks=ROWS, verifier=judge)
    for _ in range(3):
        gymnasium.make(name)
    assert judge.calls == len(ROWS)


def test_a_truth_that_the_verifier_cannot_read_names_the_row(name: str) -> None:
    class Strict:
        def check_truth(self, truth: Any) -> None:
            if truth == "9":
                raise TaskError("the truth is no nine")

        def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
            return Verdict.wrong()

    envs.register(name, tasks=ROWS, verifier=Strict())
    with pytest.raises(TaskError, match=r"-9': the truth is no nine"):
        gymnasium.make(name)


def test_the_verifier_can_be_changed_at_make(name: str) -> None:
    envs.register(name, tasks=ROWS, verifier=same)
    env = envs.make(name, verifier=verifier(lambda completion, truth: 0.25))
    env.reset(options={"index": 0})
    assert env.step("0")[1] == 0.25


def test_an_id_is_taken_once(name: str) -> None:
    envs.register(name, tasks=ROWS, verifier=same)
    with pytest.raises(UsageError, match=r"registered already; pass replace=True"):
        envs.register(name, tasks=ROWS, verifier=same)
    envs.register(name, tasks=ROWS[:2], verifier=same, replace=True)
    assert len(envs.load_tasks(name)) == 2
    with pytest.raises(UsageError, match="registered already"):
        envs.register("CartPole-v1", tasks=ROWS, verifier=same)


def test_an_unknown_environment_gets_a_guess() -> None:
    with pytest.raises(
        UsageError, match="no environment 'rlvr/GMS8K-v0'; did you mean 'rlvr/GSM8K-v0'"
    ):
        envs.make("rlvr/GMS8K-v0")
    with pytest.raises(UsageError, match="no environment 'rlvr/Arithmetic-v9'; did you mean"):
        envs.make_vec("rlvr/Arithmetic-v9")
    with pytest.raises(UsageError, match="no environment 'nothing'"):
        envs.load_tasks("nothing")


def test_an_unknown_option_gets_a_guess_and_the_list() -> None:
    with pytest.raises(UsageError, match=r"'sise'; did you mean 'size'\? Known: .*operators"):
        gymnasium.make("rlvr/Arithmetic-v0", sise=5)
    with pytest.raises(UsageError, match="did you mean 'size'"):
        gymnasium.make_vec("rlvr/Arithmetic-v0", num_envs=2, sise=5)


def test_a_module_before_the_id_is_imported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_tasks.py").write_text(
        textwrap.dedent(f"""
            from rlvr.envs import register
            register({name!r}, tasks=[{{"prompt": "?", "truth": "!"}}], verifier="exact")
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert envs.make(f"my_own_tasks:{name}").reset()[0] == "?"
    with pytest.raises(UsageError, match="cannot import 'not_my_tasks'"):
        envs.make("not_my_tasks:me/X-v0")


@pytest.mark.parametrize("id", ["a:b/X-v0", "a/b/c-v0", "with space-v0", "", 5])
def test_a_malformed_id_is_refused(id: Any) -> None:
    with pytest.raises(UsageError, match="me/Task-v0"):
        envs.register(id, tasks=ROWS, verifier=same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verifier": "maths"}, "no verifier 'maths'; did you mean 'math'"),
        ({"verifier": 5}, "a verifier is callable"),
        ({"tasks": "just words"}, "is no path"),
        ({"tasks": 5}, "must be a list of tasks or rows"),
        ({"promt": "question"}, "did you mean 'prompt'"),
        ({"tasks": lambda template: []}, "belong to the environment"),
        ({"tasks": lambda *all: []}, "by keyword"),
    ],
)
def test_what_cannot_be_registered_leaves_no_trace(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        envs.register(name, **{"tasks": ROWS, "verifier": same, **options})
    assert name not in envs.names()
    assert name not in gymnasium.registry


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        ([5], "item 0: a row is an object"),
        (
            [{"prompt": "a", "truth": 1, "id": "x"}, {"prompt": "b", "truth": 1, "id": "x"}],
            "id 'x'",
        ),
        ([{"prompt": "", "truth": 1}], "empty prompt"),
        ([{"prompt": 5, "truth": 1}], "a text or chat messages, got 5"),
        (
            [{"prompt": "a", "label": 1}],
            "no column 'truth' or 'answer'.*the row has: prompt, label",
        ),
        ([{"prompt": "a", "truth": None}], "column 'truth' is empty"),
    ],
)
def test_rows_that_are_no_tasks_are_refused(name: str, rows: list[Any], message: str) -> None:
    envs.register(name, tasks=rows, verifier=same)
    with pytest.raises(TaskError, match=message):
        gymnasium.make(name)


@pytest.mark.parametrize("options", [{"size": 0}, {"size": "5"}, {"split": "dev"}])
def test_size_and_split_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    envs.register(name, tasks=ROWS, verifier=same)
    with pytest.raises(UsageError, match=r"size must be|no split 'dev'"):
        gymnasium.make(name, **options)


def test_a_loader_that_needs_an_option_asks_for_it(name: str) -> None:
    envs.register(name, tasks=lambda level: ROWS[:level], verifier=same)
    with pytest.raises(UsageError, match="needs the option level="):
        gymnasium.make(name)
    assert len(envs.load_tasks(name, level=3)) == 3


def test_names_lists_the_environments_with_a_line_each() -> None:
    ours = {id: line for id, line in envs.names().items() if id.startswith("rlvr/")}
    assert len(ours) == len(TABLE) + len(DIALOGUES)
    assert all(line and "\n" not in line for line in ours.values())
