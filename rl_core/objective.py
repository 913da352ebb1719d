"""The compositions that a learner calls: rewards to advantages, log-probabilities to a loss.

Each looks up one function per stage, as the row of the algorithm says, and decides nothing else.
`advantages` runs once per batch of episodes and without gradient; `policy_loss` runs once per
micro-batch. Denominators belong to the whole optimiser step (`denominators`), so that the losses of
micro-batches add up to the loss of the batch, whatever its division.

Whatever stands outside the mask, or in a row that is not scored, changes nothing.
"""

import torch
from torch import Tensor

from ..verifiers.errors import UsageError
from . import functional as F
from . import loss_stages, stages
from .choices import Algorithm
from .estimation import Advantages, advantages
from .loss_stages import Denominators
from .stages import callers_fault, full, refuse_pairs
from .terms import Others, Prepared, prepare, target_of

__all__ = [
    "Advantages",
    "Denominators",
    "advantages",
    "denominators",
    "policy_loss",
    "preference_loss",
    "tokens_per_prompt",
]


def denominators(
    mask: Tensor, scored: Tensor, max_tokens: int, groups: Tensor | None = None
) -> Denominators:
    """Count what one optimiser step trains on.

    Args:
        mask: Trained tokens of the whole step `[B, T]`; `Advantages.mask`, where rows are left out.
        scored: Rows that count `[B]`, boolean; `Advantages.rows`, where rows are left out.
        max_tokens: C, the greatest number of tokens that a completion may have.
        groups: The group of each row `[B]`, int64; needed for aggregate `prompt`.

    Returns:
        The denominators, to be given to every `policy_loss` of the step.

    Raises:
        UsageError: A shape is wrong, or `max_tokens` is not positive.

    Example:
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> denominators(mask, torch.tensor([True, False]), 8)
        Denominators(tokens=2.0, sequences=1.0, constant=8.0, prompts=0.0)
    """
    if max_tokens < 1:
        raise UsageError(f"max_tokens is a number of tokens from 1, got {max_tokens}")
    with callers_fault():
        tokens = int(F.keep_scored(mask, scored).count_nonzero())
    return Denominators(
        tokens=float(tokens),
        sequences=float(int(scored.sum())),
        constant=float(max_tokens),
        prompts=0.0 if groups is None else float(groups[scored].unique().numel()),
    )


def tokens_per_prompt(mask: Tensor, scored: Tensor, groups: Tensor) -> Tensor:
    """Count the trained tokens of each row's prompt, for aggregate `prompt`.

        N_p(i) = Σ_{j ∈ g(i), scored} L_j

    Args:
        mask: Trained tokens of the whole step `[B, T]`.
        scored: Rows that count `[B]`, boolean.
        groups: The group of each row `[B]`, int64.

    Returns:
        Counts `[B]`, int64.

    Example:
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> tokens_per_prompt(mask, torch.tensor([True, True]), torch.tensor([5, 5]))
        tensor([3, 3])
    """
    with callers_fault():
        F.check_rows(mask, scored=scored, groups=groups)
    return F.group_sum(F.lengths(mask), groups, scored)


