"""Training low-rank adapters in place of all weights, by way of peft.

    W x  becomes  W x + (α / r) B A x,   A `[r, in]` drawn, B `[out, r]` zero at first

The wrapped model is an ordinary transformers model whose chosen linear layers carry adapters: it
samples, learns and is measured like any other. What it was before stands in the same weights, so
that a reference needs no second copy. There is no dropout: the sampler would not draw from the
distribution that is learned on.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..verifiers import ModelError, UsageError
from .settings import LoraConfig

ALL_LINEAR = "all-linear"
"""peft's name for every linear layer but the output layer."""


class Adapters:
    """A model with adapters: the one that is trained, and the one that it was."""

    def __init__(self, wrapped: Any) -> None:
        """Take over a `PeftModel`."""
        self.wrapped = wrapped
        self.model = wrapped.get_base_model()
        """The transformers model, adapters in it."""

    def __str__(self) -> str:
        """Say how many weights are trained."""
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        return f"{trained:,} weights in adapters of rank {self._config().r}"

    @contextmanager
    def off(self) -> Iterator[Any]:
        """Switch the adapters off: within, the model is what it was before training."""
        with self.wrapped.disable_adapter():
            yield self.model

    def save(self, folder: Path) -> None:
        """Write the adapters, in peft's form, as a folder."""
        self.wrapped.save_pretrained(folder, save_embedding_layers=False)

    def merge(self) -> Any:
        """Add the adapters to the weights for good, and return the model; training is over."""
        return self.wrapped.merge_and_unload()

    def _config(self) -> Any:
        return self.wrapped.peft_config["default"]


def adapt(model: Any, config: LoraConfig, *, seed: int, folder: Path | None = None) -> Adapters:
    """Freeze a model's weights and put adapters beside them.

    Args:
        model: A causal language model; it is changed.
        config: Rank, scale and places.
        seed: Of the first values of A.
        folder: Where adapters were saved that training goes on with; none: new ones.

    Raises:
        UsageError: peft is not installed, or no layer has a name of `lora_targets`.
        ModelError: The model has no layer that can carry an adapter, or the folder cannot be read.
    """
    peft = _peft()
    doing = f"{type(model).__name__} cannot carry adapters"
    if folder is not None:
        doing = f"the adapters in '{folder}' cannot be loaded"
    targets = _targets(model, config.lora_targets)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, of what it settles by itself
        torch.manual_seed(seed)
        try:
            if folder is not None:
                return Adapters(peft.PeftModel.from_pretrained(model, folder, is_trainable=True))
            return Adapters(peft.get_peft_model(model, _wanted(peft, config, targets)))
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{doing}: {error}") from error


def _wanted(peft: Any, config: LoraConfig, targets: Any) -> Any:
    return peft.LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.scale * config.lora_rank,
        lora_dropout=0.0,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UsageError(
            "lora_rank above 0 needs peft, which is not installed: pip install 'rlvr[lora]'"
        ) from error
    return peft


def _targets(model: Any, names: Sequence[str]) -> Any:
    """Return peft's targets, every one of which is the end of a linear layer's name.

    Raises:
        UsageError: One is not; the message names the layers that there are.
    """
    if not names:
        return ALL_LINEAR
    linear = [name for name, module in model.named_modules() if _carries(module)]
    for wanted in names:
        if not any(name == wanted or name.endswith(f".{wanted}") for name in linear):
            ends = Counter(name.rpartition(".")[2] for name in linear)
            raise UsageError(
                f"no linear layer of {type(model).__name__} is called '{wanted}'; lora_targets may "
                f"be the end of a layer's name: {', '.join(sorted(ends))}"
            )
    return list(names)


def _carries(module: Any) -> bool:
    """Whether a layer is linear: torch's, or the transposed one of GPT-2."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
