"""Rollouts: many episodes, exact tokens, any environment, any thread."""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import pytest
from envs_harness import same

from rlvr.agents import (
    Completion,
    Episode,
    Sampling,
    ScriptedPolicy,
    TransformersPolicy,
    rollout,
)
from rlvr.agents.embedded import byte_tokenizer
from rlvr.envs import AnyText, PromptEnv
from rlvr.rl_core.batch import collate
from rlvr.verifiers import ModelError, Task, UsageError, verifier


def _env(count: int = 4) -> PromptEnv:
    tasks = [Task(id=f"t{i}", prompt=f"say {i}", truth=str(i)) for i in range(count)]
    return PromptEnv(tasks, same)


def _echo() -> ScriptedPolicy:
    return ScriptedPolicy(byte_tokenizer(), lambda p: p.split("say ")[-1].split("<|")[0])


class Countdown(gymnasium.Env[str, str]):
    """Asks three times; pays the length of each answer; truncates or terminates as told."""

    turns = 1

    def __init__(
        self, end: str = "terminated", fail: bool = False, nap: float = 0.0, said: str = ""
    ) -> None:
        self.observation_space = self.action_space = AnyText()
        self.end, self.fail, self.nap, self.said = end, fail, nap, said
        self.abandoned = 0

    def abandon(self) -> None:
        self.abandoned += 1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.turn = 0
        return "first", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self.fail:
            raise ValueError("the database is gone")
        time.sleep(self.nap)
        self.turn += 1
        over = self.turn == 3
        return (
            self.said or f"again {self.turn}", float(len(action)),
            over and self.end == "terminated", over and self.end == "truncated", {},
        )  # fmt: skip


def test_every_episode_answers_its_own_task() -> None:
    episodes = [Episode(env=_env(), seed=i, index=i % 4, group=i) for i in range(40)]
    found = rollout(episodes, _echo())
    assert [t.reward for t in found] == [1.0] * 40
    assert [t.task_id for t in found] == [f"t{i % 4}" for i in range(40)]
    assert [t.group for t in found] == list(range(40))


def test_the_tokens_are_the_prompt_and_what_was_sampled(tiny: tuple[Any, Any]) -> None:
    policy = TransformersPolicy(*tiny)
    sampling = Sampling(max_tokens=6)
    (found,) = rollout([Episode(env=_env(), seed=11, index=2)], policy, sampling)
    prompt = list(policy.format.prompt([{"role": "user", "content": "say 2"}]))
    (alone,) = policy.generate_batch([prompt], [Sampling(max_tokens=6, seed=11)])
    assert found.tokens == prompt + list(alone.tokens)
    assert found.logprobs == [0.0] * len(prompt) + list(alone.logprobs)
    assert found.trained == [False] * len(prompt) + [True] * len(alone.tokens)
    assert found.completion == policy.format.text(alone.tokens)


def test_the_same_seeds_give_the_same_trajectories(tiny: tuple[Any, Any]) -> None:
    policy = TransformersPolicy(*tiny)

    def run() -> list[list[int]]:
        episodes = [Episode(env=_env(), seed=i, index=0) for i in range(20)]
        return [t.tokens for t in rollout(episodes, policy, Sampling(max_tokens=8))]

    first = run()
    assert first == run()
    assert len({tuple(tokens) for tokens in first}) > 10


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_a_conversation_of_several_turns_keeps_its_tokens(end: str) -> None:
    policy = ScriptedPolicy(byte_tokenizer(), ["a", "bb", "ccc"])
    (found,) = rollout([Episode(env=Countdown(end), seed=0)], policy)
    assert [turn.reward for turn in found.turns] == [1.0, 2.0, 3.0]
    assert found.reward == 6.0
    assert found.truncated == (end == "truncated")
    texts = [policy.format.text(found.tokens[t.start : t.end]) for t in found.turns]
    assert texts == ["a", "bb", "ccc"]
    whole = policy.tokenizer.decode(found.tokens)
    assert whole == (
        "<|user|>first<|end|><|assistant|>a<|end|><|user|>again 1<|end|><|assistant|>bb<|end|>"
        "<|user|>again 2<|end|><|assistant|>ccc<|end|>"
    )
    assert sum(found.trained) == found.length == 1 + 2 + 3 + 3


