"""Adapters served by vLLM beside the weights: sent alone, swapped at each sync, never stale."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
import vllm_harness
from vllm_harness import PROMPTS, draw, gap, move

from rlvr.agents import Sampling
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.types import Completion
from rlvr.agents.vllm_adapters import adapter_problem, adapter_tensors
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.verifiers import ModelError, TrainingStopped, UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


def _adapted(kind: str, **config: Any) -> Any:
    return vllm_harness.with_adapters(
        vllm_harness.small_model(kind, tied=kind == "Qwen2"), **config
    )


@pytest.fixture(scope="module")
def policy() -> Iterator[VLLMPolicy]:
    """A policy whose adapters have ranks that differ from layer to layer, and a scale of rsLoRA."""
    model = _adapted("Llama", rank_pattern={"q_proj": 5}, use_rslora=True)
    said: list[str] = []
    found = VLLMPolicy.start(model, byte_tokenizer(256), max_rows=32, say=said.append)
    assert not said
    yield found
    found.close()


def _served(policy: VLLMPolicy) -> list[int]:
    """Return the numbers of the adapters that the engine holds."""
    return sorted(policy.engine._engine.list_loras())  # pyright: ignore


def test_each_sync_swaps_the_adapters_and_logprobs_are_those_of_a_full_pass(
    policy: VLLMPolicy,
) -> None:
    engine: Any = policy.engine
    assert gap(policy, draw(policy)) < 1e-4
    for update in range(3):
        before = _served(policy)
        move(policy.model, 3e-2, seed=update)
        version = policy.sync()
        drawn = draw(policy)
        assert gap(policy, drawn) < 1e-4
        assert {one.version for one in drawn} == {version}
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)
        assert len(_served(policy)) == 1
        assert _served(policy) != before
        assert [int(place.name) for place in engine.adapters.root.iterdir()] == _served(policy)


@pytest.mark.parametrize("update", [3e-2, 1e-4])
def test_a_swap_under_an_old_number_is_ignored_by_vllm_and_caught_by_the_canary(
    policy: VLLMPolicy, update: float
) -> None:
    engine: Any = policy.engine
    move(policy.model, update, seed=7)
    engine.adapters.drop(engine.adapters.count)
    engine.adapters.count -= 1
    _, place = engine.adapters.write(adapter_tensors(policy.model))
    assert str(place) == engine._request.lora_path
    engine._engine.add_lora(engine._request)
    engine.forget()
    with pytest.raises(TrainingStopped, match="the engine has not the new weights"):
        policy.canary.check(engine, policy.version)
    policy.sync()
    assert gap(policy, draw(policy)) < 1e-4


def test_requests_that_name_no_adapters_are_caught_by_the_canary(policy: VLLMPolicy) -> None:
    engine: Any = policy.engine
    named, engine._request = engine._request, None
    with pytest.raises(TrainingStopped):
        policy.canary.check(engine, policy.version)
    engine._request = named
    policy.sync()


def test_adapters_do_not_change_under_completions_that_are_being_drawn(
    policy: VLLMPolicy,
) -> None:
    engine: Any = policy.engine

    async def main() -> None:
        drawing = asyncio.ensure_future(policy.generate(PROMPTS[0], Sampling(max_tokens=200)))
        await asyncio.sleep(0.01)
        try:
            engine.adapt(adapter_tensors(policy.model), 99)
        finally:
            drawing.cancel()

    with pytest.raises(UsageError, match="weights cannot change while 1 completions"):
        asyncio.run(main())


def test_completions_keep_the_adapters_that_they_named_so_that_none_change_in_flight(
    policy: VLLMPolicy,
) -> None:
    with pytest.raises(UsageError, match="takes weights between completions alone"):
        policy.sync(in_flight=True)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "a variant such as DoRA"),
        ({"modules_to_save": ["lm_head"]}, r"'lm_head\.modules_to_save.*' is trained beside"),
        ({"r": 600}, "rank 600 is above 512"),
        ({"target_modules": ["q_proj", "lm_head"]}, "the output layer has one"),
        ({"target_modules": ["embed_tokens"]}, "no adapter of the form B A"),
    ],
)
def test_adapters_that_vllm_cannot_serve_are_told_with_the_reason(
    config: dict[str, Any], reason: str
) -> None:
    found = adapter_problem(_adapted("Llama", **config))
    assert re.search(reason, found)


def test_adapters_that_cannot_be_served_are_merged_and_that_is_said() -> None:
    model = _adapted("Qwen2", use_dora=True, modules_to_save=["norm"])
    move(model, 1e-2, seed=1)
    said: list[str] = []
    policy = VLLMPolicy.start(model, byte_tokenizer(256), max_rows=32, say=said.append)
    try:
        (line,) = said
        assert line.startswith("adapters are merged")
        assert "DoRA" in line
        for update in range(2):
            assert gap(policy, draw(policy)) < 1e-4
            move(model, 1e-2, seed=update)
            policy.sync()
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)
    finally:
        policy.close()


def test_an_engine_that_raises_in_a_step_fails_all_that_it_was_drawing_and_says_so_ever_after(
    policy: VLLMPolicy,
) -> None:
    engine: Any = policy.engine

    async def main() -> list[Completion | BaseException]:
        calls = [policy.generate(prompt, Sampling(max_tokens=200)) for prompt in PROMPTS[:3]]
        return await asyncio.gather(*calls, return_exceptions=True)

    # adapters that cannot be found: vLLM looks for them in the step that needs them
    engine._request = type(engine._request)("gone", 10**6, str(engine.adapters.root / "gone"))
    for error in asyncio.run(main()):
        assert isinstance(error, ModelError)
        assert "vLLM failed while generating" in str(error)
    with pytest.raises(ModelError, match="vLLM has failed before"):
        draw(policy)
