"""Adapters as an engine serves them: beside its weights, in place of merged into them.

    W x + s B A x  is handed over as the files  A `[R, in]`, s B `[out, R]`  with the scale 1

R is the greatest rank of the model's adapters, smaller ones are filled up with zeros: so ranks and
scales that differ from layer to layer (and the scale of rsLoRA) are plain adapters to the engine.
A sync sends these few numbers, and the weights themselves once.

An engine that has seen a number keeps what it was handed under it, whatever its files say later.
So each hand-over has a number and a name of its own; the name is part of what a cached prefix is
found by, so that no prefix of a former one is ever used.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from .endpoints import EndpointError
from .engines import base_of
from .transports import Receiver, Weights, handover_folder, save_tensors
from .vllm_settings import RANKS


def adapter_rank(model: Any) -> int:
    """Return the greatest rank of a model's adapters; 0 if it has none."""
    return max((layer.r[name] for _, layer, name in _layers(model)), default=0)


def adapter_targets(model: Any) -> list[str]:
    """Return the names of the layers that have adapters, without their places."""
    return sorted({place.rpartition(".")[2] for place, _, _ in _layers(model)})


def adapter_problem(model: Any) -> str:
    """Say why an engine cannot serve a model's adapters beside its weights; empty if it can."""
    layers = list(_layers(model))
    if not layers:
        return "there is no adapter of the form B A"
    names = {name for _, _, name in layers}
    if len(names) > 1:
        return f"several adapters are active ({', '.join(sorted(names))})"
    (name,) = names
    kinds = {variant for _, layer, _ in layers for variant in getattr(layer, "lora_variant", {})}
    if kinds or any(getattr(layer, "use_dora", {}).get(name) for _, layer, _ in layers):
        return "they are a variant such as DoRA, which is more than B A"
    if any(getattr(layer, "lora_bias", {}).get(name) for _, layer, _ in layers):
        return "they have biases"
    if hasattr(base_of(model).get_output_embeddings(), "lora_A"):
        return "the output layer has one, and vLLM does not score prompts through it"
    if adapter_rank(model) > RANKS[-1]:
        return f"their rank {adapter_rank(model)} is above {RANKS[-1]}"
    trained = [n for n, p in base_of(model).named_parameters() if p.requires_grad]
    other = [n for n in trained if ".lora_A." not in n and ".lora_B." not in n]
    return f"'{other[0]}' is trained beside them" if other else ""


def adapter_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Return a model's adapters under the names of peft's files."""
    found: dict[str, torch.Tensor] = {}
    rank = adapter_rank(model)
    for place, layer, name in _layers(model):
        a = layer.lora_A[name].weight.detach()
        b = layer.lora_B[name].weight.detach() * layer.scaling[name]
        missing = rank - a.shape[0]
        found[f"base_model.model.{place}.lora_A.weight"] = _plain(a, (0, 0, 0, missing))
        found[f"base_model.model.{place}.lora_B.weight"] = _plain(b, (0, missing))
    return found


def _plain(weight: torch.Tensor, padding: tuple[int, ...]) -> torch.Tensor:
    return torch.nn.functional.pad(weight, padding).cpu().contiguous()


def _layers(model: Any) -> Iterator[tuple[str, Any, str]]:
    """Return each layer with an active adapter: its place, itself, the adapter's name."""
    for place, layer in base_of(model).named_modules():
        adapters = getattr(layer, "lora_A", None)
        for name in getattr(layer, "active_adapters", ()) if adapters else ():
            if name in adapters:
                yield place, layer, name


class AdapterFolder:
    """Where adapters are handed over: one folder each, of which the last one stays."""

    def __init__(self, folder: str = "") -> None:
        """Make the place in a folder; empty: in shared memory, where there is some."""
        self.root = handover_folder("rlvr-adapters-", folder)
        self.count = 0
        """How many have been written; the number of the last one."""

    def write(self, tensors: Mapping[str, torch.Tensor]) -> tuple[int, Path]:
        """Write adapters; returns their number and their folder.

        Raises:
            ModelError: There is no room.
        """
        self.count += 1
        place = self.root / str(self.count)
        rank = next(a.shape[0] for name, a in tensors.items() if ".lora_A." in name)
        targets = sorted({name.split(".")[-3] for name in tensors})
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets}
        save_tensors(
            tensors,
            place / "adapter_model.safetensors",
            "make room there",
            adapter_config=json.dumps(config),
        )
        return self.count, place

    def drop(self, number: int) -> None:
        """Remove what was handed over under a number."""
        shutil.rmtree(self.root / str(number), ignore_errors=True)

    def close(self) -> None:
        """Remove the place."""
        shutil.rmtree(self.root, ignore_errors=True)


class AdapterTransport:
    """Adapters on their way to servers that were started to serve them, on this machine.

    Each hand-over has a name of its own, which requests ask for, and the server a new number for
    each name. A request keeps the adapters that it named, so that servers are handed others while
    none is under way.
    """

    names = True

    def __init__(self, folder: str = "") -> None:
        """Make the place; `folder` as for `AdapterFolder`."""
        self.folder = AdapterFolder(folder)
        self.advice = f"the server must see the folder {self.folder.root}, and serve adapters"
        self._label, self._place = "", Path()
        self._held: dict[str, str] = {}
        """From a server's address to the name of the adapters that it has."""

    def publish(self, weights: Weights, label: str) -> None:
        """Write the adapters.

        Raises:
            ModelError: There is no room for them.
        """
        _, self._place = self.folder.write(dict(weights))
        self._label = label

    def hand(self, server: Receiver, *, again: bool) -> None:
        """Have a server load the files in place of the former ones."""
        for name in (self._held.pop(server.url, ""), self._label if again else ""):
            if name:
                with suppress(EndpointError):  # a server that was restarted knows no name
                    server.tell("/v1/unload_lora_adapter", {"lora_name": name}, raw=True)
        asked = {"lora_name": self._label, "lora_path": str(self._place)}
        server.tell("/v1/load_lora_adapter", asked, raw=True)
        self._held[server.url] = self._label

    def drop_former(self) -> None:
        """Delete all files but the last."""
        for place in self.folder.root.iterdir():
            if place != self._place:
                shutil.rmtree(place)

    def close(self) -> None:
        """Delete the place."""
        self.folder.close()
