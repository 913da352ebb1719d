"""The critic's loss: how far its values are from the returns that they predict."""

import torch
from torch import Tensor

from .masks import check_tokens, select


def value_loss(
    values: Tensor, returns: Tensor, mask: Tensor, *, old: Tensor | None = None, clip: float = 0.0
) -> Tensor:
    """Measure the squared error of a critic at each token, with values that may be held back.

        ½ (V − G)²;   with ε > 0: ½ max( (V − G)², (clip(V, V_old ± ε) − G)² )

    Where the clipped error is the greater one and V has left the range, the term has no gradient: a
    value moves by at most about ε towards its target in one batch, and is always free to return.

    Args:
        values: V, with gradient `[B, T]`; anything outside the mask.
        returns: G, what V is fitted to `[B, T]`; its gradient is not used.
        mask: Trained tokens `[B, T]`, boolean.
        old: V_old, the values that the advantages were made of `[B, T]`; needed if ε > 0.
        clip: ε ≥ 0, in units of reward; 0 is off.

    Returns:
        Terms `[B, T]`, 0 outside the mask, to be averaged over the tokens of the optimiser step.

    Raises:
        ValueError: A shape is wrong, a value inside the mask is not finite, or `old` is missing.

    Example:
        >>> v, g, mask = torch.tensor([[0.5]]), torch.tensor([[1.0]]), torch.tensor([[True]])
        >>> value_loss(v, g, mask)  # ½ · 0.5²
        tensor([[0.1250]])
        >>> value_loss(v, g, mask, old=torch.zeros(1, 1), clip=0.2)  # ½ · (0.2 − 1)²
        tensor([[0.3200]])

    Reference:
        Schulman et al., 2016, arXiv 1506.02438, section 5; Huang et al., 2022, "The 37
        implementation details of proximal policy optimization", detail 9.
    """
    check_tokens(mask, values=values, returns=returns)
    target = select(returns.detach(), mask, "returns")
    current = select(values, mask, "values")
    error = (current - target).square()
    if clip:
        if old is None:
            raise ValueError(f"clip={clip:g} needs `old`, the values before the update, got None")
        check_tokens(mask, old=old)
        before = select(old.detach(), mask, "old values")
        held = before + (current - before).clamp(-clip, clip)
        error = torch.maximum(error, (held - target).square())
    return error / 2
