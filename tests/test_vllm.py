"""The policy on vLLM, for real: `make test-vllm` runs these in an environment that has it.

Each engine is started once; a start takes seconds, so that tests of one architecture share it.
"""

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import vllm_harness
from vllm_harness import PROMPTS, draw, gap, move

from rlvr.agents import Episode, Sampling, StopReason, TransformersPolicy, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.engines import named_weights
from rlvr.agents.types import Completion
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.verifiers import Task, TrainingStopped, UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


ARCHITECTURES = ("Llama", "Qwen2", "Qwen3")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def policy(request: pytest.FixtureRequest) -> Iterator[VLLMPolicy]:
    """A started policy of each architecture."""
    found = VLLMPolicy.start(
        vllm_harness.small_model(request.param, tied=request.param == "Qwen2"),
        byte_tokenizer(256),
        max_rows=32,
    )
    yield found
    found.close()


def test_logprobs_are_those_of_a_full_pass_before_and_after_twenty_updates(
    policy: VLLMPolicy,
) -> None:
    assert gap(policy, draw(policy)) < 1e-4
    for update in range(20):
        move(policy.model, 3e-3, seed=update)
        version = policy.sync()
        drawn = draw(policy, temperature=0.8)
        assert gap(policy, drawn, temperature=0.8) < 1e-4
        assert {one.version for one in drawn} == {version}
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)


def test_two_turns_through_the_prefix_cache_have_the_logprobs_of_one_full_pass(
    policy: VLLMPolicy,
) -> None:
    # a prompt is longer than a block of the cache, 128 tokens, so that both turns begin in it
    tasks = [Task(id=str(i), prompt=f"{i}" + "x" * 140, truth="?") for i in range(2)]
    reference = TransformersPolicy(policy.model, policy.tokenizer, check=False)
    for update in range(3):
        episodes = [
            Episode(
                env=vllm_harness.Twice(tasks, "exact", turns=2), index=i % 2, seed=i, group=i % 2
            )
            for i in range(8)
        ]
        cached = policy.engine.cached_tokens  # pyright: ignore
        found = rollout(episodes, policy, Sampling(max_tokens=24))
        assert policy.engine.cached_tokens - cached >= 128 * 14  # pyright: ignore
        assert {len(one.turns) for one in found} == {2}
        assert {turn.version for one in found for turn in one.turns} == {policy.version}
        rows = reference.logprobs(
            [one.tokens[:1] for one in found], [one.tokens[1:] for one in found]
        )
        for one, row in zip(found, rows, strict=True):
            trained = torch.tensor(one.trained[1:])
            assert float((torch.tensor(one.logprobs[1:]) - row)[trained].abs().max()) < 1e-4
        move(policy.model, 3e-3, seed=50 + update)
        policy.sync()


def test_a_completion_follows_from_its_seed_and_ends_where_it_should(policy: VLLMPolicy) -> None:
    drawn = draw(policy)
    assert [one.tokens for one in drawn] == [one.tokens for one in draw(policy)]
    assert len({tuple(one.tokens) for one in drawn}) > 20
    for one in drawn:
        ends = [token in policy.eos_ids for token in one.tokens]
        assert ends[-1] == (one.stop_reason is StopReason.EOS)
        assert not any(ends[:-1])
        assert len(one.tokens) == 24 or one.stop_reason is StopReason.EOS
        assert max(one.tokens) < len(policy.tokenizer)


def test_sampled_tokens_follow_the_models_distribution(policy: VLLMPolicy) -> None:
    # one step behind one prompt, 600 draws: the share of the likeliest token is its probability
    # within 5 standard errors
    prompt = PROMPTS[0]

    async def main() -> list[Completion]:
        one = [Sampling(max_tokens=1, seed=seed) for seed in range(600)]
        return await asyncio.gather(*[policy.generate(prompt, each) for each in one])

    drawn = [found.tokens[0] for found in asyncio.run(main())]
    reference = TransformersPolicy(policy.model, policy.tokenizer, check=False)
    vocabulary = list(range(policy.vocabulary))
    logprobs = reference.logprobs([prompt] * len(vocabulary), [[token] for token in vocabulary])
    probabilities = torch.cat(logprobs).exp()
    likeliest = int(probabilities.argmax())
    p = float(probabilities[likeliest])
    share = drawn.count(likeliest) / len(drawn)
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / len(drawn))


