"""What holds for every transform: gymnasium's contract, branching, specs, what shows through."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from envs_harness import same
from gymnasium.utils.env_checker import check_env

from rlvr.envs import DialogueEnv, PromptEnv, Reply, TextVectorEnv, register
from rlvr.envs.wrappers import (
    Curriculum,
    FewShot,
    FormatReward,
    Noise,
    PassRates,
    Record,
    ScaleReward,
    SystemPrompt,
    TimeLimit,
    Transform,
    TurnLimit,
)
from rlvr.verifiers import Task, UsageError

TASKS = [
    Task(id=f"t{i}", prompt=f"Digit {i}?", truth=str(i), solution=str(i), metadata={"d": i % 2})
    for i in range(6)
]


ID = "test/Transforms-v0"


class Game(DialogueEnv[list[str]]):
    """Repeats what it is told with a random digit; a quarter a turn; digits are answers."""

    def open(self, task: Task, rng: np.random.Generator) -> list[str]:
        """Remember nothing yet."""
        return []

    def answer(self, action: str, state: list[str]) -> Reply:
        """Answer."""
        state.append(action)
        text = f"{'/'.join(state)} {self.np_random.integers(10)}"
        return Reply(text, reward=0.25, done=action.isdigit())


register(ID, tasks=TASKS, verifier=same, replace=True)


def texts(kind: str) -> gymnasium.Env[str, str]:
    return Game(TASKS, same, turns=4) if kind == "multi" else PromptEnv(TASKS, same)


WRAPPERS: dict[str, Callable[[Any, Path], Transform[str, str]]] = {
    "curriculum": lambda env, _: Curriculum(env, "d", rates=PassRates(learning=False)),
    "few_shot": lambda env, _: FewShot(env, 2),
    "format": lambda env, _: FormatReward(env, turns="all"),
    "noise": lambda env, _: Noise(env, false_positive=0.5, false_negative=0.5),
    "record": lambda env, folder: Record(env, folder / "episodes.jsonl"),
    "scale": lambda env, _: ScaleReward(env, 2.0, shift=-1.0),
    "system": lambda env, _: SystemPrompt(env, "Be brief."),
    "time": lambda env, _: TimeLimit(env, episode=3600, step=600),
    "turns": lambda env, _: TurnLimit(env, 3),
}


@pytest.fixture(params=list(WRAPPERS))
def wrap(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Transform[str, str]]:
    """Every transform in turn."""
    return lambda env: WRAPPERS[request.param](env, tmp_path)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_wrapped_environment_passes_gymnasiums_check(kind: str, wrap: Callable[..., Any]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(wrap(texts(kind)), skip_render_check=True)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_the_environment_shows_through(kind: str, wrap: Callable[..., Any]) -> None:
    env = wrap(texts(kind))
    observation, info = env.reset(seed=3, options={"index": 2})
    assert (observation, info["task_id"], info["index"]) == ("Digit 2?", "t2", 2)
    assert info["messages"][-1] == {"role": "user", "content": "Digit 2?"}
    assert env.unwrapped.tasks is TASKS
    assert env.unwrapped.verifier is same
    assert env.unwrapped.task.id == "t2"


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_branch_of_a_wrapped_episode_equals_the_unbroken_one(
    at: int, wrap: Callable[..., Any]
) -> None:
    env = wrap(texts("multi"))
    env.reset(seed=1, options={"index": 2})
    actions, after, taken = ["a", "<think>b</think><answer>c</answer>", "2"], [], None
    for number, action in enumerate(actions):
        taken = env.snapshot() if number == at else taken
        step = env.step(action)
        after += [step] if number >= at else []
    for _ in range(2):
        env.restore(taken)
        assert [env.step(action) for action in actions[at:]] == after


def test_the_chat_after_restore_is_the_chat_that_the_policy_saw(wrap: Callable[..., Any]) -> None:
    env = wrap(texts("multi"))
    _, info = env.reset(seed=1, options={"index": 2})
    seen = [*info["messages"], {"role": "assistant", "content": "a"}]
    observation, *_, info = env.step("a")
    seen += info["messages"]
    taken = env.snapshot()
    last = env.step("2")
    again, restored = env.restore(taken)
    assert (again, restored["messages"]) == (observation, seen)
    assert last[4]["messages"][: len(seen)] == seen


def test_a_spec_makes_the_wrapped_environment_again(wrap: Callable[..., Any]) -> None:
    env = wrap(gymnasium.make(ID))
    assert env.spec is not None
    if not isinstance(env, Curriculum):
        json.loads(env.spec.to_json())
    again = gymnasium.make(env.spec)
    assert type(again) is type(env)
    options = {"index": 4}
    assert again.reset(seed=0, options=options) == env.reset(seed=0, options=options)
    assert again.step("4")[:4] == env.step("4")[:4]
    several = gymnasium.make_vec(env.spec, num_envs=2, vectorization_mode="sync")
    assert len(several.reset(seed=0)[0]) == 2
    several.close()


def test_wrapped_environments_run_side_by_side(wrap: Callable[..., Any]) -> None:
    envs = TextVectorEnv([lambda: wrap(texts("multi"))] * 3)
    envs.reset(seed=0, options={"index": [0, 1, 2]})
    _, rewards, terminated, _, _ = envs.step(["0", "x", "2"])
    assert list(terminated) == [True, False, True]
    assert rewards[0] >= rewards[1]
    envs.close()


def test_transforms_nest_and_each_keeps_its_own_state(tmp_path: Path) -> None:
    env: Any = texts("multi")
    for name in WRAPPERS:
        env = WRAPPERS[name](env, tmp_path)
    _, info = env.reset(seed=0, options={"index": 1})
    roles = [message["role"] for message in info["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    env.step("a")
    taken = env.snapshot()
    whole = env.step("1")
    env.step("1") if not (whole[2] or whole[3]) else None
    env.restore(taken)
    assert env.step("1") == whole


def test_what_has_no_snapshots_is_refused_by_name(wrap: Callable[..., Any]) -> None:
    class Bare(gymnasium.Env[str, str]):
        """Has no snapshots."""

        tasks = TASKS

    env = wrap(Bare())
    with pytest.raises(UsageError, match=r"Bare.* has no snapshot\(\)"):
        env.snapshot()
    with pytest.raises(UsageError, match="restore takes what snapshot"):
        env.restore(None)
