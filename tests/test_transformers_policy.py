"""The embedded policy: exact log-probabilities, seeds, stops, on several architectures."""

import asyncio
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from rlvr.agents import Completion, Sampling, StopReason, TransformersPolicy
from rlvr.agents.embedded import byte_tokenizer
from rlvr.verifiers import ModelError, UsageError

TOKENIZER = byte_tokenizer(256)
V = len(TOKENIZER)
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": 0,
}


def _model(name: str) -> Any:
    torch.manual_seed(0)
    match name:
        case "llama":
            config = transformers.LlamaConfig(vocab_size=V, **SMALL)
            return transformers.LlamaForCausalLM(config)
        case "qwen2-tied":  # its output layer has more rows than the tokenizer has tokens
            config = transformers.Qwen2Config(vocab_size=V + 10, tie_word_embeddings=True, **SMALL)
            return transformers.Qwen2ForCausalLM(config)
        case "gemma-sliding":
            config = transformers.Gemma2Config(vocab_size=V, head_dim=8, sliding_window=8, **SMALL)
            return transformers.Gemma2ForCausalLM(config)
        case "gpt2":
            config = transformers.GPT2Config(
                vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=256,
                eos_token_id=1, bos_token_id=1,
            )  # fmt: skip
            return transformers.GPT2LMHeadModel(config)
    raise AssertionError(name)


@pytest.fixture(scope="module", params=["llama", "qwen2-tied", "gemma-sliding", "gpt2"])
def policy(request: pytest.FixtureRequest) -> TransformersPolicy:
    return TransformersPolicy(_model(request.param), TOKENIZER)


def _ragged(count: int = 24) -> tuple[list[list[int]], list[Sampling]]:
    rng = np.random.default_rng(1)
    prompts = [rng.integers(6, V, size=int(n)).tolist() for n in rng.integers(1, 30, size=count)]
    prompts[3] = prompts[0]
    limits = rng.integers(1, 30, size=count)
    return prompts, [Sampling(max_tokens=int(n), seed=i) for i, n in enumerate(limits)]


def test_logprobs_equal_those_of_a_full_forward_pass(policy: TransformersPolicy) -> None:
    prompts, samplings = _ragged()
    for prompt, completion in zip(prompts, policy.generate_batch(prompts, samplings), strict=True):
        (full,) = policy.logprobs([prompt], [completion.tokens])
        assert torch.allclose(full, torch.tensor(completion.logprobs), atol=1e-5)


def test_order_and_company_of_the_rows_change_nothing(policy: TransformersPolicy) -> None:
    prompts, samplings = _ragged()
    first = policy.generate_batch(prompts, samplings)
    order = np.random.default_rng(2).permutation(len(prompts))
    again = policy.generate_batch([prompts[i] for i in order], [samplings[i] for i in order])
    for place, i in enumerate(order):
        alone = policy.generate_batch([prompts[i]], [samplings[i]])[0]
        for other in (again[place], alone):
            if not first[i].near_ties:
                assert other.tokens == first[i].tokens
                assert np.allclose(other.logprobs, first[i].logprobs, atol=1e-5)


def test_the_same_call_twice_is_the_same_to_the_bit(policy: TransformersPolicy) -> None:
    prompts, samplings = _ragged()
    assert policy.generate_batch(prompts, samplings) == policy.generate_batch(prompts, samplings)


def test_temperature_and_truncation_are_in_the_logprobs(policy: TransformersPolicy) -> None:
    prompt = [10, 20, 30]
    sampling = Sampling(max_tokens=1, temperature=0.5, top_k=3, seed=5)
    (drawn,) = policy.generate_batch([prompt], [sampling])
    with torch.inference_mode():
        logits = policy.model(input_ids=torch.tensor([prompt])).logits[0, -1, :V].float() / 0.5
    kept = logits.topk(3)
    expected = dict(
        zip(kept.indices.tolist(), torch.log_softmax(kept.values, -1).tolist(), strict=True)
    )
    assert drawn.logprobs[0] == pytest.approx(expected[drawn.tokens[0]], abs=1e-5)


def test_ids_beyond_the_tokenizer_are_never_drawn() -> None:
    model = _model("qwen2-tied")
    with torch.no_grad():
        model.model.embed_tokens.weight[V:] = 50.0  # the padded rows would win every draw
    policy = TransformersPolicy(model, TOKENIZER)
    completions = policy.generate_batch(
        [[10, 11]] * 16, [Sampling(max_tokens=8, seed=i) for i in range(16)]
    )
    assert max(token for c in completions for token in c.tokens) < V


def _scripted_eos(tiny: tuple[Any, Any], extra: list[int] | None = None) -> TransformersPolicy:
    """A policy that draws every token with the same probability."""
    import copy

    model, tokenizer = copy.deepcopy(tiny[0]), tiny[1]
    with torch.no_grad():
        model.model.norm.weight.zero_()
    if extra:
        model.generation_config.eos_token_id = [1, *extra]
    return TransformersPolicy(model, tokenizer)


def test_a_completion_ends_with_any_of_several_end_tokens(tiny: tuple[Any, Any]) -> None:
    policy = _scripted_eos(tiny, extra=list(range(100, 130)))
    found = policy.generate_batch([[9]] * 32, [Sampling(max_tokens=200, seed=i) for i in range(32)])
    ends = {c.tokens[-1] for c in found if c.stop_reason is StopReason.EOS}
    assert len(ends) > 5
    assert ends <= {1, *range(100, 130)}
    assert not any({1, *range(100, 130)} & set(c.tokens[:-1]) for c in found)


