"""Spans: the turns or reasoning steps of a completion, and what each of them was paid.

`spans` `[B, T]` numbers them: k ≥ 0 at the tokens of the row's span k, −1 elsewhere. Only trained
tokens count; a span may be interrupted by environment text. Rewards of spans are given at the last
token of each, because reward-to-go is biased if a reward is booked before the last token it depends
on: such rewards are refused.
"""

import torch
from torch import Tensor

from .masks import check_tokens, select


def span_ends(spans: Tensor, mask: Tensor) -> Tensor:
    """Find the last trained token of every span.

        e_{i,t} = m_{i,t} ∧ spans_{i,t} ≥ 0 ∧ the next trained token is in another span, or none is

    Args:
        spans: Number of each token's span in its row `[B, T]`, int64, −1 for none.
        mask: Trained tokens `[B, T]`.

    Returns:
        Boolean `[B, T]`.

    Raises:
        ValueError: A shape or dtype is wrong, or a span goes on after another one has begun.

    Example:
        >>> spans = torch.tensor([[0, 0, -1, 1, 1]])
        >>> span_ends(spans, torch.tensor([[True, True, False, True, True]]))
        tensor([[False,  True, False, False,  True]])
    """
    check_tokens(mask, spans=spans)
    if spans.dtype != torch.int64:
        raise ValueError(f"spans is a tensor of torch.int64, got {spans.dtype}; use spans.long()")
    inside = mask & (spans >= 0)
    if not mask.shape[1]:
        return inside
    # The greatest number so far, seen from the left; the least still to come, from the right.
    before = torch.where(inside, spans, -1).cummax(dim=1).values
    back = (inside & (spans < before)).flatten(1).any(dim=1)
    if back.any():
        row = int(back.nonzero()[0])
        raise ValueError(
            f"row {row} of spans goes back to an earlier span; number the spans of a row in their "
            "order, each one running to its end before the next begins"
        )
    none = torch.iinfo(torch.int64).max
    ahead = torch.where(inside, spans, none).flip(1).cummin(dim=1).values.flip(1)
    following = torch.cat([ahead[:, 1:], torch.full_like(ahead[:, :1], none)], dim=1)
    return inside & (following > spans)


def check_booking(rewards: Tensor, spans: Tensor, mask: Tensor) -> Tensor:
    """Refuse rewards that are booked anywhere but at the last token of a span.

    Args:
        rewards: Token rewards `[B, T]`; anything outside the mask.
        spans: Number of each token's span `[B, T]`, int64, −1 for none.
        mask: Trained and scored tokens `[B, T]`.

    Returns:
        The rewards `[B, T]`, 0 outside the mask.

    Raises:
        ValueError: A reward stands elsewhere, or is not finite.

    Example:
        >>> mask, spans = torch.tensor([[True, True]]), torch.tensor([[0, 0]])
        >>> check_booking(torch.tensor([[1.0, 0.0]]), spans, mask)
        Traceback (most recent call last):
        ...
        ValueError: token_rewards of shape [1, 2] books 1 in row 0 at token 0, before span 0 ends \
at token 1: its last tokens would not be credited with it; book it at token 1
    """
    check_tokens(mask, token_rewards=rewards)
    clean = select(rewards, mask, "token_rewards")
    early = (clean != 0) & ~span_ends(spans, mask)
    if early.any():
        row, token = early.nonzero()[0].tolist()
        number = int(spans[row, token])
        head = (
            f"token_rewards of shape {list(rewards.shape)} books {clean[row, token].item():g} in "
            f"row {row} at token {token}, "
        )
        if number < 0:
            raise ValueError(head + "which is in no span; number the tokens that it judges")
        end = int(((spans[row] == number) & mask[row]).nonzero()[-1])
        raise ValueError(
            f"{head}before span {number} ends at token {end}: its last tokens would not be "
            f"credited with it; book it at token {end}"
        )
    return clean


def at_span_ends(rewards: Tensor, spans: Tensor, mask: Tensor) -> Tensor:
    """Book the reward of each span at its last trained token.

        r_{i,t} = R_{i,k} · 1[t is the last trained token of span k]

    Args:
        rewards: R, what the spans of each row were paid `[B, K]`; anything where a row has fewer.
        spans: Number of each token's span in its row, 0 to K−1, `[B, T]`, int64, −1 for none.
        mask: Trained tokens `[B, T]`.

    Returns:
        Token rewards `[B, T]`.

    Raises:
        ValueError: A shape is wrong, a row has more spans than rewards, or a reward that counts is
            not finite.

    Example:
        >>> spans, mask = torch.tensor([[0, 0, 1]]), torch.ones(1, 3).bool()
        >>> at_span_ends(torch.tensor([[0.5, 2.0]]), spans, mask)
        tensor([[0.0000, 0.5000, 2.0000]])
    """
    ends = span_ends(spans, mask)
    if rewards.ndim != 2 or len(rewards) != len(mask):
        raise ValueError(
            f"span rewards has shape {list(rewards.shape)}, expected [{len(mask)}, K], one row of "
            "K rewards for each row of the mask"
        )
    most = int(torch.where(ends, spans, -1).max()) if ends.numel() else -1
    if most >= rewards.shape[1]:
        raise ValueError(
            f"spans counts up to {most}, but each row has {rewards.shape[1]} rewards; give one "
            "reward for each span"
        )
    if most < 0:
        return rewards.new_zeros(mask.shape)
    return select(rewards.gather(1, spans.clamp(0, rewards.shape[1] - 1)), ends, "span rewards")


