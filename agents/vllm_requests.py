"""What vLLM is asked for: the parameters of its requests, the same for every engine of ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..verifiers import UsageError
from . import vllm_masks
from .types import Sampling

Parameters = Mapping[str, Any]
"""Keywords of vLLM's `SamplingParams`."""

SCORED: Parameters = {
    "max_tokens": 1, "prompt_logprobs": 0, "temperature": 1.0, "detokenize": False
}  # fmt: skip
"""How a sequence is scored."""


def drawn(
    sampling: Sampling, *, tokens: int, seed: int, end_ids: Sequence[int], vocabulary: int
) -> Parameters:
    """Return how tokens are drawn, with the log-probabilities of what could be.

    Args:
        sampling: How a completion is drawn.
        tokens: That this request may draw at most.
        seed: Of this request.
        end_ids: Ids that end a completion.
        vocabulary: Tokens that may be drawn.
    """
    return {
        "max_tokens": tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "stop": list(sampling.stop),
        "detokenize": bool(sampling.stop),
        "stop_token_ids": list(end_ids),
        "seed": seed,
        "logprobs": vllm_masks.shown(sampling, vocabulary),
    }


def resumed(count: int) -> Parameters:
    """Return how exactly `count` tokens are drawn behind a prompt."""
    asked = {"max_tokens": count, "logprobs": 0, "temperature": 1.0, "seed": 0}
    return {**asked, "ignore_eos": True, "detokenize": False}


def check_prompt(length: int, context: int) -> None:
    """Check that something can be drawn behind a prompt.

    Raises:
        UsageError: It is empty or leaves no room in the context.
    """
    if not 0 < length < context:
        raise UsageError(
            f"a prompt must have 1 to {context - 1} tokens for the engine's context of {context}, "
            f"got {length}"
        )