def test_rows_that_finish_leave_the_others_as_they_were(tiny: tuple[Any, Any]) -> None:
    policy = _scripted_eos(tiny, extra=list(range(6, 60)))
    samplings = [Sampling(max_tokens=120, seed=i) for i in range(40)]
    together = policy.generate_batch([[9, 9]] * 40, samplings)
    alone = [policy.generate_batch([[9, 9]], [sampling])[0] for sampling in samplings]
    assert [c.tokens for c in together] == [c.tokens for c in alone]


def test_a_stop_string_ends_the_completion_and_stays_in_it(tiny: tuple[Any, Any]) -> None:
    policy = _scripted_eos(tiny)
    sampling = [Sampling(max_tokens=200, stop=("Q", "é", "zzz"), seed=i) for i in range(32)]
    stopped = 0
    for completion in policy.generate_batch([[9]] * 32, sampling):
        text = policy.format.text(completion.tokens)
        if completion.stop_reason is StopReason.STOP:
            stopped += 1
            assert text.endswith(("Q", "é"))
            assert text.count("Q") + text.count("é") == 1
        else:
            assert "Q" not in text
    assert stopped > 5


def test_a_completion_has_at_most_max_tokens_and_fits_the_context(tiny: tuple[Any, Any]) -> None:
    policy = _scripted_eos(tiny)
    prompts = [[9] * 250, [9]]
    found = policy.generate_batch(prompts, [Sampling(max_tokens=50, seed=3)] * 2)
    assert len(found[0].tokens) <= policy.context - 250
    assert all(len(c.tokens) <= 50 for c in found)


@pytest.mark.parametrize("prompt", [[], [9] * 256])
def test_a_prompt_that_cannot_be_continued_is_refused(
    tiny: tuple[Any, Any], prompt: list[int]
) -> None:
    policy = TransformersPolicy(*tiny)
    with pytest.raises(UsageError, match=f"1 to 255 tokens .* got {len(prompt)}"):
        policy.generate_batch([prompt], [Sampling()])


def test_more_rows_than_max_rows_come_out_in_order(tiny: tuple[Any, Any]) -> None:
    prompts, samplings = _ragged()
    whole = TransformersPolicy(*tiny).generate_batch(prompts, samplings)
    parts = TransformersPolicy(*tiny, max_rows=5).generate_batch(prompts, samplings)
    assert [c.tokens for c in parts] == [c.tokens for c in whole]


def test_calls_that_wait_together_are_decoded_together(tiny: tuple[Any, Any]) -> None:
    policy = TransformersPolicy(*tiny)
    sizes: list[int] = []
    inner = policy.generate_batch
    policy.generate_batch = lambda p, s: (sizes.append(len(p)), inner(p, s))[1]  # type: ignore

    async def all_at_once() -> list[Completion]:
        sampling = [Sampling(max_tokens=3, seed=i) for i in range(6)]
        return list(
            await asyncio.gather(*(policy.generate([9, i], s) for i, s in enumerate(sampling, 6)))
        )

    found = asyncio.run(all_at_once())
    assert sizes == [6]
    expected = inner(
        [[9, i] for i in range(6, 12)], [Sampling(max_tokens=3, seed=i) for i in range(6)]
    )
    assert [c.tokens for c in found] == [c.tokens for c in expected]


def test_sync_counts_versions_and_takes_weights(tiny: tuple[Any, Any]) -> None:
    policy = TransformersPolicy(_model("llama"), TOKENIZER)
    before = policy.logprobs([[9]], [[10]])[0].item()
    weights = {k: v + 0.1 * torch.randn_like(v) for k, v in policy.model.state_dict().items()}
    assert policy.sync(weights) == 1
    assert policy.sync() == 2
    assert policy.logprobs([[9]], [[10]])[0].item() != before
    assert policy.generate_batch([[9]], [Sampling(max_tokens=1)])[0].version == 2


def test_a_recurrent_model_is_refused_by_name() -> None:
    config = transformers.MambaConfig(
        vocab_size=V, hidden_size=32, num_hidden_layers=1, eos_token_id=1
    )
    with pytest.raises(ModelError, match=r"MambaForCausalLM cannot be run .* recurrent state"):
        TransformersPolicy(transformers.MambaForCausalLM(config), TOKENIZER)


def test_an_encoder_decoder_is_refused_by_name() -> None:
    config = transformers.T5Config(
        vocab_size=V, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8,
        decoder_start_token_id=0,
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"T5ForConditionalGeneration .* encoder-decoder"):
        TransformersPolicy(transformers.T5ForConditionalGeneration(config), TOKENIZER)


class _Absolute(transformers.GPT2LMHeadModel):
    """A model that counts positions from the first column, padding included."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("position_ids", None)
        return super().forward(*args, **kwargs)


def test_a_model_that_padding_confuses_is_refused_with_the_difference() -> None:
    config = transformers.GPT2Config(
        vocab_size=V, n_embd=32, n_layer=1, n_head=2, n_positions=64, eos_token_id=1, bos_token_id=1
    )
    torch.manual_seed(0)
    model = _Absolute(config)
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(50)
    with pytest.raises(ModelError, match=r"_Absolute cannot be run .* differ .* nats"):
        TransformersPolicy(model, TOKENIZER)


def test_a_model_without_any_end_token_is_refused(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = _model("llama"), byte_tokenizer()
    tokenizer.eos_token = None
    model.generation_config.eos_token_id = None
    with pytest.raises(ModelError, match="no completion could end"):
        TransformersPolicy(model, tokenizer)
