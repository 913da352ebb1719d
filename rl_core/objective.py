"""The two compositions that a learner calls: rewards to advantages, log-probabilities to a loss.

Each looks up one function per stage, as the row of the algorithm says, and decides nothing else.
`advantages` runs once per batch of episodes and without gradient; `policy_loss` runs once per
micro-batch. Denominators belong to the whole optimiser step (`denominators`), so that the losses of
micro-batches add up to the loss of the batch, whatever its division.

Whatever stands outside the mask, or in a row that is not scored, changes nothing.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..verifiers.errors import UsageError
from . import functional as F
from . import stages
from .choices import Algorithm
from .stages import Denominators

__all__ = ["Advantages", "Denominators", "advantages", "denominators", "policy_loss"]


def denominators(mask: Tensor, scored: Tensor, max_tokens: int) -> Denominators:
    """Count what one optimiser step trains on.

    Args:
        mask: Trained tokens of the whole step `[B, T]`.
        scored: Rows that have a reward `[B]`, boolean.
        max_tokens: C, the greatest number of tokens that a completion may have.

    Returns:
        The denominators, to be given to every `policy_loss` of the step.

    Raises:
        UsageError: A shape is wrong, or `max_tokens` is not positive.

    Example:
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> denominators(mask, torch.tensor([True, False]), 8)
        Denominators(tokens=2.0, sequences=1.0, constant=8.0)
    """
    if max_tokens < 1:
        raise UsageError(f"max_tokens is a number of tokens from 1, got {max_tokens}")
    with _callers_fault():
        tokens = int(F.keep_scored(mask, scored).sum())
    return Denominators(
        tokens=float(tokens), sequences=float(int(scored.sum())), constant=float(max_tokens)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Advantages:
    """What `advantages` found out about a batch.

    Example:
        `Advantages(values=tensor([[0.5, 0.5]]), rewards=tensor([1.0]), baseline=None,
        dead_groups=0.0, kl=None)`
    """

    values: Tensor
    """A `[B, T]`, without gradient; 0 outside the mask and in unscored rows."""
    rewards: Tensor
    """R `[B]`: the score and, with KL in the reward, its penalty; 0 in unscored rows."""
    baseline: float | None
    """The moving average after this batch, to be handed to the next; `None` without one."""
    dead_groups: float
    """Share of groups (of rows, if the baseline is no group's) in which every advantage is 0: all
    rewards equal, or fewer than two members scored. KL in the loss still moves them."""
    kl: float | None
    """Mean k1 per trained token, in nats; `None` without a reference."""


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
    baseline: float | None = None,
) -> Advantages:
    """Turn the scores of a batch into advantages: stages 1 to 4.

        r_{i,t} = R_i 1[t last] − β k1_{i,t},   A = (Ψ(r) − b) / s

    The score is booked at the last trained token. Baseline and spread are made of the totals R_i,
    for reward-to-go too. A row without trained tokens gets no advantage, but its score counts in
    the baselines of the others.

    Args:
        row: The algorithm.
        rewards: Scores `[B]`; anything in unscored rows.
        scored: Rows that have a reward `[B]`, boolean.
        groups: The group of each row `[B]`, int64: any numbers, in any order.
        mask: Trained tokens `[B, T]`, boolean.
        logprobs: Of the policy that sampled, in nats `[B, T]`; needed for KL in the reward.
        reference: Of the reference model, in nats `[B, T]`; likewise.
        baseline: What the last call returned as `baseline`; `None` at first.

    Returns:
        The advantages, and what the log says about them.

    Raises:
        UsageError: A shape or dtype is wrong, a value that counts is not finite, or the row needs a
            reference and none was given.

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
    with _callers_fault():
        _check_rows(rewards, scored, groups, mask, baseline)
        trained = F.keep_scored(mask, scored)
        scores = F.select(_full(rewards), scored, "rewards")
        penalty, kl = _kl_in_reward(row, scores, logprobs, reference, trained)
        totals = scores + penalty.sum(dim=1)
        psi = stages.psi(row, scores, penalty, totals, trained)
        expected, state = stages.baseline(row, totals, groups, scored, baseline)
        centred = psi - expected[:, None]
        if row.scale == "group_std":
            centred = centred / F.group_std(totals, groups, scored, eps=row.std_eps)[:, None]
        if row.needs_group:  # a completion without scored siblings has nothing to be compared with
            trained = trained & (F.group_sizes(groups, scored) > 1)[:, None]
        values = F.select(centred, trained, "advantages")
    dead = _dead_share(values, groups if row.needs_group else None)
    return Advantages(values=values, rewards=totals, baseline=state, dead_groups=dead, kl=kl)


def policy_loss(
    row: Algorithm,
    *,
    logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    denominators: Denominators,
    old: Tensor | None = None,
    reference: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a micro-batch: stages 5 to 10.

        L = aggregate(−φ(l, l^old, A) + β k(l, l^ref))

    Losses of micro-batches with the same denominators add up to the loss of all their rows. With
    aggregate `seq` the KL term is the sum over the completion. With trust `logp` the value is
    −A·l, with the log-probability itself: only its gradient means something.

    Args:
        row: The algorithm.
        logprobs: Of the current policy, in nats `[B, T]`, with gradient.
        advantages: A `[B, T]`.
        mask: Tokens that are trained on and scored `[B, T]`, boolean.
        denominators: Counts of the whole optimiser step.
        old: Of the policy at the start of the update `[B, T]`; `None` if that is the current one,
            that is, at the first update on these episodes.
        reference: Of the reference model `[B, T]`; needed for KL in the loss.

    Returns:
        The loss, a scalar; and diagnostics, each a detached sum that micro-batches may add up:
        `policy_loss` and `kl_loss` (the loss is their sum), `tokens` and `terms` (tokens, or
        completions with a sequence ratio), `ratio` and `clipped` (sums over terms), `approx_kl`
        (of KL(old‖current), over tokens), and with a reference `kl` (k1, over tokens).

    Raises:
        UsageError: A shape is wrong, a value inside the mask is not finite, the row needs a
            reference and none was given, or a sequence ratio meets advantages that differ within
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
    with _callers_fault():
        F.check_tokens(mask, logprobs=logprobs, advantages=advantages)
        current = F.select(_full(logprobs), mask, "logprobs")
        before = current.detach() if old is None else _full(old)
        weights = F.select(advantages.detach().to(current.dtype), mask, "advantages")
        moved = F.token_log_ratio(current, before, mask)
        log_ratio, weights, terms = stages.terms(row, moved, weights, mask)
        surrogate = stages.surrogate(row, current, log_ratio, weights, terms)
        policy = -stages.aggregate(row, surrogate, terms, denominators)
        penalty = policy.new_zeros(())
        if row.kl == "loss" and row.beta > 0:
            k = stages.kl_estimate(row, current, _given(row, reference, "reference"), mask, before)
            penalty = row.beta * stages.aggregate(row, k, mask, denominators)
        sums = _diagnostics(row, moved.detach(), log_ratio.detach(), weights, terms, mask)
        sums |= {"policy_loss": policy.detach(), "kl_loss": penalty.detach()}
        if reference is not None:
            sums["kl"] = F.k1(current.detach(), _full(reference), mask).sum()
    return policy + penalty, sums


@contextmanager
def _callers_fault() -> Iterator[None]:
    """Turn a ValueError of the stages, which know no errors of the project, into a UsageError."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error


def _full(tensor: Tensor) -> Tensor:
    """Widen half precision: differences of log-probabilities need the digits."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _given(row: Algorithm, tensor: Tensor | None, name: str) -> Tensor:
    if tensor is None:
        raise UsageError(
            f"{row.name} has kl='{row.kl}' with beta={row.beta:g} and needs `{name}` "
            "log-probabilities, got None; pass them, or set beta=0"
        )
    return _full(tensor)


def _check_rows(
    rewards: Tensor, scored: Tensor, groups: Tensor, mask: Tensor, baseline: float | None
) -> None:
    F.check_rows(mask, rewards=rewards, scored=scored, groups=groups)
    if not len(mask):
        raise UsageError("a batch needs at least one row, got none")
    for name, tensor, dtype in (("scored", scored, torch.bool), ("groups", groups, torch.int64)):
        if tensor.dtype != dtype:
            raise UsageError(f"{name} is a tensor of {dtype}, got {tensor.dtype}")
    if not rewards.is_floating_point():
        raise UsageError(f"rewards is a tensor of floats, got {rewards.dtype}; use rewards.float()")
    if baseline is not None and not math.isfinite(baseline):
        raise UsageError(f"baseline is a finite number or None, got {baseline!r}")


def _kl_in_reward(
    row: Algorithm,
    scores: Tensor,
    logprobs: Tensor | None,
    reference: Tensor | None,
    mask: Tensor,
) -> tuple[Tensor, float | None]:
    """Return the penalty as token rewards, and the mean k1 of the batch where it can be known."""
    penalty, kl = scores.new_zeros(mask.shape), None
    if row.kl == "reward" and row.beta > 0:
        logprobs = _given(row, logprobs, "logprobs")
        reference = _given(row, reference, "reference")
        penalty = F.kl_penalty(logprobs, reference, mask, beta=row.beta)
    if logprobs is not None and reference is not None:
        k1 = F.k1(_full(logprobs), _full(reference), mask)
        kl = float(k1.sum() / mask.sum().clamp(min=1))
    return penalty, kl


def _dead_share(values: Tensor, groups: Tensor | None) -> float:
    """Share of groups, or of rows without groups, in which every advantage is 0."""
    alive = values.abs().sum(dim=1) > 0
    if groups is None:
        return 1 - alive.float().mean().item()
    return 1 - groups[alive].unique().numel() / groups.unique().numel()


def _diagnostics(
    row: Algorithm,
    moved: Tensor,
    log_ratio: Tensor,
    weights: Tensor,
    terms: Tensor,
    mask: Tensor,
) -> dict[str, Tensor]:
    clipped = terms.new_zeros(())
    if row.trust == "clip":
        clipped = F.is_clipped(log_ratio, weights, terms, low=row.clip_low, high=row.clip_high)
    return {
        "tokens": mask.sum(),
        "terms": terms.sum(),
        "ratio": (F.ratio(log_ratio) * terms).sum(),
        "clipped": clipped.sum(),
        "approx_kl": (moved.clamp(max=F.MAX_LOG_RATIO).expm1() - moved).sum(),
    }
