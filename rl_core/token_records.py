"""Why each token of a step's first episodes moved, and how strongly, as columns for JSON.

The numbers are those of the first update that a row was part of.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .attribution import FIELDS, explain_tokens
from .work import Work, minibatches, picked

RECORDED = 8192
"""Tokens recorded per step at most: a record takes about 70 bytes a token."""

DIGITS = 4
"""Significant digits of a number."""

LEAST = 1e-18
"""Sizes below it are written as 0: its power of ten and those below it are no longer exact."""


def token_records(
    learner: Any, count: int, spell: Callable[[int], str], step: int
) -> list[dict[str, Any]]:
    """Say of each token of the last step's first episodes why it moved, and how strongly.

    Episodes beyond `RECORDED` tokens in all have no record, but for the first.

    Args:
        learner: A learner that has taken a step.
        count: Episodes.
        spell: A token id to its text.
        step: Number of that step, as it was given to `update`.

    Returns:
        Per episode, by name, a list with a number for each token after the prompt, or one number
        where all are the same; `None` where nothing is known. `text` holds the tokens.
    """
    work = learner.last
    if work is None:
        return []
    lengths = np.array([len(tokens) for tokens in work.batch.continuations[:count]])
    within = np.cumsum(lengths) <= RECORDED
    within[:1] = True
    wanted = int(within.sum())
    records: dict[int, dict[str, Any]] = {}
    for rows in minibatches(work.batch.groups, learner.updates, 0, step):
        some = [row for row in rows if row < wanted]
        if not some:
            continue
        told = {name: rounded(tensor) for name, tensor in _explained(learner, work, rows, some)}
        for place, row in enumerate(some):
            ids = work.batch.continuations[row]
            record: dict[str, Any] = {"text": [spell(token) for token in ids]}
            for name in FIELDS:
                record[name] = column(told[name][place, : len(ids)])
            records[row] = record
    return [records[row] for row in sorted(records)]


def _explained(
    learner: Any, work: Work, rows: Sequence[int], some: Sequence[int]
) -> list[tuple[str, Tensor]]:
    """Explain some rows of an optimiser step."""
    index, size = torch.tensor(some), len(work.batch.prompts)

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[index]

    told = explain_tokens(
        work.row,
        picked(work.found, index, size),
        logprobs=work.current[index],
        denominators=work.count(rows, learner.max_tokens),
        old=cut(work.old),
        proximal=cut(work.old),
        reference=cut(work.reference),
        rollout=cut(work.batch.logprobs),
        values=cut(work.values),
        prompt_tokens=cut(work.per_prompt(rows)),
    )
    return list(told.items())


def rounded(values: Tensor) -> np.ndarray:
    """Return numbers to four significant digits, such that JSON writes no more; truths as 0 and 1.

    Example:
        >>> rounded(torch.tensor([0.0123456, -98765.0, 0.0])).tolist()
        [0.01235, -98760.0, 0.0]
    """
    plain = values.double().numpy() if values.is_floating_point() else values.numpy().astype(int)
    if plain.dtype.kind == "i":
        return plain
    size = np.abs(plain)
    usual = np.isfinite(size) & (size > LEAST)
    power = DIGITS - 1 - np.floor(np.log10(np.where(usual, size, 1.0)))
    up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
    short = np.rint(plain * up / down) / up * down  # whole numbers and powers of ten are exact
    return np.where(usual, short, np.where(np.isfinite(size), 0.0, plain))


def column(values: np.ndarray) -> Any:
    """Return numbers for JSON: one where all tokens have the same, `None` for what is not finite.

    Example:
        >>> column(np.array([0.5, np.nan])), column(np.array([2, 2]))
        ([0.5, None], 2)
    """
    if not len(values):
        return []
    finite = np.isfinite(values)
    if not finite.any():
        return None
    plain = values.tolist()
    if not finite.all():
        return [value if known else None for value, known in zip(plain, finite, strict=True)]
    return plain[0] if (values == values[0]).all() else plain
