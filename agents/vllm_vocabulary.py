"""A logits processor of vLLM: rows of the output layer that are no tokens are never drawn.

Models pad their output layer to a round number. The learner normalises over the tokenizer's tokens
alone, so the engine must too: otherwise a padding row can be drawn, and every log-probability is
off by the mass of the padding. Imported by vLLM's workers by name.
"""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    LogitsProcessor = object
else:
    try:
        from vllm.v1.sample.logits_processor import LogitsProcessor
    except ImportError:  # nobody but vLLM has a use for it
        LogitsProcessor = object


class VocabularyLimit(LogitsProcessor):
    """Sets the logits of padding rows to −∞."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        """Read the number of tokens from the engine's `additional_config`."""
        self.vocabulary = int(vllm_config.additional_config["vocabulary"])

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Cut off the padding of `[B, V]`."""
        if logits.shape[1] > self.vocabulary:
            logits[:, self.vocabulary :] = -torch.inf
        return logits

    def is_argmax_invariant(self) -> bool:
        """A padding row may have the greatest logit."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Nothing depends on the request."""
