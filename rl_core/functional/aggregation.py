"""Stage 10, aggregation: from terms to one number.

Every denominator that spans rows is an argument, because it belongs to the whole optimiser step:
the results of micro-batches (or ranks) with the same denominators add up to that of the whole
batch. A row is never split between micro-batches.
"""

import torch
from torch import Tensor

from .masks import check_rows, check_tokens, lengths, select


def token_mean(values: Tensor, mask: Tensor, *, tokens: float) -> Tensor:
    """Average over all tokens: every token weighs the same, long completions more.

        (1/N) Σ_i Σ_t m_{i,t} x_{i,t}

    Args:
        values: x `[B, T]`.
        mask: Terms that count `[B, T]`.
        tokens: N, trained tokens in the whole optimiser step.

    Returns:
        A scalar; 0 if nothing counts.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 2.0], [6.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> token_mean(x, mask, tokens=3)  # 9/3
        tensor(3.)

    Reference:
        Yu et al., 2025, arXiv 2503.14476, eq. 12.
    """
    return _total(values, mask) / _positive(tokens)


def sequence_token_mean(values: Tensor, mask: Tensor, *, sequences: float) -> Tensor:
    """Average over each completion, then over completions: every completion weighs the same.

        (1/B) Σ_i (1/L_i) Σ_t m_{i,t} x_{i,t},   L_i = Σ_t m_{i,t}

    A completion without trained tokens adds 0 and still counts in B.

    Args:
        values: x `[B, T]`.
        mask: Terms that count `[B, T]`.
        sequences: B, scored completions in the whole optimiser step.

    Returns:
        A scalar; 0 if nothing counts.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 2.0], [6.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> sequence_token_mean(x, mask, sequences=2)  # (1.5 + 6)/2
        tensor(3.7500)

    Reference:
        Shao et al., 2024, arXiv 2402.03300, eq. 3.
    """
    check_tokens(mask, values=values)
    means = select(values, mask, "values").sum(dim=1) / lengths(mask).clamp(min=1)
    return means.sum() / _positive(sequences)


def sequence_sum(values: Tensor, mask: Tensor, *, sequences: float) -> Tensor:
    """Add up each completion, then average over completions: the policy gradient as it is derived.

        (1/B) Σ_i Σ_t m_{i,t} x_{i,t}

    With one term a completion (`[B, 1]`) it is the mean over completions.

    Args:
        values: x `[B, T]`, or `[B, 1]` where the completion is one action.
        mask: Terms that count, of the same shape.
        sequences: B, scored completions in the whole optimiser step.

    Returns:
        A scalar; 0 if nothing counts.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 2.0], [6.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> sequence_sum(x, mask, sequences=2)  # (3 + 6)/2
        tensor(4.5000)
    """
    return _total(values, mask) / _positive(sequences)


def constant_length_mean(
    values: Tensor, mask: Tensor, *, sequences: float, length: float
) -> Tensor:
    """Divide by a constant length instead of the completion's own: no bias by length.

        (1/(B·C)) Σ_i Σ_t m_{i,t} x_{i,t}

    It is `sequence_sum` divided by C: never by the padded width, which differs from batch to batch.

    Args:
        values: x `[B, T]`.
        mask: Terms that count `[B, T]`.
        sequences: B, scored completions in the whole optimiser step.
        length: C, the greatest number of tokens that a completion may have.

    Returns:
        A scalar; 0 if nothing counts.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 2.0], [6.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> constant_length_mean(x, mask, sequences=2, length=10)  # 9/20
        tensor(0.4500)

    Reference:
        Liu et al., 2025, arXiv 2503.20783.
    """
    return _total(values, mask) / _positive(sequences * length)


def prompt_mean(values: Tensor, mask: Tensor, *, prompts: float, prompt_tokens: Tensor) -> Tensor:
    """Average over the tokens of each prompt's completions, then over prompts.

        (1/P) Σ_p (1/N_p) Σ_{i ∈ p} Σ_t m_{i,t} x_{i,t}

    Every prompt weighs the same; among its completions long ones weigh more.

    Args:
        values: x `[B, T]`.
        mask: Terms that count `[B, T]`.
        prompts: P, prompts with a scored completion in the whole optimiser step.
        prompt_tokens: N_p of each row's prompt, in the whole optimiser step `[B]`.

    Returns:
        A scalar; 0 if nothing counts.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 2.0], [6.0, 0.0], [5.0, 0.0]])
        >>> mask = torch.tensor([[True, True], [True, False], [True, False]])
        >>> prompt_mean(x, mask, prompts=2, prompt_tokens=torch.tensor([3, 3, 1]))  # (9/3 + 5)/2
        tensor(4.)

    Reference:
        Yu et al., 2025, arXiv 2503.14476, eq. 8, as it is written.
    """
    check_tokens(mask, values=values)
    check_rows(mask, prompt_tokens=prompt_tokens)
    sums = select(values, mask, "values").sum(dim=1)
    return (sums / prompt_tokens.clamp(min=1)).sum() / _positive(prompts)


def _total(values: Tensor, mask: Tensor) -> Tensor:
    check_tokens(mask, values=values)
    total = (values * mask.to(values.dtype)).sum()
    # One sum serves both as the result and as the check that nothing outside the mask broke it.
    return total if torch.isfinite(total.detach()) else select(values, mask, "values").sum()


def _positive(denominator: float) -> float:
    """Let a step in which nothing counts have the loss 0 instead of 0/0."""
    if denominator < 0:
        raise ValueError(f"a denominator counts tokens or sequences, got {denominator}")
    return denominator or 1.0
