"""What vLLM's sampler has left of the vocabulary, read off its log-probabilities.

Under `logprobs_mode="processed_logprobs"` an id that was cut off has −∞ (a server writes -9999), so
that a list of the most likely ids that ends in one of these holds all that could be drawn. It is
asked for with some to spare, because an engine keeps what is as likely as the last of its top k.

vLLM's own `return_sampling_mask` (from 0.28) tells the same, but refuses engines with a logits
processor, which ours have, and runs on GPUs alone; like it, this needs a bound, `top_k`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..verifiers import ModelError
from .kept import Kept
from .types import Sampling

MOST_SHOWN = 1024
"""Ids listed per token at most: what engines are started with as `max_logprobs`."""

SPARE = 8
"""Ids asked for beyond one and a half times `top_k`."""

MOST_KEPT = (MOST_SHOWN - SPARE) * 2 // 3
"""Greatest `top_k` for training."""

NEVER = -9000.0
"""Log-probability below which an id could not be drawn."""


def problem(sampling: Sampling) -> str:
    """Say why it cannot be known what could be drawn; empty if it can."""
    if not sampling.masked or 0 < sampling.top_k <= MOST_KEPT:
        return ""
    return (
        f"vLLM lists the {MOST_KEPT} most likely tokens at most, and top_k={sampling.top_k} may "
        "leave more; set top_k beside the others, 64 for example"
    )


def shown(sampling: Sampling, vocabulary: int) -> int:
    """Return how many ids to list per token: `logprobs` of vLLM's `SamplingParams`.

    Args:
        sampling: How a completion is drawn.
        vocabulary: Tokens that may be drawn.

    Returns:
        The number; 0 where the mask is not needed, or cannot be had.

    Example:
        >>> shown(Sampling(top_k=20), 50000), shown(Sampling(), 50000)
        (38, 0)
    """
    if not sampling.masked or problem(sampling):
        return 0
    return min(sampling.top_k * 3 // 2 + SPARE, vocabulary)


def of_tables(
    tables: Iterable[Mapping[int, Any]], sampling: Sampling, vocabulary: int
) -> Kept | None:
    """Return `Completion.kept` of vLLM's tables of log-probabilities, one a token.

    Args:
        tables: From an id to its `Logprob`.
        sampling: How the completion was drawn, with `logprobs=shown(…)`.
        vocabulary: As for `shown`.

    Raises:
        ModelError: A table does not hold all that could be drawn.
    """
    asked = shown(sampling, vocabulary)
    rows = (((token, one.logprob) for token, one in table.items()) for table in tables)
    return Kept(_left(row, asked, vocabulary) for row in rows) if asked else None


def of_content(
    content: Iterable[Mapping[str, Any]], sampling: Sampling, vocabulary: int
) -> Kept | None:
    """Return `Completion.kept` of what a server says of each token.

    Args:
        content: Entries with `top_logprobs`.
        sampling: As for `of_tables`.
        vocabulary: As for `shown`.

    Raises:
        ModelError: An entry does not hold all that could be drawn.
    """
    asked = shown(sampling, vocabulary)
    rows = (((x["token_id"], x["logprob"]) for x in one["top_logprobs"]) for one in content)
    return Kept(_left(row, asked, vocabulary) for row in rows) if asked else None


def _left(row: Iterable[tuple[int, float]], asked: int, vocabulary: int) -> list[int]:
    """Return the ids of a position that could be drawn; none if every id could."""
    ids = [token for token, logprob in row if logprob > NEVER]
    if len(ids) == vocabulary:
        return []
    if asked < vocabulary and len(ids) >= asked:
        raise ModelError(
            f"vLLM's sampler has left more than the {asked} tokens that it was asked to list: too "
            "many are as likely as the last of top_k; lower top_k, or use dtype=float32"
        )
    return ids
