"""The engine in this process at its limits: a full cache, shared prefixes, settings, ends."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from rlvr.agents import Episode, Sampling, TransformersPolicy, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.policies import open_policy
from rlvr.agents.types import Completion, Trajectory
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.agents.vllm_settings import read_settings
from rlvr.envs import DialogueEnv, Reply
from rlvr.rl_core.config import TrainConfig
from rlvr.verifiers import ModelError, Task, UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

BLOCK = 128
"""Tokens of a block of the cache on a CPU."""


def _model() -> Any:
    """Make a small model with a context of 8 blocks."""
    import transformers

    tokenizer: Any = byte_tokenizer(1024)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


def _open(*settings: str) -> VLLMPolicy:
    said: list[str] = []
    return open_policy(
        "vllm", _model(), byte_tokenizer(1024), max_rows=32, say=said.append, engine=settings
    )


@pytest.fixture(scope="module")
def policy() -> Iterator[VLLMPolicy]:
    """A policy whose cache holds 9 blocks: one sequence that fills the context."""
    found = _open("num_gpu_blocks_override=10")
    yield found
    found.close()


def _draw(policy: VLLMPolicy, prompts: list[list[int]], tokens: int) -> list[Completion]:
    async def main() -> list[Completion]:
        calls = [
            policy.generate(prompt, Sampling(max_tokens=tokens, seed=i))
            for i, prompt in enumerate(prompts)
        ]
        return await asyncio.gather(*calls)

    return asyncio.run(main())


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
    drawn = _draw(policy, prompts, 300)
    reference = TransformersPolicy(policy.model, policy.tokenizer, check=False)
    full = reference.logprobs(prompts, [one.tokens for one in drawn])
    gaps = [
        float((torch.tensor(one.logprobs) - row).abs().max())
        for one, row in zip(drawn, full, strict=True)
    ]
    assert max(gaps) < 1e-4
    assert sum(len(one.tokens) for one in drawn) > 9 * BLOCK


def test_a_cache_that_cannot_hold_one_sequence_is_refused_at_the_start() -> None:
    with pytest.raises(ModelError, match="max_model_len"):
        _open("num_gpu_blocks_override=4")


def test_a_shorter_context_is_the_policys(policy: VLLMPolicy) -> None:
    policy.close()  # two engines in a process, one after the other
    with pytest.raises(UsageError, match="the engine is closed"):
        _draw(policy, [[70]], 1)
    short = _open("max_model_len=200 max_num_seqs=2")
    try:
        assert short.context == 200
        with pytest.raises(UsageError, match=r"1 to 199 tokens .* got 200"):
            _draw(short, [[70] * 200], 1)
        assert max(len(one.tokens) for one in _draw(short, [[70] * 150] * 3, 999)) <= 50
    finally:
        short.close()


class Twice(DialogueEnv[None]):
    """A dialogue of two turns."""

    def answer(self, action: str, state: None) -> Reply:
        return Reply("again")


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
    found = _groups(roomy, lambda: Twice(tasks, "exact", turns=2), 2, 6)
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
    before = _draw(roomy, [[70, 71]], 8)
    roomy.sleep()
    roomy.wake()
    assert [one.tokens for one in _draw(roomy, [[70, 71]], 8)] == [before[0].tokens]
