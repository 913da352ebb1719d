"""Stage 6, trust: the surrogate φ that is maximised, and how far it lets the policy move.

All of them are elementwise and linear in the size of A. Both arguments are 0 outside the mask, as
`select` leaves them, and so is φ. Each docstring names the value φ and the coefficient c in
∇φ = c ∇l. The gradient is what trains; the value is a number to look at. `coefficients` has every c
in closed form.
"""

import math

import torch
from torch import Tensor

from .ratios import ratio


def log_probability(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """Weight log-probabilities by advantages: the plain policy gradient.

        φ = A · l,   c = A

    By convention the value is A·l with the log-probability itself, not A·(l − sg l) = 0, so that a
    loss can be compared with the formula −Σ A log π; it is no measure of how good the policy is.

    Args:
        logprobs: l, in nats, any shape.
        advantages: A, without gradient, of the same shape.

    Returns:
        φ, of the same shape.

    Example:
        >>> log_probability(torch.tensor([[-3.0]]), torch.tensor([[0.5]]))
        tensor([[-1.5000]])

    Reference:
        Williams, 1992, "Simple statistical gradient-following algorithms", Machine Learning 8.
    """
    return logprobs * advantages


def importance_ratio(log_ratio: Tensor, advantages: Tensor) -> Tensor:
    """Weight ratios by advantages, without a bound.

        φ = ρ · A,   c = ρ A,   ρ = exp(x)

    With ρ = 1 the gradient is that of `log_probability`.

    Args:
        log_ratio: x, `[B, T]` or `[B, 1]`.
        advantages: A, without gradient, of the same shape.

    Returns:
        φ, of the same shape.

    Example:
        >>> importance_ratio(torch.tensor([[2.0]]).log(), torch.tensor([[0.5]]))
        tensor([[1.]])

    Reference:
        Schulman et al., 2017, arXiv 1707.06347, eq. 6.
    """
    return ratio(log_ratio) * advantages


def clipped_ratio(
    log_ratio: Tensor, advantages: Tensor, *, low: float, high: float, dual: float = 0.0
) -> Tensor:
    """Weight ratios by advantages, and stop paying for moves beyond the clip range.

        φ = min(ρ A, clip(ρ, 1−low, 1+high) A);   with c > 0 and A < 0: max(φ, c A)
        coefficient 0 where `is_clipped`, else ρ A

    With ρ = 1 the gradient is that of `log_probability`. The second bound, dual clip, keeps a
    negative advantage from pushing without limit where ρ has grown: 0 where A < 0 ∧ ρ > c.

    Args:
        log_ratio: x = log ρ, `[B, T]` or `[B, 1]`.
        advantages: A, without gradient, of the same shape.
        low: How far below 1 a ratio may fall, in [0, 1].
        high: How far above 1 it may rise, ≥ 0.
        dual: c > 1 + high; 0 for none.

    Returns:
        φ, of the same shape.

    Example:
        >>> x = torch.tensor([[2.0, 2.0]]).log()
        >>> clipped_ratio(x, torch.tensor([[1.0, -1.0]]), low=0.2, high=0.2)  # 1.2·1, 2·(−1)
        tensor([[ 1.2000, -2.0000]])

    Reference:
        Schulman et al., 2017, arXiv 1707.06347, eq. 7; Ye et al., 2019, arXiv 1912.09729, eq. 5.
    """
    # Capping ρ itself at c is the second bound: with A > 0 the first one, below c, is met before.
    rho = ratio(log_ratio.clamp(max=math.log(dual)) if dual else log_ratio)
    return torch.minimum(rho * advantages, rho.clamp(1 - low, 1 + high) * advantages)


def is_clipped(
    log_ratio: Tensor, advantages: Tensor, *, low: float, high: float, dual: float = 0.0
) -> Tensor:
    """Find the terms whose gradient `clipped_ratio` has cut off.

        (A > 0 ∧ ρ > 1+high) ∨ (A < 0 ∧ ρ < 1−low) ∨ (c > 0 ∧ A < 0 ∧ ρ > c)

    Args:
        log_ratio: x = log ρ, `[B, T]` or `[B, 1]`.
        advantages: A, of the same shape; 0 outside the mask.
        low: How far below 1 a ratio may fall.
        high: How far above 1 it may rise.
        dual: c; 0 for none.

    Returns:
        Boolean, of the same shape, false where A = 0.

    Example:
        >>> x = torch.tensor([[2.0, 2.0]]).log()
        >>> is_clipped(x, torch.tensor([[1.0, -1.0]]), low=0.2, high=0.2)
        tensor([[ True, False]])
    """
    rho = ratio(log_ratio)
    cut = (rho - rho.clamp(1 - low, 1 + high)) * advantages > 0
    return cut | ((advantages < 0) & (rho > dual)) if dual else cut


def capped_weight(
    log_ratio: Tensor, logprobs: Tensor, advantages: Tensor, *, low: float, high: float
) -> Tensor:
    """Weight log-probabilities by advantages and by ratios that are capped and detached.

        φ = sg(clip(ρ, low, high)) · A · l,   c = clip(ρ, low, high) A

    No token ever loses its gradient, however far it has moved. The caps bound the weight itself,
    not its distance from 1.

    Args:
        log_ratio: x = log ρ, `[B, T]`.
        logprobs: l, in nats `[B, T]`.
        advantages: A, without gradient `[B, T]`.
        low: Least weight, ≥ 0.
        high: Greatest weight, above 1.

    Returns:
        φ `[B, T]`.

    Example:
        >>> x, l = torch.tensor([[6.0]]).log(), torch.tensor([[-2.0]])
        >>> capped_weight(x, l, torch.tensor([[0.5]]), low=0.0, high=5.0)  # 5 · 0.5 · (−2)
        tensor([[-5.]])

    Reference:
        MiniMax, 2025, arXiv 2506.13585, eq. 4 and 5 (CISPO).
    """
    return ratio(log_ratio.detach()).clamp(low, high) * advantages * logprobs


def geometric_clip(log_ratio: Tensor, advantages: Tensor, mask: Tensor, *, bound: float) -> Tensor:
    """Weight each completion by the geometric mean of its tokens' clipped ratios.

        φ_i = A_i exp( (1/L_i) Σ_t s min(s x_t, s clip(x_t, −e, e)) ),   s = sign(A_i)
        c_t = φ_i / L_i, 0 where s x_t > e

    The clip is one-sided: a token that has moved the way A pushes stops; the others pull it back.

    Args:
        log_ratio: x `[B, T]`, 0 outside the mask.
        advantages: A, one a row `[B, 1]`, without gradient.
        mask: Trained tokens `[B, T]`.
        bound: e ≥ 0, in nats.

    Returns:
        φ `[B, 1]`.

    Example:
        >>> x, mask = torch.tensor([[1.0, 0.2]]), torch.tensor([[True, True]])
        >>> geometric_clip(x, torch.tensor([[2.0]]), mask, bound=0.4)  # 2·exp((0.4 + 0.2)/2)
        tensor([[2.6997]])

    Reference:
        Zhao et al., 2025, arXiv 2507.20673, eq. 4.
    """
    sign = advantages.sign()
    bounded = sign * torch.minimum(sign * log_ratio, sign * log_ratio.clamp(-bound, bound))
    means = bounded.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return ratio(means) * advantages


def soft_gate(log_ratio: Tensor, advantages: Tensor, *, positive: float, negative: float) -> Tensor:
    """Weight a sigmoid of the ratio by advantages: a clip whose gradient fades instead of ending.

        φ = (4/τ) σ(τ(ρ−1)) A,   c = 4 σ(1−σ) ρ A,   τ = τ₊ where A > 0, else τ₋

    With ρ = 1 the coefficient is A.

    Args:
        log_ratio: x = log ρ, `[B, T]` or `[B, 1]`.
        advantages: A, without gradient, of the same shape.
        positive: τ₊ > 0.
        negative: τ₋ > 0; a greater one fades sooner.

    Returns:
        φ, of the same shape.

    Example:
        >>> soft_gate(torch.zeros(1, 1), torch.tensor([[0.5]]), positive=1.0, negative=1.05)
        tensor([[1.]])

    Reference:
        Gao et al., 2025, arXiv 2511.20347, eq. 5 and 6.
    """
    heat = torch.where(advantages > 0, *advantages.new_tensor([positive, negative]))
    return 4 / heat * torch.sigmoid(heat * (ratio(log_ratio) - 1)) * advantages


def tv_masked_ratio(
    log_ratio: Tensor, logprobs: Tensor, advantages: Tensor, *, limit: float
) -> Tensor:
    """Weight ratios by advantages, and drop tokens whose probability has moved too far.

        φ = ρ A where `within_tv`, else 0;   c likewise

    A ratio says little of a rare token: from 10⁻⁶ to 10⁻⁵ it is 10, and nothing has happened.

    Args:
        log_ratio: x = log ρ `[B, T]`.
        logprobs: l, in nats `[B, T]`.
        advantages: A, without gradient `[B, T]`.
        limit: d in [0, 1].

    Returns:
        φ `[B, T]`.

    Example:
        >>> l = torch.tensor([[0.9, 0.9]]).log()
        >>> x = l - torch.tensor([[0.6, 0.8]]).log()  # moved by 0.3 and by 0.1
        >>> tv_masked_ratio(x, l, torch.ones(1, 2), limit=0.2)
        tensor([[0.0000, 1.1250]])

    Reference:
        arXiv 2602.04879 (DPPO).
    """
    kept = within_tv(log_ratio.detach(), logprobs.detach(), advantages, limit=limit)
    return ratio(log_ratio) * advantages * kept


def within_tv(log_ratio: Tensor, logprobs: Tensor, advantages: Tensor, *, limit: float) -> Tensor:
    """Find the tokens whose probability has not moved too far the way the advantage pushes.

        ¬( (A > 0 ∧ π − μ > d) ∨ (A ≤ 0 ∧ μ − π > d) ),   μ = exp(l − x)

    Args:
        log_ratio: x = log(π/μ) `[B, T]`.
        logprobs: l = log π, in nats `[B, T]`.
        advantages: A `[B, T]`.
        limit: d in [0, 1].

    Returns:
        Boolean `[B, T]`.

    Example:
        >>> l, x = torch.tensor([[0.9]]).log(), torch.tensor([[1.5]]).log()  # μ = 0.6
        >>> within_tv(x, l, torch.tensor([[1.0]]), limit=0.2)
        tensor([[False]])
    """
    moved = logprobs.exp() - ratio(logprobs - log_ratio)
    return torch.where(advantages > 0, moved, -moved) <= limit
