"""The engine in a process of its own, for real: killed, hung, and unable to start again."""

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr.agents import Episode, Sampling, TransformersPolicy, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.engines import named_weights
from rlvr.agents.types import Completion
from rlvr.agents.vllm_async import STARTS
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.envs import PromptEnv
from rlvr.verifiers import ModelError, Task, TrainingStopped, UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

PROMPTS = [[3, *range(70, 73 + i % 7), 4] for i in range(24)]


def _model(*, adapters: bool) -> Any:
    """Make a small model with 10 rows of padding in its output layer."""
    import peft
    import transformers

    tokenizer: Any = byte_tokenizer(256)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer) + 10,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=not adapters,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
    if not adapters:
        return model
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config).get_base_model()


class Started:
    """A policy, and what its engine has said."""

    def __init__(self, *, adapters: bool) -> None:
        self.said: list[str] = []
        self.policy = VLLMPolicy.start(
            _model(adapters=adapters),
            byte_tokenizer(256),
            aside=True,
            max_rows=32,
            say=self.said.append,
        )

    @property
    def engine(self) -> Any:
        return self.policy.engine

    @property
    def pid(self) -> int:
        (process,) = self.engine.child.processes
        return process.pid


@pytest.fixture(scope="module")
def plain() -> Iterator[Started]:
    """An engine that is handed all weights."""
    found = Started(adapters=False)
    yield found
    found.policy.close()
    gc.collect()  # vLLM leaves contexts of its sockets open, and Python tells


@pytest.fixture(scope="module")
def adapted() -> Iterator[Started]:
    """An engine that is handed adapters."""
    found = Started(adapters=True)
    yield found
    found.policy.close()
    gc.collect()  # vLLM leaves contexts of its sockets open, and Python tells


@pytest.fixture(autouse=True)
def _forgotten(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let go of what vLLM has logged: with it go the sockets of processes that were killed."""
    yield
    caplog.get_records("call").clear()
    gc.collect()


def _move(model: Any, size: float, seed: int = 0) -> None:
    """Change whatever is trained a little, as an update does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(size * torch.randn(weight.shape, generator=generator))


def _draw(policy: VLLMPolicy, **sampling: Any) -> list[Completion]:
    async def main() -> list[Completion]:
        calls = [
            policy.generate(prompt, Sampling(**{"max_tokens": 24, "seed": i, **sampling}))
            for i, prompt in enumerate(PROMPTS)
        ]
        return await asyncio.gather(*calls)

    return asyncio.run(main())


def _gap(policy: VLLMPolicy, drawn: list[Completion]) -> float:
    """Return the greatest difference to a full forward pass of the learner's model, in nats."""
    full = TransformersPolicy(policy.model, policy.tokenizer, check=False).logprobs(
        PROMPTS, [one.tokens for one in drawn]
    )
    return max(
        float((torch.tensor(one.logprobs) - row).abs().max())
        for one, row in zip(drawn, full, strict=True)
    )


def _disturbed(started: Started, number: int) -> list[Completion]:
    """Draw long completions, and send the engine's process a signal once they are under way."""
    done = threading.Event()

    def disturb() -> None:
        while started.engine._under_way < len(PROMPTS) and not done.is_set():
            time.sleep(0.001)
        os.kill(started.pid, number)

    threading.Thread(target=disturb, daemon=True).start()
    try:
        return _draw(started.policy, max_tokens=200)
    finally:
        done.set()


def test_logprobs_are_those_of_a_full_pass_after_each_update(plain: Started) -> None:
    policy = plain.policy
    assert _gap(policy, _draw(policy)) < 1e-4
    for update in range(5):
        _move(policy.model, 3e-3, seed=update)
        version = policy.sync()
        drawn = _draw(policy)
        assert _gap(policy, drawn) < 1e-4
        assert {one.version for one in drawn} == {version}
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)


