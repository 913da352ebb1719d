"""Stage 1, rewards: how much a completion is paid, and where on the token axis it is booked.

A reward is booked at the last token that it depends on; reward-to-go is biased otherwise. A
completion's score therefore goes to its last trained token, a per-token KL penalty to its token;
what a turn or a reasoning step is paid goes to its last token (`spans`).
"""

import torch
from torch import Tensor

from .baselines import group_mean
from .groups import group_max
from .kl import k1
from .masks import check_rows, select
from .scales import group_std


def at_last_token(rewards: Tensor, mask: Tensor) -> Tensor:
    """Book each row's reward at its last trained token.

        r_{i,t} = R_i · 1[t = max{k : m_{i,k}}]

    A row without trained tokens has no place for it: its reward is in no token, and only the row's
    total still carries it.

    Args:
        rewards: The score of each completion `[B]`, finite.
        mask: Trained tokens `[B, T]`.

    Returns:
        Token rewards `[B, T]`.

    Example:
        >>> at_last_token(torch.tensor([5.0]), torch.tensor([[True, True, False]]))
        tensor([[0., 5., 0.]])
    """
    check_rows(mask, rewards=rewards)
    if not mask.shape[1]:
        return rewards.new_zeros(mask.shape)
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1, keepdim=True)
    booked = select(rewards, mask.any(dim=1), "rewards")[:, None]
    return rewards.new_zeros(mask.shape).scatter(1, last, booked)


