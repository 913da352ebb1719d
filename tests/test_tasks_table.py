"""What every environment of the table promises, checked on each of them."""

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit

import rlvr.envs as envs
from rlvr.envs.tasks import TABLE
from rlvr.envs.tasks.gcd import GCD
from rlvr.verifiers import Task, UsageError
from rlvr.verifiers.check import check_verifier

SHORT = [id for id, row in TABLE.items() if row[1] != "program"]
"""Programs take a hundred times as long to judge; test_programs_envs.py has theirs."""
GENERATED = [id for id in SHORT if "GSM8K" not in id]
GARBAGE = [
    "",
    " ",
    "?",
    "I do not know.",
    "#### ",
    r"\boxed{}",
    "0/0",
    "9**9**9",
    "<answer>",
    "\x00½",
]


@pytest.fixture(scope="session")
def gsm8k_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small file in GSM8K's form: 300 problems with different numbers."""
    path = tmp_path_factory.mktemp("gsm8k") / "problems.jsonl"
    rows = (
        {
            "question": f"Ann has {i} apples and buys {i + 1000}. How many has she?",
            "answer": f"{i} + <<{i}+{i + 1000}={2 * i + 1000}>>\n#### {2 * i + 1000:,}",
        }
        for i in range(300)
    )
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(params=SHORT)
def make(request: pytest.FixtureRequest, gsm8k_path: Path) -> Callable[..., Any]:
    """Make the environment of one row with any options."""
    needed = {"path": str(gsm8k_path)} if "GSM8K" in request.param else {}

    def made(function: Callable[..., Any] = gymnasium.make, **options: Any) -> Any:
        return function(request.param, **needed, **options)

    return made


def first_episode(env: gymnasium.Env[str, str], index: int) -> float:
    _, info = env.reset(options={"index": index})
    task: Task = env.unwrapped.tasks[index]  # pyright: ignore
    assert info["task_id"] == task.id
    assert task.solution is not None
    return float(env.step(task.solution)[1])


def test_gymnasiums_checker_finds_nothing(make: Callable[..., Any]) -> None:
    env = make()
    check_env(env.unwrapped)
    env.close()


def test_the_same_seed_begins_the_same_episode(make: Callable[..., Any]) -> None:
    one, other = make(), make()
    assert one.reset(seed=3) == other.reset(seed=3)
    assert one.reset() == other.reset()
    assert len({one.reset(seed=seed)[0] for seed in range(20)}) > 10


def test_solutions_score_one_and_other_solutions_zero(make: Callable[..., Any]) -> None:
    env = make(disable_env_checker=True)
    tasks = env.unwrapped.tasks[:200]
    assert len(tasks) == 200
    compared = 0
    for index, task in enumerate(tasks):
        assert first_episode(env, index) == 1.0
        other = tasks[(index + 1) % len(tasks)]
        if other.truth != task.truth:
            env.reset(options={"index": index})
            assert env.step(other.solution)[1] == 0.0, (task, other)
            compared += 1
    assert compared > 120


@pytest.mark.parametrize("completion", GARBAGE)
def test_garbage_is_scored_zero(make: Callable[..., Any], completion: str) -> None:
    env = make()
    env.reset(options={"index": 0})
    assert env.step(completion)[1] == 0.0


def test_the_verifier_withstands_our_own_examination(make: Callable[..., Any]) -> None:
    env = make().unwrapped
    report = check_verifier(env.verifier, env.tasks[:4])
    assert report.ok, str(report)


def test_tasks_survive_json(make: Callable[..., Any]) -> None:
    for task in make().unwrapped.tasks[:50]:
        data = json.loads(json.dumps(dataclasses.asdict(task)))
        assert Task(**data) == task


def test_train_and_test_have_no_prompt_in_common(make: Callable[..., Any]) -> None:
    sides = [{t.prompt for t in make(split=s).unwrapped.tasks} for s in ("train", "test")]
    assert all(sides)
    assert not sides[0] & sides[1]


def test_gymnasiums_wrappers_and_synchronous_vector_work(make: Callable[..., Any]) -> None:
    env = RecordEpisodeStatistics(TimeLimit(make(), 5))
    assert first_episode(env, 0) == 1.0
    env.reset(options={"index": 1})
    assert env.step("")[4]["episode"]["l"] == 1
    vector = SyncVectorEnv([make] * 3)
    texts, _ = vector.reset(seed=[1, 2, 1])
    assert texts[0] == texts[2]
    rewards = vector.step(("", "½", "12"))[1]
    assert rewards.shape == (3,)
    vector.close()


