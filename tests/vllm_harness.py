"""What the tests of vLLM share: small models, what is asked of a policy, and what is compared."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from process_harness import wait_until

from rlvr.agents import Sampling, TransformersPolicy
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.types import Completion, WeightSpan
from rlvr.envs import DialogueEnv, Reply

PROMPTS = [[3, *range(70, 73 + i % 7), 4] for i in range(24)]


def small_model(
    kind: str = "Llama", *, context: int = 256, padding: int = 10, tied: bool = False
) -> Any:
    """Make a small model of the byte tokenizer's tokens, with rows of padding behind them."""
    import transformers

    tokenizer: Any = byte_tokenizer(context)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, f"{kind}Config")(
            vocab_size=len(tokenizer) + padding,
            hidden_size=64,
            head_dim=32,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=context,
            tie_word_embeddings=tied,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


def with_adapters(model: Any, **config: Any) -> Any:
    """Put adapters into a model, as the trainer hands it over."""
    import peft

    settings = {"r": 3, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**{**settings, **config}))
    return wrapped.get_base_model().eval()


def move(model: Any, size: float, seed: int = 0) -> None:
    """Change whatever is trained a little, as an update does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(size * torch.randn(weight.shape, generator=generator))


async def complete(
    policy: Any, prompts: Sequence[list[int]] = PROMPTS, **sampling: Any
) -> list[Completion]:
    """Draw behind all prompts at the same time, each with its number as the seed."""
    calls = [
        policy.generate(prompt, Sampling(**{"max_tokens": 24, "seed": i, **sampling}))
        for i, prompt in enumerate(prompts)
    ]
    return await asyncio.gather(*calls)


def draw(policy: Any, prompts: Sequence[list[int]] = PROMPTS, **sampling: Any) -> list[Completion]:
    """Do the same where no event loop runs."""
    return asyncio.run(complete(policy, prompts, **sampling))


def full_pass(
    policy: Any,
    drawn: Sequence[Completion],
    prompts: Sequence[list[int]] = PROMPTS,
    temperature: float = 1.0,
    kept: Any = None,
) -> list[torch.Tensor]:
    """Return the log-probabilities of a full forward pass of the learner's model."""
    reference = TransformersPolicy(policy.model, policy.tokenizer, check=False)
    return reference.logprobs(prompts, [one.tokens for one in drawn], temperature, kept)


def gap(policy: Any, drawn: Sequence[Completion], *args: Any, **how: Any) -> float:
    """Return the greatest difference to `full_pass`, in nats."""
    rows = full_pass(policy, drawn, *args, **how)
    both = zip(drawn, rows, strict=True)
    return max(float((torch.tensor(one.logprobs) - row).abs().max()) for one, row in both)


def check_updates_in_flight(
    policy: Any, wait: Callable[[], None], update: Callable[[int], Any]
) -> None:
    """Draw while weights change twice, and check which of them drew which tokens.

    Args:
        policy: What draws.
        wait: Waits until some more tokens have been drawn.
        update: Hands over the model's weights under a version.
    """
    versions = [policy.version + i for i in range(3)]
    weights = {versions[0]: _state(policy.model)}
    ended = asyncio.Event()

    async def keep_on(prompt: list[int], seed: int) -> list[tuple[list[int], Completion]]:
        found: list[tuple[list[int], Completion]] = []
        while not ended.is_set():
            longest = 60 + 7 * seed  # so that they do not end all at once
            sampling = Sampling(max_tokens=longest, seed=seed + 100 * len(found))
            found.append((prompt, await policy.generate(prompt, sampling)))
        return found

    async def main() -> list[tuple[list[int], Completion]]:
        drawing = [asyncio.ensure_future(keep_on(one, i)) for i, one in enumerate(PROMPTS)]
        for version in versions[1:]:
            await asyncio.to_thread(wait)
            move(policy.model, 3e-2, seed=version)
            weights[version] = _state(policy.model)
            await asyncio.to_thread(update, version)
        await asyncio.to_thread(wait)
        ended.set()
        return [one for some in await asyncio.gather(*drawing) for one in some]

    prompts, drawn = zip(*asyncio.run(main()), strict=True)
    assert sum(bool(one.spans) for one in drawn) > 8
    assert {span.version for one in drawn for span in one.spans} == set(versions)
    _check_spans(policy, prompts, drawn, weights)


def _check_spans(
    policy: Any,
    prompts: Sequence[list[int]],
    drawn: Sequence[Completion],
    weights: Mapping[int, Mapping[str, torch.Tensor]],
) -> None:
    """Check each token's log-probability, which is that of its weights and of no others."""
    for one in drawn:
        spans = _spans(one)
        assert [span.start for span in spans] == [0, *[span.end for span in spans[:-1]]]
        assert (spans[-1].version, spans[-1].end) == (one.version, len(one.tokens))
        assert [span.version for span in spans] == sorted({span.version for span in spans})
    for version, state in weights.items():
        policy.model.load_state_dict(state)
        for one, expected in zip(drawn, full_pass(policy, drawn, prompts), strict=True):
            for span in _spans(one):
                found = torch.tensor(one.logprobs[span.start : span.end])
                off = float((found - expected[span.start : span.end]).abs().max())
                if span.version == version or span.end - span.start > 8:
                    assert (off < 1e-4) == (span.version == version)


def _spans(one: Completion) -> Sequence[WeightSpan]:
    return one.spans or (WeightSpan(one.version, 0, len(one.tokens)),)


def _state(model: Any) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in model.state_dict().items()}


def wait_for_requests(engine: Any, count: int = 3 * len(PROMPTS) // 2) -> None:
    """Wait until an engine of this process's has been asked so many times more."""
    before = engine._count
    wait_until(lambda: engine._count >= before + count, 60)


def wait_for_tokens(server: Any, count: int) -> None:
    """Wait until a server has drawn so many more tokens."""
    before = _tokens_drawn(server)
    wait_until(lambda: _tokens_drawn(server) >= before + count, 60)


def _tokens_drawn(server: Any) -> float:
    text = server.tell("/metrics", raw=True).decode()
    (line,) = [one for one in text.splitlines() if one.startswith("vllm:generation_tokens_total")]
    return float(line.split()[-1])


class Twice(DialogueEnv[None]):
    """A dialogue of two turns."""

    def answer(self, action: str, state: None) -> Reply:
        return Reply("again")
