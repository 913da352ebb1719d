"""vLLM's own weight transfer, as far as it goes without a GPU: our requests go to vLLM's own routes
and into its own request classes, and its source checks are run on ours."""

# pyright: reportMissingImports=false

import dataclasses
import json
from collections.abc import Iterator
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlvr.agents.transports import TransferClient, free_port, trainer_info_type, weight_source
from rlvr.agents.vllm_process import server_words
from rlvr.agents.vllm_settings import adapter_options, import_vllm
from rlvr.verifiers import UsageError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

WEIGHTS = [("a.weight", torch.arange(6.0).reshape(2, 3)), ("lm_head.weight", torch.ones(4, 2))]


class Engine:
    """What vLLM's routes call, written down."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    async def init_weight_transfer_engine(self, request: Any) -> None:
        self.calls.append(("init", request.init_info))

    async def start_weight_update(self) -> None:
        self.calls.append(("start", None))

    async def update_weights(self, request: Any) -> None:
        self.calls.append(("update", request.update_info))

    async def finish_weight_update(self, weight_version: str | None) -> None:
        self.calls.append(("finish", weight_version))


class Routes:
    """A server that consists of vLLM's routes alone."""

    url = "http://127.0.0.1:1"

    def __init__(self) -> None:
        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        from vllm.entrypoints.rl.online.api_router import router

        app = FastAPI()
        app.include_router(router)
        self.engine = app.state.engine_client = Engine()
        self.client = TestClient(app)

    def tell(self, path: str, body: Any = None, **how: Any) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def routes() -> Routes:
    """The routes, in the installed version."""
    import_vllm()
    return Routes()


def test_the_client_is_the_control_plane_that_vllm_asks_for(routes: Routes) -> None:
    from vllm.distributed.weight_transfer import VLLMWeightSyncClient

    assert isinstance(TransferClient(routes), VLLMWeightSyncClient)


def test_requests_over_nccl_are_what_the_workers_read(routes: Routes) -> None:
    from vllm.distributed.weight_transfer.nccl_common import worker_init_payload
    from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine as Worker

    client = TransferClient(routes)
    facts = {"master_address": "127.0.0.1", "master_port": free_port(), "world_size": 3}
    trainer = trainer_info_type("nccl")(**facts, rank=0)
    met = Worker.init_info_cls(**facts, rank_offset=1, packed=trainer.packed)
    client.init_weight_transfer_engine(worker_init_payload(met))
    declared = weight_source(SimpleNamespace(held=WEIGHTS)).metadata()
    update = Worker.update_info_cls(
        names=[one.name for one in declared],
        dtype_names=[str(one.dtype).split(".")[-1] for one in declared],
        shapes=[list(one.shape) for one in declared],
    )
    client.start_weight_update()
    client.update_weights(dataclasses.asdict(update))
    client.finish_weight_update()
    (_, init), start, (_, sent), finish = routes.engine.calls
    assert Worker.init_info_cls(**init) == met
    assert Worker.update_info_cls(**sent) == update
    assert update.shapes == [[2, 3], [4, 2]]
    assert (start, finish) == (("start", None), ("finish", None))


def test_handles_of_memory_arrive_as_they_were(
    routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine as Worker

    client, trainer = TransferClient(routes), trainer_info_type("ipc")(rank=0)
    client.init_weight_transfer_engine({"packed": trainer.packed})
    handles = [{"GPU-1": (torch.Tensor, (2, 3), 0, b"handle")}, {"GPU-1": (torch.Tensor, 1)}]
    facts = {"names": ["a", "b"], "dtype_names": ["float32"] * 2, "shapes": [[2, 3], [1]]}
    update = Worker.update_info_cls(**facts, ipc_handles=handles)
    client.update_weights(dataclasses.asdict(update))
    (_, init), (_, sent) = routes.engine.calls
    assert Worker.init_info_cls(**init).packed == trainer.packed
    with pytest.raises(ValueError, match="VLLM_ALLOW_INSECURE_SERIALIZATION=1"):
        Worker.update_info_cls(**sent)
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
    assert Worker.update_info_cls(**sent).ipc_handles == handles


def test_the_source_declares_what_it_yields_in_every_round() -> None:
    import_vllm()
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine

    held = SimpleNamespace(held=WEIGHTS)
    source = weight_source(held)
    for scale in (1.0, 2.0):
        held.held = [(name, scale * one) for name, one in WEIGHTS]
        checked = NCCLTrainerWeightTransferEngine._checked_iter(source, source.metadata())
        for (name, sent), (expected, one) in zip(checked, held.held, strict=True):
            assert name == expected
            assert torch.equal(sent, one)


def test_the_source_has_the_methods_of_later_versions_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import_vllm()

    class Later:
        """As from 0.33 on."""

        def __init_subclass__(cls, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            assert isinstance(cls.__dict__["metadata"], cached_property)

        def iter_full(self) -> Iterator[tuple[str, torch.Tensor]]:
            raise NotImplementedError

    monkeypatch.setattr("vllm.distributed.weight_transfer.WeightSource", Later)
    source = weight_source(SimpleNamespace(held=WEIGHTS))
    assert [one.name for one in source.metadata] == [name for name, _ in source.iter_full()]


def test_a_version_without_a_trainer_side_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import_vllm()
    from vllm.distributed.weight_transfer import nccl_engine

    monkeypatch.delattr(nccl_engine, "NCCLTrainerInitInfo")
    with pytest.raises(UsageError, match=r"with NCCLTrainerInitInfo .*--server-transport files"):
        trainer_info_type("nccl")


@pytest.mark.parametrize("transport", ["files", "nccl", "ipc"])
def test_the_flags_of_a_server_are_ones_that_vllm_knows(transport: str) -> None:
    import_vllm()
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    words = server_words(
        "folder",
        vocabulary=10,
        context=64,
        dtype="float32",
        max_rows=4,
        transport=transport,
        settings={"num_gpu_blocks_override": 17, **adapter_options(5, ["q_proj", "v_proj"])},
    )
    found = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    assert json.loads(json.dumps(found.additional_config)) == {"vocabulary": 10}
    assert (found.enable_lora, found.max_lora_rank) == (True, 8)  # the next rank that there is
    assert found.lora_target_modules == ["q_proj", "v_proj"]
    config = found.weight_transfer_config
    assert (config.backend if config else "files") == transport
