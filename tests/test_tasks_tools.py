"""The environments with tools: each is solvable, worthless to chance, and withstands attacks."""

import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr.envs import check_env, load_tasks, make
from rlvr.envs.playing import play, solution_of, watched
from rlvr.envs.tasks.calculator import calculate
from rlvr.envs.tasks.files import MAX_BYTES, MAX_FILES, Folder
from rlvr.envs.tasks.search import MAX_RESULTS, World
from rlvr.rl_core.check_command import run_check
from rlvr.verifiers import UsageError

IDS = ("Calculator", "Files", "PythonTool", "SQL", "Search")
HOSTILE: list[dict[str, Any]] = [
    {},
    {"x": 1},
    {"path": "../../etc/passwd", "text": "x", "source": "a", "target": "../b"},
    {"expression": "9^9^9^9^9", "sql": "ATTACH '/tmp/x' AS y", "code": "", "query": "", "id": ""},
    {"expression": "__import__('os')", "sql": "\u202e;--", "query": "ａ" * 299, "k": -1},
    {"expression": "(" * 400, "sql": "(" * 4000, "query": "x" * 9999, "id": "p0\u200b"},
]


def env_of(name: str, **options: Any) -> Any:
    return make(f"rlvr/{name}-v0", disable_env_checker=True, **{"size": 20, **options})


def call(name: str, /, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def begun(name: str, index: int = 0, **options: Any) -> tuple[Any, Any]:
    """Return an environment in which an episode has begun, and its task."""
    env = env_of(name, **options)
    env.reset(options={"index": index})
    return env, env.unwrapped.task


def final_reward(name: str, split: str, count: int) -> set[float]:
    env = env_of(name, split=split, size=count)
    tasks = env.unwrapped.tasks
    return {
        play(env, solution_of(env, tasks[i]), seed=0, index=i)[-1][1] for i in range(len(tasks))
    }


@pytest.mark.parametrize("name", IDS)
def test_each_environment_keeps_every_promise(name: str) -> None:
    report = check_env(lambda: env_of(name), episodes=3, floor=0.0)
    assert report.ok, str(report)
    assert "3 of 3 solutions" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
def test_the_solver_scores_one_on_200_episodes(name: str) -> None:
    assert final_reward(name, "train", 200) == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
def test_the_random_policy_stays_at_zero_on_200_episodes(name: str) -> None:
    report = check_env(lambda: env_of(name, size=200), episodes=200, floor=0.0)
    assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
def test_the_command_finds_nothing(name: str) -> None:
    assert run_check(f"rlvr/{name}-v0", 5)


@pytest.mark.parametrize("name", IDS)
def test_held_out_tasks_are_solvable_and_others(name: str) -> None:
    assert final_reward(name, "test", 2) == {1.0}
    train = {task.prompt for task in load_tasks(f"rlvr/{name}-v0", size=20)}
    test = {task.prompt for task in load_tasks(f"rlvr/{name}-v0", size=20, split="test")}
    assert not train & test


@pytest.mark.parametrize(
    ("name", "form"),
    [(n, f) for n in IDS for f in ("openai", "code") if (n, f) != ("Files", "code")],
)
def test_the_solver_and_the_prompt_speak_every_form(name: str, form: str) -> None:
    env, task = begun(name, form=form, final="tag")
    assert "<tool_call>" not in env.unwrapped.messages[0]["content"]
    assert play(env, solution_of(env, task), seed=0, index=0)[-1][1] == 1.0


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("Calculator", {"steps": 1}, "steps must be from 2 to 12, got 1"),
        ("Calculator", {"digits": 13}, "digits must be from 1 to 12"),
        ("Files", {"files": 31}, "files must be from 4 to 30"),
        ("PythonTool", {"high": 10**9}, "high must be from 2000 to 20000"),
        ("SQL", {"level": 4}, "level must be from 1 to 3"),
        ("Search", {"hops": 0}, "hops must be from 1 to 6"),
    ],
)
def test_settings_out_of_range_are_refused(
    name: str, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        env_of(name, **setting)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("Calculator", {"steps": 12, "digits": 12}),
        ("Files", {"files": 30}),
        ("PythonTool", {"high": 20_000}),
        ("SQL", {"level": 1, "rows": 80}),
        ("Search", {"hops": 6, "people": 100, "noise": 200}),
    ],
)
def test_the_hardest_settings_are_solvable(name: str, settings: dict[str, Any]) -> None:
    env, task = begun(name, size=5, **settings)
    assert play(env, solution_of(env, task), seed=0, index=0)[-1][1] == 1.0


