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
import vllm_harness
from vllm_harness import PROMPTS, draw, gap, move

from rlvr.agents import Episode, Sampling, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.engines import named_weights
from rlvr.agents.types import Completion
from rlvr.agents.vllm_async import STARTS
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.envs import PromptEnv
from rlvr.verifiers import ModelError, Task, TrainingStopped, UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


class Started:
    """A policy, and what its engine has said."""

    def __init__(self, *, adapters: bool) -> None:
        self.said: list[str] = []
        model = vllm_harness.small_model(tied=not adapters)
        if adapters:
            model = vllm_harness.with_adapters(model, r=4)
        self.policy = VLLMPolicy.start(
            model,
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


def _disturbed(started: Started, number: int) -> list[Completion]:
    """Draw long completions, and send the engine's process a signal once they are under way."""
    done = threading.Event()

    def disturb() -> None:
        while started.engine._under_way < len(PROMPTS) and not done.is_set():
            time.sleep(0.001)
        os.kill(started.pid, number)

    threading.Thread(target=disturb, daemon=True).start()
    try:
        return draw(started.policy, max_tokens=200)
    finally:
        done.set()


def test_logprobs_are_those_of_a_full_pass_after_each_update(plain: Started) -> None:
    policy = plain.policy
    assert gap(policy, draw(policy)) < 1e-4
    for update in range(5):
        move(policy.model, 3e-3, seed=update)
        version = policy.sync()
        drawn = draw(policy)
        assert gap(policy, drawn) < 1e-4
        assert {one.version for one in drawn} == {version}
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)


def test_a_sync_that_does_nothing_and_a_cache_that_stays_are_caught(
    plain: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, engine = plain.policy, plain.engine
    move(policy.model, 1e-4)
    with pytest.raises(TrainingStopped, match="the engine has not the new weights"):
        policy.canary.check(engine, policy.version)

    async def kept(running: bool) -> None:
        return None

    move(policy.model, 1e-2)
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


def test_an_update_in_flight_splits_completions_and_each_token_has_its_weights_logprob(
    plain: Started,
) -> None:
    vllm_harness.check_updates_in_flight(
        plain.policy,
        lambda: vllm_harness.wait_for_requests(plain.engine),
        lambda version: plain.policy.sync(in_flight=True),
    )
    assert plain.policy.sighting.gap < 1e-4
    assert plain.engine.redone == 0
    assert gap(plain.policy, draw(plain.policy)) < 1e-4


def test_a_process_that_dies_while_weights_change_draws_everything_again_with_the_new_ones(
    plain: Started,
) -> None:
    policy = plain.policy
    done = threading.Event()

    def kill_and_sync() -> None:
        vllm_harness.wait_for_requests(plain.engine)
        os.kill(plain.pid, signal.SIGKILL)
        move(policy.model, 1e-2, seed=9)
        policy.sync(in_flight=True)
        done.set()

    async def main() -> list[Completion]:
        found: list[Completion] = []
        thread = threading.Thread(target=kill_and_sync, daemon=True)
        thread.start()
        while not done.is_set() or not found:
            found = await vllm_harness.complete(policy, max_tokens=100)
        thread.join()
        return await vllm_harness.complete(policy)

    drawn = asyncio.run(main())
    assert plain.engine.redone > 0
    assert {(one.version, one.spans) for one in drawn} == {(policy.version, ())}
    assert gap(policy, drawn) < 1e-4


def test_a_process_that_is_killed_is_replaced_and_its_completions_are_drawn_again(
    plain: Started,
) -> None:
    move(plain.policy.model, 1e-2, seed=5)
    plain.policy.sync()
    before, pid = plain.engine.redone, plain.pid
    drawn = _disturbed(plain, signal.SIGKILL)
    again = plain.engine.redone - before
    assert 0 < again <= len(PROMPTS)
    assert plain.pid != pid
    assert gap(plain.policy, drawn) < 1e-4  # of the updated weights, which the new one has
    assert [one.tokens for one in drawn] == [
        one.tokens for one in draw(plain.policy, max_tokens=200)
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
        draw(plain.policy)
    plain.policy.close()
    with pytest.raises(UsageError, match="the engine is closed"):
        draw(plain.policy)


def test_adapters_are_swapped_and_outlive_a_process_that_hangs(adapted: Started) -> None:
    policy = adapted.policy
    for update in range(2):
        move(policy.model, 3e-2, seed=update)
        policy.sync()
        assert gap(policy, draw(policy)) < 1e-4
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)
    adapted.engine._patience = 3.0
    drawn = _disturbed(adapted, signal.SIGSTOP)
    assert adapted.engine.redone > 0
    assert gap(policy, drawn) < 1e-4
    assert any("has not answered for 3 s" in line for line in adapted.said)
    policy.close()