def test_our_vector_scores_a_whole_batch(make: Callable[..., Any]) -> None:
    vector = make(gymnasium.make_vec, num_envs=4)
    _, infos = vector.reset(options={"index": [0, 1, 2, 3]})
    tasks = vector.get_attr("tasks")[0]
    rewards = vector.step([tasks[i].solution for i in infos["index"]])[1]
    assert rewards.tolist() == [1.0] * 4
    vector.close()


def test_processes_work_without_shared_memory(make: Callable[..., Any]) -> None:
    vector = AsyncVectorEnv([make] * 2, shared_memory=False, autoreset_mode="Disabled")
    try:
        tasks = make().unwrapped.tasks
        texts, _ = vector.reset(options={"index": 4})
        assert texts == (tasks[4].text,) * 2
        rewards = vector.step((tasks[4].solution, ""))[1]
        assert rewards.tolist() == [1.0, 0.0]
    finally:
        vector.close()


def test_shared_memory_is_refused_instead_of_freezing_the_text() -> None:
    with pytest.raises(ValueError, match="shared_memory=False"):
        gymnasium.make_vec("rlvr/GCD-v0", num_envs=2, vectorization_mode="async")


@pytest.mark.parametrize("id", GENERATED)
def test_items_follow_their_seed_and_neighbouring_seeds_share_nothing(id: str) -> None:
    """42's item 1 must not be 43's item 0, nor anywhere near it: ids aside, only by chance."""
    one, other = (envs.load_tasks(id, seed=seed, size=200) for seed in (42, 43))
    shifted = [a.prompt == b.prompt for a, b in zip(one[1:], other[:-1], strict=True)]
    assert sum(shifted) <= 2
    assert [task.prompt for task in envs.load_tasks(id, seed=42, size=200)] == [
        t.prompt for t in one
    ]


@pytest.mark.parametrize("id", GENERATED)
def test_items_do_not_depend_on_the_order_they_are_asked_for(id: str) -> None:
    loader = envs.registration._loader(id, envs.registration._TABLE[id])
    forwards, backwards = loader.load(size=40), loader.load(size=40)
    assert [backwards[i] for i in reversed(range(40))][::-1] == list(forwards)
    assert list(loader.load(size=60)[:40]) == list(forwards)


@pytest.mark.parametrize("id", GENERATED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_prompts_are_different_within_a_split(id: str, split: str) -> None:
    tasks = envs.load_tasks(id, split=split, size=400)
    assert len({task.prompt for task in tasks}) == 400
    assert len({task.id for task in tasks}) == 400


@pytest.mark.parametrize("id", GENERATED)
def test_long_sequences_give_any_item_at_once_and_keep_the_split(id: str) -> None:
    wide: dict[str, dict[str, Any]] = {
        "rlvr/Arithmetic-v0": {"digits": 9},
        "rlvr/GCD-v0": {"high": 10**9},
        "rlvr/LinearEquation-v0": {"max_coefficient": 10**9, "max_constant": 10**9},
    }
    loader = envs.registration._loader(id, envs.registration._TABLE[id])
    one, again, held_out = (
        loader.load(size=10**9, split=split, **wide.get(id, {}))
        for split in ("train", "train", "test")
    )
    middle = one[len(one) // 2]
    assert one[-1] == again[10**9 - 1]
    assert again[len(one) // 2] == middle
    assert len({one[-1].prompt, middle.prompt, held_out[-1].prompt}) == 3


@pytest.mark.parametrize("id", GENERATED)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be from 1"),
        ({"size": 2.5}, "size must be an integer"),
        ({"seed": -1}, "seed must be from 0 up"),
        ({"split": "dev"}, "no split 'dev'"),
        ({"split": None}, "no split 'None'"),
        ({"prompt": "nothing"}, "shows nothing of the problem"),
        ({"prompt": "{answer}"}, "no field in prompt 'answer'"),
        ({"prompt": 5}, "prompt must be a text"),
    ],
)
def test_settings_out_of_range_are_refused(id: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gymnasium.make(id, **options)


def test_no_global_random_state_is_touched() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()  # pyright: ignore
    for id in GENERATED:
        env = gymnasium.make(id, seed=9)
        env.reset(seed=1)
        env.step("1")
    assert np.random.get_state()[1].tolist() == before  # pyright: ignore


def test_threads_that_share_a_generator_see_the_same_tasks() -> None:
    alone, shared = list(GCD()), GCD()
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda i: shared[i % 1000], range(999, 5000)))
    assert all(task == alone[i % 1000] for i, task in zip(range(999, 5000), seen, strict=True))


@pytest.mark.parametrize("id", GENERATED)
def test_generators_are_copied_and_pickled_as_their_settings(id: str) -> None:
    tasks = envs.load_tasks(id, size=30, seed=5)
    for again in (pickle.loads(pickle.dumps(tasks)), copy.deepcopy(tasks)):
        assert list(again) == list(tasks)
