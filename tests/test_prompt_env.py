"""The single-turn environment: its contract, and everything a caller can do wrong with it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from envs_harness import broken, same

from rlvr.envs import PromptEnv
from rlvr.verifiers import Task, TaskError, UsageError, Verdict


class Digits:
    """Reads truths that are digits."""

    def check_truth(self, truth: Any) -> None:
        """Refuse other truths."""
        if not str(truth).isdigit():
            raise TaskError(f"the truth is digits, got {truth!r}")

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Compare, and say how long it took."""
        return Verdict(reward=0.0, status="wrong", cost={"seconds": 0.5})  # pyright: ignore


TASKS = [Task(id=f"t{i}", prompt=f"{i} + 1 = ?", truth=str(i + 1)) for i in range(10)]


def fresh(**options: Any) -> PromptEnv:
    return PromptEnv(TASKS, same, **options)


def test_an_episode_is_one_prompt_one_answer_one_reward() -> None:
    env = fresh()
    prompt, info = env.reset(options={"index": 3})
    assert prompt == "3 + 1 = ?"
    assert info == {
        "task_id": "t3",
        "index": 3,
        "messages": [{"role": "user", "content": "3 + 1 = ?"}],
        "tools": [],
    }
    observation, reward, terminated, truncated, info = env.step("4")
    assert (observation, reward, terminated, truncated) == ("", 1.0, True, False)
    assert info["messages"][-1] == {"role": "assistant", "content": "4"}
    assert info["verdict"] == {"reward": 1.0, "status": "correct", "parts": {}, "evidence": {}}
    assert "unscored" not in info


def test_the_same_seed_draws_the_same_tasks_and_another_seed_others() -> None:
    def drawn(seed: int) -> list[str]:
        env = fresh()
        return [env.reset(seed=seed)[0]] + [env.reset()[0] for _ in range(19)]

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)


def test_a_seed_given_with_an_index_seeds_the_draws_that_follow() -> None:
    env, other = fresh(), fresh()
    env.reset(seed=7, options={"index": 3})
    other.reset(seed=7)
    other.np_random = np.random.default_rng(np.random.SeedSequence(7))
    assert env.np_random_seed == 7
    assert env.np_random.integers(2**60) == other.np_random.integers(2**60)
    assert other.np_random_seed == -1


def test_every_task_is_drawn_sooner_or_later() -> None:
    env = fresh()
    env.reset(seed=0)
    assert {env.reset()[1]["index"] for _ in range(200)} == set(range(10))


def test_an_unscored_verdict_is_nan_and_says_so() -> None:
    env = PromptEnv(TASKS, broken)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step("4")
    assert math.isnan(reward)
    assert (terminated, truncated, info["unscored"]) == (True, False, True)
    assert info["verdict"]["status"] == "error"
    assert "no disk" in info["verdict"]["evidence"]["reason"]


def test_the_cost_is_an_attribute_and_not_in_the_info() -> None:
    env = PromptEnv(TASKS, Digits())
    env.reset(seed=0)
    info = env.step("4")[4]
    assert "cost" not in info["verdict"]
    assert env.verdict is not None
    assert env.verdict.cost == {"seconds": 0.5}


def test_the_truth_is_nowhere_in_what_the_policy_is_given() -> None:
    env = PromptEnv([Task(id="a", prompt="?", truth="secret", solution="hidden")], same)
    observation, info = env.reset()
    assert "secret" not in repr((observation, info))
    assert "hidden" not in repr((observation, info))


def test_what_is_handed_out_can_be_changed_without_harm() -> None:
    env = fresh()
    _, info = env.reset(options={"index": 0})
    info["messages"][0]["content"] = "changed"
    info["messages"].clear()
    assert env.step("1")[4]["messages"][0]["content"] == "0 + 1 = ?"
    assert env.reset(options={"index": 0})[0] == "0 + 1 = ?"


def test_system_and_template_frame_the_newest_message_only() -> None:
    chat = (
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "2 + 2?"},
    )
    task = Task(id="chat", prompt=chat, truth="4")  # pyright: ignore
    env = PromptEnv([task], same, system="Be brief.", template=r"{prompt} Use \boxed{}.")
    observation, info = env.reset()
    assert observation == r"2 + 2? Use \boxed{}."
    assert [m["content"] for m in info["messages"]] == ["Be brief.", "Hello", "Hi", observation]
    assert info["messages"][0]["role"] == "system"


