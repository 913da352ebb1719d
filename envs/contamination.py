"""Whether evaluation tasks were in the training tasks.

Two kinds of evidence. *Exact*: the prompts are the same; long ones after case, white space and
punctuation are taken out, short ones as they are, because in `12 + 7` the punctuation is the
problem. *Overlap*: `n` words in a row are the same. Words that every fifth prompt has are left out
of the rows first: they are the template ("Using the numbers … each at most once"), and two problems
of one template are not copies of each other.

It sees copies, not paraphrases or translations.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..verifiers import Task, UsageError

MAX_TRAIN = 20_000
"""Training tasks looked at by default, spread evenly: about a second for prompts of 50 words."""
COMMON_SHARE = 0.2
"""Share of the evaluation prompts from which a word counts as template..."""
COMMON_COUNT = 10
"""...and the number of prompts with it below which it does not: small sets show no template."""
EXAMPLES = 5
"""Examples kept in a report."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """What was found.

    Example:
        `Contamination(train=99, evaluation=20, exact=0, overlapping=1, examples=(("e-7", "t-3"),))`
    """

    train: int
    """Training tasks looked at."""
    evaluation: int
    """Evaluation tasks looked at."""
    exact: int
    """Evaluation tasks whose prompt is a training prompt."""
    overlapping: int
    """Further evaluation tasks that share a row of words with a training prompt."""
    examples: tuple[tuple[str, str], ...]
    """Some pairs of ids, evaluation first."""

    @property
    def share(self) -> float:
        """Share of the evaluation tasks with either kind of evidence."""
        return (self.exact + self.overlapping) / self.evaluation

    def __bool__(self) -> bool:
        """Whether there is any evidence."""
        return self.exact + self.overlapping > 0

    def __str__(self) -> str:
        """Say it in a sentence."""
        pairs = "; ".join(f"{evaluated} ~ {trained}" for evaluated, trained in self.examples)
        return (
            f"{self.exact} of {self.evaluation} evaluation prompts are training prompts, "
            f"{self.overlapping} more overlap ({self.train} training tasks looked at)"
            + (f": {pairs}" if pairs else "")
        )


def contamination(
    train_tasks: Sequence[Task],
    eval_tasks: Sequence[Task],
    n: int = 13,
    *,
    max_train: int | None = MAX_TRAIN,
) -> Contamination:
    """Look for evaluation tasks in the training tasks.

    Args:
        train_tasks: What is trained on.
        eval_tasks: What is evaluated on, all of it looked at; at least one.
        n: Words in a row that count as overlap, at least 2; shorter prompts are compared exactly.
        max_train: Training tasks to look at, spread evenly over all; `None` for all.

    Returns:
        The counts and some examples.

    Raises:
        UsageError: There is nothing to compare, or `n` is out of range.

    Example:
        >>> tasks = [Task(id=f"t{i}", prompt=f"{i} + 1 = ?", truth=i + 1) for i in range(4)]
        >>> contamination(tasks[:3], tasks[2:]).exact
        1
    """
    if not len(train_tasks) or not len(eval_tasks):
        raise UsageError("contamination needs training and evaluation tasks, one of them is empty")
    if not isinstance(n, int) or n < 2:
        raise UsageError(f"n must be an integer from 2 up, got {n!r}")
    texts = [_text(task) for task in eval_tasks]
    words = [_WORD.findall(text.casefold()) for text in texts]
    template = _template_words(words)
    exact = {
        _key(text, known, n): i for i, (text, known) in enumerate(zip(texts, words, strict=True))
    }
    rows = {row: i for i, known in enumerate(words) for row in _rows(known, template, n)}
    sample = _spread(train_tasks, max_train)
    same: dict[int, str] = {}
    near: dict[int, str] = {}
    keys: dict[bytes, str] = {}
    for task in sample:
        text = _text(task)
        known = _WORD.findall(text.casefold())
        key = _key(text, known, n)
        if key in exact:
            keys.setdefault(key, task.id)
        for row in _rows(known, template, n) if rows else ():
            if row in rows:
                near.setdefault(rows[row], task.id)
    for i, (text, known) in enumerate(zip(texts, words, strict=True)):
        key = _key(text, known, n)
        if key in keys:
            same[i] = keys[key]
    near = {i: id for i, id in near.items() if i not in same}
    pairs = [(eval_tasks[i].id, id) for i, id in (*same.items(), *near.items())]
    return Contamination(
        train=len(sample),
        evaluation=len(texts),
        exact=len(same),
        overlapping=len(near),
        examples=tuple(pairs[:EXAMPLES]),
    )


def _text(task: Task) -> str:
    """Return what a task asks: everything but system messages."""
    return "\n".join(m["content"] for m in task.messages if m["role"] != "system")


def _key(text: str, words: list[str], n: int) -> bytes:
    """Return a prompt's identity: its words if it is long, its very text if it is short."""
    whole = " ".join(words) if len(words) >= n else text.strip()
    return hashlib.blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _rows(words: list[str], template: frozenset[str], n: int) -> Iterator[int]:
    """Yield a hash of every `n` words in a row."""
    kept = [word for word in words if word not in template] if template else words
    for start in range(len(kept) - n + 1):
        yield hash(tuple(kept[start : start + n]))


def _template_words(prompts: Sequence[list[str]]) -> frozenset[str]:
    """Return the words that a good part of the prompts have."""
    counts = Counter(word for words in prompts for word in set(words))
    least = max(COMMON_COUNT, COMMON_SHARE * len(prompts))
    return frozenset(word for word, count in counts.items() if count >= least)


def _spread(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """Return at most `limit` tasks, evenly spaced."""
    if limit is None or len(tasks) <= limit:
        return list(tasks)
    if limit < 1:
        raise UsageError(f"max_train must be at least 1 or None, got {limit}")
    return [tasks[i] for i in np.linspace(0, len(tasks) - 1, limit).astype(int).tolist()]