def kl_penalty(logprobs: Tensor, reference: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """Make the token rewards that keep the policy near a reference.

        r_{i,t} = −β · k1_{i,t} = −β (l_{i,t} − l^ref_{i,t}),   no gradient

    A reward carries no gradient of its own, so the estimator's expected gradient E ∇k is lost. It
    is 0 for k1 and for no other usual estimator: only k1 belongs in a reward.

    Args:
        logprobs: Of the policy that sampled, in nats `[B, T]`.
        reference: Of the reference model, in nats `[B, T]`.
        mask: Trained tokens `[B, T]`.
        beta: Strength β ≥ 0, reward per nat.

    Returns:
        Token rewards `[B, T]`, detached, 0 outside the mask.

    Example:
        >>> mask = torch.tensor([[True, True]])
        >>> kl_penalty(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -1.5]]), mask, beta=0.1)
        tensor([[-0.1000,  0.0500]])

    Reference:
        Ziegler et al., 2019, arXiv 1909.08593, eq. 2.
    """
    return -beta * k1(logprobs.detach(), reference, mask)


def adapt_beta(beta: float, kl: float, *, target: float, horizon: float, samples: float) -> float:
    """Move the price of the divergence towards where the divergence is as wanted.

        β' = β (1 + clip(KL/target − 1, −0.2, 0.2) · n/horizon)

    Args:
        beta: β now.
        kl: The divergence that was measured, in nats.
        target: The divergence wanted, above 0, in nats.
        horizon: Samples over which β may grow or shrink by a fifth, above 0.
        samples: n, samples since β was last moved.

    Returns:
        β from now on.

    Raises:
        ValueError: Target or horizon is not positive.

    Example:
        >>> round(adapt_beta(0.1, 9.0, target=6.0, horizon=100, samples=50), 4)  # 0.1 (1 + 0.2/2)
        0.11

    Reference:
        Ziegler et al., 2019, arXiv 1909.08593, section 2.2.
    """
    if target <= 0 or horizon <= 0:
        raise ValueError(f"target and horizon are above 0, got {target} and {horizon}")
    return beta * (1 + min(max(kl / target - 1, -0.2), 0.2) * samples / horizon)


def overlong_penalty(lengths: Tensor, *, longest: int, buffer: int) -> Tensor:
    """Charge completions that come near the length limit, growing with each token.

        0 where |y| ≤ Lmax − Lc;   ((Lmax − Lc) − |y|)/Lc up to Lmax;   −1 beyond

    Args:
        lengths: |y|, tokens of each completion `[B]`.
        longest: Lmax, tokens that a completion may have.
        buffer: Lc, over how many of the last of them the penalty grows, 1 to Lmax.

    Returns:
        What is added to each score `[B]`, in [−1, 0].

    Raises:
        ValueError: The buffer is longer than the limit, or empty.

    Example:
        >>> overlong_penalty(torch.tensor([60, 90, 100, 130]), longest=100, buffer=40)
        tensor([ 0.0000, -0.7500, -1.0000, -1.0000])

    Reference:
        Yu et al., 2025, arXiv 2503.14476, eq. 13.
    """
    if not 1 <= buffer <= longest:
        raise ValueError(
            f"the buffer is 1 to {longest} tokens (the longest completion), got {buffer}"
        )
    return ((longest - buffer - lengths) / buffer).clamp(-1.0, 0.0)


def gated_reward(gates: Tensor, amounts: Tensor) -> Tensor:
    """Pay stages in order, each only if all before it were passed.

        R = g₁ (a₁ + g₂ (a₂ + g₃ (a₃ + …)))

    For example format, then runs, then correct: a right answer in a broken format earns nothing.

    Args:
        gates: Whether each stage was passed `[B, K]`, boolean.
        amounts: What each stage pays `[B, K]` or `[K]`.

    Returns:
        R `[B]`.

    Example:
        >>> gates = torch.tensor([[True, True, False], [False, True, True]])
        >>> gated_reward(gates, torch.tensor([0.1, 0.2, 0.7]))
        tensor([0.3000, 0.0000])
    """
    return (gates.cumprod(dim=1) * amounts).sum(dim=1)


def normalised_sum(
    parts: Tensor, weights: Tensor, groups: Tensor, scored: Tensor, *, eps: float, ddof: int = 1
) -> Tensor:
    """Normalise each part of a reward within its group before they are weighed and summed.

        R_i = Σ_k w_k (R_{i,k} − mean_g R_k) / (std_g R_k + ε)

    Summed first, a part that varies little beside one that varies much would not be heard.

    Args:
        parts: R_k, the parts of each score `[B, K]`; anything in unscored rows.
        weights: w_k `[K]`.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.
        eps: ε ≥ 0.
        ddof: 1 for the unbiased standard deviation, 0 for that of the population.

    Returns:
        R `[B]`, 0 in unscored rows.

    Raises:
        ValueError: The shapes of parts and weights do not fit, or a part that counts is not finite.

    Example:
        >>> parts = torch.tensor([[1.0, 300.0], [0.0, 500.0]])
        >>> everyone, groups = torch.tensor([True, True]), torch.tensor([0, 0])
        >>> normalised_sum(parts, torch.tensor([1.0, 0.5]), groups, everyone, eps=0.0)
        tensor([ 0.3536, -0.3536])

    Reference:
        arXiv 2601.05242 (GDPO).
    """
    if parts.ndim != 2 or len(parts) != len(scored) or weights.shape != parts.shape[1:]:
        raise ValueError(
            f"parts has shape {list(parts.shape)} and part_weights {list(weights.shape)}, expected "
            f"[{len(scored)}, K], one row a completion, and [K], one weight a part"
        )
    clean = select(parts, scored[:, None].expand_as(parts), "parts")
    total = clean.new_zeros(len(clean))
    for part, weight in zip(clean.unbind(dim=1), weights.tolist(), strict=True):
        centred = part - group_mean(part, groups, scored)
        total = total + weight * centred / group_std(part, groups, scored, eps=eps, ddof=ddof)
    return torch.where(scored, total, 0.0)


def best_of_group(rewards: Tensor, groups: Tensor, scored: Tensor) -> Tensor:
    """Mark the completions that no sibling beats, ties included.

        1[R_i = max_{j ∈ g(i)} R_j]

    Args:
        rewards: R `[B]`; anything in unscored rows.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        1 or 0 `[B]`; 0 in unscored rows.

    Example:
        >>> rewards, groups = torch.tensor([1.0, 3.0, 3.0, 2.0]), torch.tensor([0, 0, 0, 1])
        >>> best_of_group(rewards, groups, torch.ones(4).bool())
        tensor([0., 1., 1., 1.])

    Reference:
        Dong et al., 2023, arXiv 2304.06767.
    """
    return ((rewards == group_max(rewards, groups, scored)) & scored).to(rewards.dtype)


def above(rewards: Tensor, scored: Tensor, *, threshold: float) -> Tensor:
    """Mark the completions whose score is above a threshold: `1[R_i > τ]`.

    Args:
        rewards: R `[B]`; anything in unscored rows.
        scored: Rows that have a reward `[B]`, boolean.
        threshold: τ.

    Returns:
        1 or 0 `[B]`; 0 in unscored rows.

    Example:
        >>> above(torch.tensor([0.5, 1.0]), torch.tensor([True, True]), threshold=0.5)
        tensor([0., 1.])

    Reference:
        Xiong et al., 2025, arXiv 2504.11343 (RAFT with verifiable rewards).
    """
    return ((rewards > threshold) & scored).to(rewards.dtype)