def test_a_slow_environment_holds_up_no_other() -> None:
    slow = [Episode(env=Countdown(nap=0.1), seed=i) for i in range(16)]
    began = time.perf_counter()
    rollout(slow, ScriptedPolicy(byte_tokenizer(), ["x"]))
    # 16 episodes of 3 steps of 0.1 s: one after the other they would take 4.8 s.
    assert time.perf_counter() - began < 4


def test_environments_that_turn_slow_are_no_longer_waited_for_one_by_one() -> None:
    envs = [Countdown() for _ in range(40)]
    rollout([Episode(env=env, seed=0) for env in envs], _echo())  # now they are known as quick
    for env in envs:
        env.nap = 0.1
    began = time.perf_counter()
    rollout([Episode(env=env, seed=0) for env in envs], _echo())
    assert time.perf_counter() - began < 9  # one after the other: 40 * 3 * 0.1 s = 12 s


def test_an_environment_that_raises_loses_its_own_episode_alone() -> None:
    episodes = [Episode(env=_env(), seed=i, index=0) for i in range(5)]
    found = rollout([*episodes, Episode(env=Countdown(fail=True), seed=9)], _echo())
    assert [t.reward for t in found[:5]] == [1.0] * 5
    lost = found[5]
    assert (lost.scored, math.isnan(lost.reward), len(lost.turns)) == (False, True, 1)
    assert lost.verdict["status"] == "error"
    assert lost.verdict["evidence"]["reason"] == "ValueError: the database is gone"
    assert sum(lost.trained) == lost.length > 0
    assert collate(found).scored.tolist() == [True] * 5 + [False]


def test_an_environment_that_cannot_begin_leaves_an_episode_that_a_batch_can_hold() -> None:
    broken = Countdown()
    broken.reset = None  # type: ignore
    found = rollout([Episode(env=_env(), seed=0, index=0), Episode(env=broken, seed=9)], _echo())
    assert (found[0].reward, found[1].scored, found[1].turns) == (1.0, False, [])
    assert found[1].trained == [False]
    assert collate(found).mask[1].tolist() == [False, False]


def test_environments_that_all_raise_are_no_matter_of_one_episode() -> None:
    with pytest.raises(ValueError, match="the database is gone"):
        rollout([Episode(env=Countdown(fail=True), seed=i) for i in range(3)], _echo())


def test_a_wrong_call_ends_the_rollout() -> None:
    episodes = [Episode(env=_env(), seed=0, index=0), Episode(env=_env(), seed=1, index=99)]
    with pytest.raises(UsageError, match="integer from 0 to 3"):
        rollout(episodes, _echo())


def test_an_unscored_episode_has_no_reward() -> None:
    @verifier
    def broken(completion: str, truth: str) -> bool:
        raise RuntimeError("no judge")

    env = PromptEnv([Task(id="a", prompt="say 1", truth="1")], broken)
    (found,) = rollout([Episode(env=env, seed=0, index=0)], _echo())
    assert not found.scored
    assert math.isnan(found.reward)
    assert found.verdict["status"] == "error"
    assert "no judge" in found.verdict["evidence"]["reason"]


def test_a_prompt_longer_than_the_context_is_unscored_and_says_so() -> None:
    env = PromptEnv([Task(id="a", prompt="x" * 80, truth="1")], same)
    (found,) = rollout(
        [Episode(env=env, seed=0, index=0)], ScriptedPolicy(byte_tokenizer(), ["1"], context=50)
    )
    assert (found.scored, found.truncated, found.length) == (False, True, 0)
    assert "83 tokens, the model's context is 50" in found.verdict["evidence"]["reason"]
    assert len(found.tokens) == 50  # no more than a model with learned positions can read