def policy_loss(
    row: Algorithm,
    *,
    logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    denominators: Denominators,
    old: Tensor | None = None,
    reference: Tensor | None = None,
    reference_mask: Tensor | None = None,
    rollout: Tensor | None = None,
    proximal: Tensor | None = None,
    divergence: Tensor | None = None,
    entropy: Tensor | None = None,
    prompt_tokens: Tensor | None = None,
    diagnostics: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a micro-batch: stages 5 to 10.

        L = aggregate(−w φ(l, l^old, A) + β k(l, l^ref) − c H)

    Losses of micro-batches with the same denominators add up to the loss of all their rows. With
    aggregate `seq` the KL term is the sum over the completion. With trust `logp` the value is
    −A·l, with the log-probability itself: only its gradient means something. The mismatch weight
    w multiplies the surrogate alone, not the KL term.

    Args:
        row: The algorithm; its properties `needs_…` say which of the following it reads.
        logprobs: Of the current policy, in nats `[B, T]`, with gradient.
        advantages: A `[B, T]`: `Advantages.values`.
        mask: Tokens that stay in the loss `[B, T]`, boolean: `Advantages.mask`.
        denominators: Counts of the whole optimiser step.
        old: Of the policy at the start of the update, by the learner `[B, T]`; `None` if that is
            the current one, that is, at the first update on these episodes.
        reference: Of the reference model `[B, T]`; needed for KL in the loss.
        reference_mask: Where the reference was computed `[B, T]`, boolean; none: wherever needed.
        rollout: As the sampler returned them `[B, T]`; anchor `rollout`, every mismatch weight,
            `opsm_delta`, kl_to `rollout`.
        proximal: Of a third policy `[B, T]`; anchor `proximal`.
        divergence: KL(π‖ref) over the vocabulary, with gradient `[B, T]`; kl_estimator `full`.
        entropy: Of the current policy at each token, with gradient `[B, T]`; `entropy_bonus`.
        prompt_tokens: As `tokens_per_prompt` counts them over the whole step `[B]`; aggregate
            `prompt`.
        diagnostics: Whether to sum up what happened; without, the sums are `policy_loss` and
            `kl_loss` alone.

    Returns:
        The loss, a scalar; and diagnostics, each a detached sum that micro-batches may add up:
        `policy_loss` and `kl_loss` (with `entropy_loss`, where there is a bonus, the loss is their
        sum), `tokens` and `terms` (tokens, or completions with a sequence ratio), `ratio` and
        `clipped` (sums over terms; with trust `geo_clip` both are over tokens), `approx_kl` (of
        KL(old‖current), over tokens), with a mismatch weight `mismatch_weight` (over terms), and
        with a reference `kl` (k1, over tokens).

    Raises:
        UsageError: A shape is wrong, a value inside the mask is not finite, the row needs a
            tensor that was not given, or a sequence ratio meets advantages that differ within
            a completion.

    Example:
        >>> from rlvr.rl_core.algorithms import TABLE
        >>> l, mask = torch.tensor([[-1.0, -3.0]]), torch.tensor([[True, True]])
        >>> counts = Denominators(tokens=2, sequences=1, constant=4)
        >>> policy_loss(
        ...     TABLE["vpg"], logprobs=l, advantages=torch.full((1, 2), 0.5), mask=mask,
        ...     denominators=counts,
        ... )[0]  # −0.5 · (−1 − 3)
        tensor(2.)
    """
    refuse_pairs(row)
    with callers_fault():
        F.check_tokens(mask, logprobs=logprobs, advantages=advantages)
        current = full(logprobs)
        others = Others(old=old, rollout=rollout, proximal=proximal, reference=reference)
        steps = prepare(row, current, advantages, mask, others)
        phi = loss_stages.surrogate(row, steps.logprobs, steps.log_ratio, steps.weights, mask)
        loss = -loss_stages.aggregate(row, phi, steps.terms, denominators, prompt_tokens)
        sums = {"policy_loss": loss.detach()}
        penalty = loss.new_zeros(())
        if row.kl == "loss" and row.beta > 0:
            target = target_of(row, others, mask, reference_mask)
            k = loss_stages.kl_estimate(row, current, target, mask, steps.before, divergence)
            whole = loss_stages.aggregate(row, k, mask, denominators, prompt_tokens, kl=True)
            penalty = row.beta * whole
        sums["kl_loss"] = penalty.detach()
        loss = loss + penalty
        if row.entropy_bonus:
            given = stages.needed(row, entropy, "entropy", f"entropy_bonus={row.entropy_bonus:g}")
            F.check_tokens(mask, entropy=given)
            bonus = loss_stages.aggregate(row, given, mask, denominators, prompt_tokens)
            sums["entropy_loss"] = -row.entropy_bonus * bonus.detach()
            loss = loss - row.entropy_bonus * bonus
        if diagnostics:
            sums |= _diagnostics(row, steps, mask)
            if reference is not None:
                sums["kl"] = F.k1(current.detach(), full(reference), mask).sum()
    return loss, sums


def preference_loss(
    row: Algorithm,
    *,
    chosen: Tensor,
    rejected: Tensor,
    chosen_reference: Tensor,
    rejected_reference: Tensor,
    chosen_mask: Tensor,
    rejected_mask: Tensor,
    pairs: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a micro-batch of preference pairs, for the rows `dpo` and `ipo`.

        L = (1/P) Σ f(d),   d = (l_w − l_w^ref) − (l_l − l_l^ref)

    Losses of micro-batches with the same P add up.

    Args:
        row: The algorithm, one with `on_pairs`.
        chosen: Log-probabilities of the better completions, in nats `[P, T]`, with gradient.
        rejected: Of the worse ones `[P, T']`, with gradient.
        chosen_reference: Of the better ones by the reference `[P, T]`.
        rejected_reference: Of the worse ones by the reference `[P, T']`.
        chosen_mask: Completion tokens `[P, T]`, boolean.
        rejected_mask: Completion tokens `[P, T']`, boolean.
        pairs: P, pairs in the whole optimiser step.

    Returns:
        The loss, a scalar; and detached sums: `pairs`, `margin` (β d), `preferred` (pairs with
        d > 0).

    Raises:
        UsageError: The row is trained on advantages, a shape is wrong, or a value is not finite.

    Example:
        >>> from rlvr.rl_core.algorithms import TABLE
        >>> l, mask = torch.full((1, 2), -1.0), torch.ones(1, 2).bool()
        >>> preference_loss(
        ...     TABLE["dpo"], chosen=l, rejected=l, chosen_reference=l, rejected_reference=l,
        ...     chosen_mask=mask, rejected_mask=mask, pairs=1,
        ... )[0]  # ln 2
        tensor(0.6931)
    """
    if not row.on_pairs:
        raise UsageError(
            f"{row.name} is trained on advantages, not on pairs; call policy_loss, or take the "
            "row 'dpo' or 'ipo'"
        )
    with callers_fault():
        margin = F.log_ratio_margin(
            full(chosen),
            full(rejected),
            full(chosen_reference),
            full(rejected_reference),
            chosen_mask,
            rejected_mask,
            mean=row.loss == "ipo",
        )
        if row.loss == "ipo":
            terms = F.ipo(margin, beta=row.beta)
        else:
            terms = F.dpo(margin, beta=row.beta, smoothing=row.label_smoothing)
        loss = F.sequence_sum(
            terms[:, None], torch.ones_like(terms[:, None]).bool(), sequences=pairs
        )
    done = margin.detach()
    sums = {
        "pairs": torch.tensor(float(len(done))),
        "margin": row.beta * done.sum(),
        "preferred": (done > 0).sum(),
    }
    return loss, sums


@torch.no_grad()
def _diagnostics(row: Algorithm, steps: Prepared, mask: Tensor) -> dict[str, Tensor]:
    log_ratio, moved = steps.log_ratio.detach(), steps.moved.detach()
    inside = mask if row.trust == "geo_clip" else steps.terms
    terms, excess = inside.count_nonzero(), F.ratio(log_ratio).sub_(1)  # 0 outside the mask
    growth = excess if row.ratio == "token" else F.ratio(moved).sub_(1)
    found = {
        "tokens": mask.count_nonzero(),
        "terms": terms,
        "ratio": excess.sum() + terms,
        "clipped": _clipped(row, steps, log_ratio, excess, inside),
        "approx_kl": growth.sum() - moved.sum(),
    }
    if steps.mismatch is not None:
        found["mismatch_weight"] = (steps.mismatch * steps.terms).sum()
    return found


def _clipped(
    row: Algorithm, steps: Prepared, log_ratio: Tensor, excess: Tensor, inside: Tensor
) -> Tensor:
    """Count the terms that the trust region has cut off; for a clip in few passes."""
    if row.trust in ("logp", "ratio", "gate"):
        return torch.zeros((), dtype=torch.int64, device=inside.device)
    if row.trust == "clip":
        cut = _past(excess, steps.weights, -row.clip_low, row.clip_high, sign=1)
        if row.dual_clip:  # past this bound it is the advantage that pushes inwards that is cut
            cut = cut + _past(excess, steps.weights, -1.0, row.dual_clip - 1, sign=-1)
        return cut
    cut = loss_stages.cut(row, steps.logprobs.detach(), log_ratio, steps.weights)
    return (cut & inside).count_nonzero()


def _past(excess: Tensor, weights: Tensor, low: float, high: float, *, sign: int) -> Tensor:
    """Count where `excess` is outside [low, high] on the side that `sign · weights` points to."""
    short = excess.clamp(low, high).sub_(excess).mul_(weights).mul_(sign)
    return short.clamp_(max=0).count_nonzero()
