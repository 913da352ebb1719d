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

from .kept import Kept

CUT = -1e9
"""Logit of an id that could not be drawn: its probability is 0 and, unlike with −∞, so is every
product with it."""


@dataclass(frozen=True, kw_only=True)
class Support:
    """The ids that could be drawn at the positions of a rectangle `[B, T]`, N in all.

    Flat, because there are a few at each position and V in a vocabulary.
    """

    rows: torch.Tensor
    """Each id's row `[N]`."""
    columns: torch.Tensor
    """Each id's column `[N]`."""
    ids: torch.Tensor
    """The ids `[N]`."""
    limited: torch.Tensor
    """Where there are some, so that no other could be drawn, as booleans `[B, T]`."""
    whole: torch.Tensor
    """Where there is a token in whose place every id could be drawn, as booleans `[B, T]`."""

    @classmethod
    def of(
        cls, kept: Sequence[Kept | None], present: np.ndarray, device: torch.device | str
    ) -> "Support | None":
        """Lay out what each row has kept; `None` if nothing was cut off in any.

        Args:
            kept: Per row, the ids of its continuation's positions.
            present: Which columns hold tokens `[B, T]`.
            device: Where the tensors go.
        """
        counts, width = np.zeros(present.shape, np.int64), present.shape[1]
        for row, one in enumerate(kept):
            if one is not None:
                counts[row, : len(one)] = np.diff(one.ends, prepend=0)
        if not counts.any():
            return None
        ids = np.concatenate([np.asarray(one.ids) for one in kept if one is not None])
        places = np.repeat(np.arange(counts.size), counts.ravel())

        def there(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            rows=there(places // width),
            columns=there(places % width),
            ids=there(ids.astype(np.int64)),
            limited=there(counts > 0),
            whole=there(present & (counts == 0)),
        )


@dataclass(frozen=True, kw_only=True)
class Padded:
    """Token sequences as rectangles: prompts `[B, P]` and continuations `[B, T]` side by side."""

    ids: torch.Tensor
    """Token ids `[B, P + T]`; padding holds id 0."""
    attention: torch.Tensor
    """1 for tokens, 0 for padding `[B, P + T]`."""
    width: int
    """T, the number of continuation columns."""
    support: Support | None = None
    """Which ids could be drawn as the continuations' tokens; none: every id, everywhere."""

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
    kept: Sequence[Kept | None] | None = None,
) -> Padded:
    """Lay out sequences as a rectangle.

    Args:
        prompts: Token ids per row, at least one each.
        continuations: Token ids per row; a row may have none.
        device: Where the tensors go.
        kept: Per row, the ids that could be drawn at each of its continuation's positions.

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
        support=None if kept is None else Support.of(kept, attention[:, before:] > 0, device),
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


def token_logprobs(
    logits: torch.Tensor,
    targets: torch.Tensor,
    temperature: float,
    support: Support | None = None,
) -> torch.Tensor:
    """Return log p(target) = z_target − log Σ_{v ∈ K} e^{z_v}, z = logits/T.

    K is the whole vocabulary, or what the sampler left of it at that position. The mask is the
    sampler's and is held fixed: p is the distribution that was drawn from as long as the weights
    are those that drew, and its gradient that of the truncated policy, whose mask changes at
    single points alone. With weights that have moved on it is the policy within the same mask,
    whether or not these weights would still leave the same tokens, so that ratios of both are
    ratios of distributions over the same tokens.

    Args:
        logits: `[B, T, V]`.
        targets: `[B, T]`.
        temperature: T > 0, the one that was sampled with.
        support: K, for the positions where it is not the whole vocabulary.

    Returns:
        `[B, T]` in nats, without a meaning on padding, in float32 (float64 for logits in float64).

    Example:
        >>> logits = torch.tensor([[[0.0, 2.0]]])
        >>> round(token_logprobs(logits, torch.tensor([[1]]), 2.0).item(), 4)  # −ln(1 + e⁻¹)
        -0.3133
    """
    if support is not None:
        return _within(logits, targets, temperature, support)
    scaled = _single(logits)
    if temperature != 1:
        scaled = scaled / temperature
    chosen = scaled.gather(-1, targets[..., None])[..., 0]
    return chosen - torch.logsumexp(scaled, -1)


def _within(
    logits: torch.Tensor, targets: torch.Tensor, temperature: float, support: Support
) -> torch.Tensor:
    """Return log p(target) by sums over the supports alone, whose logits are few."""
    z = _single(logits[support.rows, support.columns, support.ids]) / temperature
    place = support.rows * targets.shape[1] + support.columns
    none = z.new_full((targets.numel(),), -torch.inf)
    peak = none.scatter_reduce(0, place, z.detach(), "amax")
    total = torch.zeros_like(none).index_add(0, place, (z - peak[place]).exp())
    inside = support.limited.flatten()
    log_total = torch.where(inside, total, 1.0).log() + torch.where(inside, peak, 0.0)
    chosen = _single(logits.gather(-1, targets[..., None])[..., 0]) / temperature
    found = chosen - log_total.view_as(chosen)
    if support.whole.any():
        rest = torch.logsumexp(_single(logits[support.whole]) / temperature, -1)
        found = found.masked_scatter(support.whole, chosen[support.whole] - rest)
    return found


def _single(tensor: torch.Tensor) -> torch.Tensor:
    """Return it at least in single precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def confined(logits: torch.Tensor, temperature: float, support: Support | None) -> torch.Tensor:
    """Return the logits at the sampling temperature, `CUT` where an id could not be drawn.

    Args:
        logits: `[B, T, V]`.
        temperature: The sampler's.
        support: What could be drawn; none: everything.

    Returns:
        `[B, T, V]`, in single precision if something is cut off.
    """
    if support is None:
        return logits / temperature
    out = torch.ones_like(logits, dtype=torch.bool)
    out[~support.limited] = False
    out[support.rows, support.columns, support.ids] = False
    return (_single(logits) / temperature).masked_fill(out, CUT)
