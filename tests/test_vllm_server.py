"""The engine on a vLLM server, for real: a child process on loopback, killed and hung on purpose.

One server serves all tests; a small forwarder in front of it is a second address that can hang.
"""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr.agents import Episode, Sampling, TransformersPolicy, rollout
from rlvr.agents.embedded import byte_tokenizer
from rlvr.agents.engines import named_weights
from rlvr.agents.types import Completion
from rlvr.agents.vllm_policy import VLLMPolicy, save_for_engine, vocabulary_of
from rlvr.agents.vllm_process import ServerProcess, start_server
from rlvr.agents.vllm_server import ServerEngine
from rlvr.envs import PromptEnv
from rlvr.rl_core import train
from rlvr.verifiers import ModelError, Task, TrainingStopped, UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

PROMPTS = [[3, *range(70, 73 + i % 7), 4] for i in range(24)]


@pytest.fixture(scope="module")
def model() -> Any:
    """A small model with tied embeddings and 10 rows of padding in its output layer."""
    import transformers

    tokenizer = byte_tokenizer(256)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer) + 10,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


@pytest.fixture(scope="module")
def process(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that was started with this model's first weights."""
    folder, tokenizer = tmp_path_factory.mktemp("model"), byte_tokenizer(256)
    save_for_engine(model, tokenizer, folder)
    found = start_server(
        folder, vocabulary=vocabulary_of(model, tokenizer), context=256, max_rows=32
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
    tokenizer = byte_tokenizer(256)
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


def _move(model: Any, size: float, seed: int = 0) -> None:
    """Change every weight a little, as an update does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))


async def _all(policy: VLLMPolicy, **sampling: Any) -> list[Completion]:
    calls = [
        policy.generate(prompt, Sampling(**{"max_tokens": 24, "seed": i, **sampling}))
        for i, prompt in enumerate(PROMPTS)
    ]
    return await asyncio.gather(*calls)


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
    first = asyncio.run(_all(policy))
    assert _gap(policy, first) < 1e-4
    assert [one.tokens for one in first] == [one.tokens for one in asyncio.run(_all(policy))]
    for update in range(20):
        _move(policy.model, 3e-3, seed=update)
        version = policy.sync()
        drawn = asyncio.run(_all(policy, temperature=0.8))
        assert _gap(policy, drawn, 0.8) < 1e-4
        assert {one.version for one in drawn} == {version}
        assert policy.sighting.share == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("update", [1e-3, 1e-5])
def test_a_forgotten_sync_is_caught(policy: VLLMPolicy, update: float) -> None:
    _move(policy.model, update)
    with pytest.raises(TrainingStopped, match="the engine has not the new weights"):
        policy.canary.check(policy.engine, policy.version)
    policy.sync()


def test_a_tied_head_that_is_not_sent_is_caught(policy: VLLMPolicy) -> None:
    _move(policy.model, 1e-3)
    sent = [(name, one) for name, one in named_weights(policy.model) if "lm_head" not in name]
    policy.engine.load(sent, policy.version)
    with pytest.raises(TrainingStopped, match=r"reached|output layer that is tied"):
        policy.canary.check(policy.engine, policy.version)
    policy.sync()


def test_a_cache_that_outlives_its_weights_is_caught(
    policy: VLLMPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    _move(policy.model, 1e-2)
    with monkeypatch.context() as patch:
        patch.setattr("rlvr.agents.vllm_control.Server.forget", lambda self: None)
        patch.setattr("rlvr.agents.vllm_control.PAUSE", "/pause?mode=keep&clear_cache=false")
        with pytest.raises(TrainingStopped, match="prefix cache"):
            policy.sync()
    policy.sync()


def _echo_env() -> PromptEnv:
    tasks = [Task(id=str(i), prompt=f"Say {i}", truth=str(i)) for i in range(16)]
    return PromptEnv(tasks, "exact")


def _play(policy: VLLMPolicy) -> list[Any]:
    episodes = [
        Episode(env=_echo_env(), seed=i, env_seed=i, index=i % 16, group=i) for i in range(48)
    ]
    return rollout(episodes, policy, Sampling(max_tokens=120))


def _same(one: list[Any], other: list[Any]) -> bool:
    return [t.tokens for t in one] == [t.tokens for t in other]


def _engine_of(pid: int) -> int:
    """Return the process of a server that computes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = [one for one in children if "Engine" in Path(f"/proc/{one}/comm").read_text()]
    return int(found)


@pytest.mark.parametrize("whole", [True, False], ids=["the server", "its engine"])
def test_what_is_killed_mid_batch_is_restarted_and_no_episode_lost_or_doubled(
    model: Any, process: ServerProcess, whole: bool
) -> None:
    said: list[str] = []
    engine = _engine(model, process, say=said.append)
    policy = _policy(engine, model)
    _move(model, 1e-2)  # so that the weights that it starts with are stale
    policy.sync()
    expected = _play(policy)
    assert process.process is not None
    pid, starts = process.process.pid, process.starts
    kill, whom = (os.killpg, pid) if whole else (os.kill, _engine_of(pid))
    threading.Timer(0.15, kill, (whom, signal.SIGKILL)).start()
    found = _play(policy)
    assert process.starts == starts + 1
    assert _same(found, expected)
    assert [t.group for t in found] == list(range(48))
    assert engine.redone > 0
    assert any("restarting" in text for text in said)
    assert any("has been handed the weights" in text for text in said)
    assert policy.sync() == policy.version
    engine._servers[0].process = None  # the server stays for the other tests
    policy.close()


def test_a_server_with_other_weights_is_noticed_by_its_first_answer(policy: VLLMPolicy) -> None:
    expected = asyncio.run(_all(policy))
    server = policy.engine._servers[0]  # type: ignore[attr-defined]
    server.tell("/update_weight_version", {"new_version": "default"})  # as after a restart
    drawn = asyncio.run(_all(policy))
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
    expected = asyncio.run(_all(policy))
    before = [server.endpoint.requests for server in engine._servers]
    assert _same_tokens(asyncio.run(_all(policy)), expected)
    after = [server.endpoint.requests for server in engine._servers]
    assert [b - a for a, b in zip(before, after, strict=True)] == [12, 12]  # even and odd seeds
    forwarder.hangs.set()
    try:
        assert _same_tokens(asyncio.run(_all(policy)), expected)
        assert (engine.redone, steady.doubtful, shaky.doubtful) == (12, False, True)
    finally:
        forwarder.hangs.clear()
    deadline = time.monotonic() + 60
    while shaky.doubtful and time.monotonic() < deadline:
        assert _same_tokens(asyncio.run(_all(policy)), expected)
        time.sleep(0.1)
    assert not shaky.doubtful
    policy.close()
    forwarder.close()


def _same_tokens(one: list[Completion], other: list[Completion]) -> bool:
    return [c.tokens for c in one] == [c.tokens for c in other]


def test_two_servers_with_different_weights_are_named(
    model: Any, process: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwarder = Forwarder(process.port)
    policy = _policy(_engine(model, process.url, forwarder.url), model)
    engine: Any = policy.engine
    scores = iter([0.0, 0.5])
    moved = {url: next(scores) for url in (process.url, forwarder.url)}
    real = type(engine._servers[0]).all

    def other_weights(self: Any, prompts: Any, parameters: Any) -> Any:
        found = real(self, prompts, parameters)
        for answer in found:
            for table in answer["prompt_logprobs"][1:]:
                for one in table.values():
                    one["logprob"] -= moved[self.url]
        return found

    monkeypatch.setattr(type(engine._servers[0]), "all", other_weights)
    with pytest.raises(ModelError, match=r"differ by 0\.5 nats"):
        engine.score([[70, 71, 72]])
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


def test_a_server_that_cannot_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the vLLM server ended with status \d+: "):
        start_server(tmp_path / "nothing", vocabulary=10, context=64, limit=120)
