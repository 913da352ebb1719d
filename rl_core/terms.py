"""What the surrogate is made of: ratios, advantages and mismatch weights of its terms.

Stages 5 and 7, and the one mask of stage 9 that follows the policy while it moves. `objective`
makes the loss of it, `attribution` the coefficient of every token.
"""

from dataclasses import dataclass

from torch import Tensor

from . import functional as F
from . import loss_stages, stages
from .choices import Algorithm
from .stages import full, reference_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Others:
    """Log-probabilities of the same tokens by other policies, each `[B, T]` or none."""

    old: Tensor | None = None
    """By the policy at the start of the update."""
    rollout: Tensor | None = None
    """As the sampler returned them."""
    proximal: Tensor | None = None
    """By a third policy."""
    reference: Tensor | None = None
    """By the reference model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Stages 5 and 7: what the surrogate is made of."""

    logprobs: Tensor
    """l `[B, T]`, 0 outside the mask where it is read itself."""
    before: Tensor
    """l^old, the ratio's anchor `[B, T]`."""
    moved: Tensor
    """l − l^old at each token `[B, T]`, 0 outside the mask."""
    log_ratio: Tensor
    """x of each term: `[B, T]` or `[B, 1]`."""
    weights: Tensor
    """A·w of each term."""
    terms: Tensor
    """Terms that count, boolean."""
    mismatch: Tensor | None
    """w, `[B, T]` or `[B, 1]`; none without one."""


def prepare(
    row: Algorithm, logprobs: Tensor, advantages: Tensor, mask: Tensor, others: Others
) -> Prepared:
    """Compute ratios, weights and advantages of the terms: stages 5 and 7."""
    reads_itself = row.trust in ("logp", "sg_clip", "tv_mask")
    current = F.select(logprobs, mask, "logprobs") if reads_itself else logprobs
    before = _anchor(row, logprobs, others)
    moved = F.token_log_ratio(logprobs, before, mask)
    credit = F.select(advantages.detach().to(logprobs.dtype), mask, "advantages")
    log_ratio, weights, terms = loss_stages.terms(row, moved, credit, mask)
    factor = _mismatch(row, logprobs, before, credit, mask, others)
    return Prepared(
        logprobs=current,
        before=before,
        moved=moved,
        log_ratio=log_ratio,
        weights=weights if factor is None else weights * factor,
        terms=terms,
        mismatch=factor,
    )


def _anchor(row: Algorithm, logprobs: Tensor, others: Others) -> Tensor:
    if row.ratio != "none" and row.anchor == "rollout":
        return stages.needed(row, others.rollout, "rollout", "anchor='rollout'")
    if row.ratio != "none" and row.anchor == "proximal":
        return stages.needed(row, others.proximal, "proximal", "anchor='proximal'")
    return logprobs.detach() if others.old is None else full(others.old)


def _mismatch(
    row: Algorithm, logprobs: Tensor, before: Tensor, credit: Tensor, mask: Tensor, others: Others
) -> Tensor | None:
    """Stage 7 and the mask of stage 9 that follows the policy while it moves, as one weight."""
    factor = None
    if row.mismatch != "none":
        sampled = stages.needed(row, others.rollout, "rollout", f"mismatch='{row.mismatch}'")
        apart = F.select_difference(before.detach(), sampled, mask, names="old rollout")
        factor = loss_stages.mismatch(row, apart, mask)
    if row.opsm_delta:
        sampled = stages.needed(row, others.rollout, "rollout", f"opsm_delta={row.opsm_delta:g}")
        apart = F.select_difference(logprobs.detach(), sampled, mask, names="logprobs rollout")
        keep = F.off_policy_mask(apart, credit, mask, delta=row.opsm_delta)
        factor = keep if factor is None else factor * keep
    return factor


def target_of(
    row: Algorithm, others: Others, mask: Tensor, reference_mask: Tensor | None
) -> Tensor:
    if row.kl_to == "rollout":
        return stages.needed(row, others.rollout, "rollout", "kl_to='rollout'")
    if reference_mask is not None:
        F.check_covered(mask, reference_mask, "reference")
    return reference_of(row, others.reference, "reference")
