"""Trajectories as tensors, and their division into micro-batches.

Rows of a micro-batch are of like length, so that little of it is padding; what padding is left is
computed and masked. The division follows from the lengths alone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ..agents.kept import Kept
from ..agents.scoring import Padded, pad
from ..agents.types import Trajectory
from ..verifiers import UsageError

OFFLINE = -1
"""Version of an episode that no weights drew: it came from a file, without log-probabilities."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The episodes of one training step: B rows, T columns from the first sampled token on."""

    prompts: list[list[int]]
    """Ids before the first sampled token, per row."""
    continuations: list[list[int]]
    """Ids from the first sampled token on, per row."""
    mask: Tensor
    """Which columns hold tokens that the policy sampled `[B, T]`, boolean."""
    logprobs: Tensor
    """The sampler's log-probabilities in nats `[B, T]`; 0 elsewhere."""
    rewards: Tensor
    """Scores `[B]`; nan where unscored."""
    scored: Tensor
    """Rows with a score `[B]`, boolean."""
    groups: Tensor
    """Group of each row `[B]`, int64."""
    truncated: Tensor
    """Rows that ran out of length `[B]`, boolean."""
    versions: Tensor
    """The weights that drew each row's oldest token `[B]`, int64; `OFFLINE` for none."""
    starts: list[int]
    """Index of the first column in each row's tokens."""
    kept: list[Kept | None] | None = None
    """Per row, the ids that could be drawn at each of its columns; none where nothing was cut."""

    def rectangle(self, rows: Sequence[int], device: torch.device) -> Padded:
        """Lay out some rows for a forward pass."""
        prompts = [self.prompts[row] for row in rows]
        kept = None if self.kept is None else [self.kept[row] for row in rows]
        return pad(prompts, [self.continuations[row] for row in rows], device, kept)

    def size(self, row: int) -> int:
        """Return a row's length in tokens."""
        return len(self.prompts[row]) + len(self.continuations[row])

    def micro_batches(self, rows: Sequence[int], tokens: int) -> list[list[int]]:
        """Divide rows, longest first, so that each rectangle has at most `tokens` places.

        A row that is longer by itself stands alone.
        """
        ordered = sorted(
            rows, key=lambda row: (-len(self.continuations[row]), -self.size(row), row)
        )
        parts: list[list[int]] = []
        before = after = 0
        for row in ordered:
            wide = max(before, len(self.prompts[row])), max(after, len(self.continuations[row]), 1)
            if not parts or (len(parts[-1]) + 1) * sum(wide) > tokens:
                parts.append([])
                wide = len(self.prompts[row]), max(len(self.continuations[row]), 1)
            before, after = wide
            parts[-1].append(row)
        return parts


def collate(trajectories: Sequence[Trajectory]) -> Batch:
    """Turn trajectories into a batch, in the same order.

    Args:
        trajectories: At least one.

    Example:
        A trajectory with the tokens `[5, 6, 7, 2]` of which the last two were sampled becomes the
        prompt `[5, 6]`, the continuation `[7, 2]` and the mask `[True, True]`.
    """
    starts = [t.turns[0].start if t.turns else len(t.tokens) for t in trajectories]
    pairs = list(zip(trajectories, starts, strict=True))
    lengths = np.array([len(t.tokens) - start for t, start in pairs])
    present = np.arange(max(1, lengths.max())) < lengths[:, None]

    def rectangle(rows: Iterable[Sequence[float]], kind: type[np.generic]) -> Tensor:
        out = np.zeros(present.shape, kind)
        out[present] = np.array(list(chain.from_iterable(rows)), kind)
        return torch.from_numpy(out)

    return Batch(
        prompts=[t.tokens[:start] for t, start in pairs],
        continuations=[t.tokens[start:] for t, start in pairs],
        mask=rectangle((t.trained[start:] for t, start in pairs), np.bool_),
        logprobs=rectangle((t.logprobs[start:] for t, start in pairs), np.float32),
        rewards=torch.tensor([t.reward if t.scored else math.nan for t in trajectories]),
        scored=torch.tensor([t.scored for t in trajectories]),
        groups=torch.tensor([t.group for t in trajectories], dtype=torch.int64),
        truncated=torch.tensor([t.truncated for t in trajectories]),
        versions=torch.tensor([t.oldest for t in trajectories], dtype=torch.int64),
        starts=starts,
        kept=_kept_of(pairs) if any(t.kept is not None for t in trajectories) else None,
    )


def _kept_of(pairs: Sequence[tuple[Trajectory, int]]) -> list[Kept | None]:
    """Return what could be drawn from the first column on.

    Raises:
        UsageError: A token could not be drawn in its own place.
    """
    for trajectory, _ in pairs:
        if trajectory.kept is not None:
            _check_kept(trajectory, trajectory.kept)
    return [None if t.kept is None else t.kept[start:] for t, start in pairs]


def _check_kept(trajectory: Trajectory, kept: Kept) -> None:
    where = f"episode {trajectory.seed} of task '{trajectory.task_id}'"
    if len(kept) != len(trajectory.tokens):
        raise UsageError(
            f"{where} says what could be drawn at {len(kept)} positions, and has "
            f"{len(trajectory.tokens)} tokens; give one entry for each, an empty one where nothing "
            "was cut off"
        )
    counts = np.diff(kept.ends, prepend=0)
    at = np.repeat(np.arange(len(counts)), counts)
    here = np.asarray(kept.ids) == np.array(trajectory.tokens)[at]
    wrong = (counts > 0) & (np.bincount(at[here], minlength=len(counts)) != 1)
    if wrong.any():
        first = int(wrong.argmax())
        raise UsageError(
            f"{where}: token {trajectory.tokens[first]} at position {first} is not once among the "
            f"{counts[first]} ids that could be drawn there; its log-probability would be that of "
            "another distribution"
        )


def parts_of(trajectories: Sequence[Trajectory]) -> Tensor | None:
    """Return the parts of each verdict `[B, K]`, in the order of their names.

    A part that a scored verdict lacks added nothing to its reward and is 0.

    Args:
        trajectories: The episodes.

    Returns:
        The parts, or `None` if no verdict has any.
    """
    names = _names_of_parts(trajectories)
    if not names:
        return None
    found = [t.verdict.get("parts") or {} for t in trajectories]
    return torch.tensor([[float(parts.get(name) or 0.0) for name in names] for parts in found])


def part_weights_of(trajectories: Sequence[Trajectory]) -> Tensor | None:
    """Return the weight of each column of `parts_of` `[K]`, where verdicts were regraded.

    Args:
        trajectories: The episodes.

    Returns:
        The weights, or `None` if every part counts the same.
    """
    known: dict[str, float] = {}
    for trajectory in trajectories:
        known |= trajectory.verdict.get("weights") or {}
    if not known:
        return None
    return torch.tensor([known.get(name, 0.0) for name in _names_of_parts(trajectories)])


def _names_of_parts(trajectories: Sequence[Trajectory]) -> list[str]:
    return sorted({name for t in trajectories for name in t.verdict.get("parts") or ()})
