"""Stage 9, what is kept: which completions and tokens are left out of the loss, and why.

A completion that is left out leaves the numerator and the denominators; it stays in the baselines,
which were computed before. A token of little entropy keeps its place in the denominators and gets
no advantage.
"""

import torch
from torch import Tensor

from .masks import check_rows, check_tokens


def finished(mask: Tensor, truncated: Tensor) -> Tensor:
    """Keep the completions that did not run out of length (overlong filter).

    Args:
        mask: Trained tokens `[B, T]`.
        truncated: Rows that were cut off `[B]`, boolean.

    Returns:
        Rows kept `[B]`, boolean.

    Example:
        >>> finished(torch.ones(2, 1).bool(), torch.tensor([True, False]))
        tensor([False,  True])

    Reference:
        Yu et al., 2025, arXiv 2503.14476, section 3.4.
    """
    check_rows(mask, truncated=truncated)
    return ~_boolean(truncated, "truncated")


def fresh(mask: Tensor, lag: Tensor, *, most: int) -> Tensor:
    """Keep the completions that were sampled at most some weight updates ago.

    Args:
        mask: Trained tokens `[B, T]`.
        lag: Updates since each row was sampled `[B]`, int64.
        most: The greatest lag that is kept.

    Returns:
        Rows kept `[B]`, boolean.

    Raises:
        ValueError: A lag is negative.

    Example:
        >>> fresh(torch.ones(3, 1).bool(), torch.tensor([0, 2, 3]), most=2)
        tensor([ True,  True, False])
    """
    check_rows(mask, lag=lag)
    if (lag < 0).any():
        row = int((lag < 0).nonzero()[0])
        raise ValueError(
            f"lag of shape {list(lag.shape)} holds {int(lag[row])} in row {row}: a completion "
            "cannot be sampled from later weights; pass current version − version of the sampler"
        )
    return lag <= most


def informative(alive: Tensor, groups: Tensor | None) -> Tensor:
    """Keep the groups (rows, without groups) in which some advantage is not 0.

    Args:
        alive: Rows with an advantage that is not 0 `[B]`, boolean.
        groups: The group of each row `[B]`, int64; none: each row for itself.

    Returns:
        Rows kept `[B]`, boolean.

    Example:
        >>> informative(torch.tensor([True, False, False]), torch.tensor([0, 0, 1]))
        tensor([ True,  True, False])

    Reference:
        Yu et al., 2025, arXiv 2503.14476, section 3.2.
    """
    return alive if groups is None else torch.isin(groups, groups[alive])


def most_uncertain(entropy: Tensor, mask: Tensor, *, quantile: float) -> Tensor:
    """Keep the tokens at which the policy was most uncertain.

        m_{i,t} ∧ H_{i,t} ≥ the q-quantile of H over the trained tokens of the batch

    Args:
        entropy: H of the policy that sampled, in nats `[B, T]`; anything outside the mask.
        mask: Trained tokens of the whole batch `[B, T]`.
        quantile: q in [0, 1): the share of the tokens that is dropped.

    Returns:
        Tokens kept `[B, T]`, boolean.

    Raises:
        ValueError: A shape is wrong, or an entropy that counts is not finite.

    Example:
        >>> h, mask = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]), torch.ones(1, 5).bool()
        >>> most_uncertain(h, mask, quantile=0.8)
        tensor([[False, False, False, False,  True]])

    Reference:
        Wang et al., 2025, arXiv 2506.01939 (quantile 0.8).
    """
    check_tokens(mask, entropy=entropy)
    inside = entropy[mask]
    if not inside.numel():
        return mask
    if not torch.isfinite(inside).all():
        row, token = (mask & ~torch.isfinite(entropy)).nonzero()[0].tolist()
        raise ValueError(
            f"entropy of shape {list(entropy.shape)} holds {entropy[row, token].item()} in row "
            f"{row}, token {token}, where every value counts and must be finite"
        )
    # torch.quantile refuses more than 2²⁴ values; the order statistic has no such limit.
    rank = min(inside.numel() - 1, int(-(-quantile * (inside.numel() - 1) // 1)))
    return mask & (entropy >= inside.kthvalue(rank + 1).values)


def _boolean(rows: Tensor, name: str) -> Tensor:
    if rows.dtype != torch.bool:
        raise ValueError(f"{name} is a tensor of torch.bool, got {rows.dtype}; use {name}.bool()")
    return rows
