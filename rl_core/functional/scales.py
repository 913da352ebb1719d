"""Stage 4, scales: what a centred return is divided by."""

import torch
from torch import Tensor

from .baselines import group_mean
from .groups import group_sizes, group_sum


def group_std(returns: Tensor, groups: Tensor, scored: Tensor, *, eps: float) -> Tensor:
    """Measure the spread of the returns within each row's group.

        s_i = √( (1/(n_i−1)) Σ_{j ∈ g(i)} (R_j − mean_g)² ) + ε

    The unbiased form (n−1). Where the spread is 0 (equal returns, one scored member) the divisor is
    1, because the centred return is 0 there, with ε = 0 too.

    Args:
        returns: R `[B]`.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.
        eps: ε ≥ 0, keeps nearly equal returns from becoming large advantages.

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
    deviation = (squares / (group_sizes(groups, scored) - 1).clamp(min=1)).sqrt()
    return torch.where(deviation > 0, deviation + eps, 1.0)
