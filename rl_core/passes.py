"""One forward pass over a micro-batch, with everything that a loss may read of it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..agents.scoring import (
    Padded,
    continuation_logits,
    forward_inputs,
    positions,
    token_logprobs,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """What a model says of the continuations of a rectangle."""

    logprobs: Tensor
    """Of each token, at the sampling temperature, in nats `[B, T]`."""
    logits: Tensor
    """That predict each token, at temperature 1 `[B, T, V]`."""
    hidden: Tensor | None
    """The last layer's state before each token `[B, T, H]`; none unless asked for."""


def run(
    model: Any, rectangle: Padded, vocabulary: int, temperature: float, *, hidden: bool = False
) -> Pass:
    """Run a causal language model over a rectangle.

    Args:
        model: The model.
        rectangle: B rows.
        vocabulary: V, as the sampler's.
        temperature: The sampler's.
        hidden: Whether the last layer's states are wanted, for a value head.
    """
    if hidden:
        keep = rectangle.width + 1
        out = _with_states(model, rectangle, keep)
        logits = out.logits[:, -keep:-1, :vocabulary]
        states = out.hidden_states[-1][:, -keep:-1]
    else:
        logits, states = continuation_logits(model, rectangle, vocabulary), None
    logprobs = token_logprobs(logits, rectangle.targets, temperature)
    return Pass(logprobs=logprobs, logits=logits, hidden=states)


def states(model: Any, rectangle: Padded) -> Tensor:
    """Return the last layer's state before each continuation token `[B, T, H]`."""
    keep = rectangle.width + 1
    return _with_states(model, rectangle, 1).hidden_states[-1][:, -keep:-1]


def _with_states(model: Any, rectangle: Padded, keep: int) -> Any:
    attention = rectangle.attention
    inputs = forward_inputs(model, attention, positions(attention), keep)
    return model(input_ids=rectangle.ids, use_cache=False, output_hidden_states=True, **inputs)


def entropy(logits: Tensor, temperature: float) -> Tensor:
    """Return the entropy of each position's distribution, in nats `[B, T]`, with gradient.

        H = log Σ_v e^{z_v} − Σ_v p_v z_v,   z = logits/T

    Example:
        >>> entropy(torch.zeros(1, 1, 4), 1.0)  # ln 4
        tensor([[1.3863]])
    """
    scaled = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    whole = torch.logsumexp(scaled, -1)
    return whole - ((scaled - whole[..., None]).exp() * scaled).sum(-1)
