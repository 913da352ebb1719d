"""Stage 2, returns: the Ψ of the policy gradient Σ_t Ψ_t ∇ log π(a_t|s_t).

Discounting counts trained tokens only: environment text between two turns is no action and costs
no time.
"""

import torch
from torch import Tensor

from .masks import check_tokens, select


def total_reward(rewards: Tensor, mask: Tensor) -> Tensor:
    """Give every token the sum of its row's rewards.

        Ψ_{i,t} = Σ_k m_{i,k} r_{i,k}

    Args:
        rewards: Token rewards `[B, T]`; anything outside the mask.
        mask: Trained tokens `[B, T]`.

    Returns:
        Ψ `[B, T]`, 0 outside the mask.

    Example:
        >>> mask = torch.tensor([[True, True, False]])
        >>> total_reward(torch.tensor([[1.0, 2.0, 9.0]]), mask)
        tensor([[3., 3., 0.]])

    Reference:
        Schulman et al., 2015, arXiv 1506.02438, eq. 1, case 1.
    """
    check_tokens(mask, rewards=rewards)
    return select(rewards, mask, "rewards").sum(dim=1, keepdim=True) * mask


def reward_to_go(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Give every token the discounted sum of the rewards from it on.

        Ψ_{i,t} = Σ_{k≥t} γ^{n(k)−n(t)} r_{i,k},   n counts trained tokens

    computed backwards over the trained tokens: `Ψ_t = r_t + γ Ψ_{t'}`, with t' the next trained
    token; a token outside the mask passes Ψ on unchanged. With γ = 1 and all reward at the last
    token it is `total_reward`.

    Args:
        rewards: Token rewards `[B, T]`; anything outside the mask.
        mask: Trained tokens `[B, T]`.
        gamma: Discount γ in [0, 1].

    Returns:
        Ψ `[B, T]`, 0 outside the mask.

    Example:
        >>> mask = torch.tensor([[True, False, True]])
        >>> reward_to_go(torch.tensor([[1.0, 9.0, 4.0]]), mask, gamma=0.5)  # 1 + 0.5·4, -, 4
        tensor([[3., 0., 4.]])

    Reference:
        Schulman et al., 2015, arXiv 1506.02438, eq. 1, case 2.
    """
    check_tokens(mask, rewards=rewards)
    kept = select(rewards, mask, "rewards")
    if gamma == 1.0:
        return kept.flip(1).cumsum(dim=1).flip(1) * mask
    # One step a token: the closed form with powers of γ underflows on long completions.
    columns, ahead = [], torch.zeros_like(kept[:, :1].sum(dim=1))
    for reward, trained in zip(
        reversed(kept.unbind(dim=1)), reversed(mask.unbind(dim=1)), strict=True
    ):
        ahead = torch.where(trained, reward + gamma * ahead, ahead)
        columns.append(ahead)
    stacked = torch.stack(columns[::-1], dim=1) if columns else kept
    return stacked * mask