def test_a_stop_string_ends_a_completion_and_its_tokens_stay(policy: VLLMPolicy) -> None:
    stopped = 0
    for one in draw(policy, stop=("a", "e", "i", "o", "u", "1", "2", "3")):
        text = policy.tokenizer.decode(one.tokens, skip_special_tokens=True)
        found = [char for char in text if char in "aeiou123"]
        assert len(found) == (one.stop_reason is StopReason.STOP)
        assert not found or text.endswith(found[0])
        stopped += len(found)
    assert stopped > 3


@pytest.mark.parametrize("update", [1e-3, 1e-5])
def test_a_sync_that_does_nothing_is_caught(policy: VLLMPolicy, update: float) -> None:
    policy.sync()
    move(policy.model, update)
    with pytest.raises(TrainingStopped, match="the engine has not the new weights"):
        policy.canary.check(policy.engine, policy.version)
    policy.sync()


def test_a_sync_that_is_left_out_is_caught_by_its_version(policy: VLLMPolicy) -> None:
    with pytest.raises(TrainingStopped, match="a sync was left out"):
        policy.canary.check(policy.engine, policy.version + 1)


@pytest.mark.parametrize("update", [1e-2, 1e-4])
def test_a_cache_that_outlives_its_weights_is_caught(
    policy: VLLMPolicy, update: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(policy.model, update)
    with monkeypatch.context() as patch:
        patch.setattr(policy.engine, "forget", lambda running: None)
        with pytest.raises(TrainingStopped, match="prefix cache"):
            policy.sync()
    policy.sync()


def test_a_tied_head_that_is_not_sent_is_caught(policy: VLLMPolicy) -> None:
    if not policy.model.config.tie_word_embeddings:
        assert "lm_head.weight" in dict(policy.model.named_parameters())
        return
    move(policy.model, 1e-3)
    sent = [(name, tensor) for name, tensor in named_weights(policy.model) if "lm_head" not in name]
    policy.engine.load(sent, policy.version)
    with pytest.raises(TrainingStopped, match="output layer that is tied"):
        policy.canary.check(policy.engine, policy.version)
    policy.sync()


def test_a_request_that_is_taken_back_leaves_the_others_and_the_engine_alone(
    policy: VLLMPolicy,
) -> None:
    async def main() -> Completion:
        kept = asyncio.ensure_future(policy.generate(PROMPTS[0], Sampling(max_tokens=40, seed=1)))
        dropped = asyncio.ensure_future(policy.generate(PROMPTS[1], Sampling(max_tokens=200)))
        await asyncio.sleep(0.01)
        dropped.cancel()
        return await kept

    first = asyncio.run(main())
    assert first.tokens == asyncio.run(main()).tokens
    assert policy.sync() == policy.version


def test_prompts_that_do_not_fit_are_refused_with_both_lengths(policy: VLLMPolicy) -> None:
    for prompt in ([], [70] * 256):
        with pytest.raises(UsageError, match=f"1 to 255 tokens .* got {len(prompt)}"):
            asyncio.run(policy.generate(prompt, Sampling()))


def test_weights_do_not_change_under_completions_that_are_being_drawn(policy: VLLMPolicy) -> None:
    async def main() -> None:
        drawing = asyncio.ensure_future(policy.generate(PROMPTS[0], Sampling(max_tokens=200)))
        await asyncio.sleep(0.01)
        try:
            policy.engine.load(named_weights(policy.model), 99)
        finally:
            drawing.cancel()

    with pytest.raises(UsageError, match="weights cannot change while 1 completions"):
        asyncio.run(main())


def test_an_update_in_flight_splits_completions_and_each_token_has_its_weights_logprob(
    policy: VLLMPolicy,
) -> None:
    engine: Any = policy.engine
    found = []
    vllm_harness.check_updates_in_flight(
        policy,
        lambda: vllm_harness.wait_for_requests(engine),
        lambda version: found.append((policy.sync(in_flight=True), version)),
    )
    assert [got for got, _ in found] == [version for _, version in found]
    assert policy.sighting.gap < 1e-4
    assert gap(policy, draw(policy)) < 1e-4


def test_a_resumed_run_sets_the_version_of_the_weights_that_are_there(policy: VLLMPolicy) -> None:
    policy.version = 400
    assert {one.version for one in draw(policy, max_tokens=2)} == {400}
    assert policy.sync() == 401
    assert {(one.version, one.spans) for one in draw(policy, max_tokens=2)} == {(401, ())}
