"""Stages 5 to 8 and 10: which pure function a row's choice stands for, and its coefficient.

For every choice there is its value, with a gradient, and beside it that gradient in closed form:
`coefficient` says how strongly each token is moved, which `attribution` reports.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..verifiers.errors import UsageError
from . import functional as F
from .choices import Algorithm


@dataclass(frozen=True, kw_only=True)
class Denominators:
    """What sums are divided by: counts over one whole optimiser step, all micro-batches and ranks.

    Example:
        `Denominators(tokens=5120.0, sequences=256.0, constant=192.0)`
    """

    tokens: float
    """N, tokens that are trained on and scored."""
    sequences: float
    """B, scored completions; those without a trained token count."""
    constant: float
    """C, the greatest number of tokens that a completion may have."""
    prompts: float = 0.0
    """P, prompts with a scored completion; read by aggregate `prompt`."""

    def __post_init__(self) -> None:
        """Refuse what is no count."""
        for name, value in vars(self).items():
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"denominators: {name} is a count of 0 or more, got {value!r}")


def terms(
    row: Algorithm, moved: Tensor, weights: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Stage 5: log-ratio, advantage and mask of the terms: tokens, or completions as `[B, 1]`."""
    match row.ratio:
        case "seq_prod":
            return F.sequence_log_ratio(moved, mask), *F.row_values(weights, mask)
        case "seq_geo":
            return F.geometric_log_ratio(moved, mask), *F.row_values(weights, mask)
        case "seq_geo_token":
            return F.geometric_token_log_ratio(moved, mask), weights, mask
    if row.trust == "geo_clip":
        return moved, *F.row_values(weights, mask)
    return moved, weights, mask


def surrogate(
    row: Algorithm, logprobs: Tensor, log_ratio: Tensor, weights: Tensor, mask: Tensor
) -> Tensor:
    """Stage 6: φ of each term, with `weights` as advantages; `mask` is that of the tokens."""
    match row.trust:
        case "logp":
            return F.log_probability(logprobs, weights)
        case "ratio":
            return F.importance_ratio(log_ratio, weights)
        case "clip":
            return F.clipped_ratio(log_ratio, weights, **_clip(row))
        case "sg_clip":
            return F.capped_weight(log_ratio, logprobs, weights, low=row.cap_low, high=row.cap_high)
        case "geo_clip":
            return F.geometric_clip(log_ratio, weights, mask, bound=row.log_clip)
        case "gate":
            return F.soft_gate(log_ratio, weights, **_gate(row))
        case "tv_mask":
            return F.tv_masked_ratio(log_ratio, logprobs, weights, limit=row.tv_limit)


def coefficient(
    row: Algorithm, logprobs: Tensor, log_ratio: Tensor, weights: Tensor, mask: Tensor
) -> Tensor:
    """Return ∂φ/∂l of each token `[B, T]`, in closed form; arguments as for `surrogate`."""
    match row.trust:
        case "logp":
            found = weights
        case "ratio":
            found = F.ratio_coefficient(log_ratio, weights)
        case "clip":
            found = F.clip_coefficient(log_ratio, weights, **_clip(row))
        case "sg_clip":
            found = F.cap_coefficient(log_ratio, weights, low=row.cap_low, high=row.cap_high)
        case "geo_clip":
            phi = F.geometric_clip(log_ratio, weights, mask, bound=row.log_clip)
            return F.geometric_coefficient(log_ratio, weights, phi, mask, bound=row.log_clip)
        case "gate":
            found = F.gate_coefficient(log_ratio, weights, **_gate(row))
        case "tv_mask":
            found = F.tv_coefficient(log_ratio, logprobs, weights, limit=row.tv_limit)
    if row.ratio == "seq_geo":
        found = found / F.lengths(mask).clamp(min=1)[:, None]
    return found * mask


def cut(row: Algorithm, logprobs: Tensor, log_ratio: Tensor, weights: Tensor) -> Tensor:
    """Find the terms whose gradient the trust region has cut off or capped, boolean."""
    match row.trust:
        case "clip":
            return F.is_clipped(log_ratio, weights, **_clip(row))
        case "sg_clip":
            rho = F.ratio(log_ratio)
            return (rho != rho.clamp(row.cap_low, row.cap_high)) & (weights != 0)
        case "geo_clip":
            return weights.sign() * log_ratio > row.log_clip
        case "tv_mask":
            near = F.within_tv(log_ratio, logprobs, weights, limit=row.tv_limit)
            return ~near & (weights != 0)
    return torch.zeros_like(log_ratio, dtype=torch.bool)


def _clip(row: Algorithm) -> dict[str, float]:
    return {"low": row.clip_low, "high": row.clip_high, "dual": row.dual_clip}


