"""The engine in this process at its limits: a full cache, shared prefixes, settings, ends."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import vllm_harness
from vllm_harness import draw

from rlvr.agents import Episode, Sampling, TransformersPolicy, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.policies import open_policy
from rlvr.agents.types import Trajectory
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.agents.vllm_settings import read_settings
from rlvr.rl_core.config import TrainConfig
from rlvr.verifiers import ModelError, Task, UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


BLOCK = 128
"""Tokens of a block of the cache on a CPU."""


def _open(*settings: str) -> VLLMPolicy:
    said: list[str] = []
    return open_policy(
        "vllm",
        vllm_harness.small_model(context=1024, padding=0),
        byte_tokenizer(1024),
        max_rows=32,
        say=said.append,
        engine=settings,
    )


@pytest.fixture(scope="module")
def policy() -> Iterator[VLLMPolicy]:
    """A policy whose cache holds 9 blocks: one sequence that fills the context."""
    found = _open("num_gpu_blocks_override=10")
    yield found
    found.close()


def _gap(policy: VLLMPolicy, found: list[Trajectory]) -> float:
    """Return the greatest difference of sampled tokens to full forward passes, in nats."""
    reference = TransformersPolicy(policy.model, policy.tokenizer, check=False)
    full = reference.logprobs([one.tokens[:1] for one in found], [one.tokens[1:] for one in found])
    return max(
        float(((torch.tensor(one.logprobs[1:]) - row).abs() * torch.tensor(one.trained[1:])).max())
        for one, row in zip(found, full, strict=True)
    )


def test_requests_that_do_not_fit_the_cache_together_all_finish(policy: VLLMPolicy) -> None:
    # 16 sequences of up to 100 + 300 tokens, 3 or 4 blocks each, share 9 blocks
    prompts = [[70 + i, *range(70, 169)] for i in range(16)]
    drawn = draw(policy, prompts, max_tokens=300)
    assert vllm_harness.gap(policy, drawn, prompts) < 1e-4
    assert sum(len(one.tokens) for one in drawn) > 9 * BLOCK


def test_a_cache_that_cannot_hold_one_sequence_is_refused_at_the_start() -> None:
    with pytest.raises(ModelError, match="max_model_len"):
        _open("num_gpu_blocks_override=4")


def test_a_shorter_context_is_the_policys(policy: VLLMPolicy) -> None:
    policy.close()  # two engines in a process, one after the other
    with pytest.raises(UsageError, match="the engine is closed"):
        draw(policy, [[70]], max_tokens=1)
    short = _open("max_model_len=200 max_num_seqs=2")
    try:
        assert short.context == 200
        with pytest.raises(UsageError, match=r"1 to 199 tokens .* got 200"):
            draw(short, [[70] * 200], max_tokens=1)
        assert max(len(one.tokens) for one in draw(short, [[70] * 150] * 3, max_tokens=999)) <= 50
    finally:
        short.close()


@pytest.fixture(scope="module")
def roomy() -> Iterator[VLLMPolicy]:
    """A policy with room for all."""
    found = _open()
    yield found
    found.close()


def _groups(policy: VLLMPolicy, make: Callable[[], Any], prompts: int, size: int) -> list[Any]:
    episodes = [
        Episode(env=make(), index=prompt, seed=prompt * size + i, group=prompt)
        for prompt in range(prompts)
        for i in range(size)
    ]
    return rollout(episodes, policy, Sampling(max_tokens=40))


def test_a_group_computes_its_prompt_once_and_each_turn_what_is_new(roomy: VLLMPolicy) -> None:
    tasks = [Task(id=str(i), prompt=f"{i} " + "long " * 60, truth="?") for i in range(2)]
    engine: Any = roomy.engine
    engine.forget()
    asked, cached = engine.prompt_tokens, engine.cached_tokens
    found = _groups(roomy, lambda: vllm_harness.Twice(tasks, "exact", turns=2), 2, 6)
    assert _gap(roomy, found) < 1e-4
    prompts = [one.turns[0].start for one in found]
    again = [one.turns[1].start for one in found]
    assert min(prompts) > 2 * BLOCK
    assert engine.prompt_tokens - asked == sum(prompts) + sum(again)
    # whole blocks are shared: by 5 of 6 in the first turn, by all in the second, whose prompt
    # begins with the first one's and the completion, less the token drawn last
    first = sum(5 * (one // BLOCK) for one in prompts) * BLOCK // 6
    second = sum(one.turns[0].end - 1 - (one.turns[0].end - 1) % BLOCK for one in found)
    assert engine.cached_tokens - cached == first + second
    roomy.sync()
    share = roomy.sync_metrics["engine/cached_share"]
    assert 0.5 < share < 1


def test_settings_that_vllm_does_not_know_or_that_are_ours_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'gpu_memory_utilization'"):
        _open("gpu_memory_utilisation=0.4")
    with pytest.raises(UsageError, match="'logprobs_mode' is set already"):
        _open("logprobs_mode=raw_logprobs")
    with pytest.raises(UsageError, match="max_model_len must be 2 to 1024"):
        _open("max_model_len=5000")


def test_settings_are_read_from_texts_flags_and_tables() -> None:
    assert read_settings(["a=1 b=true", "--c-d=x", "e='{\"f\": 2}'"]) == {
        "a": 1, "b": True, "c_d": "x", "e": {"f": 2}
    }  # fmt: skip
    table = TrainConfig.of(policy="vllm", engine={"enforce_eager": True, "seed": 3})
    assert read_settings(table.model.engine) == {"enforce_eager": True, "seed": 3}
    for wrong, said in (("enforce_eager", "name=value"), ("a=1 a=2", "given twice")):
        with pytest.raises(UsageError, match=said):
            read_settings([wrong])
    with pytest.raises(UsageError, match="engine is for vLLM"):
        TrainConfig.of(policy="transformers", engine="seed=3")


def test_sleep_and_wake_are_nothing_on_a_cpu(roomy: VLLMPolicy) -> None:
    before = draw(roomy, [[70, 71]], max_tokens=8)
    roomy.sleep()
    roomy.wake()
    assert [one.tokens for one in draw(roomy, [[70, 71]], max_tokens=8)] == [before[0].tokens]


def test_more_seeded_prompts_than_a_step_can_take_are_drawn_as_they_would_be_alone(
    roomy: VLLMPolicy,
) -> None:
    # 14 prompts of 500 tokens are 7000, more than the 4096 of a step, which vLLM would fill up with
    # a part of the ninth one
    engine: Any = roomy.engine
    config = engine._engine.vllm_config.scheduler_config
    prompts = [[70 + i, *(70 + (i * j) % 100 for j in range(499))] for i in range(14)]
    assert sum(map(len, prompts)) > config.max_num_batched_tokens
    assert not config.enable_chunked_prefill
    drawn = draw(roomy, prompts)
    assert vllm_harness.gap(roomy, drawn, prompts) < 1e-4
    (last,) = draw(roomy, prompts[:1])
    assert last.tokens == drawn[0].tokens


def test_prompts_in_pieces_are_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="enable_chunked_prefill cannot be on on a CPU"):
        _open("enable_chunked_prefill=true")
