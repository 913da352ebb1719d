"""Credit on two levels: whole episodes against their siblings, turns against turns at one state.

Episodes of a group often pass through the same state of the environment. What followed a turn there
can be compared with what followed other turns at that very state, which says more than the
episode's outcome does.
"""

import torch
from torch import Tensor

from .groups import group_sizes
from .masks import check_tokens
from .scales import group_std
from .spans import span_ends, span_index


def turn_advantage(
    rewards: Tensor,
    spans: Tensor,
    anchors: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    divide: bool,
    eps: float,
    ddof: int = 1,
) -> Tensor:
    """Compare each turn's return with those of the turns that began at the same state.

        G_{i,j} = R_{i,j} + γ G_{i,j+1},   A_{i,j} = (G_{i,j} − mean_a G) / (std_a G + ε)

    over all turns with the same anchor a. A turn that is alone at its state gets 0.

    Args:
        rewards: Token rewards, booked at the ends of turns `[B, T]`.
        spans: Number of each token's turn `[B, T]`, int64, −1 for none.
        anchors: Name of the state in which each token's turn began `[B, T]`, int64: any numbers,
            the same at all tokens of a turn. States of different prompts have different names.
        mask: Trained and scored tokens `[B, T]`.
        gamma: Discount γ in [0, 1] per turn.
        divide: Whether to divide by the spread.
        eps: ε ≥ 0.
        ddof: 1 for the unbiased standard deviation, 0 for that of the population.

    Returns:
        Advantages `[B, T]`: the turn's at each of its tokens, 0 elsewhere.

    Raises:
        ValueError: A shape or dtype is wrong, or the anchor changes within a turn.

    Example:
        >>> spans = anchors = torch.tensor([[0, 1], [0, 1]])
        >>> rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        >>> turn_advantage(
        ...     rewards, spans, anchors, torch.ones(2, 2).bool(), gamma=0.5, divide=False, eps=0.0
        ... )  # returns 0.5, 1 and 0, 0
        tensor([[ 0.2500,  0.5000],
                [-0.2500, -0.5000]])

    Reference:
        Feng et al., 2025, arXiv 2505.10978, eq. 6 to 8 (GiGPO).
    """
    check_tokens(mask, rewards=rewards, spans=spans, anchors=anchors)
    ends = span_ends(spans, mask)
    inside = mask & (spans >= 0)
    # One more place than there are spans, for the tokens outside all of them.
    index, count = span_index(spans, inside)
    index = torch.where(inside, index, count)
    if count == 0:
        return torch.zeros_like(rewards)
    returns = rewards.new_zeros(count + 1)
    state = torch.zeros(count + 1, dtype=torch.int64, device=mask.device)
    present = torch.zeros(count + 1, dtype=torch.bool, device=mask.device)
    returns[index[ends]] = _discounted(rewards, ends, gamma)[ends]
    state[index[ends]] = anchors[ends]
    present[index[ends]] = True
    if (inside & (state[index] != anchors)).any():
        row, token = (inside & (state[index] != anchors)).nonzero()[0].tolist()
        raise ValueError(
            f"anchors changes within span {int(spans[row, token])} of row {row}, at token {token}; "
            "give all tokens of a turn the name of the state in which it began"
        )
    size = group_sizes(state, present).clamp(min=1)
    total = torch.zeros_like(returns)
    names, place = torch.unique(state, return_inverse=True)
    sums = returns.new_zeros(len(names)).index_add(0, place, torch.where(present, returns, total))
    centred = returns - sums[place] / size
    if divide:
        centred = centred / group_std(returns, state, present, eps=eps, ddof=ddof)
    return torch.where(inside & (size > 1)[index], centred[index], 0.0)


def _discounted(rewards: Tensor, ends: Tensor, gamma: float) -> Tensor:
    """Return each turn's return at its last token: a discount per turn, not per token."""
    columns, ahead = [], rewards.new_zeros(len(rewards))
    for reward, end in zip(
        reversed(rewards.unbind(dim=1)), reversed(ends.unbind(dim=1)), strict=True
    ):
        ahead = torch.where(end, reward + gamma * ahead, ahead)
        columns.append(ahead)
    return torch.stack(columns[::-1], dim=1)
