"""From what episodes were paid to what each of their tokens is worth: stages 1 to 4, and 9.

Runs once per batch of episodes, without gradient, because baselines and spreads belong to whole
groups and batches.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..verifiers.errors import UsageError
from . import functional as F
from . import stages
from .cautions import batch_warnings
from .choices import Algorithm
from .stages import Episodes, Paid, callers_fault, full, reference_of, refuse_pairs


@dataclass(frozen=True, kw_only=True, eq=False)
class Advantages:
    """What `advantages` found out about a batch.

    Example:
        `found.values` goes into `policy_loss`, with `mask=found.mask` and
        `denominators(found.mask, found.rows, max_tokens)`
    """

    values: Tensor
    """A `[B, T]`, without gradient; 0 outside the mask and in unscored rows."""
    mask: Tensor
    """Tokens that stay in the loss `[B, T]`: trained, scored, and in no row that was left out."""
    rows: Tensor
    """Rows that stay in the loss `[B]`: what the denominators count."""
    rewards: Tensor
    """R `[B]`: the score and, with KL in the reward, its penalty; 0 in unscored rows."""
    returns: Tensor
    """What a critic is fitted to `[B, T]`: Ψ + V under psi `gae`, else the reward-to-go or total;
    garbage outside."""
    expected: Tensor
    """The baseline `[B, 1]` or `[B, T]`."""
    paid: Paid
    """What stage 1 booked; `paid.tokens(mask)` are the rewards at each token."""
    baseline: float | None
    """The moving average after this batch, to be handed to the next; `None` without one."""
    dead_groups: float
    """Share of groups (of rows, if the baseline is no group's) in which every advantage is 0: all
    rewards equal, or fewer than two members scored. KL in the loss still moves them."""
    kl: float | None
    """Mean k1 per trained token, in nats; `None` without a reference."""
    warnings: tuple[str, ...] = ()
    """What looks wrong with the batch, in sentences; empty as a rule."""


@torch.no_grad()
def advantages(
    row: Algorithm,
    *,
    rewards: Tensor,
    scored: Tensor,
    groups: Tensor,
    mask: Tensor,
    logprobs: Tensor | None = None,
    reference: Tensor | None = None,
    reference_mask: Tensor | None = None,
    baseline: float | None = None,
    token_rewards: Tensor | None = None,
    spans: Tensor | None = None,
    anchors: Tensor | None = None,
    parts: Tensor | None = None,
    part_weights: Tensor | None = None,
    values: Tensor | None = None,
    bootstrap: Tensor | None = None,
    greedy: Tensor | None = None,
    truncated: Tensor | None = None,
    lag: Tensor | None = None,
    entropy: Tensor | None = None,
    max_tokens: int | None = None,
) -> Advantages:
    """Turn the scores of a batch into advantages: stages 1 to 4, and the rows that stage 9 keeps.

        r_{i,t} = R_i 1[t last] − β k1_{i,t},   A = (Ψ(r) − b) / s

    The score is booked at the last trained token. Baseline and spread are made of the totals R_i,
    for reward-to-go too. A row without trained tokens gets no advantage, but its score counts in
    the baselines of the others. Rows that are left out of the loss (overlong, stale, without an
    advantage, not selected) stay in the baselines.

    Args:
        row: The algorithm; its properties `needs_…` say which of the following it reads.
        rewards: Scores `[B]`; anything in unscored rows.
        scored: Rows that have a reward `[B]`, boolean.
        groups: The group of each row `[B]`, int64: any numbers, in any order.
        mask: Trained tokens `[B, T]`, boolean.
        logprobs: Of the policy that sampled, in nats `[B, T]`; needed for KL in the reward.
        reference: Of the reference model, in nats `[B, T]`; likewise.
        reference_mask: Where the reference was computed `[B, T]`, boolean; none: wherever needed.
        baseline: What the last call returned as `baseline`; `None` at first.
        token_rewards: All that was paid, outcome included, each amount at the last token of the
            span that it judges `[B, T]`; read by reward `process` in place of `rewards`.
        spans: Number of each token's turn or reasoning step in its row, from 0 in their order, −1
            for none `[B, T]`, int64; needed with `token_rewards`.
        anchors: Name of the state in which each token's turn began `[B, T]`, int64; psi `segment`.
        parts: Parts of each score `[B, K]`; none: the score is its only part; reward `parts`.
        part_weights: Weight of each part `[K]`; none: 1 each.
        values: V(s_t), the value before token t, without gradient `[B, T]`; psi `q`, `td`, `gae`,
            `nstep`, baseline `value`.
        bootstrap: Value of what follows the last trained token, for episodes that were cut off
            `[B]`; none: 0, nothing follows.
        greedy: Score of the greedy completion of each row's prompt `[B]`; baseline `greedy`.
        truncated: Rows that ran out of length `[B]`, boolean; overlong `filter`.
        lag: Weight updates since each row was sampled `[B]`, int64; `max_staleness`.
        entropy: Of the policy that sampled, at each token, in nats `[B, T]`; `entropy_quantile`.
        max_tokens: Tokens that a completion may have; `overlong_buffer`.

    Returns:
        The advantages, what stays in the loss, and what the log says about them.

    Raises:
        UsageError: A shape or dtype is wrong, a value that counts is not finite, a reward is booked
            before its span ends, or a tensor that the row reads was not given.

    Example:
        >>> from rlvr.rl_core.algorithms import TABLE
        >>> found = advantages(
        ...     TABLE["dr-grpo"], rewards=torch.tensor([1.0, 0.0]), groups=torch.tensor([4, 4]),
        ...     scored=torch.tensor([True, True]), mask=torch.tensor([[True, False], [True, True]]),
        ... )
        >>> found.values
        tensor([[ 0.5000,  0.0000],
                [-0.5000, -0.5000]])
    """
    given = Episodes(
        rewards=rewards,
        scored=scored,
        groups=groups,
        mask=mask,
        logprobs=logprobs,
        reference=reference,
        reference_mask=reference_mask,
        baseline=baseline,
        token_rewards=token_rewards,
        spans=spans,
        anchors=anchors,
        parts=parts,
        part_weights=part_weights,
        values=values,
        bootstrap=bootstrap,
        greedy=greedy,
        truncated=truncated,
        lag=lag,
        entropy=entropy,
        max_tokens=max_tokens,
    )
    with callers_fault():
        return _estimate(row, given)


def _estimate(row: Algorithm, given: Episodes) -> Advantages:
    _check_rows(row, given)
    groups, scored = given.groups, given.scored
    trained = F.keep_scored(given.mask, scored)
    penalty, kl = _kl_in_reward(row, given, trained)
    paid = stages.paid(row, given, trained, penalty)
    psi, targets = stages.returns(row, given, paid, trained)
    expected, state = stages.baseline(row, given, paid.totals, trained)
    values = stages.scaled(row, given, paid.totals, psi - expected, trained)
    counted = trained
    if row.needs_group:  # a completion without scored siblings has nothing to be compared with
        counted = F.keep_scored(trained, F.group_sizes(groups, scored) > 1)
    values, alive = _inside(values, scored, counted)
    dead = _dead_share(alive, groups if row.needs_group else None)
    rows = stages.kept(row, given, paid.totals, alive)
    trained = F.keep_scored(trained, rows)
    if row.entropy_quantile:
        entropy = stages.needed(row, given.entropy, "entropy", "entropy_quantile above 0")
        values = values * F.most_uncertain(entropy, trained, quantile=row.entropy_quantile)
    if trained is not counted:
        values = values * trained.to(values.dtype)
    return Advantages(
        values=values,
        mask=trained,
        rows=rows,
        rewards=torch.where(scored, paid.totals, 0.0),
        returns=targets.expand(trained.shape),
        expected=expected,
        paid=paid,
        baseline=state,
        dead_groups=dead,
        kl=kl,
        warnings=batch_warnings(row, given, paid.totals, rows),
    )


def _check_rows(row: Algorithm, given: Episodes) -> None:
    refuse_pairs(row)
    rewards, scored, groups, mask = given.rewards, given.scored, given.groups, given.mask
    F.check_rows(mask, rewards=rewards, scored=scored, groups=groups)
    if not len(mask):
        raise UsageError("a batch needs at least one row, got none")
    for name, tensor, dtype in (("scored", scored, torch.bool), ("groups", groups, torch.int64)):
        if tensor.dtype != dtype:
            raise UsageError(f"{name} is a tensor of {dtype}, got {tensor.dtype}")
    if not rewards.is_floating_point():
        raise UsageError(f"rewards is a tensor of floats, got {rewards.dtype}; use rewards.float()")
    if given.baseline is not None and not math.isfinite(given.baseline):
        raise UsageError(f"baseline is a finite number or None, got {given.baseline!r}")


def _kl_in_reward(
    row: Algorithm, given: Episodes, mask: Tensor
) -> tuple[Tensor | None, float | None]:
    """Return the penalty as token rewards, and the mean k1 of the batch where it can be known."""
    penalty, kl, logprobs, reference = None, None, given.logprobs, given.reference
    if row.kl == "reward" and row.beta > 0:
        logprobs = reference_of(row, logprobs, "logprobs")
        reference = reference_of(row, reference, "reference")
        if given.reference_mask is not None:
            F.check_covered(mask, given.reference_mask, "reference")
        penalty = F.kl_penalty(logprobs, reference, mask, beta=row.beta)
    if logprobs is not None and reference is not None:
        k1 = F.k1(full(logprobs), full(reference), mask)
        kl = float(k1.sum() / mask.sum().clamp(min=1))
    return penalty, kl


def _inside(values: Tensor, scored: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Put advantages at the tokens of the mask `[B, T]`; return also which rows have one `[B]`."""
    if values.shape[1:] != (1,) or mask.shape[1] == 1:
        found = F.select(values.expand(mask.shape), mask, "advantages")
        return found, (found != 0).any(dim=1)
    one = F.select(values[:, 0], scored, "advantages")
    weights = mask.to(values.dtype)
    return one[:, None] * weights, (one != 0) & (weights.sum(dim=1) > 0)


def _dead_share(alive: Tensor, groups: Tensor | None) -> float:
    """Share of groups, or of rows without groups, in which every advantage is 0."""
    if groups is None:
        return 1 - alive.float().mean().item()
    return 1 - groups[alive].unique().numel() / groups.unique().numel()
