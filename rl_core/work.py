"""One training step's batch with everything that is known of it before the first update."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from .batch import Batch
from .choices import Algorithm
from .estimation import Advantages
from .loss_stages import Denominators
from .objective import denominators, tokens_per_prompt
from .stages import Paid

T = TypeVar("T", Advantages, Paid)


@dataclass(kw_only=True, eq=False)
class Work:
    """What the updates of a step share."""

    batch: Batch
    """The episodes."""
    row: Algorithm
    """The algorithm, with beta as it stands."""
    found: Advantages
    """Advantages, and what stays in the loss."""
    old: Tensor | None
    """Log-probabilities by the weights at the start `[B, T]`; none if there is one update."""
    reference: Tensor | None
    """By the reference `[B, T]`."""
    values: Tensor | None
    """V(s_t) at the start `[B, T]`."""
    current: Tensor
    """Log-probabilities at each row's first update `[B, T]`, filled in as they come; the
    sampler's where a row was not run through the model."""
    seen: Tensor
    """Rows of which `current` is the learner's own `[B]`, boolean."""

    def count(self, rows: Sequence[int], max_tokens: int) -> Denominators:
        """Return the denominators of an optimiser step on some rows."""
        index = torch.tensor(rows, dtype=torch.int64)
        found, groups = self.found, self.batch.groups
        return denominators(found.mask[index], found.rows[index], max_tokens, groups[index])

    def note(self, rows: Tensor, logprobs: Tensor) -> None:
        """Keep the log-probabilities of rows that are run through the model for the first time.

        Args:
            rows: Row numbers `[b]`, int64.
            logprobs: Of their first columns `[b, T']`.
        """
        fresh = ~self.seen[rows]
        if fresh.any():
            kept = logprobs.to(self.current)
            self.current[rows[fresh], : kept.shape[1]] = kept[fresh]
            self.seen[rows] = True

    def per_prompt(self, rows: Sequence[int]) -> Tensor | None:
        """Return the trained tokens of each row's prompt `[B]`, if the row's aggregate asks."""
        if self.row.aggregate != "prompt":
            return None
        chosen = torch.zeros_like(self.found.rows)
        chosen[torch.tensor(rows, dtype=torch.int64)] = True
        return tokens_per_prompt(self.found.mask, self.found.rows & chosen, self.batch.groups)


def minibatches(groups: Tensor, parts: int, epoch: int, step: int) -> list[list[int]]:
    """Divide rows into `parts` of whole groups.

    The first pass keeps the groups' order; later ones draw one that follows from step and pass.

    Args:
        groups: Group of each row `[B]`, int64.
        parts: How many optimiser steps share them.
        epoch: Number of the pass, from 0.
        step: Number of the training step.

    Returns:
        Row numbers of each part; parts without a row are left out.

    Example:
        >>> minibatches(torch.tensor([0, 0, 4, 4]), 2, epoch=0, step=0)
        [[0, 1], [2, 3]]
    """
    if parts == 1:
        return [list(range(len(groups)))]
    names = groups.unique()
    if epoch:
        generator = torch.Generator().manual_seed(step * 2**16 + epoch)
        names = names[torch.randperm(len(names), generator=generator)]
    return [
        torch.isin(groups, some).nonzero()[:, 0].tolist()
        for some in names.tensor_split(parts)
        if len(some)
    ]


def picked(record: T, index: Tensor, rows: int) -> T:
    """Return a record of tensors cut down to some of its rows."""
    changed = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Paid):
            changed[field.name] = picked(value, index, rows)
        elif isinstance(value, Tensor) and len(value) == rows:
            changed[field.name] = value[index]
    return replace(record, **changed)
