"""The policy on vLLM, for real: `make test-vllm` runs these in an environment that has it.

Each engine is started once; a start takes seconds, so that tests of one architecture share it.
"""

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rlvr.agents import Episode, Sampling, StopReason, TransformersPolicy, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.engines import named_weights
from rlvr.agents.types import Completion
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.envs import DialogueEnv, Reply
from rlvr.verifiers import Task, TrainingStopped, UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

ARCHITECTURES = ("llama", "qwen2", "qwen3")
PROMPTS = [[3, *range(70, 73 + i % 7), 4] for i in range(24)]


def _model(kind: str) -> Any:
    """Make a small model with 10 rows of padding in its output layer; Qwen2's is tied."""
    import transformers

    tokenizer = byte_tokenizer(256)
    config = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}[kind]
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, config)(
            vocab_size=len(tokenizer) + 10,
            hidden_size=64,
            head_dim=32,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=kind == "qwen2",
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def policy(request: pytest.FixtureRequest) -> Iterator[VLLMPolicy]:
    """A started policy of each architecture."""
    found = VLLMPolicy.start(_model(request.param), byte_tokenizer(256), max_rows=32)
    yield found
    found.close()


def _move(model: Any, size: float, seed: int = 0) -> None:
    """Change every weight a little, as an update does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))


def _draw(policy: VLLMPolicy, **sampling: Any) -> list[Completion]:
    async def main() -> list[Completion]:
        calls = [
            policy.generate(prompt, Sampling(**{"max_tokens": 24, "seed": i, **sampling}))
            for i, prompt in enumerate(PROMPTS)
        ]
        return await asyncio.gather(*calls)

    return asyncio.run(main())


def _gap(policy: VLLMPolicy, drawn: list[Completion], temperature: float = 1.0) -> float:
    """Return the greatest difference to a full forward pass of the learner's model, in nats."""
    full = TransformersPolicy(policy.model, policy.tokenizer, check=False).logprobs(
        PROMPTS, [one.tokens for one in drawn], temperature
    )
    return max(
        float((torch.tensor(one.logprobs) - row).abs().max())
        for one, row in zip(drawn, full, strict=True)
    )


def test_logprobs_are_those_of_a_full_pass_before_and_after_twenty_updates(
    policy: VLLMPolicy,
) -> None:
    assert _gap(policy, _draw(policy)) < 1e-4
    for update in range(20):
        _move(policy.model, 3e-3, seed=update)
        version = policy.sync()
        drawn = _draw(policy, temperature=0.8)
        assert _gap(policy, drawn, 0.8) < 1e-4
        assert {one.version for one in drawn} == {version}
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)


class Twice(DialogueEnv[None]):
    """A dialogue of two turns."""

    def answer(self, action: str, state: None) -> Reply:
        return Reply("again")


def test_two_turns_through_the_prefix_cache_have_the_logprobs_of_one_full_pass(
    policy: VLLMPolicy,
) -> None:
    # a prompt is longer than a block of the cache, 128 tokens, so that both turns begin in it
    tasks = [Task(id=str(i), prompt=f"{i}" + "x" * 140, truth="?") for i in range(2)]
    reference = TransformersPolicy(policy.model, policy.tokenizer, check=False)
    for update in range(3):
        episodes = [
            Episode(env=Twice(tasks, "exact", turns=2), index=i % 2, seed=i, group=i % 2)
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
        _move(policy.model, 3e-3, seed=50 + update)
        policy.sync()


def test_a_completion_follows_from_its_seed_and_ends_where_it_should(policy: VLLMPolicy) -> None:
    drawn = _draw(policy)
    assert [one.tokens for one in drawn] == [one.tokens for one in _draw(policy)]
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
    for one in _draw(policy, stop=("a", "e", "i", "o", "u", "1", "2", "3")):
        text = policy.tokenizer.decode(one.tokens, skip_special_tokens=True)
        found = [char for char in text if char in "aeiou123"]
        assert len(found) == (one.stop_reason is StopReason.STOP)
        assert not found or text.endswith(found[0])
        stopped += len(found)
    assert stopped > 3


@pytest.mark.parametrize("update", [1e-3, 1e-5])
def test_a_sync_that_does_nothing_is_caught(policy: VLLMPolicy, update: float) -> None:
    policy.sync()
    _move(policy.model, update)
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
    _move(policy.model, update)
    with monkeypatch.context() as patch:
        patch.setattr(policy.engine, "forget", lambda: None)
        with pytest.raises(TrainingStopped, match="prefix cache"):
            policy.sync()
    policy.sync()


def test_a_tied_head_that_is_not_sent_is_caught(policy: VLLMPolicy) -> None:
    if not policy.model.config.tie_word_embeddings:
        assert "lm_head.weight" in dict(policy.model.named_parameters())
        return
    _move(policy.model, 1e-3)
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
