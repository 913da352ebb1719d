"""The gradient of every surrogate and KL term in closed form: how strongly each token is moved.

Each function returns c in ∂φ/∂x = c, with x the log-ratio of the term (∂x/∂l is 1 for a token's own
ratio). Nothing here is differentiated: the loss is computed by `trust` and `kl`, and tests hold the
two against each other through autograd.
"""

import torch
from torch import Tensor

from .masks import lengths
from .ratios import MAX_LOG_RATIO, ratio
from .trust import is_clipped, within_tv


def ratio_coefficient(log_ratio: Tensor, advantages: Tensor) -> Tensor:
    """Return the coefficient of `importance_ratio`: `c = ρ A`, 0 where ρ is capped.

    Args:
        log_ratio: x, any shape.
        advantages: A, of the same shape.

    Returns:
        c, of the same shape.

    Example:
        >>> ratio_coefficient(torch.zeros(1, 1), torch.tensor([[0.5]]))
        tensor([[0.5000]])
    """
    return ratio(log_ratio) * advantages * (log_ratio <= MAX_LOG_RATIO)


def clip_coefficient(
    log_ratio: Tensor, advantages: Tensor, *, low: float, high: float, dual: float = 0.0
) -> Tensor:
    """Return the coefficient of `clipped_ratio`: `c = ρ A`, 0 where it is clipped.

    Args:
        log_ratio: x, any shape.
        advantages: A, of the same shape.
        low: How far below 1 a ratio may fall.
        high: How far above 1 it may rise.
        dual: Second bound; 0 for none.

    Returns:
        c, of the same shape.

    Example:
        >>> x = torch.tensor([[2.0, 2.0]]).log()
        >>> clip_coefficient(x, torch.tensor([[1.0, -1.0]]), low=0.2, high=0.2)
        tensor([[ 0., -2.]])
    """
    cut = is_clipped(log_ratio, advantages, low=low, high=high, dual=dual)
    return ratio_coefficient(log_ratio, advantages) * ~cut


def cap_coefficient(log_ratio: Tensor, advantages: Tensor, *, low: float, high: float) -> Tensor:
    """Return the coefficient of `capped_weight`: `c = clip(ρ, low, high) A`.

    Args:
        log_ratio: x, any shape.
        advantages: A, of the same shape.
        low: Least weight.
        high: Greatest weight.

    Returns:
        c, of the same shape.

    Example:
        >>> cap_coefficient(torch.tensor([[6.0]]).log(), torch.ones(1, 1), low=0.0, high=5.0)
        tensor([[5.]])
    """
    return ratio(log_ratio).clamp(low, high) * advantages


def geometric_coefficient(
    log_ratio: Tensor, advantages: Tensor, surrogate: Tensor, mask: Tensor, *, bound: float
) -> Tensor:
    """Return the coefficient of `geometric_clip`: `c_t = φ_i / L_i`, 0 where s x_t > e.

    Args:
        log_ratio: x `[B, T]`.
        advantages: A `[B, 1]`.
        surrogate: φ, as `geometric_clip` gives it `[B, 1]`.
        mask: Trained tokens `[B, T]`.
        bound: e, in nats.

    Returns:
        c `[B, T]`.

    Example:
        >>> x, mask = torch.tensor([[1.0, 0.2]]), torch.tensor([[True, True]])
        >>> geometric_coefficient(x, torch.ones(1, 1), torch.ones(1, 1), mask, bound=0.4)
        tensor([[0.0000, 0.5000]])
    """
    free = (advantages.sign() * log_ratio <= bound) & mask
    return surrogate / lengths(mask).clamp(min=1)[:, None] * free


def gate_coefficient(
    log_ratio: Tensor, advantages: Tensor, *, positive: float, negative: float
) -> Tensor:
    """Return the coefficient of `soft_gate`: `c = 4 σ(1−σ) ρ A`.

    Args:
        log_ratio: x, any shape.
        advantages: A, of the same shape.
        positive: Temperature where A > 0.
        negative: Temperature elsewhere.

    Returns:
        c, of the same shape.

    Example:
        >>> gate_coefficient(torch.zeros(1, 1), torch.ones(1, 1), positive=1.0, negative=1.05)
        tensor([[1.]])
    """
    heat = torch.where(advantages > 0, *advantages.new_tensor([positive, negative]))
    gate = torch.sigmoid(heat * (ratio(log_ratio) - 1))
    return 4 * gate * (1 - gate) * ratio_coefficient(log_ratio, advantages)


def tv_coefficient(
    log_ratio: Tensor, logprobs: Tensor, advantages: Tensor, *, limit: float
) -> Tensor:
    """Return the coefficient of `tv_masked_ratio`: `c = ρ A`, 0 where the token is dropped.

    Args:
        log_ratio: x `[B, T]`.
        logprobs: l, in nats `[B, T]`.
        advantages: A `[B, T]`.
        limit: d in [0, 1].

    Returns:
        c `[B, T]`.

    Example:
        >>> l, x = torch.tensor([[0.9]]).log(), torch.tensor([[1.5]]).log()  # moved by 0.3
        >>> tv_coefficient(x, l, torch.ones(1, 1), limit=0.2)
        tensor([[0.]])
    """
    kept = within_tv(log_ratio, logprobs, advantages, limit=limit)
    return ratio_coefficient(log_ratio, advantages) * kept


def k3_coefficient(k1: Tensor) -> Tensor:
    """Return the coefficient of k3 in the loss: `1 − e^(−x)`, with e^(−x) capped at e^20.

    Args:
        k1: x = l − l^ref, any shape.

    Returns:
        ∂k/∂l, of the same shape.

    Example:
        >>> k3_coefficient(torch.tensor([[2.0]]).log())
        tensor([[0.5000]])
    """
    # Beyond the cap only the linear part x has a gradient.
    return torch.where(-k1 > MAX_LOG_RATIO, 1.0, -torch.expm1((-k1).clamp(max=MAX_LOG_RATIO)))


def ratio_k3_coefficient(k1: Tensor, log_ratio: Tensor) -> Tensor:
    """Return the coefficient of ρ·k3 in the loss: `ρ x` where neither exponential is capped.

    Args:
        k1: x = l − l^ref, any shape.
        log_ratio: log ρ, of the same shape.

    Returns:
        ∂k/∂l, of the same shape.

    Example:
        >>> ratio_k3_coefficient(torch.tensor([[0.5]]), torch.tensor([[2.0]]).log())
        tensor([[1.]])
    """
    rho = ratio(log_ratio)
    value = torch.expm1((-k1).clamp(max=MAX_LOG_RATIO)) + k1
    return rho * (value * (log_ratio <= MAX_LOG_RATIO) + k3_coefficient(k1))
