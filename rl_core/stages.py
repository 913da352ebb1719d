"""Which pure function a row's choice stands for: one dispatch per stage, and nothing else.

A new choice is a line in `choices.OPTIONS`, a function in `functional/` and a case here.
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

    def __post_init__(self) -> None:
        """Refuse what is no count."""
        for name, value in vars(self).items():
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"denominators: {name} is a count of 0 or more, got {value!r}")


def psi(row: Algorithm, scores: Tensor, penalty: Tensor, totals: Tensor, mask: Tensor) -> Tensor:
    """Stage 2: what each token is credited with `[B, T]`, from scores, token rewards and totals."""
    if row.psi == "rtg":
        return F.reward_to_go(F.at_last_token(scores, mask) + penalty, mask, gamma=row.gamma)
    return totals[:, None].expand(mask.shape)


def baseline(
    row: Algorithm, totals: Tensor, groups: Tensor, scored: Tensor, state: float | None
) -> tuple[Tensor, float | None]:
    """Stage 3: what each row is compared with `[B]`, and the moving average afterwards."""
    match row.baseline:
        case "none":
            return torch.zeros_like(totals), None
        case "batch_mean":
            return F.batch_mean(totals, scored), None
        case "ema":
            return F.moving_average(totals, scored, state, decay=row.ema_decay)
        case "loo":
            return F.leave_one_out(totals, groups, scored), None
        case "group_mean":
            return F.group_mean(totals, groups, scored), None


def terms(
    row: Algorithm, moved: Tensor, weights: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Stage 5: log-ratio, advantage and mask of the terms: tokens, or completions as `[B, 1]`."""
    if row.ratio != "seq_prod":
        return moved, weights, mask
    return F.sequence_log_ratio(moved, mask), *F.row_values(weights, mask)


def surrogate(
    row: Algorithm, logprobs: Tensor, log_ratio: Tensor, weights: Tensor, terms: Tensor
) -> Tensor:
    """Stage 6: φ of each term, with `weights` as advantages."""
    match row.trust:
        case "logp":
            return F.log_probability(logprobs, weights, terms)
        case "ratio":
            return F.importance_ratio(log_ratio, weights, terms)
        case "clip":
            return F.clipped_ratio(log_ratio, weights, terms, low=row.clip_low, high=row.clip_high)


def kl_estimate(
    row: Algorithm, logprobs: Tensor, reference: Tensor, mask: Tensor, old: Tensor
) -> Tensor:
    """Stage 8, in the loss: the estimate at each token `[B, T]`, with gradient."""
    match row.kl_estimator:
        case "k2":
            return F.k2(logprobs, reference, mask)
        case "k3":
            return F.k3(logprobs, reference, mask)
        case "rho_k3":
            return F.ratio_k3(logprobs, reference, mask, old=old)
        case "k1":
            raise AssertionError("Algorithm refuses k1 in the loss")


def aggregate(row: Algorithm, values: Tensor, mask: Tensor, over: Denominators) -> Tensor:
    """Stage 10: one number, a partial sum over the denominators of the whole step."""
    match row.aggregate:
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
