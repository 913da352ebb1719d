"""Log-probabilities of given tokens: what the learner, the reference and the checks all use.

A batch lies with its prompts padded on the left and its continuations on the right, so that every
row's continuation starts in the same column and the vocabulary projection, the dearest product of
a small model, is computed for those columns alone.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class Padded:
    """Token sequences as rectangles: prompts `[B, P]` and continuations `[B, T]` side by side."""

    ids: torch.Tensor
    """Token ids `[B, P + T]`; padding holds id 0."""
    attention: torch.Tensor
    """1 for tokens, 0 for padding `[B, P + T]`."""
    width: int
    """T, the number of continuation columns."""

    @property
    def targets(self) -> torch.Tensor:
        """The continuations' ids `[B, T]`."""
        return self.ids[:, -self.width :]

    @property
    def present(self) -> torch.Tensor:
        """Which of the continuations' columns hold tokens, as booleans `[B, T]`."""
        return self.attention[:, -self.width :].bool()


def pad(
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    device: torch.device | str = "cpu",
) -> Padded:
    """Lay out sequences as a rectangle.

    Args:
        prompts: Token ids per row, at least one each.
        continuations: Token ids per row; a row may have none.
        device: Where the tensors go.

    Returns:
        The rectangle, at least one continuation column wide.
    """
    before = max(len(prompt) for prompt in prompts)
    after = max(1, *(len(tokens) for tokens in continuations))
    ids = np.zeros((len(prompts), before + after), np.int64)
    attention = np.zeros_like(ids)
    for row, (prompt, tokens) in enumerate(zip(prompts, continuations, strict=True)):
        start, end = before - len(prompt), before + len(tokens)
        ids[row, start:before], ids[row, before:end] = prompt, tokens
        attention[row, start:end] = 1
    return Padded(
        ids=torch.from_numpy(ids).to(device),
        attention=torch.from_numpy(attention).to(device),
        width=after,
    )


def positions(attention: torch.Tensor) -> torch.Tensor:
    """Return each token's index within its own sequence `[B, L]`; 0 on the left padding."""
    return (attention.cumsum(-1) - 1).clamp(min=0)


@lru_cache(maxsize=64)
def accepted(forward: Any) -> frozenset[str]:
    """Return the parameters that a model's `forward` names."""
    return frozenset(inspect.signature(forward).parameters)


def forward_inputs(
    model: Any, attention: torch.Tensor, place: torch.Tensor, keep: int
) -> dict[str, Any]:
    """Return the keywords of a forward pass that this model takes.

    Args:
        model: A causal language model.
        attention: `[B, L]`; left out where there is no padding, which is faster.
        place: Position ids of the new tokens `[B, Q]`.
        keep: How many last columns of logits are wanted.
    """
    names = accepted(type(model).forward)
    inputs: dict[str, Any] = {}
    if not bool(attention.all()):
        inputs["attention_mask"] = attention
    if "position_ids" in names:
        inputs["position_ids"] = place
    if "logits_to_keep" in names:
        inputs["logits_to_keep"] = keep
    return inputs


def continuation_logits(model: Any, batch: Padded, vocabulary: int) -> torch.Tensor:
    """Return the logits that predict each continuation token `[B, T, V]`.

    Args:
        model: A causal language model.
        batch: The sequences.
        vocabulary: V, the tokenizer's size: rows of the output layer beyond it are padding of the
            weights, not tokens, and are left out here as they are when sampling.
    """
    keep = batch.width + 1
    inputs = forward_inputs(model, batch.attention, positions(batch.attention), keep)
    logits = model(input_ids=batch.ids, use_cache=False, **inputs).logits
    return logits[:, -keep:-1, :vocabulary]


def token_logprobs(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return log p(target) = z_target − logsumexp(z), z = logits/T.

    Args:
        logits: `[B, T, V]`.
        targets: `[B, T]`.
        temperature: T > 0, the one that was sampled with.

    Returns:
        `[B, T]` in nats, in float32 (float64 for logits in float64).

    Example:
        >>> logits = torch.tensor([[[0.0, 2.0]]])
        >>> round(token_logprobs(logits, torch.tensor([[1]]), 2.0).item(), 4)  # −ln(1 + e⁻¹)
        -0.3133
    """
    scaled = logits if logits.dtype == torch.float64 else logits.float()
    if temperature != 1:
        scaled = scaled / temperature
    chosen = scaled.gather(-1, targets[..., None])[..., 0]
    return chosen - torch.logsumexp(scaled, -1)