@pytest.mark.parametrize("name", [name for name in IDS if name != "PythonTool"])
def test_hostile_calls_are_observations_and_earn_nothing(name: str) -> None:
    env, _ = begun(name)
    for tool in env.unwrapped.toolbox:
        for arguments in HOSTILE:
            known = env.unwrapped.toolbox[tool].parameters
            env.reset(seed=1)
            for given in (arguments, {k: v for k, v in arguments.items() if k in known}):
                _, reward, ended, cut, info = env.step(call(tool, **given))
                assert (reward, ended, cut) == (0.0, False, False)
                assert "unscored" not in info
    said = env.step(call("query", sql="x" * 10_000_000))[0]
    assert said.startswith("Error: the turn has 100")
    env.close()


def test_the_calculator_is_exact_and_reads_nothing_but_arithmetic() -> None:
    # 999999999999 · 888888888888 = 888888888887111111111112, by 888888888888·10¹² − 888888888888
    assert calculate("999999999999 * 888888888888") == "888888888887111111111112"
    assert calculate("(1 - 3) * 4") == "-8"
    assert calculate("-8 * 5 + 1") == "-39"
    assert calculate("7 / 21") == "1/3"
    for wrong in ("1 + 2 + 3 + 4", "x + 1", "9^9^9", "1/0", "", "1 = 1", "2,3", "100!", "1e9"):
        with pytest.raises(UsageError):
            calculate(wrong)


def test_a_formula_of_the_calculator_needs_a_call_of_its_own() -> None:
    env, task = begun("Calculator", steps=3)
    whole = f"(({task.metadata['formulas'][0]}) * 11 + 12) * 13"
    assert "at most 3 numbers" in env.step(call("calculate", expression=whole))[0]


def test_the_query_tool_explains_refusals_and_keeps_the_data() -> None:
    env, task = begun("SQL")
    table = next(iter(task.truth["databases"][0]))
    before = env.step(call("query", sql=f"SELECT COUNT(*) FROM {table}"))[0]
    assert before.endswith("\n1 rows")
    for sql in (f"DELETE FROM {table}", "ATTACH '/tmp/rlvr-attack.db' AS u", f"DROP TABLE {table}"):
        assert "only reading is allowed" in env.step(call("query", sql=sql))[0]
    assert env.step(call("query", sql=f"SELECT COUNT(*) FROM {table}"))[0] == before
    assert "no such table: nowhere" in env.step(call("query", sql="SELECT * FROM nowhere"))[0]


def test_spelling_out_the_rows_of_the_one_database_earns_nothing() -> None:
    for index in range(3):
        env, task = begun("SQL", index)
        lines = env.step(call("query", sql=task.truth["query"]))[0].splitlines()[1:-1]
        rows = [json.loads(line) for line in lines]
        values = ", ".join(f"({', '.join(map(repr, row))})" for row in rows)
        assert env.step(f"<answer>VALUES {values}</answer>")[1] == 0.0


def test_runs_of_the_python_tool_are_bounded_and_share_nothing() -> None:
    env, _ = begun("PythonTool", turns=9)
    assert env.step(call("python", code="x = 5\nprint(x * 2)"))[0] == "10"
    assert "NameError" in env.step(call("python", code="print(x)"))[0]
    assert env.step(call("python", code="pass"))[0] == "(nothing was printed)"
    assert "more characters]" in env.step(call("python", code="while True: print('x' * 99)"))[0]
    assert "[memory:" in env.step(call("python", code="x = 'a' * (4 << 30)"))[0]
    opened = env.step(call("python", code="print(open('/etc/shadow').read())"))[0]
    assert "Error" in opened
    assert "[error:" in env.step(call("python", code="\x00"))[0]
    assert env.step(call("python", code="#" + "x" * 10_000_000))[0].startswith("Error: the turn")


@pytest.mark.slow
def test_a_hanging_program_is_stopped() -> None:
    env, _ = begun("PythonTool")
    assert "[timeout:" in env.step(call("python", code="while True: pass"))[0]
    assert "[timeout:" in env.step(call("python", code="import time; time.sleep(99)"))[0]


