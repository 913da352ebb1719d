"""How weights get into a server: one small class each.

- `FileTransport`: a safetensors file that both sides can read, in shared memory where there is
  some. Works with every device and version, and a server that comes back can be handed the same
  weights whatever the learner has done since.
- `EngineTransport`: vLLM's own weight transfer, from CUDA device to CUDA device: `nccl` between
  different devices, `ipc` between two processes on the same one. It keeps no copy.

Its trainer side changes from version to version (0.26 has none of the kind, 0.33 asks its source
for other methods), so that what is used of it stands in `EngineTransport` alone.
"""

import base64
import pickle
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import torch

from ..verifiers import ModelError, UsageError
from ..verifiers.errors import unknown
from .policies import TRANSPORTS

SEND_SECONDS = 600.0
"""Seconds in which vLLM's own transfer hands a server its weights."""

Weights = Iterable[tuple[str, torch.Tensor]]
"""Names of a checkpoint, and their tensors."""


class Receiver(Protocol):
    """A server, as a transport sees it."""

    url: str
    """Its address."""

    def tell(self, path: str, body: Any = None, **how: Any) -> Any:
        """Ask it once."""
        ...


class Transport(Protocol):
    """A way for weights to get into servers."""

    advice: str
    """What to look at where a server cannot take them."""
    names: bool
    """Whether requests name what was handed, as they do adapters, by its label."""

    def publish(self, weights: Weights, label: str) -> None:
        """Take the weights that servers are handed from now on, and a name for them."""
        ...

    def hand(self, server: Receiver, *, again: bool) -> None:
        """Have a server load them; `again`: it may have forgotten that it was ever handed any."""
        ...

    def drop_former(self) -> None:
        """Forget all but the last that were published: every server has these."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def open_transport(name: str, *, folder: str = "", device: torch.device) -> Transport:
    """Make a transport.

    Args:
        name: One of `TRANSPORTS`.
        folder: Where `files` are written; empty: in shared memory.
        device: Where the learner's model lies.

    Raises:
        UsageError: There is no such transport, or it cannot work here.
    """
    if name not in TRANSPORTS:
        raise unknown("transport", name, TRANSPORTS)
    return FileTransport(folder) if name == "files" else EngineTransport(name, device)


def handover_folder(prefix: str, folder: str = "") -> Path:
    """Make a folder of its own to hand weights over in.

    Args:
        prefix: Of its name.
        folder: Where it is made; empty: in shared memory, where there is some.

    Raises:
        UsageError: It cannot be made.
    """
    root = folder or ("/dev/shm" if Path("/dev/shm").is_dir() else None)
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    except OSError as error:
        raise UsageError(
            f"no weights can be handed over in '{root}' ({error}); it must be a folder that exists "
            "and can be written to: give servers another one with --server-folder"
        ) from error


def save_tensors(
    tensors: Mapping[str, torch.Tensor], file: Path, advice: str, **beside: str
) -> None:
    """Write a safetensors file into a folder of its own, which goes if there is no room.

    Args:
        tensors: Names and tensors, none of which share memory.
        file: Its place; the folder is made.
        advice: What to do where there is no room.
        beside: Texts of JSON files in the same folder, by their names.

    Raises:
        ModelError: There is no room for them.
    """
    from safetensors.torch import save_file

    place = file.parent
    try:
        place.mkdir(parents=True)
        save_file(dict(tensors), file, metadata={"format": "pt"})
        for name, text in beside.items():
            (place / f"{name}.json").write_text(text)
    except Exception as error:  # of safetensors' own kind, which is no OSError
        shutil.rmtree(place, ignore_errors=True)
        raise ModelError(
            f"the weights could not be written to '{place}' ({error}); {advice}"
        ) from error


class FileTransport:
    """Weights as a checkpoint in a folder."""

    names = False

    def __init__(self, folder: str = "") -> None:
        """Make a folder of its own in a folder; empty: in shared memory, where there is some."""
        self.folder = handover_folder("rlvr-weights-", folder)
        self.current: Path | None = None
        self.advice = (
            f"the server must see the folder {self.folder}: on another machine or in a container, "
            "give --server-folder a folder that both share"
        )

    def publish(self, weights: Weights, label: str) -> None:
        """Write the weights; a tensor under two names is written twice.

        Raises:
            ModelError: There is no room for them.
        """
        seen: set[int] = set()
        tensors: dict[str, torch.Tensor] = {}
        for name, tensor in weights:
            plain = tensor.detach().cpu().contiguous()
            tensors[name] = plain.clone() if plain.data_ptr() in seen else plain
            seen.add(plain.data_ptr())
        place = self.folder / label
        room = "give --server-folder a folder with room for them"
        save_tensors(tensors, place / "model.safetensors", room)
        self.current = place

    def hand(self, server: Receiver, *, again: bool) -> None:
        """Have a server load the file."""
        asked = {"method": "reload_weights", "kwargs": {"weights_path": str(self.current)}}
        server.tell("/collective_rpc", asked)

    def drop_former(self) -> None:
        """Delete all files but the last."""
        for place in self.folder.iterdir():
            if place != self.current:
                shutil.rmtree(place)

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class EngineTransport:
    """vLLM's own weight transfer, over NCCL or by handles of CUDA memory.

    Each server is a communicator of its own, with this process as rank 0; they are served one after
    the other. Never run yet on a machine of this project with the devices that it needs.
    """

    names = False

    def __init__(self, backend: str, device: torch.device) -> None:
        """Take over a backend of vLLM's, `nccl` or `ipc`.

        Raises:
            UsageError: The model is on no CUDA device, or this vLLM has no such trainer side.
        """
        if device.type != "cuda":
            raise UsageError(
                f"the transport '{backend}' moves weights between CUDA devices, and the learner's "
                f"model is on the device {device.type}; take --server-transport files"
            )
        self.backend, self.device = backend, device
        self.info_type = trainer_info_type(backend)
        variable = "" if backend == "nccl" else " and VLLM_ALLOW_INSECURE_SERIALIZATION=1"
        where = "another CUDA device than" if backend == "nccl" else "the same CUDA device as"
        self.advice = (
            f'start the server with --weight-transfer-config \'{{"backend": "{backend}"}}\''
            f"{variable}, on {where} the learner, or take --server-transport files"
        )
        self.held: list[tuple[str, torch.Tensor]] = []
        """The learner's tensors themselves."""
        self._stamps: list[int] = []
        self._senders: dict[str, Any] = {}
        self._lock = threading.Lock()

    def publish(self, weights: Weights, label: str) -> None:
        """Hold on to the learner's tensors; they are read when a server is handed them."""
        self.held = [(name, tensor.detach()) for name, tensor in weights]
        self._stamps = [tensor._version for _, tensor in self.held]

    def hand(self, server: Receiver, *, again: bool) -> None:
        """Send a server the tensors.

        Raises:
            ModelError: They have changed since they were published, or were not taken.
        """
        if self._stamps != [tensor._version for _, tensor in self.held]:
            raise ModelError(
                f"{server.url} has lost its weights, and the learner's have changed since the last "
                f"update, of which the transport '{self.backend}' keeps no copy; take "
                "--server-transport files, and resume the run"
            )
        with self._lock:
            sender = None if again else self._senders.pop(server.url, None)
            done: list[Any] = []
            work = threading.Thread(target=self._send, args=(server, sender, done), daemon=True)
            work.start()
            work.join(SEND_SECONDS)
        if not done:  # a collective whose other side has died never ends
            raise ModelError(
                f"{server.url} did not take the weights within {SEND_SECONDS:g} s; {self.advice}"
            )
        if isinstance(done[0], BaseException):
            raise done[0]
        self._senders[server.url] = done[0]

    def _send(self, server: Receiver, sender: Any, done: list[Any]) -> None:
        """Send, and leave the sender or what went wrong."""
        try:
            with torch.cuda.device(self.device):
                torch.cuda.synchronize()
                sender = sender or self._sender(server)
                sender.send_weights()
            done.append(sender)
        except BaseException as error:
            done.append(error)

    def _sender(self, server: Receiver) -> Any:
        """Meet a server's workers."""
        from vllm.distributed.weight_transfer import (  # pyright: ignore[reportMissingImports]
            WeightTransferTrainerFactory,
        )

        facts: dict[str, Any] = {"rank": 0}
        if self.backend == "nccl":
            workers = int(server.tell("/get_world_size")["world_size"])
            facts |= {"master_address": own_address(server.url), "master_port": free_port()}
            facts["world_size"] = 1 + workers
        return WeightTransferTrainerFactory.trainer_init(
            self.info_type(**facts), client=TransferClient(server), source=weight_source(self)
        )

    def drop_former(self) -> None:
        """Do nothing: there is no copy."""

    def close(self) -> None:
        """Forget the communicators; to end one waits for a peer that may be gone."""
        self._senders.clear()


