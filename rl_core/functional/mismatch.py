"""Stage 7, mismatch: what the sampler's numerics, or its older weights, cost.

A sampling engine and the learner give the same weights slightly different probabilities. Each
function turns x = l^old − l^rollout into a weight ≥ 0 on the surrogate, without gradient. Bounds on
a product of ratios depend on the length: the spread of Σ_t x_t grows with √L, so that long
completions are dropped for being long; a geometric mean shrinks with 1/√L, to the opposite effect.
"""

from torch import Tensor

from .masks import lengths
from .ratios import ratio


def truncated_token_weight(log_ratio: Tensor, mask: Tensor, *, high: float) -> Tensor:
    """Weigh each token by how much likelier the learner finds it, up to a cap.

        w_t = min(ω_t, C),   ω = exp(x)

    Args:
        log_ratio: x = l^old − l^rollout `[B, T]`, 0 outside the mask.
        mask: Trained tokens `[B, T]`.
        high: C.

    Returns:
        Weights `[B, T]`, 0 outside the mask.

    Example:
        >>> import torch
        >>> x, mask = torch.tensor([[0.5, 4.0]]).log(), torch.tensor([[True, True]])
        >>> truncated_token_weight(x, mask, high=2.0)
        tensor([[0.5000, 2.0000]])

    Reference:
        Yao et al., 2025, "Your efficient RL framework secretly brings you off-policy RL training".
    """
    return ratio(log_ratio.detach()).clamp(max=high) * mask


def truncated_sequence_weight(log_ratio: Tensor, *, high: float) -> Tensor:
    """Weigh each completion by the product of its ratios, up to a cap.

        w_i = min(Π_t ω_t, C)

    Args:
        log_ratio: x = l^old − l^rollout `[B, T]`, 0 outside the mask.
        high: C.

    Returns:
        Weights `[B, 1]`.

    Example:
        >>> import torch
        >>> truncated_sequence_weight(torch.tensor([[0.5, 4.0], [3.0, 4.0]]).log(), high=5.0)
        tensor([[2.],
                [5.]])
    """
    return ratio(log_ratio.detach().sum(dim=1, keepdim=True)).clamp(max=high)


def two_sided_token_weight(log_ratio: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """Weigh each token by its ratio, and drop it where the ratio is out of bounds on either side.

        w_t = ω_t · 1[a ≤ ω_t ≤ C]

    Args:
        log_ratio: x = l^old − l^rollout `[B, T]`, 0 outside the mask.
        mask: Trained tokens `[B, T]`.
        low: a.
        high: C.

    Returns:
        Weights `[B, T]`, 0 outside the mask.

    Example:
        >>> import torch
        >>> x, mask = torch.tensor([[0.4, 2.0, 6.0]]).log(), torch.ones(1, 3).bool()
        >>> two_sided_token_weight(x, mask, low=0.5, high=5.0)
        tensor([[0., 2., 0.]])

    Reference:
        Ling Team, 2025, arXiv 2510.18855 (IcePop; 0.5 and 5).
    """
    omega = ratio(log_ratio.detach())
    return omega * ((omega >= low) & (omega <= high) & mask)


def two_sided_sequence_weight(log_ratio: Tensor, *, low: float, high: float) -> Tensor:
    """Weigh each completion by the product of its ratios, and drop it where that is out of bounds.

        w_i = Ω · 1[a ≤ Ω ≤ C],   Ω = Π_t ω_t

    Args:
        log_ratio: x = l^old − l^rollout `[B, T]`, 0 outside the mask.
        low: a.
        high: C.

    Returns:
        Weights `[B, 1]`.

    Example:
        >>> import torch
        >>> two_sided_sequence_weight(torch.tensor([[0.5, 4.0], [1.0, 4.0]]).log(), low=0, high=3)
        tensor([[2.],
                [0.]])
    """
    omega = ratio(log_ratio.detach().sum(dim=1, keepdim=True))
    return omega * ((omega >= low) & (omega <= high))


def product_mask(log_ratio: Tensor, *, low: float, high: float) -> Tensor:
    """Drop completions whose product of ratios is out of bounds, and weigh the others equally.

        w_i = 1[a ≤ Π_t ω_t ≤ C]

    Args:
        log_ratio: x = l^old − l^rollout `[B, T]`, 0 outside the mask.
        low: a.
        high: C.

    Returns:
        Weights `[B, 1]`, 0 or 1.

    Example:
        >>> import torch
        >>> product_mask(torch.tensor([[0.5, 4.0], [1.0, 4.0]]).log(), low=0.5, high=3)
        tensor([[1.],
                [0.]])
    """
    omega = ratio(log_ratio.detach().sum(dim=1, keepdim=True))
    return ((omega >= low) & (omega <= high)).to(log_ratio.dtype)


def geometric_mask(log_ratio: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """Drop completions whose mean ratio is out of bounds, and weigh the others equally.

        w_i = 1[a ≤ (Π_t ω_t)^(1/L_i) ≤ C]

    Args:
        log_ratio: x = l^old − l^rollout `[B, T]`, 0 outside the mask.
        mask: Trained tokens `[B, T]`.
        low: a.
        high: C.

    Returns:
        Weights `[B, 1]`, 0 or 1.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 1.0], [1.0, 1.21]]).log()  # √1.21 = 1.1
        >>> geometric_mask(x, torch.ones(2, 2).bool(), low=0.99, high=1.01)
        tensor([[1.],
                [0.]])
    """
    total = log_ratio.detach().sum(dim=1, keepdim=True)
    omega = ratio(total / lengths(mask).clamp(min=1)[:, None])
    return ((omega >= low) & (omega <= high)).to(log_ratio.dtype)


def off_policy_mask(log_ratio: Tensor, advantages: Tensor, mask: Tensor, *, delta: float) -> Tensor:
    """Drop completions that are wrong and that the policy would no longer write.

        w_i = 0 where A_i < 0 ∧ (1/L_i) Σ_t (l^rollout_t − l_t) > δ, else 1

    What such a completion teaches is about another policy's mistakes.

    Args:
        log_ratio: x = l − l^rollout `[B, T]`, 0 outside the mask.
        advantages: A `[B, T]`, 0 outside the mask; a completion's is the sum of its tokens'.
        mask: Trained tokens `[B, T]`.
        delta: δ ≥ 0, in nats.

    Returns:
        Weights `[B, 1]`, 0 or 1.

    Example:
        >>> import torch
        >>> x, mask = torch.tensor([[-0.4, -0.2]]), torch.tensor([[True, True]])
        >>> off_policy_mask(x, -torch.ones(1, 2), mask, delta=0.25)  # 0.3 > 0.25
        tensor([[0.]])

    Reference:
        DeepSeek-AI, 2025, arXiv 2512.02556, eq. 9.
    """
    size = lengths(mask).clamp(min=1)
    left = -log_ratio.detach().sum(dim=1) / size > delta
    wrong = advantages.sum(dim=1) < 0
    return (~(left & wrong)).to(log_ratio.dtype)[:, None]
