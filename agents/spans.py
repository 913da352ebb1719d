"""Character offsets of a completion, as a process verifier gives them, mapped to its tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..verifiers import TaskError

WINDOW = 8
"""Tokens before a token that are decoded with it: a character is at most four byte tokens, and
some tokenizers drop the first space of what they decode."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A judged part of a completion and what it was paid.

    Example:
        `Span(start=0, end=12, reward=0.5)`
    """

    start: int
    """Its first character."""
    end: int
    """One past its last."""
    reward: float
    """What it was paid."""


def spans_of(verdict: Mapping[str, Any], length: int) -> list[Span]:
    """Read the spans of a verdict: `[start, end, reward]` in order, under `spans` or its evidence.

    Args:
        verdict: A verdict as JSON.
        length: Characters of the completion.

    Returns:
        The spans; none if the verdict has no such field.

    Raises:
        TaskError: They are no triples of numbers, overlap, are out of order, or lie outside.

    Example:
        >>> spans_of({"evidence": {"spans": [[0, 4, 1.0]]}}, length=6)
        [Span(start=0, end=4, reward=1.0)]
    """
    given = verdict.get("spans") or (verdict.get("evidence") or {}).get("spans") or ()
    found: list[Span] = []
    for item in given:
        try:
            start, end, reward = int(item[0]), int(item[1]), float(item[2])
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise TaskError(
                f"a span is [start, end, reward] in characters of the completion, got {item!r:.100}"
            ) from error
        before = found[-1].end if found else 0
        if not before <= start < end <= length or reward != reward or abs(reward) == float("inf"):
            raise TaskError(
                f"spans must be in order, without overlap, not empty, within the completion's "
                f"{length} characters and of finite reward; got {item!r:.100} after character "
                f"{before}"
            )
        found.append(Span(start=start, end=end, reward=reward))
    return found


def token_starts(decode: Callable[[Sequence[int]], str], tokens: Sequence[int]) -> list[int]:
    """Return the place of each token's first character in the decoded text.

    Tokens that hold part of a character stand where the character does.

    Args:
        decode: Token ids to text.
        tokens: The ids.

    Example:
        >>> token_starts(lambda ids: "".join("ab cde"[2 * i : 2 * i + 2] for i in ids), [0, 1, 2])
        [0, 2, 4]
    """
    starts, at = [], 0
    for place in range(len(tokens)):
        starts.append(at)
        window = tokens[max(0, place - WINDOW) : place]
        with_it = decode([*window, tokens[place]])
        at += _complete(with_it) - _complete(decode(window) if window else "")
    return starts


def _complete(text: str) -> int:
    """Count characters without a last one whose bytes are not all there yet."""
    return len(text.rstrip("\ufffd"))


def token_spans(starts: Sequence[int], spans: Sequence[Span]) -> tuple[list[int], list[float]]:
    """Say in which span each token begins, and what each span pays.

    The last span goes on to the last token, so that the end of the completion is credited with it.
    A span in which no token begins lies within one token: what it is paid is added to the span of
    that token, or to the next one.

    Args:
        starts: Where each token's first character is.
        spans: In order, without overlap.

    Returns:
        Per token the number of its span, −1 for none; per span its reward.

    Example:
        >>> token_spans([0, 2, 4, 6], [Span(start=0, end=4, reward=1), Span(start=5, end=7,
        ... reward=2)])
        ([0, 0, -1, 1], [1.0, 2.0])
    """
    numbers = [-1] * len(starts)
    rewards: list[float] = []
    owed = 0.0
    for place, span in enumerate(spans):
        last = place == len(spans) - 1
        inside = [i for i, at in enumerate(starts) if span.start <= at and (last or at < span.end)]
        if inside:
            for i in inside:
                numbers[i] = len(rewards)
            rewards.append(float(span.reward) + owed)
            owed = 0.0
        elif rewards:
            rewards[-1] += float(span.reward)
        else:
            owed += float(span.reward)
    if owed and starts:  # every span lies within the last token
        numbers[-1], rewards = 0, [owed]
    return numbers, rewards
