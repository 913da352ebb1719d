"""Stage 8, KL: estimators of KL(π‖ref) from sampled tokens, with x = l − l^ref.

An estimator is used in one of two ways, and what is right for one is wrong for the other. In a
*reward* its value counts: E k1 = E k3 = KL, k2 is biased. As a *loss* its gradient counts, sampled
from π:

    k1       ∇l                 expected gradient 0: only noise
    k2       x ∇l               ∇KL(π‖ref) at each token
    k3       (1 − e^(−x)) ∇l    ∇KL(ref‖π) at each token: the other direction
    ρ·k3     ρ x ∇l             ∇KL(π‖ref) at each token, also when sampled from an older policy
    st_k2    x ∇l               that of k2, with the value of k3
    full     over the vocabulary, so that no token need be sampled: ∇KL(π‖ref) exactly

*At each token*: a loss sees how a token changes the divergence at its own position, with the states
before it held fixed. A reward also sees how it changes the divergence of what follows. The two are
the same for completions of one token.
"""

import torch
from torch import Tensor

from .masks import select, select_difference
from .ratios import MAX_LOG_RATIO, ratio, token_log_ratio


def k1(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(π‖ref) by the log-ratio itself.

        k1 = x = l − l^ref

    Unbiased, of either sign; in a loss its expected gradient is 0.

    Args:
        logprobs: Of the policy, in nats `[B, T]`.
        reference: Of the reference, in nats `[B, T]`; the gradient does not enter it.
        mask: Trained tokens `[B, T]`.

    Returns:
        Estimates `[B, T]`, 0 outside the mask.

    Example:
        >>> k1(torch.tensor([[-1.0]]), torch.tensor([[-1.5]]), torch.tensor([[True]]))
        tensor([[0.5000]])

    Reference:
        Schulman, 2020, "Approximating KL divergence"; Tang and Munos, 2025, arXiv 2506.09477.
    """
    return select_difference(logprobs, reference.detach(), mask, names="logprobs reference")


def k2(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(π‖ref) by half the squared log-ratio.

        k2 = x²/2,   ∇k2 = x ∇l

    Never negative and biased in value, but right in its gradient: ∇KL(π‖ref) when sampled from π.

    Args:
        logprobs: Of the policy, in nats `[B, T]`.
        reference: Of the reference, in nats `[B, T]`; the gradient does not enter it.
        mask: Trained tokens `[B, T]`.

    Returns:
        Estimates `[B, T]`, 0 outside the mask.

    Example:
        >>> k2(torch.tensor([[-1.0]]), torch.tensor([[-1.5]]), torch.tensor([[True]]))  # 0.25/2
        tensor([[0.1250]])

    Reference:
        Schulman, 2020, "Approximating KL divergence"; Tang and Munos, 2025, arXiv 2506.09477.
    """
    return k1(logprobs, reference, mask).square() / 2


def k3(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(π‖ref) without bias and without negative values.

        k3 = e^(−x) − 1 + x,   ∇k3 = (1 − e^(−x)) ∇l

    As a loss, sampled from π, its expected gradient is that of KL(ref‖π). e^(−x) is capped at e^20.

    Args:
        logprobs: Of the policy, in nats `[B, T]`.
        reference: Of the reference, in nats `[B, T]`; the gradient does not enter it.
        mask: Trained tokens `[B, T]`.

    Returns:
        Estimates `[B, T]`, 0 outside the mask.

    Example:
        >>> x = torch.tensor([[2.0]]).log()
        >>> k3(x, torch.zeros(1, 1), torch.tensor([[True]]))  # 0.5 − 1 + 0.6931
        tensor([[0.1931]])

    Reference:
        Schulman, 2020, "Approximating KL divergence"; Shao et al., 2024, arXiv 2402.03300, eq. 4.
    """
    return _k3(k1(logprobs, reference, mask))


def ratio_k3(logprobs: Tensor, reference: Tensor, mask: Tensor, *, old: Tensor) -> Tensor:
    """Estimate KL(π‖ref) from tokens of an older policy, right in value and gradient.

        ρ k3 = e^(l − l^old) (e^(−x) − 1 + x),   ∇ = ρ x ∇l

    because ∇(ρ k3) = ρ (k3 + 1 − e^(−x)) ∇l. With `old` equal to the policy (ρ = 1) the gradient is
    that of `k2`.

    Args:
        logprobs: Of the policy, in nats `[B, T]`.
        reference: Of the reference, in nats `[B, T]`; the gradient does not enter it.
        mask: Trained tokens `[B, T]`.
        old: Of the policy that sampled, in nats `[B, T]`; the gradient does not enter it.

    Returns:
        Estimates `[B, T]`, 0 outside the mask.

    Example:
        >>> x, zero = torch.tensor([[2.0]]).log(), torch.zeros(1, 1)
        >>> ratio_k3(x, zero, torch.tensor([[True]]), old=zero)  # 2·0.1931
        tensor([[0.3863]])

    Reference:
        Tang and Munos, 2025, arXiv 2506.09477.
    """
    x = k1(logprobs, reference, mask)
    return ratio(token_log_ratio(logprobs, old, mask)) * _k3(x)


def straight_through_k2(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(π‖ref) with the value of k3 and the gradient of k2: both are right.

        k2 + sg(k3 − k2),   ∇ = x ∇l

    Args:
        logprobs: Of the policy, in nats `[B, T]`.
        reference: Of the reference, in nats `[B, T]`; the gradient does not enter it.
        mask: Trained tokens `[B, T]`.

    Returns:
        Estimates `[B, T]`, 0 outside the mask.

    Example:
        >>> x = torch.tensor([[2.0]]).log()
        >>> straight_through_k2(x, torch.zeros(1, 1), torch.tensor([[True]]))  # as k3
        tensor([[0.1931]])

    Reference:
        Tang and Munos, 2025, arXiv 2506.09477; arXiv 2510.01555.
    """
    x = k1(logprobs, reference, mask)
    half = x.square() / 2
    return half + (_k3(x) - half).detach()


def full_kl(logits: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Compute the divergence from a reference at each position, over the whole vocabulary.

        KL_t = Σ_v π(v|s_t) (log π(v|s_t) − log π^ref(v|s_t))

    Exact in value and gradient, and without noise; it takes both models' logits. With the old
    policy's logits first and the current ones second it is the constraint of TRPO.

    Args:
        logits: Of the policy `[B, T, V]`; any constant may be added at each position.
        reference: Of the reference `[B, T, V]`.
        mask: Trained tokens `[B, T]`.

    Returns:
        KL in nats `[B, T]`, 0 outside the mask, with the gradients of both arguments.

    Raises:
        ValueError: The shapes of logits and mask do not fit.

    Example:
        >>> logits, uniform = torch.tensor([[[2.0, 1.0]]]).log(), torch.zeros(1, 1, 2)
        >>> full_kl(logits, uniform, torch.tensor([[True]]))  # ⅔ ln(4/3) + ⅓ ln(2/3)
        tensor([[0.0566]])

    Reference:
        Schulman et al., 2015, arXiv 1502.05477, eq. 12.
    """
    if logits.shape != reference.shape or logits.shape[:-1] != mask.shape:
        raise ValueError(
            f"logits {list(logits.shape)} and reference {list(reference.shape)} must both be "
            f"[B, T, V] with the mask's B and T {list(mask.shape)}"
        )
    # Outside the mask logits may be anything: equal ones have no divergence and no gradient.
    inside = mask[..., None]
    mine = torch.log_softmax(torch.where(inside, logits, 0.0), dim=-1)
    theirs = torch.log_softmax(torch.where(inside, reference, 0.0), dim=-1)
    # 0 · (−inf) is NaN: what π never says adds nothing, whatever the reference thinks of it.
    terms = torch.where(mine > -torch.inf, mine.exp() * (mine - theirs), 0.0)
    return select(terms.sum(dim=-1), mask, "KL over the vocabulary")


def _k3(x: Tensor) -> Tensor:
    """Compute e^(−x) − 1 + x with expm1, which keeps the digits of a small x."""
    return torch.expm1((-x).clamp(max=MAX_LOG_RATIO)) + x