class TransferClient:
    """The requests by which vLLM's trainer side steers a server: its `VLLMWeightSyncClient`."""

    def __init__(self, server: Receiver) -> None:
        """Take over a server."""
        self.server = server

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Have the workers meet the trainer."""
        self.server.tell("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        """Begin an update."""
        self.server.tell("/start_weight_update", {})

    def update_weights(self, update_info: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Have the workers receive tensors; handles of memory travel pickled."""
        several = isinstance(update_info, list)
        found = [_sendable(one) for one in (update_info if several else [update_info])]
        self.server.tell("/update_weights", {"update_info": found if several else found[0]})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End an update; the label is given when the cache has been cleared, too."""
        self.server.tell("/finish_weight_update", {})


def _sendable(info: dict[str, Any]) -> dict[str, Any]:
    """Return an update's description as JSON values."""
    handles = info.get("ipc_handles")
    rest = {name: value for name, value in info.items() if name != "ipc_handles"}
    if handles is None:
        return rest
    return {**rest, "ipc_handles_pickled": base64.b64encode(pickle.dumps(handles)).decode("ascii")}


def trainer_info_type(backend: str) -> Any:
    """Return what vLLM's trainer side is described by.

    Raises:
        UsageError: vLLM is not installed here, or too old.
    """
    name = {"nccl": "NCCLTrainerInitInfo", "ipc": "IPCTrainerInitInfo"}[backend]
    try:
        import importlib

        module = importlib.import_module(f"vllm.distributed.weight_transfer.{backend}_engine")
        return getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the transport '{backend}' needs vLLM beside the learner, of a version with {name} "
            f"({error}); take --server-transport files"
        ) from error


def weight_source(held: Any) -> Any:
    """Return the tensors that something holds as vLLM's `WeightSource`, whichever it asks for.

    Args:
        held: Has `held`, the names and tensors of the moment.
    """
    from functools import cached_property

    from vllm.distributed.weight_transfer import (  # pyright: ignore[reportMissingImports]
        ParamMeta,
        WeightSource,
    )

    def metadata(self: Any) -> list[Any]:
        return [ParamMeta(name, one.dtype, tuple(one.shape)) for name, one in held.held]

    def tensors(self: Any) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(held.held)

    if hasattr(WeightSource, "iter_full"):  # from 0.33 on
        methods: dict[str, Any] = {"metadata": cached_property(metadata), "iter_full": tensors}
    else:
        methods = {"metadata": metadata, "__iter__": tensors}
    return type(WeightSource)("HeldWeights", (WeightSource,), methods)()


def own_address(url: str) -> str:
    """Return this machine's address as the host of another address sees it."""
    parts = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((parts.hostname or "127.0.0.1", parts.port or 80))  # sends nothing
        return str(one.getsockname()[0])


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def new_name() -> str:
    """Return a name that no other run's weights have."""
    return uuid.uuid4().hex[:8]
