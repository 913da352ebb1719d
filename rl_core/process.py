"""What was paid within an episode: per turn by the environment, per step by a process verifier.

Each turn is a span, paid what the environment paid for it. Where the verdict of the last turn
judges parts of it (`spans`), these take the turn's place: what they hold is then all that the turn
was paid, but for what regrading added, which the last of them is paid too. Every amount is booked
at the last token of its span.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..agents.spans import spans_of, token_spans, token_starts
from ..agents.types import Trajectory
from ..verifiers import TaskError


@dataclass(frozen=True, kw_only=True, eq=False)
class Process:
    """Rewards within episodes, in the columns of a `Batch`."""

    token_rewards: Tensor
    """What was paid, at the last token of each span `[B, T]`."""
    spans: Tensor
    """Number of each token's span in its row `[B, T]`, int64, −1 for none."""
    anchors: Tensor
    """Name of the state in which each token's turn began `[B, T]`, int64."""


def process_rewards(
    trajectories: Sequence[Trajectory],
    starts: Sequence[int],
    width: int,
    decode: Callable[[Sequence[int]], str] | None,
) -> Process:
    """Book the rewards of turns and reasoning steps.

    Two turns have the same anchor if they belong to one group and the environment's text before
    them is the same, token for token.

    Args:
        trajectories: The episodes; unscored ones are paid nothing.
        starts: Index of the first column in each one's tokens.
        width: Columns of the batch.
        decode: Token ids to text; needed where a verdict has spans.

    Raises:
        TaskError: The spans of a verdict do not fit its completion.
    """
    rewards = torch.zeros(len(trajectories), width)
    spans = torch.full((len(trajectories), width), -1, dtype=torch.int64)
    anchors = torch.full_like(spans, -1)
    names: dict[tuple[int, tuple[int, ...]], int] = {}
    for row, (trajectory, start) in enumerate(zip(trajectories, starts, strict=True)):
        number, before = 0, 0
        for turn in trajectory.turns:
            place = slice(turn.start - start, turn.end - start)
            seen = (trajectory.group, tuple(trajectory.tokens[before : turn.start]))
            anchors[row, place] = names.setdefault(seen, len(names))
            last = turn is trajectory.turns[-1]
            numbers, paid = _parts(trajectory, last, decode)
            if not numbers:
                numbers, paid = [0] * (turn.end - turn.start), [turn.reward]
            within = torch.tensor(numbers)
            spans[row, place] = torch.where(within >= 0, within + number, -1)
            if trajectory.scored:
                for own, amount in enumerate(paid):
                    end = max(i for i, one in enumerate(numbers) if one == own)
                    rewards[row, turn.start - start + end] = amount
            number, before = number + len(paid), turn.end
    return Process(token_rewards=rewards, spans=spans, anchors=anchors)


def _parts(
    trajectory: Trajectory, last: bool, decode: Callable[[Sequence[int]], str] | None
) -> tuple[list[int], list[float]]:
    """Return the spans that the verdict judges, of the last turn alone."""
    if not last or not trajectory.scored:
        return [], []
    spans = spans_of(trajectory.verdict, len(trajectory.completion))
    if not spans:
        return [], []
    if decode is None:
        raise TaskError(
            f"the verdict of task '{trajectory.task_id}' has spans of characters, and the learner "
            "was given no tokenizer to find their tokens with; pass tokenizer="
        )
    turn = trajectory.turns[-1]
    starts = token_starts(decode, trajectory.tokens[turn.start : turn.end])
    numbers, paid = token_spans(starts, spans)
    if paid:
        paid[-1] += trajectory.verdict.get("added", 0.0)
    return numbers, paid