def test_pages_say_what_the_path_needs_and_ties_keep_their_order() -> None:
    world = World(7, 24, 16)
    pages = world.pages()
    assert pages == World(7, 24, 16).pages()
    assert len({title for title, _ in pages}) == len(pages) == 24 + 8 + 8 + 16
    env, _ = begun("Search")
    first = env.step(call("search", query="town river", k=MAX_RESULTS))[0]
    assert env.step(call("search", query="town river", k=MAX_RESULTS))[0] == first
    assert env.step(call("search", query="\u200b!?"))[0] == "no page has that"
    assert "no page 'p999'" in env.step(call("read", id="p999"))[0]
    assert "k is from 1 to 10" in env.step(call("search", query="a", k=11))[0]


def test_the_answer_of_a_search_is_the_name_and_not_a_list_of_names() -> None:
    env, task = begun("Search")
    assert env.step(f"<answer>{task.truth.upper()}</answer>")[1] == 1.0
    env.reset(options={"index": 0})
    every = ", ".join(
        World(*(task.metadata[k] for k in ("world", "people", "noise"))).names["town"]
    )
    assert env.step(f"<answer>{task.truth}, {every}</answer>")[1] == 0.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """Make a folder beside a file that must stay as it is."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "secret").write_text("secret")
    made = Folder({"a.txt": "one\n", "b/c.txt": "two\n"})
    yield made
    made.close()
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert (tmp_path / "secret").read_text() == "secret"


PATHS = [
    "..", "../secret", "b/../../secret", "/etc/passwd", "./a.txt", "b//c.txt", "", "/", "b/",
    "~/x", "a.txt\0", "..\\secret", "．．/secret", "b∕c.txt", "a\u200b.txt", "a\u202etxt", "a b",
    ".hidden", "a/b/c/d/e", "x" * 61, "x" * 10_000_000, "a\n", "%2e%2e/secret", "é",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path[:12]))
def test_a_path_that_leaves_or_tricks_is_refused(folder: Folder, path: str) -> None:
    before = folder.tree()
    with pytest.raises(UsageError, match="no path"):
        folder.read(path)
    with pytest.raises(UsageError, match="no path"):
        folder.write(path, "x")
    with pytest.raises(UsageError, match="no path"):
        folder.move("a.txt", path)
    with pytest.raises(UsageError, match="no path"):
        folder.delete(path)
    assert folder.tree() == before


def test_a_folder_has_caps_and_no_overwriting_moves(folder: Folder) -> None:
    for act, message in (
        (lambda: folder.write("d.txt", "x" * (MAX_BYTES + 1)), "at most 10000"),
        (lambda: folder.write("d.txt", "é"), "plain ASCII"),
        (lambda: folder.write("d.txt", "a\r\n"), "line feed"),
        (lambda: folder.write("b", "x"), "'b' is a folder"),
        (lambda: folder.write("a.txt/x", "x"), "'a.txt' is a file"),
        (lambda: folder.move("a.txt", "b/c.txt"), "there is a file 'b/c.txt' already"),
        (lambda: folder.delete("b"), "there is no file 'b'"),
        (lambda: folder.read("nothing"), "there is no file 'nothing'"),
    ):
        with pytest.raises(UsageError, match=message):
            act()
    assert folder.tree() == {"a.txt": "one\n", "b/c.txt": "two\n"}
    for number in range(MAX_FILES - 2):
        folder.write(f"n/{number}", "")
    with pytest.raises(UsageError, match="has 200 files already"):
        folder.write("one-more", "")
    folder.write("a.txt", "over an old one")
    folder.delete("b/c.txt")
    assert not (folder.root / "b").exists()


def test_the_final_files_decide_and_not_the_words() -> None:
    env, task = begun("Files")
    assert env.step("Everything is in order: 1.0")[1] == 0.0
    extra = [*plan_of(env, task)[:-1], call("write", path="extra.txt", text="x")]
    play(env, [*extra, "done"], seed=0, index=0)
    assert env.unwrapped.verdict.reward == 0.0
    assert env.unwrapped.verdict.evidence["paths"] == ["extra.txt"]


def plan_of(env: Any, task: Any) -> list[str]:
    """Return the actions of a solution."""
    actions: list[str] = []
    play(env, watched(solution_of(env, task), actions), seed=0, index=0)
    return actions


def test_folders_are_gone_after_the_end_an_error_a_branch_and_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    env, _ = begun("Files")
    assert len(list(tmp_path.iterdir())) == 1
    taken = env.get_wrapper_attr("snapshot")()
    env.step(call("write", path="x", text="y"))
    env.get_wrapper_attr("restore")(taken)
    assert "x" not in env.step(call("list_files"))[0].splitlines()
    del taken
    worker = threading.Thread(target=env.step, args=("done",))
    worker.start()
    worker.join()
    env.close()
    assert list(tmp_path.iterdir()) == []
