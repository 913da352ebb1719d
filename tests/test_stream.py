"""Decoding what is ready: rows join and leave a running batch, and none of them notices."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rlvr.agents import Completion, Episode, Sampling, TransformersPolicy, rollout
from rlvr.agents.decoding import Decoding
from rlvr.agents.embedded import byte_tokenizer
from rlvr.envs import PromptEnv
from rlvr.verifiers import Task, UsageError, verifier


def _requests(count: int = 30) -> tuple[list[list[int]], list[Sampling]]:
    rng = np.random.default_rng(3)
    prompts = [rng.integers(6, 200, size=int(n)).tolist() for n in rng.integers(1, 40, size=count)]
    limits = rng.integers(1, 40, size=count)
    return prompts, [Sampling(max_tokens=int(n), seed=i) for i, n in enumerate(limits)]


def _same(found: Completion, alone: Completion) -> None:
    if not alone.near_ties:
        assert found.tokens == alone.tokens
        assert np.allclose(found.logprobs, alone.logprobs, atol=1e-5)


def test_rows_that_join_a_running_batch_are_as_if_alone(tiny: tuple[Any, Any]) -> None:
    policy = TransformersPolicy(*tiny)
    prompts, samplings = _requests()
    rows: Decoding[int] = Decoding(policy)
    done: dict[int, Completion] = {}
    waiting = list(range(30))
    with torch.inference_mode():
        while waiting or len(rows):
            some, waiting = waiting[:4], waiting[4:]
            if some:
                rows.join(some, [prompts[i] for i in some], [samplings[i] for i in some])
            for _ in range(3):
                if len(rows):
                    done.update(rows.step())
    assert sorted(done) == list(range(30))
    for i, alone in enumerate(policy.generate_batch(prompts, samplings)):
        _same(done[i], alone)


def test_columns_that_no_row_needs_are_dropped(tiny: tuple[Any, Any]) -> None:
    rows: Decoding[int] = Decoding(TransformersPolicy(*tiny))
    with torch.inference_mode():
        for i in range(40):  # a batch that never empties: two rows, then one more at each step
            rows.join([i], [[9] * 5], [Sampling(max_tokens=4, seed=i)])
            rows.step()
    assert rows.attention.shape[1] <= 5 + 4


def test_a_sliding_window_is_not_joined_but_waited_for() -> None:
    tokenizer = byte_tokenizer(256)
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer), head_dim=8, sliding_window=8, hidden_size=32, eos_token_id=1,
        intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    model = transformers.Gemma2ForCausalLM(config)
    policy = TransformersPolicy(model, tokenizer, wait="some", min_batch=2, max_wait=0.0)
    prompts, samplings = _requests(12)
    found = asyncio.run(_at_intervals(policy, prompts, samplings))
    for one, alone in zip(found, policy.generate_batch(prompts, samplings), strict=True):
        _same(one, alone)


async def _at_intervals(
    policy: TransformersPolicy, prompts: Sequence[list[int]], samplings: Sequence[Sampling]
) -> list[Completion]:
    async def one(i: int) -> Completion:
        await asyncio.sleep(0.004 * i)
        return await policy.generate(prompts[i], samplings[i])

    return list(await asyncio.gather(*(one(i) for i in range(len(prompts)))))


@pytest.mark.parametrize("max_rows", [3, 256])
def test_requests_at_any_time_get_what_they_would_alone(
    tiny: tuple[Any, Any], max_rows: int
) -> None:
    policy = TransformersPolicy(*tiny, wait="some", max_rows=max_rows, min_batch=4, max_wait=0.01)
    prompts, samplings = _requests(16)
    found = asyncio.run(_at_intervals(policy, prompts, samplings))
    for one, alone in zip(found, policy.generate_batch(prompts, samplings), strict=True):
        _same(one, alone)
    again = asyncio.run(_at_intervals(policy, prompts[:3], samplings[:3]))  # the thread begins anew
    assert [c.tokens for c in again] == [c.tokens for c in found[:3]]


class Napping(PromptEnv):
    """Takes its time to judge, each its own."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        time.sleep(0.001 * (self.np_random.integers(40)))
        return super().step(action)


@verifier
def short(completion: str, truth: str) -> bool:
    return len(completion) < 5


def test_episodes_do_not_depend_on_how_the_policy_waits(tiny: tuple[Any, Any]) -> None:
    tasks = [Task(id="a", prompt="go", truth="")]

    def run(wait: str) -> list[list[int]]:
        policy = TransformersPolicy(*tiny, wait=wait)
        episodes = [Episode(env=Napping(tasks, short), seed=i, env_seed=i) for i in range(40)]
        found = rollout(episodes, policy, Sampling(max_tokens=20))
        return [[] if t.near_ties else t.tokens for t in found]

    assert run("some") == run("all")


def test_an_error_while_decoding_reaches_all_who_wait_and_the_next_ones_are_served(
    tiny: tuple[Any, Any],
) -> None:
    policy = TransformersPolicy(*tiny, wait="some", max_wait=0.01)
    prompts, samplings = _requests(4)
    model, policy.model = policy.model, None

    async def all_at_once() -> list[Any]:
        calls = [policy.generate(p, s) for p, s in zip(prompts, samplings, strict=True)]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    failed = asyncio.run(all_at_once())
    assert all(isinstance(error, AttributeError) for error in failed)
    policy.model = model
    assert len(asyncio.run(all_at_once())[0].tokens) > 0


def test_a_prompt_that_does_not_fit_is_refused_to_the_one_who_asked(tiny: tuple[Any, Any]) -> None:
    policy = TransformersPolicy(*tiny, wait="some", max_wait=0.0)

    async def both() -> list[Any]:
        calls = [policy.generate([9] * n, Sampling(max_tokens=2)) for n in (256, 3)]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    refused, served = asyncio.run(both())
    assert isinstance(refused, UsageError)
    assert len(served.tokens) in (1, 2)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"wait": "any"}, "wait must be one of all, some"),
        ({"min_batch": 0}, "min_batch must be at least 1"),
        ({"max_wait": -1.0}, "at least 0 seconds"),
        ({"max_wait": float("nan")}, "at least 0 seconds"),
    ],
)
def test_options_out_of_range_are_refused(
    tiny: tuple[Any, Any], given: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        TransformersPolicy(*tiny, **given)
