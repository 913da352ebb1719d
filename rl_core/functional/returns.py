"""Stage 2, returns: the Ψ of the policy gradient Σ_t Ψ_t ∇ log π(a_t|s_t).

Discounting counts trained tokens only: environment text between two turns is no action and costs
no time, and what is discounted is carried across it. Choosing a token leads to a certain next
state, so that Q(s_t, a_t) = r_t + γ V(s_{t'}) exactly, with t' the next trained token: one value
function gives Q, the temporal difference and every advantage.
"""

import torch
from torch import Tensor

from .masks import check_rows, check_tokens, select


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


def next_values(values: Tensor, mask: Tensor, bootstrap: Tensor | None = None) -> Tensor:
    """Look up the value of the state that each trained token leads to.

        V_{i,t'} with t' the next trained token; after the last one the bootstrap, or 0

    Args:
        values: V(s_t), the value before token t `[B, T]`; anything outside the mask.
        mask: Trained tokens `[B, T]`.
        bootstrap: Value of what follows each row's last trained token `[B]`, for episodes that were
            cut off; none: all of them ended, and nothing follows.

    Returns:
        V `[B, T]`, 0 outside the mask.

    Raises:
        ValueError: A shape is wrong, or a value that counts is not finite.

    Example:
        >>> mask = torch.tensor([[True, False, True]])
        >>> next_values(torch.tensor([[0.5, 9.0, 0.25]]), mask, torch.tensor([0.125]))
        tensor([[0.2500, 0.0000, 0.1250]])
    """
    check_tokens(mask, values=values)
    clean = select(values, mask, "values")
    if bootstrap is None:
        ahead = clean.new_zeros(len(mask))
    else:
        check_rows(mask, bootstrap=bootstrap)
        ahead = select(bootstrap.to(clean), mask.any(dim=1), "bootstrap")
    if not mask.shape[1]:
        return clean
    width = mask.shape[1]
    places = torch.arange(width, device=mask.device).expand(mask.shape)
    coming = torch.where(mask, places, width).flip(1).cummin(dim=1).values.flip(1)
    coming = torch.cat([coming[:, 1:], torch.full_like(coming[:, :1], width)], dim=1)
    return torch.cat([clean, ahead[:, None]], dim=1).gather(1, coming) * mask


def action_value(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float = 1.0,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Give every token its reward and the value of where it leads.

        Ψ_t = Q(s_t, a_t) = r_t + γ V_{t'},   t' the next trained token

    Args:
        rewards: Token rewards `[B, T]`; anything outside the mask.
        values: V(s_t), the value before token t, without gradient `[B, T]`.
        mask: Trained tokens `[B, T]`.
        gamma: Discount γ in [0, 1].
        bootstrap: Value of what follows each row's last trained token `[B]`; none: 0.

    Returns:
        Ψ `[B, T]`, 0 outside the mask.

    Example:
        >>> r, v = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25, 0.75]])
        >>> action_value(r, v, torch.ones(1, 2).bool())  # 0 + 0.75, 1 + 0
        tensor([[0.7500, 1.0000]])

    Reference:
        Schulman et al., 2015, arXiv 1506.02438, eq. 1, case 4.
    """
    ahead = next_values(values.detach(), mask, bootstrap)
    return select(rewards, mask, "rewards") + gamma * ahead


def temporal_difference(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float = 1.0,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Give every token how much better its outcome is than was expected before it.

        Ψ_t = δ_t = r_t + γ V_{t'} − V_t,   t' the next trained token

    Args:
        rewards: Token rewards `[B, T]`; anything outside the mask.
        values: V(s_t), the value before token t, without gradient `[B, T]`.
        mask: Trained tokens `[B, T]`.
        gamma: Discount γ in [0, 1].
        bootstrap: Value of what follows each row's last trained token `[B]`; none: 0.

    Returns:
        Ψ `[B, T]`, 0 outside the mask.

    Example:
        >>> r, v = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25, 0.75]])
        >>> temporal_difference(r, v, torch.ones(1, 2).bool())  # 0.75 − 0.25, 1 − 0.75
        tensor([[0.5000, 0.2500]])

    Reference:
        Schulman et al., 2015, arXiv 1506.02438, eq. 1, case 6.
    """
    ahead = action_value(rewards, values, mask, gamma=gamma, bootstrap=bootstrap)
    return ahead - select(values.detach(), mask, "values")


def generalised_advantage(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Give every token the discounted sum of the temporal differences from it on.

        Ψ_t = Σ_{k≥t} (γλ)^{n(k)−n(t)} δ_k,   n counts trained tokens

    computed as the reward-to-go of δ with discount γλ. With λ = 0 it is `temporal_difference`; with
    λ = 1 it is the reward-to-go less V(s_t); with λ = γ = 1 and V = 0 it is `reward_to_go`.

    Args:
        rewards: Token rewards `[B, T]`; anything outside the mask.
        values: V(s_t), the value before token t, without gradient `[B, T]`.
        mask: Trained tokens `[B, T]`.
        gamma: Discount γ in [0, 1].
        lam: λ in [0, 1]: how far the sum trusts rewards rather than values.
        bootstrap: Value of what follows each row's last trained token `[B]`; none: 0.

    Returns:
        Ψ `[B, T]`, 0 outside the mask.

    Example:
        >>> r, v = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25, 0.75]])
        >>> generalised_advantage(r, v, torch.ones(1, 2).bool(), lam=0.5)  # 0.5 + 0.5·0.25, 0.25
        tensor([[0.6250, 0.2500]])

    Reference:
        Schulman et al., 2015, arXiv 1506.02438, eq. 16.
    """
    delta = temporal_difference(rewards, values, mask, gamma=gamma, bootstrap=bootstrap)
    return reward_to_go(delta, mask, gamma=gamma * lam)


def n_step_return(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    steps: int,
    gamma: float = 1.0,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Give every token the rewards of the next n trained tokens and the value after them.

        Ψ_t = Σ_{j<n} γ^j r_{t+j} + γ^n V_{t+n},   counted in trained tokens

    computed by n applications of `Ψ ← r + γ Ψ'`, beginning with V. With n = 1 it is `action_value`;
    with n no less than the longest completion it is the reward-to-go.

    Args:
        rewards: Token rewards `[B, T]`; anything outside the mask.
        values: V(s_t), the value before token t, without gradient `[B, T]`.
        mask: Trained tokens `[B, T]`.
        steps: n ≥ 1.
        gamma: Discount γ in [0, 1].
        bootstrap: Value of what follows each row's last trained token `[B]`; none: 0.

    Returns:
        Ψ `[B, T]`, 0 outside the mask.

    Example:
        >>> r, v = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[0.25, 0.75, 0.5]])
        >>> n_step_return(r, v, torch.ones(1, 3).bool(), steps=2)  # 0+1+0.5, 1+2, 2
        tensor([[1.5000, 3.0000, 2.0000]])
    """
    psi = select(values.detach(), mask, "values")
    for _ in range(min(steps, mask.shape[1])):
        psi = action_value(rewards, psi, mask, gamma=gamma, bootstrap=bootstrap)
    return psi
