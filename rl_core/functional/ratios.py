"""Stage 5, ratios: how far the policy has moved since it sampled, in logarithms.

Log-ratios are kept until the last moment and exponentiated by `ratio`, in one place, with one cap.
"""

from torch import Tensor

from .masks import check_tokens, lengths, select, select_difference

MAX_LOG_RATIO = 20.0
"""e^20 ≈ 5·10⁸: far beyond any trust region, far below overflow (an infinite branch that `min` does
not choose would still make the gradient 0·inf = NaN). Beyond it the gradient is 0."""


def ratio(log_ratio: Tensor) -> Tensor:
    """Exponentiate a log-ratio without overflow.

        ρ = exp(min(x, 20))

    Args:
        log_ratio: x, any shape.

    Returns:
        ρ, of the same shape, finite.

    Example:
        >>> import torch
        >>> ratio(torch.tensor([0.0, 1000.0]))
        tensor([1.0000e+00, 4.8517e+08])
    """
    return log_ratio.clamp(max=MAX_LOG_RATIO).exp()


def token_log_ratio(logprobs: Tensor, old: Tensor, mask: Tensor) -> Tensor:
    """Compare policy and old policy token by token.

        x_{i,t} = l_{i,t} − l^old_{i,t}

    Args:
        logprobs: Of the current policy, in nats `[B, T]`, with gradient.
        old: Of the policy at the start of the update `[B, T]`; the gradient does not enter it.
        mask: Trained tokens `[B, T]`.

    Returns:
        Log-ratios `[B, T]`, 0 outside the mask.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[True, False]])
        >>> token_log_ratio(torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.5, -9.0]]), mask)
        tensor([[0.5000, 0.0000]])
    """
    return select_difference(logprobs, old.detach(), mask, names="logprobs old")


def sequence_log_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """Make one ratio of a completion's: the product over its tokens.

        x_i = Σ_t m_{i,t} x_{i,t},   so that exp(x_i) = Π_t ρ_{i,t}

    The completion is one action. With one trained token it is the token's own ratio.

    Args:
        log_ratio: x, as `token_log_ratio` gives it `[B, T]`.
        mask: Trained tokens `[B, T]`.

    Returns:
        Log-ratios `[B, 1]`: one a row, with a token axis of length 1 for the stages that follow.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[True, True]])
        >>> sequence_log_ratio(torch.tensor([[0.5, 0.25]]), mask)
        tensor([[0.7500]])

    Reference:
        Ahmadian et al., 2024, arXiv 2402.14740.
    """
    check_tokens(mask, log_ratio=log_ratio)
    return select(log_ratio, mask, "log_ratio").sum(dim=1, keepdim=True)


def geometric_log_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """Make one ratio of a completion's: the geometric mean over its tokens.

        x_i = (1/L_i) Σ_t m_{i,t} x_{i,t},   so that exp(x_i) = (Π_t ρ_{i,t})^(1/L_i)

    It moves far less than a token's ratio: clip ranges are near 10⁻⁴. With one trained token it is
    the token's own ratio.

    Args:
        log_ratio: x, as `token_log_ratio` gives it `[B, T]`.
        mask: Trained tokens `[B, T]`.

    Returns:
        Log-ratios `[B, 1]`; 0 for rows without trained tokens.

    Example:
        >>> import torch
        >>> geometric_log_ratio(torch.tensor([[0.5, 0.25]]), torch.tensor([[True, True]]))
        tensor([[0.3750]])

    Reference:
        Zheng et al., 2025, arXiv 2507.18071, eq. 7.
    """
    return sequence_log_ratio(log_ratio, mask) / lengths(mask).clamp(min=1)[:, None]


def geometric_token_log_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """Give every token its completion's geometric ratio in value, its own log-ratio in gradient.

        x'_{i,t} = sg(x_i − x_{i,t}) + x_{i,t},   x_i of `geometric_log_ratio`

    so that advantages may differ from token to token. With equal advantages in a completion the
    gradient, averaged over its tokens, is that of the one ratio.

    Args:
        log_ratio: x, as `token_log_ratio` gives it `[B, T]`.
        mask: Trained tokens `[B, T]`.

    Returns:
        Log-ratios `[B, T]`, 0 outside the mask.

    Example:
        >>> import torch
        >>> geometric_token_log_ratio(torch.tensor([[0.5, 0.25]]), torch.tensor([[True, True]]))
        tensor([[0.3750, 0.3750]])

    Reference:
        Zheng et al., 2025, arXiv 2507.18071, eq. 13 and 14 (GSPO-token).
    """
    shift = geometric_log_ratio(log_ratio.detach(), mask) - log_ratio.detach()
    return (shift + log_ratio) * mask
