"""What a generation engine is asked for, whichever library it is.

An engine has a copy of the weights of its own, so that everything here is about keeping the copy
and the learner's weights the same: it is handed named tensors, counts versions, and can say how
likely it finds a given sequence, which is what the canary compares.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

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


def named_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Return a model's weights under the names of its checkpoint, for an engine to load.

    The output layer is named even where it is tied to the input embeddings: an engine may keep a
    packed copy of it, which would stay as it was. Adapters come merged into what they adapt.

    Args:
        model: A causal language model of transformers, or one that peft has put adapters in.
    """
    adapted = hasattr(model, "peft_config")
    base = model.get_base_model() if adapted else model
    for name, tensor in _merged(base) if adapted else base.named_parameters():
        yield name, tensor.detach()
    head = base.get_output_embeddings()
    if head is not None and base.config.get_text_config().tie_word_embeddings:
        yield "lm_head.weight", head.weight.detach()


def _merged(base: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Return the weights of a model with adapters in it, as if they had been merged."""
    for name, tensor in base.named_parameters():
        if ".lora_" in name:
            continue
        place, _, last = name.rpartition(".base_layer.")
        if place and last == "weight":
            layer = base.get_submodule(place)
            with torch.no_grad():
                for adapter in layer.active_adapters:
                    tensor = tensor + layer.get_delta_weight(adapter).to(tensor)
        yield f"{place}.{last}" if place else name, tensor