def over_spans(rewards: Tensor, spans: Tensor, mask: Tensor) -> Tensor:
    """Spread what stands at the end of each span evenly over its tokens.

        r_{i,t} = R_{i,k} / n_k for every trained token t of span k

    Sums over whole spans stay what they were. A reward-to-go then credits a token only with the
    share that is booked from it on.

    Args:
        rewards: Token rewards, booked at the ends of spans `[B, T]`.
        spans: Number of each token's span `[B, T]`, int64, −1 for none.
        mask: Trained tokens `[B, T]`.

    Returns:
        Token rewards `[B, T]`.

    Example:
        >>> spans, mask = torch.tensor([[0, 0, 1]]), torch.ones(1, 3).bool()
        >>> over_spans(torch.tensor([[0.0, 0.5, 2.0]]), spans, mask)
        tensor([[0.2500, 0.2500, 2.0000]])
    """
    inside = mask & (spans >= 0)
    index, count = span_index(spans, inside)
    paid = rewards.new_zeros(count).index_add(0, index[inside], rewards[inside])
    sizes = rewards.new_zeros(count).index_add(0, index[inside], torch.ones_like(rewards[inside]))
    return torch.where(inside, (paid / sizes.clamp(min=1))[index], 0.0)


def span_index(spans: Tensor, inside: Tensor) -> tuple[Tensor, int]:
    """Number the spans of the whole batch: one number for each (row, span).

    Args:
        spans: Number of each token's span in its row `[B, T]`, int64.
        inside: Tokens that are in a span `[B, T]`, boolean.

    Returns:
        The number at each token `[B, T]`, 0 outside; and how many numbers there may be.

    Example:
        >>> span_index(torch.tensor([[0, 1], [0, 0]]), torch.ones(2, 2).bool())
        (tensor([[0, 1],
                [2, 2]]), 4)
    """
    if not spans.numel():
        return torch.zeros_like(spans), 0
    width = int(spans.max().clamp(min=0)) + 1
    rows = torch.arange(len(spans), device=spans.device)[:, None]
    return torch.where(inside, rows * width + spans, 0), len(spans) * width


def normalise_steps(
    rewards: Tensor,
    spans: Tensor,
    mask: Tensor,
    groups: Tensor,
    *,
    divide: bool,
    eps: float,
    ddof: int = 1,
) -> Tensor:
    """Centre the span rewards of a group on their mean, and divide them by their spread.

        r̃_{i,k} = (r_{i,k} − mean_g r) / (std_g r + ε),   over all spans of all members of g

    Every span counts once, also one that was paid 0. Where the spread is 0 the divisor is 1.

    Args:
        rewards: Token rewards, booked at the ends of spans `[B, T]`.
        spans: Number of each token's span `[B, T]`, int64, −1 for none.
        mask: Trained and scored tokens `[B, T]`.
        groups: The group of each row `[B]`, int64.
        divide: Whether to divide by the spread.
        eps: ε ≥ 0.
        ddof: 1 for the unbiased standard deviation, 0 for that of the population.

    Returns:
        Token rewards `[B, T]`, at the ends of spans.

    Example:
        >>> spans, mask = torch.tensor([[0, 1], [0, 0]]), torch.ones(2, 2).bool()
        >>> rewards = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # three spans: 1, 0, 2
        >>> normalise_steps(rewards, spans, mask, torch.tensor([0, 0]), divide=True, eps=0.0)
        tensor([[ 0., -1.],
                [ 0.,  1.]])

    Reference:
        Shao et al., 2024, arXiv 2402.03300, section 4.1.3.
    """
    ends = span_ends(spans, mask)
    names, index = torch.unique(groups, return_inverse=True)
    own = index[:, None].expand(mask.shape)[ends]
    paid = rewards[ends]

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(len(names)).index_add(0, own, values)[own]

    size = total(torch.ones_like(paid))
    centred = paid - total(paid) / size
    if divide:
        spread = (total(centred.square()) / (size - ddof).clamp(min=1)).sqrt()
        centred = centred / torch.where(spread > 0, spread + eps, 1.0)
    return torch.zeros_like(rewards).masked_scatter(ends, centred)
