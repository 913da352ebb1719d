"""What a generation engine is asked for, whichever library it is.

An engine has a copy of the weights of its own, so that everything here is about keeping the copy
and the learner's weights the same: it is handed named tensors, counts versions, and can say how
likely it finds a given sequence, which is what the canary compares.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from .types import Completion, Sampling


class Engine(Protocol):
    """Something that continues token ids with weights of its own."""

    context: int
    """The longest sequence in tokens, prompt and completion together."""
    version: int
    """Which weights it has: the number of loads, as the caller counts them."""

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Draw one completion."""
        ...

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Take new weights, and forget what was computed from the former ones."""
        ...

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return log p of every token but the first, over the whole output layer, in nats."""
        ...

    def resume(
        self, prompts: Sequence[Sequence[int]], count: int
    ) -> list[tuple[list[int], list[float]]]:
        """Draw exactly `count` tokens behind each prompt, through the prefix cache.

        Returns:
            Per prompt, the tokens and their log-probabilities among the tokenizer's tokens.
        """
        ...

    def close(self) -> None:
        """Give memory and processes back."""
        ...


@runtime_checkable
class AdaptedEngine(Engine, Protocol):
    """An engine that can serve adapters beside its weights."""

    adapters: Any
    """Where they are handed over; `None`: it was started without."""

    def adapt(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """Take new adapters in place of the former ones, and forget what came of those."""
        ...


def has_adapters(model: Any) -> bool:
    """Whether peft has put adapters in a model, be it wrapped or not."""
    return hasattr(model, "peft_config")


def base_of(model: Any) -> Any:
    """Return the transformers model, adapters in it if there are any."""
    unwrap = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


def named_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Return a model's weights under the names of its checkpoint, for an engine to load.

    The output layer is named even where it is tied to the input embeddings: an engine may keep a
    packed copy of it, which would stay as it was. Adapters come merged into what they adapt.

    Args:
        model: A causal language model of transformers, or one that peft has put adapters in.
    """
    base = base_of(model)
    for name, tensor in _merged(base) if has_adapters(model) else base.named_parameters():
        yield name, tensor.detach()
    head = base.get_output_embeddings()
    if head is not None and base.config.get_text_config().tie_word_embeddings:
        adapted = hasattr(head, "base_layer")
        yield "lm_head.weight", (_merged_layer(head) if adapted else head).weight.detach()


def weights_without_adapters(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights that a model with adapters was made of, under their checkpoint's names."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in base_of(model).state_dict().items():
        if ".lora_" not in name and ".modules_to_save." not in name:
            plain = name.replace(".base_layer.", ".").replace(".original_module.", ".")
            found[plain.removeprefix("original_module.")] = tensor
    return found


def _merged(base: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Return the weights of a model with adapters in it, as if they had been merged."""
    for name, tensor in base.named_parameters():
        if ".lora_" in name or "original_module." in name:
            continue
        if ".modules_to_save." in name:  # a copy that is trained in place of a layer
            place, _, rest = name.partition(".modules_to_save.")
            adapter, _, last = rest.partition(".")
            if adapter in base.get_submodule(place).active_adapters:
                yield f"{place}.{last}", tensor
            continue
        place, adapted, last = name.rpartition(".base_layer.")
        if adapted:
            tensor = getattr(_merged_layer(base.get_submodule(place)), last)
        yield f"{place}.{last}" if adapted else name, tensor


def _merged_layer(layer: Any) -> Any:
    """Return a copy of a layer with its adapters merged into it; peft knows all their variants."""
    twin = copy.deepcopy(layer)
    twin.merge()
    return twin.get_base_layer()
