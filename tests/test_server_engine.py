"""The engine on servers, against one that speaks as vLLM's and fails when told to: nothing that was
drawn is lost, drawn twice, or taken for other weights' than those that drew it."""

import asyncio
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm_fake import END, VOCABULARY, FakeVLLM, text_of

from rlvr.agents import Completion, Sampling, StopReason
from rlvr.agents.draws import turn_seed
from rlvr.agents.vllm_adapters import AdapterFolder, AdapterTransport
from rlvr.agents.vllm_process import server_words
from rlvr.agents.vllm_server import ServerEngine
from rlvr.verifiers import ModelError, UsageError

WEIGHTS = [("layer.weight", torch.ones(2))]
ADAPTERS = {
    "base_model.model.q_proj.lora_A.weight": torch.ones(2, 4),
    "base_model.model.q_proj.lora_B.weight": torch.ones(4, 2),
}


Fakes = Callable[..., Any]
"""Makes servers."""
Engines = Callable[..., ServerEngine]
"""Makes engines."""


@pytest.fixture
def fake() -> Iterator[Fakes]:
    """Make servers that end with the test."""
    made: list[FakeVLLM] = []

    def make(**options: Any) -> FakeVLLM:
        made.append(FakeVLLM(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engines]:
    """Make engines that have been handed weights as version 1, and end with the test."""
    made: list[ServerEngine] = []

    def make(*servers: Any, adapted: bool = False, **options: Any) -> ServerEngine:
        if adapted:
            options["transport"] = AdapterTransport(str(tmp_path))
        settings = {"decode": text_of, "timeout": 10.0, "recovery": 5.0, **options}
        urls = [one.url for one in servers]
        made.append(ServerEngine(urls, vocabulary=VOCABULARY, end_ids=[END], **settings))
        made[-1].load(ADAPTERS.items() if adapted else WEIGHTS, 1)
        return made[-1]

    yield make
    for one in made:
        one.close()


def _draw(engine: ServerEngine, prompt: int, **sampling: Any) -> Completion:
    return asyncio.run(engine.generate([prompt], Sampling(**{"max_tokens": 10, **sampling})))


@pytest.mark.parametrize("act", ["abort 3", "die 3", "error 3", "hang 3", "die 0", "refuse"])
def test_a_request_that_fails_is_continued_behind_what_it_drew(
    fake: Fakes, engine: Engines, act: str
) -> None:
    server = fake()
    said: list[str] = []
    policy = engine(server, timeout=0.5 if act.startswith("hang") else 10.0, say=said.append)
    server.script = [act]
    found = _draw(policy, 20, seed=7)
    assert found.tokens == list(range(21, 31))  # each one more than the last, across the seam
    assert found.logprobs == [-0.01] * 10
    assert (found.version, found.spans, found.stop_reason) == (1, (), StopReason.LENGTH)
    kept = 3 if act.endswith("3") else 0
    first, second = server.bodies
    assert second["token_ids"] == [20, 21, 22, 23][: 1 + kept]
    assert second["sampling_params"]["max_tokens"] == 10 - kept
    seeds = [body["sampling_params"]["seed"] for body in (first, second)]
    assert seeds == [turn_seed(7, 1), turn_seed(7, 1 + kept)]
    assert (policy.redone, policy.tokens_kept) == (1, kept)
    assert any("is drawn again" in text for text in said)


def test_what_ended_with_the_last_token_that_arrived_is_not_asked_for_again(
    fake: Fakes, engine: Engines
) -> None:
    server = fake()
    policy = engine(server)
    server.script = ["die 4"]
    assert _draw(policy, 20, max_tokens=4).stop_reason is StopReason.LENGTH
    server.script = ["die 2"]
    ended = _draw(policy, END - 2)
    assert (ended.tokens, ended.stop_reason) == ([END - 1, END], StopReason.EOS)
    assert len(server.bodies) == 2


def test_an_answer_in_one_piece_is_one_too(fake: Fakes, engine: Engines) -> None:
    server = fake()
    policy = engine(server)
    server.script = ["whole"]
    assert _draw(policy, 20).tokens == list(range(21, 31))
    assert len(server.bodies) == 1


def test_tokens_of_a_server_that_lost_its_weights_are_thrown_away(
    fake: Fakes, engine: Engines
) -> None:
    server = fake()
    said: list[str] = []
    policy = engine(server, say=said.append)
    label = server.label
    server.restart()
    found = _draw(policy, 20)
    assert found.logprobs == [-0.01] * 10  # weights 0 have the log-probability 0
    assert server.label == label
    assert any("weights that were not handed: 'default'" in text for text in said)
    assert any("has been handed the weights" in text for text in said)


def test_a_server_that_was_silent_is_asked_for_its_weights_before_it_draws(
    fake: Fakes,
    engine: Engines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rlvr.agents.vllm_control.QUIET_SECONDS", 0.0)
    server = fake()
    policy = engine(server)
    server.restart()
    server.script = ["die 3"]  # an answer that breaks off does not say whose it is
    assert _draw(policy, 20).logprobs == [-0.01] * 10
    assert policy.tokens_kept == 3


def test_a_stop_string_across_the_seam_ends_the_completion(fake: Fakes, engine: Engines) -> None:
    server = fake()
    policy = engine(server)
    server.script = ["abort 3"]
    # behind 20 come 21 = v, 22 = w, 23 = x | 24 = y, 25 = z: the seam is after x
    found = _draw(policy, 20, stop=("xyz",))
    assert text_of(found.tokens) == "vwxyz"
    assert (found.stop_reason, len(found.logprobs)) == (StopReason.STOP, 5)
    server.script = ["abort 3"]
    behind = _draw(policy, 20, stop=("zab",))
    assert text_of(behind.tokens) == "vwxyzab"
    assert len(server.bodies) == 4


def test_without_a_tokenizer_a_completion_with_stop_strings_is_begun_again(
    fake: Fakes, engine: Engines
) -> None:
    server = fake()
    policy = engine(server, decode=None)
    server.script = ["abort 3"]
    assert text_of(_draw(policy, 20, stop=("xyz",)).tokens) == "vwxyz"
    assert [len(body["token_ids"]) for body in server.bodies] == [1, 1]


@pytest.mark.parametrize(
    "options",
    [{}, {"labelled": False}, {"labelled": False, "rejects": True}, {"adapted": True}],
)
def test_an_update_in_flight_leaves_spans_whoever_counts_them(
    fake: Fakes, engine: Engines, options: dict[str, bool]
) -> None:
    server = fake(seconds=0.004, **options)
    policy = engine(server, adapted=server.adapted)
    frozen = server.labelled and not server.adapted  # a request keeps the adapters that it named

    async def main() -> list[Completion]:
        sampling = Sampling(max_tokens=40, seed=1)
        drawing = [asyncio.ensure_future(policy.generate([1], sampling)) for _ in range(4)]
        await asyncio.sleep(0.06)
        drawing.append(asyncio.ensure_future(policy.generate([1], sampling)))
        weights = ADAPTERS.items() if server.adapted else WEIGHTS
        await asyncio.to_thread(policy.load, weights, 2, in_flight=True)
        return await asyncio.gather(*drawing)

    found = asyncio.run(main())
    modes = [path for path in server.told if path.startswith("/pause")]
    assert ("keep" in modes[-1]) == frozen
    running = "/reset_prefix_cache?reset_running_requests=true"
    assert (running in server.told) == frozen
    for one in found[:4]:
        assert one.tokens == list(range(2, 42))
        first, second = one.spans
        assert (first.version, second.version, one.version) == (1, 2, 2)
        assert 0 == first.start < first.end == second.start < second.end == 40
        drawn_by = [-0.01] * first.end + [-0.02] * (40 - first.end)
        assert one.logprobs == pytest.approx(drawn_by)
    assert found[4].version == 2
    assert (policy.version, policy.redone > 0) == (2, not frozen)


def test_an_update_without_in_flight_waits_for_nobody(fake: Fakes, engine: Engines) -> None:
    policy = engine(fake(seconds=0.01))

    async def main() -> None:
        drawing = asyncio.ensure_future(policy.generate([1], Sampling(max_tokens=40)))
        await asyncio.sleep(0)
        try:
            policy.load(WEIGHTS, 2)
        finally:
            drawing.cancel()

    with pytest.raises(UsageError, match=r"while 1 completions .* load with in_flight=True"):
        asyncio.run(main())


def test_an_episode_stays_with_its_server_and_goes_on_with_another_when_that_fails(
    fake: Fakes, engine: Engines
) -> None:
    servers = [fake(), fake(), fake()]
    policy = engine(*servers)
    for seed in (0, 1, 2, 1, 1):
        _draw(policy, 20, seed=seed)
    assert [len(server.bodies) for server in servers] == [1, 3, 1]
    servers[1].script = ["die 3"]
    assert _draw(policy, 20, seed=1).tokens == list(range(21, 31))
    assert [len(server.bodies) for server in servers] == [1, 4, 2]
    assert servers[2].bodies[-1]["token_ids"] == [20, 21, 22, 23]


def test_a_completion_that_brings_nothing_again_and_again_is_given_up(
    fake: Fakes, engine: Engines
) -> None:
    server = fake()
    policy = engine(server, attempts=3)
    server.script = ["nan 2"] * 9
    with pytest.raises(ModelError, match=r"3 times in a row, .*a token without a log-probability"):
        _draw(policy, 20)
    assert len(server.bodies) == 3


def test_a_token_that_is_none_names_the_processor_that_is_missing(
    fake: Fakes,
) -> None:
    server = fake()
    small = ServerEngine([server.url], vocabulary=22, end_ids=[END])
    small.load(WEIGHTS, 1)
    with pytest.raises(ModelError, match=r"token 30 of 22: .* VocabularyLimit"):
        _draw(small, 20)
    small.close()


@pytest.mark.parametrize(
    ("options", "kind", "advice"),
    [
        ({"processed": False}, UsageError, "--logprobs-mode processed_logprobs"),
        ({"limited": False}, UsageError, "--logits-processors .*VocabularyLimit"),
        ({"scale_out": False}, ModelError, "start it with --enable-scale-out"),
        ({"dev_mode": False}, ModelError, "VLLM_SERVER_DEV_MODE=1"),
    ],
)
def test_a_server_without_what_training_needs_is_refused_with_the_flag_to_give(
    fake: Fakes,
    engine: Engines,
    options: dict[str, bool],
    kind: type[Exception],
    advice: str,
) -> None:
    with pytest.raises(kind, match=advice):
        engine(fake(**options))


def test_a_folder_for_weights_that_is_not_there_is_named(tmp_path: Path) -> None:
    from rlvr.agents.transports import open_transport

    with pytest.raises(UsageError, match=r"no weights can be handed over in '.*gone'"):
        open_transport("files", folder=str(tmp_path / "gone"), device=torch.device("cpu"))


@pytest.mark.parametrize("name", ["nccl", "ipc"])
def test_transports_between_cuda_devices_are_refused_on_a_cpu(name: str) -> None:
    from rlvr.agents.transports import open_transport

    with pytest.raises(UsageError, match=r"on the device cpu; take --server-transport files"):
        open_transport(name, device=torch.device("cpu"))
    with pytest.raises(UsageError, match="did you mean 'nccl'"):
        open_transport("ncl", device=torch.device("cpu"))


def test_files_of_weights_are_kept_for_one_update_and_gone_at_the_end(
    fake: Fakes, engine: Engines, tmp_path: Path
) -> None:
    from rlvr.agents.transports import open_transport

    way = open_transport("files", folder=str(tmp_path), device=torch.device("cpu"))
    server = fake()
    policy = engine(server, transport=way)
    for version in (2, 3):
        policy.load(WEIGHTS, version)
        assert [place.name for place in tmp_path.glob("*/*")] == [server.label]
    policy.close()
    assert list(tmp_path.iterdir()) == []


def test_figures_count_what_went_wrong_and_a_full_cache_is_said(
    fake: Fakes, engine: Engines
) -> None:
    server, said = fake(), []
    policy = engine(server, say=said.append)
    server.script, server.preempted = ["abort 3"], 5
    _draw(policy, 20)
    assert policy.figures() == {
        "server/redone": 1.0,
        "server/continued": 1.0,
        "server/tokens_kept": 3.0,
        "server/preempted": 5.0,
    }
    assert policy.figures()["server/preempted"] == 0.0
    assert sum("5 completions had to wait" in text for text in said) == 1


def test_a_resumed_run_sets_the_version_of_the_weights_that_are_there(
    fake: Fakes, engine: Engines
) -> None:
    server = fake()
    policy = engine(server)
    policy.version = 40
    assert _draw(policy, 20).version == 40
    policy.load(WEIGHTS, 41)
    assert _draw(policy, 20).version == 41


def test_each_update_of_adapters_has_a_name_of_its_own_and_the_former_is_gone(
    fake: Fakes, engine: Engines
) -> None:
    server = fake(adapted=True)
    policy = engine(server, adapted=True)
    assert policy.adapters is not None
    for version in (2, 3):
        policy.adapt(ADAPTERS, version)
        found = _draw(policy, 20)
        assert (found.logprobs, found.version) == ([-version / 100] * 10, version)
        assert server.adapters == {server.label: version}
        assert server.bodies[-1]["model"] == server.label
        root = policy.adapters.folder.root  # pyright: ignore[reportAttributeAccessIssue]
        assert [place.name for place in root.iterdir()] == [str(version)]
    assert server.weights == 0


def test_a_server_that_lost_its_adapters_is_handed_them_before_it_draws(
    fake: Fakes, engine: Engines
) -> None:
    server, said = fake(adapted=True), []
    policy = engine(server, adapted=True, say=said.append)
    policy.adapt(ADAPTERS, 2)
    label = server.label
    server.restart()
    assert _draw(policy, 20).logprobs == [-0.02] * 10
    assert server.adapters == {label: 2}
    assert any("has been handed the weights" in text for text in said)


def test_servers_that_serve_no_adapters_are_handed_none(fake: Fakes, engine: Engines) -> None:
    policy = engine(fake())
    assert policy.adapters is None
    with pytest.raises(UsageError, match="serve no adapters; load the weights, merged"):
        policy.adapt(ADAPTERS, 2)


def test_adapters_that_find_no_room_are_told_and_leave_nothing(tmp_path: Path) -> None:
    folder = AdapterFolder(str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))  # bytes of a file
    try:
        with pytest.raises(ModelError, match=r"could not be written to '.*1' .*; make room there"):
            folder.write(ADAPTERS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.root.iterdir()) == []
    assert folder.write(ADAPTERS) == (2, folder.root / "2")


def test_prompts_in_pieces_are_refused_on_a_cpu_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def words(**settings: Any) -> list[str]:
        how = {"vocabulary": 10, "context": 64, "dtype": "float32", "max_rows": 4}
        return server_words("folder", **how, transport="files", settings=settings)  # pyright: ignore

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        UsageError, match=r"enable_chunked_prefill .* on a CPU: requests have seeds"
    ):
        words(enable_chunked_prefill=True)
    assert "--no-enable-chunked-prefill" in words(enable_chunked_prefill=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "--enable-chunked-prefill" in words(enable_chunked_prefill=True)
