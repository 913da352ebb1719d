"""Stage 3, baselines: what a completion's return is compared with.

A baseline that does not depend on the completion itself leaves the expected gradient as it is and
takes variance out. Each function here returns one number a row `[B]`; unscored rows count nowhere,
and what is returned for them has no meaning.
"""

import torch
from torch import Tensor

from .groups import group_min, group_sizes, group_sum


def batch_mean(returns: Tensor, scored: Tensor) -> Tensor:
    """Compare with the mean return of the whole batch.

        b = (1/n) Σ_{j scored} R_j

    The mean contains the row itself, so the expected gradient is (n−1)/n of the true one.

    Args:
        returns: R `[B]`.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        The baseline of each row `[B]`.

    Example:
        >>> batch_mean(torch.tensor([1.12, 0.55]), torch.tensor([True, True]))
        tensor([0.8350, 0.8350])

    Reference:
        Williams, 1992, "Simple statistical gradient-following algorithms", Machine Learning 8.
    """
    return group_mean(returns, torch.zeros_like(scored, dtype=torch.int64), scored)


def moving_average(
    returns: Tensor, scored: Tensor, state: float | None, *, decay: float
) -> tuple[Tensor, float | None]:
    """Compare with an exponential moving average over the batches before this one.

        b_k = d · b_{k−1} + (1−d) · mean(R_k);   batch k is compared with b_{k−1}

    Because b_{k−1} has seen nothing of batch k, the gradient is unbiased. Before the first batch
    there is no average: that batch is compared with 0, and its mean becomes the average.

    Args:
        returns: R `[B]`.
        scored: Rows that have a reward `[B]`, boolean.
        state: b_{k−1}; `None` before the first batch.
        decay: d in [0, 1).

    Returns:
        The baseline of each row `[B]`, and b_k, to be kept (in the checkpoint, too).

    Example:
        >>> moving_average(torch.tensor([1.0]), torch.tensor([True]), 0.5, decay=0.75)
        (tensor([0.5000]), 0.625)

    Reference:
        Liu et al., 2025, arXiv 2506.24119 (decay 0.95).
    """
    baseline = torch.full_like(returns, state or 0.0)
    if not scored.any():
        return baseline, state
    mean = returns[scored].mean().item()
    return baseline, mean if state is None else decay * state + (1 - decay) * mean


def group_mean(returns: Tensor, groups: Tensor, scored: Tensor) -> Tensor:
    """Compare with the mean return of the row's group.

        b_i = (1/n_i) Σ_{j ∈ g(i)} R_j

    computed as `min + mean(R − min)`: a group of equal returns is centred to exactly 0.

    Args:
        returns: R `[B]`.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        The baseline of each row `[B]`; in a group with one scored member its own return, so that
        its advantage is 0.

    Example:
        >>> returns, groups = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([0, 0, 0, 0])
        >>> group_mean(returns, groups, torch.tensor([True, True, True, True]))
        tensor([0.5000, 0.5000, 0.5000, 0.5000])

    Reference:
        Shao et al., 2024, arXiv 2402.03300, section 4.1.2.
    """
    least = group_min(returns, groups, scored)
    size = group_sizes(groups, scored).clamp(min=1)
    return least + group_sum(returns - least, groups, scored) / size


def leave_one_out(returns: Tensor, groups: Tensor, scored: Tensor) -> Tensor:
    """Compare with the mean return of the other members of the row's group.

        b_i = (1/(n_i−1)) Σ_{j ∈ g(i), j≠i} R_j = (S_i − R_i)/(n_i − 1)

    computed relative to the least return of the group, as in `group_mean`. It does not contain the
    row itself, so the gradient is unbiased; the advantage is n/(n−1) times that of `group_mean`.

    Args:
        returns: R `[B]`.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        The baseline of each row `[B]`; in a group with one scored member its own return, so that
        its advantage is 0.

    Example:
        >>> returns, groups = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 0])
        >>> leave_one_out(returns, groups, torch.tensor([True, True, True]))  # 8/2, 7/2, 3/2
        tensor([4.0000, 3.5000, 1.5000])

    Reference:
        Ahmadian et al., 2024, arXiv 2402.14740.
    """
    least = group_min(returns, groups, scored)
    others = (group_sizes(groups, scored) - 1).clamp(min=1)
    rest = group_sum(returns - least, groups, scored) - (returns - least)
    return least + rest / others


def length_weighted(returns: Tensor, lengths: Tensor, groups: Tensor, scored: Tensor) -> Tensor:
    """Compare with the mean return of the row's group, each member weighing its length.

        b_i = Σ_{j ∈ g(i)} L_j R_j / Σ_{j ∈ g(i)} L_j

    computed relative to the least return of the group, as in `group_mean`. Among the baselines that
    are one number a group it has the least variance, if the squared norm of a completion's gradient
    grows with its length, and exactly on-policy.

    Args:
        returns: R `[B]`.
        lengths: L, trained tokens of each row `[B]`.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        The baseline of each row `[B]`; that of `group_mean` where all lengths are 0.

    Example:
        >>> returns, groups = torch.tensor([1.0, 0.0]), torch.tensor([0, 0])
        >>> length_weighted(returns, torch.tensor([1, 3]), groups, torch.tensor([True, True]))
        tensor([0.2500, 0.2500])

    Reference:
        Hao et al., 2025, arXiv 2505.23585, eq. 8 (OPO).
    """
    least = group_min(returns, groups, scored)
    weights = lengths.to(returns)
    total = group_sum(weights, groups, scored)
    mean = group_sum(weights * (returns - least), groups, scored) / total.clamp(min=1)
    return torch.where(total > 0, least + mean, group_mean(returns, groups, scored))
