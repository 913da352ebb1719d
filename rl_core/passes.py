"""One forward pass over a micro-batch, with everything that a loss may read of it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..agents.scoring import (
    Padded,
    Support,
    confined,
    continuation_logits,
    forward_inputs,
    positions,
    token_logprobs,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """What a model says of the continuations of a rectangle."""

    logprobs: Tensor
    """Of each token, at the sampling temperature and among the ids that could be drawn, in nats
    `[B, T]`."""
    logits: Tensor
    """That predict each token, of the whole vocabulary, at temperature 1 `[B, T, V]`."""
    hidden: Tensor | None
    """The last layer's state before each token `[B, T, H]`; none unless asked for."""
    temperature: float
    """The sampler's."""
    support: Support | None
    """Which ids could be drawn, where not all could."""

    @property
    def scaled(self) -> Tensor:
        """The logits of the distribution drawn from `[B, T, V]`, made anew at each call."""
        return confined(self.logits, self.temperature, self.support)

    def entropy(self) -> Tensor:
        """Return the entropy of the distribution drawn from, in nats `[B, T]`, with gradient."""
        if self.support is None:
            return entropy(self.logits, self.temperature)
        return entropy(self.scaled, 1.0)


def run(
    model: Any, rectangle: Padded, vocabulary: int, temperature: float, *, hidden: bool = False
) -> Pass:
    """Run a causal language model over a rectangle.

    Where the sampler has cut ids off, every model is taken within the ids that it left: the one
    that is trained, as it was before, and a reference. So a divergence is one of distributions over
    the same ids, 0 where the two models are the same, and it is the divergence of what was in fact
    drawn from. A reference over the whole vocabulary would add −log of the mass that it has within
    them, which no update can lower.

    Args:
        model: The model.
        rectangle: B rows, and what could be drawn in them.
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
    support = rectangle.support
    return Pass(
        logprobs=token_logprobs(logits, rectangle.targets, temperature, support),
        logits=logits,
        hidden=states,
        temperature=temperature,
        support=support,
    )


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