def _gate(row: Algorithm) -> dict[str, float]:
    return {"positive": row.gate_positive, "negative": row.gate_negative}


def mismatch(row: Algorithm, log_ratio: Tensor, mask: Tensor) -> Tensor:
    """Stage 7: the weight of each token or completion, from l^old − l^rollout."""
    low, high = row.mismatch_low, row.mismatch_high
    match row.mismatch:
        case "tis_token":
            return F.truncated_token_weight(log_ratio, mask, high=high)
        case "tis_seq":
            return F.truncated_sequence_weight(log_ratio, high=high)
        case "icepop":
            return F.two_sided_token_weight(log_ratio, mask, low=low, high=high)
        case "icepop_seq":
            return F.two_sided_sequence_weight(log_ratio, low=low, high=high)
        case "mask_prod":
            return F.product_mask(log_ratio, low=low, high=high)
        case "mask_geo":
            return F.geometric_mask(log_ratio, mask, low=low, high=high)
        case "none":
            return torch.ones_like(log_ratio[:, :1])


def kl_estimate(
    row: Algorithm,
    logprobs: Tensor,
    target: Tensor,
    mask: Tensor,
    before: Tensor,
    divergence: Tensor | None,
) -> Tensor:
    """Stage 8, in the loss: the estimate at each token `[B, T]`, with gradient."""
    match row.kl_estimator:
        case "k2":
            return F.k2(logprobs, target, mask)
        case "k3":
            return F.k3(logprobs, target, mask)
        case "rho_k3":
            return F.ratio_k3(logprobs, target, mask, old=before)
        case "st_k2":
            return F.straight_through_k2(logprobs, target, mask)
        case "full":
            if divergence is None:
                raise UsageError(
                    f"{row.name} has kl_estimator='full' and needs `divergence`, KL(π‖ref) over "
                    "the vocabulary at each token, got None; compute it with functional.full_kl"
                )
            F.check_tokens(mask, divergence=divergence)
            return F.select(divergence, mask, "divergence")
        case "k1":
            raise AssertionError("Algorithm refuses k1 in the loss")


def kl_coefficient(row: Algorithm, k1: Tensor, log_ratio: Tensor) -> Tensor:
    """Return ∂k/∂l of each token `[B, T]`; 0 for `full`, whose gradient is that of all logits."""
    match row.kl_estimator:
        case "k2" | "st_k2":
            return k1
        case "k3":
            return F.k3_coefficient(k1)
        case "rho_k3":
            return F.ratio_k3_coefficient(k1, log_ratio)
        case "full" | "k1":
            return torch.zeros_like(k1)


def aggregate(
    row: Algorithm,
    values: Tensor,
    mask: Tensor,
    over: Denominators,
    per_prompt: Tensor | None,
    *,
    kl: bool = False,
) -> Tensor:
    """Stage 10: one number, a partial sum over the denominators of the whole step."""
    match row.aggregate_of_kl if kl else row.aggregate:
        case "token":
            return F.token_mean(values, mask, tokens=over.tokens)
        case "seq_token":
            return F.sequence_token_mean(values, mask, sequences=over.sequences)
        case "seq_sum" | "seq":
            return F.sequence_sum(values, mask, sequences=over.sequences)
        case "const":
            return F.constant_length_mean(
                values, mask, sequences=over.sequences, length=over.constant
            )
        case "prompt":
            counts = _prompt_tokens(row, per_prompt)
            return F.prompt_mean(values, mask, prompts=over.prompts, prompt_tokens=counts)


def share(
    row: Algorithm,
    mask: Tensor,
    over: Denominators,
    per_prompt: Tensor | None,
    *,
    kl: bool = False,
) -> Tensor:
    """Return what a token's term counts for in the loss `[B, 1]`: 1/N, 1/(B L_i), …"""
    rows = torch.ones(len(mask), 1, dtype=torch.float64, device=mask.device)
    match row.aggregate_of_kl if kl else row.aggregate:
        case "token":
            return rows / (over.tokens or 1)
        case "seq_token":
            return rows / (over.sequences or 1) / F.lengths(mask).clamp(min=1)[:, None]
        case "seq_sum" | "seq":
            return rows / (over.sequences or 1)
        case "const":
            return rows / (over.sequences * over.constant or 1)
        case "prompt":
            return rows / (over.prompts or 1) / _prompt_tokens(row, per_prompt)[:, None].clamp(1)


def _prompt_tokens(row: Algorithm, per_prompt: Tensor | None) -> Tensor:
    if per_prompt is None:
        raise UsageError(
            f"{row.name} has aggregate='prompt' and needs `prompt_tokens`, the trained tokens of "
            "each row's prompt in the whole step, got None; compute it with tokens_per_prompt"
        )
    return per_prompt
