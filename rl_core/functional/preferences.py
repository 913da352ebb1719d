"""Losses over preference pairs: a better and a worse completion of one prompt.

No rollout is needed and no reward: how much better the one is, is not asked. Pairs can be made of
the scores of a group.
"""

import torch
from torch import Tensor

from .groups import group_max, group_min
from .masks import check_tokens, lengths, select_difference


def log_ratio_margin(
    chosen: Tensor,
    rejected: Tensor,
    chosen_reference: Tensor,
    rejected_reference: Tensor,
    chosen_mask: Tensor,
    rejected_mask: Tensor,
    *,
    mean: bool = False,
) -> Tensor:
    """Measure how much more the policy prefers the chosen completion than the reference does.

        d = Σ_t (l_w − l_w^ref) − Σ_t (l_l − l_l^ref),   means instead of sums on request

    Args:
        chosen: Log-probabilities of the better completions, in nats `[P, T]`, with gradient.
        rejected: Of the worse ones `[P, T']`.
        chosen_reference: Of the better ones by the reference `[P, T]`.
        rejected_reference: Of the worse ones by the reference `[P, T']`.
        chosen_mask: Completion tokens `[P, T]`.
        rejected_mask: Completion tokens `[P, T']`.
        mean: Whether to average over each completion's tokens instead of summing.

    Returns:
        d `[P]`.

    Raises:
        ValueError: A shape is wrong, or a value inside a mask is not finite.

    Example:
        >>> mask, zero = torch.ones(1, 1).bool(), torch.zeros(1, 1)
        >>> log_ratio_margin(zero - 1, zero - 3, zero - 2, zero - 2, mask, mask)  # 1 − (−1)
        tensor([2.])
    """
    check_tokens(chosen_mask, chosen=chosen)
    if len(rejected_mask) != len(chosen_mask):
        raise ValueError(
            f"chosen has {len(chosen_mask)} rows and rejected {len(rejected_mask)}; a pair is one "
            "of each"
        )
    better = select_difference(
        chosen, chosen_reference.detach(), chosen_mask, names="chosen chosen_reference"
    ).sum(dim=1)
    worse = select_difference(
        rejected, rejected_reference.detach(), rejected_mask, names="rejected rejected_reference"
    ).sum(dim=1)
    if mean:
        better = better / lengths(chosen_mask).clamp(min=1)
        worse = worse / lengths(rejected_mask).clamp(min=1)
    return better - worse


def dpo(margin: Tensor, *, beta: float, smoothing: float = 0.0) -> Tensor:
    """Classify which completion of a pair is the better one, with log-ratios as scores.

        −(1−ε) log σ(β d) − ε log σ(−β d)

    At the start policy and reference are the same and every term is ln 2.

    Args:
        margin: d, sums over tokens `[P]`.
        beta: β > 0, how strongly the policy is held near the reference.
        smoothing: ε in [0, 0.5], share of the pairs taken to be the wrong way round.

    Returns:
        Terms `[P]`.

    Example:
        >>> dpo(torch.tensor([0.0, 20.0]), beta=0.1)  # ln 2, −ln σ(2)
        tensor([0.6931, 0.1269])

    Reference:
        Rafailov et al., 2023, arXiv 2305.18290, eq. 7; Mitchell, 2023, "A note on DPO with noisy
        preferences".
    """
    score = torch.nn.functional.logsigmoid
    return -(1 - smoothing) * score(beta * margin) - smoothing * score(-beta * margin)


def ipo(margin: Tensor, *, beta: float) -> Tensor:
    """Pull the margin of every pair to a fixed size instead of to infinity.

        (d − 1/(2β))²

    Args:
        margin: d, means over tokens `[P]`: sums would make the target depend on the length.
        beta: β > 0.

    Returns:
        Terms `[P]`.

    Example:
        >>> ipo(torch.tensor([0.0, 5.0]), beta=0.1)  # 5², 0
        tensor([25.,  0.])

    Reference:
        Azar et al., 2023, arXiv 2310.12036, eq. 17.
    """
    return (margin - 1 / (2 * beta)).square()


def pairs_of_groups(rewards: Tensor, groups: Tensor, scored: Tensor) -> Tensor:
    """Make a pair of every group whose scores differ: a best completion with a worst one.

    Of equal ones the first is taken, so that the pairs follow from the batch.

    Args:
        rewards: Scores `[B]`; anything in unscored rows.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        Row numbers `[P, 2]`, int64: the better one, the worse one; in the order of the groups.

    Example:
        >>> rewards, groups = torch.tensor([0.0, 1.0, 0.5, 1.0]), torch.tensor([0, 0, 0, 1])
        >>> pairs_of_groups(rewards, groups, torch.ones(4).bool())
        tensor([[1, 0]])
    """
    top, low = group_max(rewards, groups, scored), group_min(rewards, groups, scored)
    found = []
    for name in groups.unique().tolist():
        inside = scored & (groups == name) & (top > low)
        if inside.any():
            best = int((inside & (rewards == top)).nonzero()[0])
            found.append([best, int((inside & (rewards == low)).nonzero()[0])])
    return torch.tensor(found, dtype=torch.int64, device=groups.device).reshape(-1, 2)
