"""The engine on a vLLM server, for real: a child process on loopback, killed and hung on purpose.

One server serves all tests, with a key-value cache so small that batches fill it; those that kill
it stand last. A small forwarder in front of it is a second address that can hang.
"""

import asyncio
import copy
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import vllm_harness
from vllm_harness import PROMPTS, draw, gap, move

from rlvr.agents import Episode, Sampling, Trajectory, TransformersPolicy, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.engines import named_weights
from rlvr.agents.types import Completion
from rlvr.agents.vllm_control import Server
from rlvr.agents.vllm_policy import VLLMPolicy
from rlvr.agents.vllm_process import ServerProcess, start_server
from rlvr.agents.vllm_server import ServerEngine
from rlvr.agents.vllm_starting import save_for_engine, vocabulary_of
from rlvr.envs import PromptEnv
from rlvr.rl_core import train
from rlvr.verifiers import ModelError, Task, TrainingStopped, UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


BLOCKS = 17
"""Blocks of 128 tokens in the cache, of which vLLM keeps one for itself: 32 rows need up to 64."""


@pytest.fixture(scope="module")
def model() -> Any:
    """A small model with tied embeddings and 10 rows of padding in its output layer."""
    return vllm_harness.small_model(tied=True)


@pytest.fixture(scope="module")
def process(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that was started with this model's first weights."""
    folder, tokenizer = tmp_path_factory.mktemp("model"), byte_tokenizer(256)
    save_for_engine(model, tokenizer, folder)
    found = start_server(
        folder,
        vocabulary=vocabulary_of(model, tokenizer),
        context=256,
        max_rows=32,
        num_gpu_blocks_override=BLOCKS,
    )
    yield found
    found.close()


class Forwarder:
    """A second address of a server, which can be told to hang."""

    def __init__(self, port: int) -> None:
        self.port, self.hangs = port, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.sockets = [self.listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                mine, _ = self.listener.accept()
            except OSError:
                return
            theirs = socket.create_connection(("127.0.0.1", self.port))
            self.sockets += [mine, theirs]
            for source, sink in ((mine, theirs), (theirs, mine)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                while self.hangs.is_set():
                    time.sleep(0.02)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        for one in self.sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _engine(model: Any, *servers: Any, **options: Any) -> ServerEngine:
    tokenizer: Any = byte_tokenizer(256)
    return ServerEngine(
        servers, vocabulary=len(tokenizer), end_ids=[int(tokenizer.eos_token_id)], **options
    )


def _policy(engine: ServerEngine, model: Any) -> VLLMPolicy:
    engine.load(named_weights(model), 0)
    return VLLMPolicy(engine, model, byte_tokenizer(256))


@pytest.fixture
def policy(model: Any, process: ServerProcess) -> Iterator[VLLMPolicy]:
    """A policy on the server, which stays."""
    found = _policy(_engine(model, process.url), model)
    yield found
    found.close()


def test_logprobs_are_those_of_a_full_pass_before_and_after_twenty_updates(
    policy: VLLMPolicy,
) -> None:
    first = draw(policy)
    assert gap(policy, first) < 1e-4
    assert [one.tokens for one in first] == [one.tokens for one in draw(policy)]
    for update in range(20):
        move(policy.model, 3e-3, seed=update)
        version = policy.sync()
        drawn = draw(policy, temperature=0.8, max_tokens=12)
        assert gap(policy, drawn, temperature=0.8) < 1e-4
        assert {one.version for one in drawn} == {version}
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("update", [1e-3, 1e-5])
def test_a_forgotten_sync_is_caught(policy: VLLMPolicy, update: float) -> None:
    move(policy.model, update)
    with pytest.raises(TrainingStopped, match=r"127\.0\.0\.1:\d+ has not the new weights"):
        policy.canary.check(policy.engine, policy.version)
    policy.sync()


def test_a_tied_head_that_is_not_sent_is_caught(policy: VLLMPolicy) -> None:
    move(policy.model, 1e-3)
    sent = [(name, one) for name, one in named_weights(policy.model) if "lm_head" not in name]
    policy.engine.load(sent, policy.version)
    with pytest.raises(TrainingStopped, match=r"reached|output layer that is tied"):
        policy.canary.check(policy.engine, policy.version)
    policy.sync()


def test_a_cache_that_outlives_its_weights_is_caught(
    policy: VLLMPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(policy.model, 1e-2)
    with monkeypatch.context() as patch:
        patch.setattr(Server, "forget", lambda self, running: None)
        patch.setattr(Server, "_pause", _freeze)
        with pytest.raises(TrainingStopped, match="prefix cache"):
            policy.sync()
    policy.sync()


def _freeze(server: Server, keep: bool) -> None:
    server.tell("/pause?mode=keep&clear_cache=false", {})


def _abort(server: Server, keep: bool) -> None:
    server.tell("/pause?mode=abort", {})


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "aborted"])
def test_an_update_in_flight_splits_completions_and_each_token_has_its_weights_logprob(
    policy: VLLMPolicy, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not frozen:
        monkeypatch.setattr(Server, "_pause", _abort)
    engine: Any = policy.engine
    vllm_harness.check_updates_in_flight(
        policy,
        lambda: vllm_harness.wait_for_tokens(engine._servers[0], 200),
        lambda version: engine.load(named_weights(policy.model), version, in_flight=True),
    )
    assert (engine.continued > 0) == (not frozen)
    assert policy.canary.check(engine, policy.version).gap < 1e-4


def _echo_env(prompt: str = "Say") -> PromptEnv:
    tasks = [Task(id=str(i), prompt=f"{prompt} {i}", truth=str(i)) for i in range(16)]
    return PromptEnv(tasks, "exact")


def _play(policy: VLLMPolicy) -> list[Trajectory]:
    episodes = [
        Episode(env=_echo_env(), seed=i, env_seed=i, index=i % 16, group=i) for i in range(48)
    ]
    return rollout(episodes, policy, Sampling(max_tokens=200))


def _check_episodes(policy: VLLMPolicy, found: list[Trajectory]) -> None:
    """Check that no episode is lost or doubled, and that every token is the model's."""
    assert [t.group for t in found] == list(range(48))
    assert [t.task_id for t in found] == [str(i % 16) for i in range(48)]
    assert len({tuple(t.tokens) for t in found}) == 48
    assert all(len(t.turns) == 1 and t.scored for t in found)
    starts = [t.turns[0].start for t in found]
    full = TransformersPolicy(policy.model, policy.tokenizer, check=False).logprobs(
        [t.tokens[:start] for t, start in zip(found, starts, strict=True)],
        [t.tokens[start:] for t, start in zip(found, starts, strict=True)],
    )
    for t, start, row in zip(found, starts, full, strict=True):
        assert float((torch.tensor(t.logprobs[start:]) - row).abs().max()) < 1e-4


def test_a_full_cache_costs_time_alone_and_is_told(model: Any, process: ServerProcess) -> None:
    said: list[str] = []
    engine = _engine(model, process.url, say=said.append)
    policy = _policy(engine, model)
    engine.figures()
    said.clear()
    _check_episodes(policy, _play(policy))
    figures = engine.figures()
    assert figures["server/preempted"] > 0
    assert [f"{figures['server/preempted']:.0f} completions had to wait" in s for s in said] == [
        True
    ]
    assert figures["server/redone"] == 0
    policy.close()


def test_a_prompt_longer_than_the_context_is_that_episodes_alone(policy: VLLMPolicy) -> None:
    envs = [_echo_env(), _echo_env("long " * 60), _echo_env()]
    episodes = [Episode(env=env, seed=i, env_seed=i, index=i) for i, env in enumerate(envs)]
    found = rollout(episodes, policy, Sampling(max_tokens=4))
    assert [t.scored for t in found] == [True, False, True]
    assert "the model's context is 256" in str(found[1].verdict)
    with pytest.raises(UsageError, match=r"1 to 255 tokens .* got 256"):
        asyncio.run(policy.generate([70] * 256, Sampling()))


def test_a_server_with_other_weights_is_noticed_by_its_first_answer(policy: VLLMPolicy) -> None:
    expected = draw(policy)
    server = policy.engine._servers[0]  # type: ignore[attr-defined]
    server.tell("/update_weight_version", {"new_version": "default"})  # as after a restart
    drawn = draw(policy)
    assert [one.tokens for one in drawn] == [one.tokens for one in expected]
    assert policy.engine.redone > 0  # type: ignore[attr-defined]
    assert server.has() == server.label != "default"


def test_episodes_stay_with_their_server_and_a_hung_one_loses_none(
    model: Any, process: ServerProcess
) -> None:
    forwarder = Forwarder(process.port)
    engine = _engine(model, process.url, forwarder.url, timeout=3.0)
    policy = _policy(engine, model)
    steady, shaky = engine._servers
    expected = draw(policy)
    before = [server.endpoint.requests for server in engine._servers]
    assert _same_tokens(draw(policy), expected)
    after = [server.endpoint.requests for server in engine._servers]
    assert [b - a for a, b in zip(before, after, strict=True)] == [12, 12]  # even and odd seeds
    forwarder.hangs.set()
    try:
        assert _same_tokens(draw(policy), expected)
        assert (engine.redone, steady.doubtful, shaky.doubtful) == (12, False, True)
    finally:
        forwarder.hangs.clear()
    deadline = time.monotonic() + 60
    while shaky.doubtful and time.monotonic() < deadline:
        assert _same_tokens(draw(policy), expected)
        time.sleep(0.1)
    assert not shaky.doubtful
    policy.close()
    forwarder.close()


def _same_tokens(one: list[Completion], other: list[Completion]) -> bool:
    return [c.tokens for c in one] == [c.tokens for c in other]


def test_each_server_is_compared_with_the_learner_and_named(
    model: Any, process: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwarder = Forwarder(process.port)
    policy = _policy(_engine(model, process.url, forwarder.url), model)
    real = Server.all

    def other_weights(self: Server, prompts: Any, parameters: Any) -> Any:
        found = real(self, prompts, parameters)
        for answer in found if self.url == forwarder.url else ():
            for table in (answer["prompt_logprobs"] or ())[1:]:
                for one in table.values():
                    one["logprob"] -= 0.5
        return found

    monkeypatch.setattr(Server, "all", other_weights)
    with pytest.raises(
        TrainingStopped, match=rf"{forwarder.url} and the learner differ by 0\.5 nats"
    ):
        policy.canary.check(policy.engine, policy.version)
    policy.close()
    forwarder.close()


def test_a_server_that_cannot_be_trained_through_is_refused_with_what_to_do(
    model: Any, process: ServerProcess
) -> None:
    with pytest.raises(UsageError, match="no server is named"):
        _engine(model)
    with pytest.raises(UsageError, match=r"more tokens than the tokenizer's 200;.*VocabularyLimit"):
        ServerEngine([process.url], vocabulary=200, end_ids=[1])
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:9/v1/models gave no answer"):
        _engine(model, "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"/v1/v1/models refused with status 404.*from 0\.26 on"):
        _engine(model, f"{process.url}/v1")


def test_weights_do_not_change_under_completions_that_are_being_drawn(policy: VLLMPolicy) -> None:
    async def main() -> None:
        drawing = asyncio.ensure_future(policy.generate(PROMPTS[0], Sampling(max_tokens=200)))
        await asyncio.sleep(0)
        try:
            policy.engine.load(named_weights(policy.model), 99)
        finally:
            drawing.cancel()

    with pytest.raises(UsageError, match="weights cannot change while 1 completions"):
        asyncio.run(main())


def test_a_run_is_trained_through_a_server(process: ServerProcess, tmp_path: Path) -> None:
    found = train(
        model=process.words[process.words.index("--model") + 1],
        policy="vllm-server",
        server_url=(process.url,),
        env="rlvr/Arithmetic-v0 size=20",
        steps=2,
        prompts_per_step=4,
        group_size=4,
        max_tokens=8,
        eval_tasks=4,
        lr=1e-3,
        out=str(tmp_path / "run"),
        quiet=True,
    )
    assert found.finished
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert all(row["sync/gap"] < 1e-4 for row in rows if "sync/gap" in row)
    assert sum("sync/gap" in row for row in rows) == 2


def test_a_server_that_runs_already_gets_adapters_merged_and_that_is_said(
    model: Any, process: ServerProcess
) -> None:
    adapted = vllm_harness.with_adapters(copy.deepcopy(model))
    move(adapted, 3e-2, seed=3)
    said: list[str] = []
    policy = VLLMPolicy.connect(adapted, byte_tokenizer(256), [process.url], say=said.append)
    (line,) = said
    assert "adapters are merged" in line
    assert "the servers have been started already" in line
    for update in range(2):
        assert gap(policy, draw(policy)) < 1e-4
        move(adapted, 3e-2, seed=update)
        policy.sync()
    assert policy.sighting.share == pytest.approx(1.0, abs=0.01)
    policy.close()


def _engine_of(pid: int) -> int:
    """Return the process of a server that computes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = [one for one in children if "Engine" in Path(f"/proc/{one}/comm").read_text()]
    return int(found)


def _killed(policy: VLLMPolicy, kill: Callable[[], None]) -> list[Trajectory]:
    """Play, and kill when some of the tokens have been drawn."""
    engine: Any = policy.engine

    def soon() -> None:
        vllm_harness.wait_for_tokens(engine._servers[0], 300)
        kill()

    thread = threading.Thread(target=soon)
    thread.start()
    found = _play(policy)
    thread.join()
    return found


def test_an_engine_killed_mid_batch_is_restarted_and_no_episode_lost_or_doubled(
    model: Any, process: ServerProcess
) -> None:
    said: list[str] = []
    engine = _engine(model, process, say=said.append)
    policy = _policy(engine, model)
    move(model, 1e-2)  # so that the weights that it starts with are stale
    policy.sync()
    assert process.process is not None
    victim, starts = _engine_of(process.process.pid), process.starts
    found = _killed(policy, lambda: os.kill(victim, signal.SIGKILL))
    _check_episodes(policy, found)
    assert process.starts == starts + 1
    assert engine.redone > 0
    assert any("restarting" in text for text in said)
    assert any("has been handed the weights" in text for text in said)
    assert policy.sync() == policy.version
    engine._servers[0].process = None  # the server stays for the next test
    policy.close()


def test_a_server_that_somebody_else_restarts_is_handed_the_weights(
    model: Any, process: ServerProcess
) -> None:
    said: list[str] = []
    engine = _engine(model, process.url, say=said.append)
    policy = _policy(engine, model)
    move(model, 1e-2)
    policy.sync()

    def restart() -> None:
        assert process.process is not None
        os.killpg(process.process.pid, signal.SIGKILL)
        process.restart()

    _check_episodes(policy, _killed(policy, restart))
    assert engine.redone > 0
    assert any("what it was drawing is drawn again" in text for text in said)
    assert any("has been handed the weights" in text for text in said)
    policy.close()


def test_a_server_that_cannot_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the vLLM server ended with status \d+: "):
        start_server(tmp_path / "nothing", vocabulary=10, context=64, limit=120)
