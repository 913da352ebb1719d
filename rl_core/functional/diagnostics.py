"""Numbers to look at while training: nothing here has a gradient or changes a loss."""

import torch
from torch import Tensor

from .masks import check_tokens, select
from .ratios import MAX_LOG_RATIO, ratio

POSITIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Ends of the position bands of `action_space`: mass concentrates after the first token."""


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Measure how much of the spread of the returns a critic predicts.

        1 − Var(G − V) / Var(G),   over the trained tokens

    1 is a perfect critic, 0 one that says the same everywhere, below 0 one that is worse than that.

    Args:
        values: V `[B, T]`; anything outside the mask.
        returns: G `[B, T]`; anything outside the mask.
        mask: Trained and scored tokens `[B, T]`.

    Returns:
        At most 1; 0 where the returns do not vary.

    Example:
        >>> g, mask = torch.tensor([[0.0, 2.0]]), torch.ones(1, 2).bool()
        >>> explained_variance(torch.tensor([[0.5, 1.5]]), g, mask)  # 1 − 0.25/1
        0.75
    """
    check_tokens(mask, values=values, returns=returns)
    target = select(returns, mask, "returns")[mask].double()
    error = target - select(values, mask, "values")[mask].double()
    if target.numel() < 2 or not target.var(correction=0) > 0:
        return 0.0
    return 1 - float(error.var(correction=0) / target.var(correction=0))


def weight_tails(log_ratio: Tensor, mask: Tensor) -> dict[str, float]:
    """Describe the tails of importance weights: a mean near 1 hides them.

        effective share = (Σ ω)² / (n Σ ω²): 1 if all weigh the same, 1/n if one weighs all

    Args:
        log_ratio: x = log ω `[B, T]` (or `[B, 1]`, with a mask of that shape).
        mask: Terms that count, of the same shape.

    Returns:
        `mean`, `median`, `p99`, `max`, `min` of ω, and `effective`, the effective share; empty if
        nothing counts.

    Example:
        >>> found = weight_tails(torch.tensor([[1.0, 3.0]]).log(), torch.ones(1, 2).bool())
        >>> found["mean"], round(found["effective"], 4)  # 4²/(2·10)
        (2.0, 0.8)
    """
    omega = ratio(select(log_ratio, mask, "log_ratio"))[mask].double()
    if not omega.numel():
        return {}
    ordered, count = omega.sort().values, omega.numel()
    return {
        "mean": float(omega.mean()),
        "median": float(ordered[(count - 1) // 2]),
        "p99": float(ordered[min(count - 1, int(0.99 * count))]),
        "max": float(ordered[-1]),
        "min": float(ordered[0]),
        "effective": float(omega.sum().square() / (count * omega.square().sum())),
    }


def divergences(log_ratio: Tensor, mask: Tensor) -> dict[str, float]:
    """Estimate KL(μ‖π) from tokens that μ sampled, in two ways.

        k1 = −x,   k3 = e^x − 1 − x,   x = log π − log μ,   means over the tokens

    k1 has either sign and much noise, k3 is never negative; far apart they say that few tokens
    carry most of the weight. For KL(π‖ref) on tokens of π, x is log ref − log π.

    Args:
        log_ratio: x `[B, T]`; anything outside the mask.
        mask: Tokens that count `[B, T]`.

    Returns:
        `k1` and `k3` in nats; 0 if nothing counts.

    Example:
        >>> found = divergences(torch.tensor([[0.5]]), torch.tensor([[True]]))
        >>> found["k1"], round(found["k3"], 4)  # e^0.5 − 1.5
        (-0.5, 0.1487)

    Reference:
        Schulman, 2020, "Approximating KL divergence".
    """
    x = select(log_ratio, mask, "log_ratio")
    count = max(1, int(mask.sum()))
    k3 = x.clamp(max=MAX_LOG_RATIO).expm1() - x
    return {"k1": float(-x.sum() / count), "k3": float(k3.sum() / count)}


def top_mass(logits: Tensor, sizes: tuple[int, ...] = (1, 8, 64)) -> Tensor:
    """Add up the probability of the likeliest tokens at each position.

        Σ of the k greatest π(v|s_t),   for each k

    Args:
        logits: Of the policy `[B, T, V]`, at the sampling temperature.
        sizes: The numbers k; one above V takes all.

    Returns:
        Masses `[B, T, len(sizes)]`, without gradient.

    Example:
        >>> top_mass(torch.tensor([[[0.5, 0.25, 0.25]]]).log(), (1, 2))
        tensor([[[0.5000, 0.7500]]])

    Reference:
        Ahmadian et al., 2024, arXiv 2402.14740, section 3.1.
    """
    most = min(max(sizes), logits.shape[-1])
    top = torch.softmax(logits.detach().float(), dim=-1).topk(most, dim=-1).values.cumsum(dim=-1)
    return torch.stack([top[..., min(k, most) - 1] for k in sizes], dim=-1)


def action_space(mass: Tensor, mask: Tensor) -> list[tuple[str, list[float]]]:
    """Average the mass of the likeliest tokens by position in the completion.

    Positions count trained tokens. If after the first tokens one token holds nearly all mass, the
    action space is far smaller than the vocabulary, and variance matters less than it seems.

    Args:
        mass: As `top_mass` gives it `[B, T, K]`.
        mask: Trained tokens `[B, T]`.

    Returns:
        For each band of positions its name (`1`, `2`, `3-4`, `5-8`, …) and K means; bands without
        tokens are left out.

    Example:
        >>> mass = torch.tensor([[[0.5], [0.9], [0.7]]])
        >>> found = action_space(mass, torch.ones(1, 3).bool())
        >>> [(name, round(values[0], 2)) for name, values in found]
        [('1', 0.5), ('2', 0.9), ('3-4', 0.7)]
    """
    place = mask.cumsum(dim=1)
    found, low = [], 1
    for high in (*POSITIONS, int(place.max()) if place.numel() else 0):
        inside = mask & (place >= low) & (place <= high)
        if inside.any():
            name = str(low) if low == high else f"{low}-{high}"
            found.append((name, mass[inside].mean(dim=0).tolist()))
        low = max(low, high + 1)
    return found
