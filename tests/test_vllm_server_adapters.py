"""Adapters served by a vLLM server beside its weights, for real: sent alone, under a new name each
time, never those of a former update, and there again when the server has been killed."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import vllm_harness
from vllm_harness import draw, gap, move

from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.vllm_adapters import adapter_tensors
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.verifiers import TrainingStopped

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the policy has said."""
    return []


@pytest.fixture(scope="module")
def policy(said: list[str]) -> Iterator[VLLMPolicy]:
    """A policy on a server of its own, whose adapters differ in rank from layer to layer."""
    model = vllm_harness.with_adapters(
        vllm_harness.small_model(), rank_pattern={"q_proj": 5}, use_rslora=True
    )
    found = VLLMPolicy.connect(model, byte_tokenizer(256), max_rows=32, say=said.append)
    yield found
    found.close()


def _server(policy: VLLMPolicy) -> Any:
    (found,) = policy.engine._servers  # pyright: ignore
    return found


def _names(policy: VLLMPolicy) -> list[str]:
    """Return the adapters that the server knows."""
    return [one["id"] for one in _server(policy).tell("/v1/models")["data"] if one["parent"]]


def test_each_sync_sends_the_adapters_alone_and_logprobs_are_those_of_a_full_pass(
    policy: VLLMPolicy, said: list[str]
) -> None:
    engine: Any = policy.engine
    assert not said
    assert gap(policy, draw(policy)) < 1e-4
    for update in range(5):
        move(policy.model, 3e-2, seed=update)
        version = policy.sync()
        drawn = draw(policy)
        assert gap(policy, drawn) < 1e-4
        assert {one.version for one in drawn} == {version}
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)
        assert _names(policy) == [_server(policy).label]
        (place,) = engine.adapters.folder.root.iterdir()
        assert sum(file.stat().st_size for file in place.iterdir()) < 100_000


@pytest.mark.parametrize("update", [3e-2, 1e-4])
def test_a_forgotten_sync_and_requests_that_name_no_adapters_are_caught(
    policy: VLLMPolicy, update: float
) -> None:
    move(policy.model, update, seed=7)
    with pytest.raises(TrainingStopped, match=r"127\.0\.0\.1:\d+ has not the new weights"):
        policy.canary.check(policy.engine, policy.version)
    policy.sync()
    server = _server(policy)
    named, server.named = server.named, {}
    with pytest.raises(TrainingStopped):
        policy.canary.check(policy.engine, policy.version)
    server.named = named
    policy.sync()


def test_an_update_in_flight_splits_completions_and_each_token_has_its_adapters_logprob(
    policy: VLLMPolicy,
) -> None:
    engine: Any = policy.engine
    vllm_harness.check_updates_in_flight(
        policy,
        lambda: vllm_harness.wait_for_tokens(_server(policy), 200),
        lambda version: policy.sync(in_flight=True),
    )
    assert engine.continued > 0
    assert gap(policy, draw(policy)) < 1e-4


def test_a_server_that_is_killed_has_its_adapters_again(
    policy: VLLMPolicy, said: list[str]
) -> None:
    process = _server(policy).process
    move(policy.model, 3e-2, seed=11)
    policy.sync()
    expected = [one.tokens for one in draw(policy)]
    os.killpg(process.process.pid, signal.SIGKILL)
    drawn = draw(policy)
    assert [one.tokens for one in drawn] == expected
    assert gap(policy, drawn) < 1e-4
    assert any("has been handed the weights" in text for text in said)
    assert _names(policy) == [_server(policy).label]
    policy.engine.adapt(adapter_tensors(policy.model), policy.version)  # pyright: ignore
    assert policy.sync() == policy.version
