"""Environments of programming problems: rows as they are, generated ones solved and attacked."""

import dataclasses
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import rlvr.envs as envs
from rlvr.envs.tasks import TABLE
from rlvr.envs.tasks.record_program import report
from rlvr.verifiers import Status, Task, TaskError, UsageError, make, verify
from rlvr.verifiers.check import check_verifier

GENERATED = ["rlvr/ListProgram-v0", "rlvr/TextProgram-v0", "rlvr/RecordProgram-v0"]
ROWS: dict[str, list[dict[str, Any]]] = {
    "rlvr/HumanEval-v0": [
        {
            "task_id": f"Own/{n}",
            "prompt": f"def add{n}(x: int) -> int:\n    '''Add {n} to x.'''\n",
            "entry_point": f"add{n}",
            "canonical_solution": f"    return x + {n}\n",
            "test": f"def check(candidate):\n    assert candidate(5) == {n + 5}\n",
        }
        for n in range(30)
    ],
    "rlvr/MBPP-v0": [
        {
            "task_id": n,
            "text": f"Write a function that multiplies by {n}.",
            "code": f"def times(x):\r\n    return x * {n}",
            "test_list": [f"assert times(2) == {2 * n}", f"assert times('a') == {'a' * n!r}"],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for n in range(30)
    ],
    "rlvr/APPS-v0": [
        {
            "problem_id": n,
            "question": f"Print the number that you read, plus {n}.",
            "solutions": json.dumps([f"print(int(input()) + {n})"]),
            "input_output": json.dumps({"inputs": ["4\n"], "outputs": [f"{n + 4}\n"]}),
            "difficulty": "introductory",
            "starter_code": "",
        }
        for n in range(30)
    ],
    "rlvr/LiveCodeBench-v0": [
        {
            "question_id": f"own_{n}",
            "question_content": f"Return the sum of a list, plus {n}.",
            "starter_code": "class Solution:\n    def total(self, xs):",
            "public_test_cases": json.dumps(
                [{"input": "[1, 2]", "output": str(n + 3), "testtype": "functional"}]
            ),
            "private_test_cases": "",
            "metadata": json.dumps({"func_name": "total"}),
            "contest_date": f"2024-01-{n + 1:02d}T00:00:00",
        }
        for n in range(30)
    ],
}
LCB_SOLUTION = "class Solution:\n    def total(self, xs): return sum(xs) + {n}"


def written(folder: Path, rows: list[Any]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def options(id: str, folder: Path) -> dict[str, Any]:
    return {"path": written(folder, ROWS[id])} if id in ROWS else {}


def test_every_environment_of_programs_is_tried_here() -> None:
    programs = {id for id, row in TABLE.items() if row[1] == "program"}
    assert programs == {*GENERATED, *ROWS}


@pytest.mark.parametrize("id", [*GENERATED, *ROWS])
def test_gymnasiums_checker_finds_nothing(id: str, tmp_path: Path) -> None:
    env = gymnasium.make(id, **options(id, tmp_path))
    check_env(env.unwrapped)
    assert env.reset(seed=3) == env.reset(seed=3)


@pytest.mark.parametrize("id", [*GENERATED, *ROWS])
def test_solutions_score_one_and_other_solutions_zero(id: str, tmp_path: Path) -> None:
    env = gymnasium.make(id, disable_env_checker=True, **options(id, tmp_path))
    tasks = env.unwrapped.tasks[:12]  # pyright: ignore
    solutions = [task.solution or LCB_SOLUTION.format(n=n) for n, task in enumerate(tasks)]
    for index in range(12):
        env.reset(options={"index": index})
        assert env.step(solutions[index])[1] == 1.0
        env.reset(options={"index": index})
        assert env.step(solutions[index - 1])[1] == 0.0


@pytest.mark.parametrize("id", [*GENERATED, *ROWS])
def test_tasks_survive_json_and_sides_share_no_prompt(id: str, tmp_path: Path) -> None:
    given = options(id, tmp_path) or {"size": 200}
    for task in envs.load_tasks(id, **given)[:20]:
        assert Task(**json.loads(json.dumps(dataclasses.asdict(task)))) == task
    sides = [{t.prompt for t in envs.load_tasks(id, split=s, **given)} for s in ("train", "test")]
    assert all(sides)
    assert not sides[0] & sides[1]


@pytest.mark.parametrize("id", GENERATED)
def test_the_verifier_withstands_our_own_examination(id: str) -> None:
    found = check_verifier(make("program"), envs.load_tasks(id, tests=5)[:1], budget=20.0)
    assert found.ok, str(found)


@pytest.mark.parametrize("id", GENERATED)
def test_generated_problems_are_hard_to_guess(id: str) -> None:
    """No constant, no echo, nothing that is right on every test without being the program."""
    verifier = make("program", reward="fraction")
    guesses = {
        "rlvr/ListProgram-v0": ["lambda xs: xs", "lambda xs: 0", "lambda xs: []", "lambda xs: -1"],
        "rlvr/TextProgram-v0": ["lambda text: text", "lambda text: ''", "lambda text: '0'"],
        "rlvr/RecordProgram-v0": ["print('total 0')", "print()"],
    }[id]
    name = {"rlvr/ListProgram-v0": "solve = ", "rlvr/TextProgram-v0": "rewrite = "}.get(id, "")
    for task in envs.load_tasks(id, size=5):
        for guess in guesses:
            assert (verify(verifier, name + guess, task.truth).reward or 0.0) < 0.7


@pytest.mark.parametrize("id", GENERATED)
def test_items_follow_their_seed_alone(id: str) -> None:
    one, other = (envs.load_tasks(id, seed=seed, size=60) for seed in (42, 43))
    assert sum(a.prompt == b.prompt for a, b in zip(one[1:], other[:-1], strict=True)) <= 1
    assert [t.truth for t in one] == [t.truth for t in envs.load_tasks(id, seed=42, size=60)]
    assert len({t.prompt for t in one}) == 60
    assert envs.load_tasks(id, size=10**9)[5].prompt


@pytest.mark.parametrize("id", GENERATED)
def test_solutions_are_programs_outside_the_sandbox_too(id: str) -> None:
    """The truth is worked out by other code than the solution: both are run and agree."""
    for task in envs.load_tasks(id, size=4):
        program = str(task.solution).removeprefix("```python\n").removesuffix("```")
        test = task.truth["tests"][-1]
        call = f"print(repr({task.truth.get('function')}(*{test.get('args')!r})), end='')"
        source = program + ("" if "input" in test else "\n" + call)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", source],
            input=test.get("input", ""), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == (test["output"] if "input" in test else repr(test["output"]))


def test_a_report_is_worked_out_as_by_hand() -> None:
    records = [("fan", 2, 5), ("bolt", 1, 3), ("fan", 4, 1), ("glue", 9, 8)]
    # all lines, amount × price: fan 2·5 + 4·1 = 14, bolt 3, glue 72; by figure, largest first
    assert report(records, 0, 1, 3, 0, 2) == "glue 72\nfan 14\nbolt 3\ntotal 89\n"
    # amount at least 2, number of lines, by name
    assert report(records, 1, 3, 0, 2, 2) == "fan 2\nglue 1\ntotal 3\n"


@pytest.mark.parametrize(
    ("id", "settings"),
    [
        ("rlvr/ListProgram-v0", {"steps": 0}), ("rlvr/ListProgram-v0", {"tests": 3}),
        ("rlvr/TextProgram-v0", {"rules": 9}), ("rlvr/RecordProgram-v0", {"records": 3}),
        ("rlvr/RecordProgram-v0", {"prompt": "nothing"}), ("rlvr/MBPP-v0", {"shown": -1}),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(id: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        gymnasium.make(id, **settings)


@pytest.mark.parametrize("id", GENERATED)
def test_harder_settings_are_drawn_too(id: str) -> None:
    hard = {"rlvr/ListProgram-v0": {"steps": 7}, "rlvr/TextProgram-v0": {"rules": 7}}
    tasks = envs.load_tasks(id, size=5, **hard.get(id, {"records": 200}))
    assert all(verify(make("program"), str(t.solution), t.truth).reward == 1.0 for t in tasks)


@pytest.mark.parametrize(
    ("id", "column", "message"),
    [
        ("rlvr/HumanEval-v0", "test", "HumanEval needs the column 'test'"),
        ("rlvr/MBPP-v0", "test_list", "MBPP needs the column 'test_list'"),
        ("rlvr/MBPP-v0", "code", "MBPP needs the column 'code'"),
        ("rlvr/APPS-v0", "input_output", "no tests in 'input_output'"),
        ("rlvr/LiveCodeBench-v0", "public_test_cases", "needs 'public_test_cases' or"),
    ],
)
def test_a_row_of_another_form_is_named(id: str, column: str, message: str, tmp_path: Path) -> None:
    row = {key: value for key, value in ROWS[id][0].items() if key != column}
    with pytest.raises(TaskError, match=f"line 1: .*{message}"):
        gymnasium.make(id, path=written(tmp_path, [row]))


def test_humaneval_may_be_packed_asked_for_or_only_begun(tmp_path: Path) -> None:
    path = tmp_path / "HumanEval.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join(map(json.dumps, ROWS["rlvr/HumanEval-v0"])))
    asked = envs.load_tasks("rlvr/HumanEval-v0", path=path)[3]
    begun = envs.load_tasks("rlvr/HumanEval-v0", path=path, instruct=False, scaled=True)[3]
    assert asked.id == "Own/3"
    assert "Answer with one ```python block" in str(asked.prompt)
    assert begun.prompt == ROWS["rlvr/HumanEval-v0"][3]["prompt"]
    verifier = make("program")
    for completion in ("    return 3 + x\n", "def add3(x): return x + 3"):
        assert verify(verifier, completion, begun.truth).reward == 1.0
    assert verify(verifier, "    return 3\n", begun.truth).reward == 0.0


def test_mbpp_shows_as_many_tests_as_it_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS["rlvr/MBPP-v0"])
    prompts = [
        str(envs.load_tasks("rlvr/MBPP-v0", path=path, shown=shown)[2].prompt)
        for shown in (0, 1, 3)
    ]
    assert [prompt.count("assert") for prompt in prompts] == [0, 1, 2]
    cheat = "def times(x):\n    return 4"  # what the shown test wants
    task = envs.load_tasks("rlvr/MBPP-v0", path=path)[2]
    assert verify(make("program"), cheat, task.truth).status is Status.WRONG


def test_contests_are_chosen_by_their_date(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS["rlvr/LiveCodeBench-v0"])
    kept = envs.load_tasks(
        "rlvr/LiveCodeBench-v0", path=path, since="2024-01-05", until="2024-01-08"
    )
    assert [task.id for task in kept] == ["own_4", "own_5", "own_6"]
    with pytest.raises(UsageError, match="keeps none"):
        envs.load_tasks("rlvr/LiveCodeBench-v0", path=path, since="2030-01-01")