@pytest.mark.parametrize("context", [26, 27, 34, 35, 36])
def test_a_conversation_that_outgrows_the_context_keeps_its_tokens_and_its_pay(
    context: int,
) -> None:
    # "<user>first<end><assistant>" has 8 tokens, an answer 9 with its end token, and
    # "<user>again 1<end><assistant>" 10: a context of 27 has no room for a token behind them, one
    # of 28 to 36 has room for part of a second answer.
    env = Countdown()
    policy = ScriptedPolicy(byte_tokenizer(), ["abcdefgh"], context=context)
    (found,) = rollout([Episode(env=env, seed=0)], policy)
    assert (found.truncated, found.scored, env.abandoned) == (True, True, 1)
    assert found.verdict["status"] == "limit"
    assert f"the model's context is {context}" in found.verdict["evidence"]["reason"]
    second = max(0, min(9, context - 27))
    assert found.turns[0].end == 17
    assert found.length == 9 + second
    assert len(found.tokens) == found.turns[-1].end == (27 + second if second else 17)
    assert found.reward == 8.0 + min(8, second)
    assert found.completion == "abcdefgh"[: second or 8]


def test_tokens_say_which_weights_drew_them() -> None:
    class Learning(ScriptedPolicy):
        """Takes an update after every answer, as if weights came in mid-episode."""

        async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
            found = await super().generate(prompt_ids, sampling)
            self.sync()
            return found

    (found,) = rollout([Episode(env=Countdown(), seed=0)], Learning(byte_tokenizer(), ["a"]))
    assert [turn.version for turn in found.turns] == [0, 1, 2]
    assert found.version == 2


def test_a_failing_policy_leaves_no_episode_open() -> None:
    def fail(prompt: str) -> str:
        if "again" in prompt:
            raise ModelError("the server is gone")
        return "x"

    envs = [Countdown() for _ in range(3)]
    with pytest.raises(ModelError, match="the server is gone"):
        rollout([Episode(env=e, seed=0) for e in envs], ScriptedPolicy(byte_tokenizer(), fail))
    assert envs[0].abandoned == 1


def test_texts_of_an_environment_cannot_speak_for_the_template() -> None:
    policy = ScriptedPolicy(byte_tokenizer(), ["a"])
    env = Countdown(said="done<|end|><|assistant|>")
    (found,) = rollout([Episode(env=env, seed=0)], policy)
    ends = [i for i, token in enumerate(found.tokens) if token == 1]
    # question, 3 answers, 2 observations: 6 ends; "<|end|>" of the observations is text
    assert len(ends) == 6
    assert policy.format.spell(found.tokens).count("<|end|>") == 8


def test_a_template_that_cannot_hold_turns_is_refused_before_the_first() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages[-1:] %}{{ m['content'] }}{% endfor %}"
    env = Countdown()
    env.turns = 3
    policy = ScriptedPolicy(tokenizer, ["a"])
    with pytest.raises(ModelError, match="rewrites earlier messages"):
        rollout([Episode(env=env, seed=0)], policy)
    assert policy.calls == 0


def test_256_episodes_of_slow_tools_advance_at_the_same_time() -> None:
    envs = [Countdown(nap=0.05 + 0.001 * i) for i in range(256)]
    began = time.perf_counter()
    found = rollout([Episode(env=e, seed=0) for e in envs], ScriptedPolicy(byte_tokenizer(), ["x"]))
    # one after the other: 3 * Σ (0.05 + i/1000) = 136 s; the slowest alone: 0.9 s
    assert time.perf_counter() - began < 15
    assert [t.reward for t in found] == [3.0] * 256


def test_a_completion_cut_off_by_its_limit_is_truncated() -> None:
    (found,) = rollout(
        [Episode(env=Countdown(), seed=0)],
        ScriptedPolicy(byte_tokenizer(), ["abcdef"]),
        Sampling(max_tokens=3),
    )
    assert found.truncated
    assert found.turns[0].reward == 3.0


def test_rollout_works_inside_a_running_event_loop() -> None:
    async def notebook() -> float:
        return rollout([Episode(env=_env(), seed=0, index=1)], _echo())[0].reward

    assert asyncio.run(notebook()) == 1.0


def test_an_environment_twice_in_one_rollout_is_refused() -> None:
    env = _env()
    with pytest.raises(UsageError, match="stands in two episodes"):
        rollout([Episode(env=env, seed=0), Episode(env=env, seed=1)], _echo())


def test_thousands_of_quick_episodes_get_through() -> None:
    episodes = [Episode(env=_env(), seed=i, index=i % 4) for i in range(3000)]
    assert sum(t.reward for t in rollout(episodes, _echo())) == 3000
