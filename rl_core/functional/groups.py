"""Sums over the groups of a batch, for the stages that compare a completion with its siblings.

Groups are named by any int64 per row, in any order and of any sizes. Only scored rows are members:
an unscored completion changes neither the sum nor the size of its group.
"""

import torch
from torch import Tensor


def _index(groups: Tensor) -> tuple[Tensor, int]:
    """Number the groups 0..P-1; return each row's number and P."""
    names, index = torch.unique(groups, return_inverse=True)
    return index, names.numel()


def group_sum(values: Tensor, groups: Tensor, scored: Tensor) -> Tensor:
    """Add up the values of the scored members of each row's group.

        S_i = Σ_{j ∈ g(i), scored} x_j

    Args:
        values: One number a row `[B]`; those of unscored rows may be anything.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        The sum of its group, for each row `[B]`.

    Example:
        >>> rewards, groups = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([7, 3, 7])
        >>> group_sum(rewards, groups, torch.tensor([True, True, True]))
        tensor([5., 2., 5.])
    """
    index, count = _index(groups)
    members = torch.where(scored, values, 0)
    return members.new_zeros(count).index_add(0, index, members)[index]


def group_sizes(groups: Tensor, scored: Tensor) -> Tensor:
    """Count the scored members of each row's group.

        n_i = |{j ∈ g(i) : scored_j}|

    Args:
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        The size of its group, for each row `[B]`, int64; 0 where no member is scored.

    Example:
        >>> group_sizes(torch.tensor([7, 3, 7]), torch.tensor([True, False, True]))
        tensor([2, 0, 2])
    """
    return group_sum(torch.ones_like(groups), groups, scored)


def group_min(values: Tensor, groups: Tensor, scored: Tensor) -> Tensor:
    """Return the least value among the scored members of each row's group.

    Sums are taken relative to it, so that a group of equal rewards is centred to exactly 0 rather
    than to a rounding error, which division by its standard deviation would blow up.

    Args:
        values: One number a row `[B]`; those of unscored rows may be anything.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        The minimum of its group, for each row `[B]`; 0 where no member is scored.

    Example:
        >>> group_min(torch.tensor([0.3, 0.1]), torch.tensor([0, 0]), torch.tensor([True, True]))
        tensor([0.1000, 0.1000])
    """
    index, count = _index(groups)
    members = torch.where(scored, values, torch.inf)
    least = members.new_full((count,), torch.inf).scatter_reduce(0, index, members, "amin")[index]
    return torch.where(torch.isinf(least), 0.0, least)


def group_max(values: Tensor, groups: Tensor, scored: Tensor) -> Tensor:
    """Return the greatest value among the scored members of each row's group.

    Args:
        values: One number a row `[B]`; those of unscored rows may be anything.
        groups: The group of each row `[B]`, int64.
        scored: Rows that have a reward `[B]`, boolean.

    Returns:
        The maximum of its group, for each row `[B]`; 0 where no member is scored.

    Example:
        >>> group_max(torch.tensor([0.3, 0.1]), torch.tensor([0, 0]), torch.tensor([True, True]))
        tensor([0.3000, 0.3000])
    """
    return -group_min(-values, groups, scored)
