"""Stage 4, scales: what a centred return is divided by.

A divisor is never 0 and never NaN: where there is no spread (equal returns, a single member) it is
1, because the centred return is 0 there.
"""

import torch
from torch import Tensor

from .baselines import group_mean
from .groups import group_min, group_sizes, group_sum
from .masks import check_tokens, select


def group_std(
    returns: Tensor, groups: Tensor, scored: Tensor, *, eps: float, ddof: int = 1
) -> Tensor:
    """Measure the spread of the returns within each row's group.

        s_i = √( (1/(n_i−ddof)) Σ_{j ∈ g(i)} (R_j − mean_g)² ) + ε

    Where the spread is 0 (equal returns, one scored member) the divisor is 1, with ε = 0 too.

    Args:
        returns: R `[B]`.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.
        eps: ε ≥ 0, keeps nearly equal returns from becoming large advantages.
        ddof: 1 for the unbiased form, 0 for the population's.

    Returns:
        The divisor of each row `[B]`, positive.

    Example:
        >>> returns, groups = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([0, 0, 0, 0])
        >>> group_std(returns, groups, torch.ones(4, dtype=torch.bool), eps=0.0)[0]  # √(4·0.25/3)
        tensor(0.5774)

    Reference:
        Shao et al., 2024, arXiv 2402.03300, section 4.1.2.
    """
    centred = returns - group_mean(returns, groups, scored)
    squares = group_sum(centred.square(), groups, scored)
    deviation = (squares / (group_sizes(groups, scored) - ddof).clamp(min=1)).sqrt()
    return torch.where(deviation > 0, deviation + eps, 1.0)


def leave_one_out_std(
    returns: Tensor, groups: Tensor, scored: Tensor, *, eps: float, ddof: int = 1
) -> Tensor:
    """Measure the spread of the returns of the other members of each row's group.

        s_i = √( (1/(n_i−1−ddof)) Σ_{j ∈ g(i), j≠i} (R_j − b_i)² ) + ε,   b_i of `leave_one_out`

    with `Σ_{j≠i} (R_j − b_i)² = Σ_j (R_j − mean)² − (n/(n−1)) (R_i − mean)²`. The one completion
    that differs from all the others has a divisor of 1: their spread is 0.

    Args:
        returns: R `[B]`.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.
        eps: ε ≥ 0.
        ddof: 1 for the unbiased form, 0 for the population's.

    Returns:
        The divisor of each row `[B]`, positive; 1 with fewer than `ddof + 1` others.

    Example:
        >>> returns, groups = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([0, 0, 0, 0])
        >>> leave_one_out_std(returns, groups, torch.ones(4).bool(), eps=0.0)[0]  # of 0, 0, 1
        tensor(0.5774)
    """
    size = group_sizes(groups, scored)
    centred = returns - group_mean(returns, groups, scored)
    squares = group_sum(centred.square(), groups, scored)
    rest = squares - centred.square() * size / (size - 1).clamp(min=1)
    # The subtraction leaves rounding where it should leave 0; relative to the sum it is tiny.
    rest = torch.where(rest > 1e-6 * squares, rest, 0.0)
    deviation = (rest / (size - 1 - ddof).clamp(min=1)).sqrt()
    return torch.where((deviation > 0) & (size - 1 > ddof), deviation + eps, 1.0)


def batch_std(returns: Tensor, scored: Tensor, *, eps: float, ddof: int = 1) -> Tensor:
    """Measure the spread of the returns of the whole batch.

        s = √( (1/(n−ddof)) Σ_{j scored} (R_j − mean)² ) + ε

    Args:
        returns: R `[B]`.
        scored: Rows that have a reward `[B]`, boolean.
        eps: ε ≥ 0.
        ddof: 1 for the unbiased form, 0 for the population's.

    Returns:
        The divisor of each row `[B]`, positive.

    Example:
        >>> batch_std(torch.tensor([1.0, 3.0]), torch.tensor([True, True]), eps=0.0, ddof=0)
        tensor([1., 1.])

    Reference:
        Liu et al., 2025, arXiv 2508.08221 (LitePPO).
    """
    everyone = torch.zeros_like(scored, dtype=torch.int64)
    return group_std(returns, everyone, scored, eps=eps, ddof=ddof)


def group_level(returns: Tensor, groups: Tensor, scored: Tensor) -> Tensor:
    """Divide by the mean return itself: rare successes weigh more.

        s_i = mean_g R, or 1 where it is 0

    Args:
        returns: R `[B]`, none of them negative.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        The divisor of each row `[B]`, positive.

    Raises:
        ValueError: A return that counts is negative.

    Example:
        >>> returns, groups = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 0, 0, 0])
        >>> group_level(returns, groups, torch.ones(4).bool())[0]
        tensor(0.2500)

    Reference:
        arXiv 2602.02710 (MaxRL).
    """
    if (group_min(returns, groups, scored) < 0).any():
        row = int((scored & (returns < 0)).nonzero()[0])
        raise ValueError(
            f"rewards of shape {list(returns.shape)} holds {returns[row].item():g} in row {row}, "
            "and a mean of rewards of both signs is no scale; shift them to 0 or more, or set "
            "scale='group_std'"
        )
    mean = group_mean(returns, groups, scored)
    return torch.where(mean > 0, mean, 1.0)


def whiten(values: Tensor, mask: Tensor, *, eps: float, ddof: int = 1) -> Tensor:
    """Shift and scale to mean 0 and spread 1 over all trained tokens of the batch.

        y = (x − mean) / (std + ε) where m;   mean and std over the tokens with m

    Args:
        values: x `[B, T]`; anything outside the mask.
        mask: Trained and scored tokens of the whole batch `[B, T]`.
        eps: ε ≥ 0.
        ddof: 1 for the unbiased form, 0 for the population's.

    Returns:
        y `[B, T]`, 0 outside the mask, and everywhere if all x are equal.

    Example:
        >>> whiten(torch.tensor([[1.0, 3.0]]), torch.tensor([[True, True]]), eps=0.0)
        tensor([[-0.7071,  0.7071]])

    Reference:
        Hu et al., 2025, arXiv 2501.03262, eq. 9.
    """
    check_tokens(mask, values=values)
    clean = select(values, mask, "advantages")
    inside = clean[mask]
    if not inside.numel() or inside.min() == inside.max():
        return torch.zeros_like(clean)
    centred = (clean - inside.mean()) * mask
    spread = (centred.square().sum() / max(1, inside.numel() - ddof)).sqrt()
    return centred / (spread + eps)