def test_a_second_system_message_is_refused() -> None:
    chat = ({"role": "system", "content": "A"}, {"role": "user", "content": "B"})
    env = PromptEnv([Task(id="x", prompt=chat, truth="")], same, system="C")  # pyright: ignore
    with pytest.raises(UsageError, match="task 'x' has a system message of its own"):
        env.reset()


@pytest.mark.parametrize("action", [None, 4, ["4"], b"4", np.array("4")])
def test_an_action_that_is_no_text_is_refused_and_the_episode_goes_on(action: Any) -> None:
    env = fresh()
    env.reset(options={"index": 3})
    with pytest.raises(UsageError, match=r"an action is the completion's text \(str\), got"):
        env.step(action)
    assert env.step("4")[1] == 1.0


def test_stepping_before_reset_or_twice_says_what_to_do() -> None:
    env = fresh()
    with pytest.raises(UsageError, match=r"call reset\(\) first"):
        env.step("4")
    env.reset(seed=0)
    env.step("4")
    with pytest.raises(UsageError, match=r"it ended with its one step; call reset\(\) first"):
        env.step("4")


@pytest.mark.parametrize("index", [10, -1, 2.0, "3", True, None, 10**30])
def test_an_index_out_of_range_names_the_range(index: Any) -> None:
    with pytest.raises(UsageError, match=r"integer from 0 to 9 \(there are 10 tasks\), got"):
        fresh().reset(options={"index": index})


def test_numpy_integers_are_indices_too() -> None:
    assert fresh().reset(options={"index": np.int64(2)})[1]["index"] == 2


def test_an_unknown_option_gets_a_guess() -> None:
    with pytest.raises(UsageError, match="no reset option 'indx'; did you mean 'index'"):
        fresh().reset(options={"indx": 3})


def test_a_failed_reset_leaves_no_episode_running() -> None:
    env = fresh()
    env.reset(seed=0)
    with pytest.raises(UsageError):
        env.reset(options={"index": 99})
    with pytest.raises(UsageError, match="call reset"):
        env.step("4")


def test_a_list_of_tasks_is_checked_when_the_environment_is_made() -> None:
    tasks = [Task(id="good", prompt="?", truth="1"), Task(id="bad", prompt="?", truth="one")]
    with pytest.raises(TaskError, match="task 'bad': the truth is digits, got 'one'"):
        PromptEnv(tasks, Digits())


def test_a_lazy_sequence_is_checked_task_by_task() -> None:
    class Lazy(Sequence[Task]):
        seen: list[int] = []  # noqa: RUF012

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: Any) -> Any:
            self.seen.append(index)
            return Task(id=f"t{index}", prompt="?", truth="one" if index == 7 else "1")

    tasks = Lazy()
    env = PromptEnv(tasks, Digits())
    assert tasks.seen == []
    env.reset(options={"index": 3})
    assert tasks.seen == [3]
    with pytest.raises(TaskError, match="task 't7'"):
        env.reset(options={"index": 7})


@pytest.mark.parametrize("tasks", [[], "abc", None, 5, iter(())])
def test_an_environment_without_tasks_is_refused(tasks: Any) -> None:
    with pytest.raises(UsageError, match="at least one Task"):
        PromptEnv(tasks, same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "no hole"}, "shows nothing of the problem"),
        ({"template": "{promt}"}, "did you mean 'prompt'"),
        ({"system": 5}, "system must be a text"),
        ({"render_mode": "human"}, "no render_mode 'human'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fresh(**options)


def test_rendering_shows_the_chat() -> None:
    env = fresh(render_mode="ansi")
    env.reset(options={"index": 0})
    env.step("1")
    assert env.render() == "[user]\n0 + 1 = ?\n\n[assistant]\n1"
    assert fresh().render() is None


def test_closing_twice_is_allowed() -> None:
    env = fresh()
    env.close()
    env.close()
    assert env.reset(seed=0)[1]["task_id"]
