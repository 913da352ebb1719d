"""Stage 6, trust: the surrogate φ that is maximised, and how far it lets the policy move.

Each docstring names the value φ and the coefficient c in ∇φ = c ∇l. The gradient is what trains;
the value is a number to look at.
"""

import torch
from torch import Tensor

from .masks import check_tokens, select
from .ratios import ratio


def log_probability(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Weight log-probabilities by advantages: the plain policy gradient.

        φ = A · l,   c = A

    By convention the value is A·l with the log-probability itself, not A·(l − sg l) = 0, so that a
    loss can be compared with the formula −Σ A log π; it is no measure of how good the policy is.

    Args:
        logprobs: l, in nats `[B, T]`, finite.
        advantages: A, without gradient, of the same shape.
        mask: Terms that count, of the same shape.

    Returns:
        φ, of the same shape, 0 outside the mask.

    Example:
        >>> log_probability(torch.tensor([[-3.0]]), torch.tensor([[0.5]]), torch.tensor([[True]]))
        tensor([[-1.5000]])

    Reference:
        Williams, 1992, "Simple statistical gradient-following algorithms", Machine Learning 8.
    """
    check_tokens(mask, logprobs=logprobs, advantages=advantages)
    return select(logprobs, mask, "logprobs") * select(advantages, mask, "advantages")


def importance_ratio(log_ratio: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """Weight ratios by advantages, without a bound.

        φ = ρ · A,   c = ρ A,   ρ = exp(x)

    With ρ = 1 the gradient is that of `log_probability`.

    Args:
        log_ratio: x, `[B, T]` or `[B, 1]`.
        advantages: A, without gradient, of the same shape.
        mask: Terms that count, of the same shape.

    Returns:
        φ, of the same shape, 0 outside the mask.

    Example:
        >>> x = torch.tensor([[2.0]]).log()
        >>> importance_ratio(x, torch.tensor([[0.5]]), torch.tensor([[True]]))
        tensor([[1.]])

    Reference:
        Schulman et al., 2017, arXiv 1707.06347, eq. 6.
    """
    check_tokens(mask, log_ratio=log_ratio, advantages=advantages)
    return ratio(select(log_ratio, mask, "log_ratio")) * select(advantages, mask, "advantages")


def clipped_ratio(
    log_ratio: Tensor, advantages: Tensor, mask: Tensor, *, low: float, high: float
) -> Tensor:
    """Weight ratios by advantages, and stop paying for moves beyond the clip range.

        φ = min(ρ A, clip(ρ, 1−low, 1+high) A)
        c = 0 where A > 0 ∧ ρ > 1+high or A < 0 ∧ ρ < 1−low, else ρ A

    With ρ = 1 the gradient is that of `log_probability`.

    Args:
        log_ratio: x = log ρ, `[B, T]` or `[B, 1]`.
        advantages: A, without gradient, of the same shape.
        mask: Terms that count, of the same shape.
        low: How far below 1 a ratio may fall, in [0, 1].
        high: How far above 1 it may rise, ≥ 0.

    Returns:
        φ, of the same shape, 0 outside the mask.

    Example:
        >>> x = torch.tensor([[2.0, 2.0]]).log()
        >>> advantages, mask = torch.tensor([[1.0, -1.0]]), torch.tensor([[True, True]])
        >>> clipped_ratio(x, advantages, mask, low=0.2, high=0.2)  # 1.2·1, 2·(−1)
        tensor([[ 1.2000, -2.0000]])

    Reference:
        Schulman et al., 2017, arXiv 1707.06347, eq. 7.
    """
    check_tokens(mask, log_ratio=log_ratio, advantages=advantages)
    kept = select(advantages, mask, "advantages")
    rho = ratio(select(log_ratio, mask, "log_ratio"))
    return torch.minimum(rho * kept, rho.clamp(1 - low, 1 + high) * kept)


def is_clipped(
    log_ratio: Tensor, advantages: Tensor, mask: Tensor, *, low: float, high: float
) -> Tensor:
    """Find the terms whose gradient `clipped_ratio` has cut off.

        (A > 0 ∧ ρ > 1+high) ∨ (A < 0 ∧ ρ < 1−low)

    Args:
        log_ratio: x = log ρ, `[B, T]` or `[B, 1]`.
        advantages: A, of the same shape.
        mask: Terms that count, of the same shape.
        low: How far below 1 a ratio may fall.
        high: How far above 1 it may rise.

    Returns:
        Boolean, of the same shape, false outside the mask.

    Example:
        >>> x = torch.tensor([[2.0, 2.0]]).log()
        >>> advantages, mask = torch.tensor([[1.0, -1.0]]), torch.tensor([[True, True]])
        >>> is_clipped(x, advantages, mask, low=0.2, high=0.2)
        tensor([[ True, False]])
    """
    check_tokens(mask, log_ratio=log_ratio, advantages=advantages)
    rho = ratio(log_ratio)
    return mask & ((rho - rho.clamp(1 - low, 1 + high)) * advantages > 0)
