"""Stage 1, rewards: where on the token axis a reward is booked.

A reward is booked at the last token that it depends on; reward-to-go is biased otherwise. A
completion's score therefore goes to its last trained token, a per-token KL penalty to its token.
"""

from torch import Tensor

from .kl import k1
from .masks import check_rows, select


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
        >>> import torch
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
        >>> import torch
        >>> mask = torch.tensor([[True, True]])
        >>> kl_penalty(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -1.5]]), mask, beta=0.1)
        tensor([[-0.1000,  0.0500]])

    Reference:
        Ziegler et al., 2019, arXiv 1909.08593, eq. 2.
    """
    return -beta * k1(logprobs.detach(), reference, mask)