def test_a_sync_that_does_nothing_and_a_cache_that_stays_are_caught(
    plain: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, engine = plain.policy, plain.engine
    _move(policy.model, 1e-4)
    with pytest.raises(TrainingStopped, match="the engine has not the new weights"):
        policy.canary.check(engine, policy.version)

    async def kept() -> None:
        return None

    _move(policy.model, 1e-2)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_forget", kept)
        with pytest.raises(TrainingStopped, match="prefix cache"):
            policy.sync()
    policy.sync()


def test_rollouts_each_with_a_loop_of_its_own_share_the_engine(plain: Started) -> None:
    tasks = [Task(id=str(i), prompt=f"say {i}", truth=str(i)) for i in range(6)]
    for _ in range(2):
        episodes = [
            Episode(env=PromptEnv(tasks, "exact"), index=i, seed=i, group=i) for i in range(6)
        ]
        found = rollout(episodes, plain.policy, Sampling(max_tokens=8))
        assert [one.task_id for one in found] == [str(i) for i in range(6)]
        assert all(one.length > 0 for one in found)


def test_a_request_that_is_taken_back_leaves_the_others_and_the_engine_alone(
    plain: Started,
) -> None:
    async def main() -> Completion:
        policy = plain.policy
        kept = asyncio.ensure_future(policy.generate(PROMPTS[0], Sampling(max_tokens=40, seed=1)))
        dropped = asyncio.ensure_future(policy.generate(PROMPTS[1], Sampling(max_tokens=200)))
        await asyncio.sleep(0.01)
        dropped.cancel()
        return await kept

    first = asyncio.run(main())
    assert first.tokens == asyncio.run(main()).tokens
    assert plain.policy.sync() == plain.policy.version


def test_weights_do_not_change_under_completions_that_are_being_drawn(plain: Started) -> None:
    async def main() -> None:
        policy = plain.policy
        drawing = asyncio.ensure_future(policy.generate(PROMPTS[0], Sampling(max_tokens=200)))
        await asyncio.sleep(0.01)
        try:
            plain.engine.load(named_weights(policy.model), 99)
        finally:
            drawing.cancel()

    with pytest.raises(UsageError, match="weights cannot change while 1 completions"):
        asyncio.run(main())


def test_a_process_that_is_killed_is_replaced_and_its_completions_are_drawn_again(
    plain: Started,
) -> None:
    _move(plain.policy.model, 1e-2, seed=5)
    plain.policy.sync()
    before, pid = plain.engine.redone, plain.pid
    drawn = _disturbed(plain, signal.SIGKILL)
    again = plain.engine.redone - before
    assert 0 < again <= len(PROMPTS)
    assert plain.pid != pid
    assert _gap(plain.policy, drawn) < 1e-4  # of the updated weights, which the new one has
    assert [one.tokens for one in drawn] == [
        one.tokens for one in _draw(plain.policy, max_tokens=200)
    ]
    assert "the engine's process has ended" in plain.said[-2]
    assert f"{again} completions are drawn again" in plain.said[-1]


def test_a_process_that_cannot_be_started_again_is_an_error_with_its_last_words(
    plain: Started,
) -> None:
    (weights,) = Path(plain.engine._folder).glob("*.safetensors")
    os.truncate(weights, 1000)
    plain.engine._starts = STARTS - 1
    os.kill(plain.pid, signal.SIGKILL)
    with pytest.raises(ModelError, match=r"ended 3 times .*(?s:.*)[Ss]afetensors"):
        _draw(plain.policy)
    plain.policy.close()
    with pytest.raises(UsageError, match="the engine is closed"):
        _draw(plain.policy)


def test_adapters_are_swapped_and_outlive_a_process_that_hangs(adapted: Started) -> None:
    policy = adapted.policy
    for update in range(2):
        _move(policy.model, 3e-2, seed=update)
        policy.sync()
        assert _gap(policy, _draw(policy)) < 1e-4
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)
    adapted.engine._patience = 3.0
    drawn = _disturbed(adapted, signal.SIGSTOP)
    assert adapted.engine.redone > 0
    assert _gap(policy, drawn) < 1e-4
    assert any("has not answered for 3 s" in line for line in adapted.said)
    policy.close()
