"""`rlvr/SortWords-v0`: put words in alphabetical order.

**Prompt** `Sort these words alphabetically: tari, kobe, nilu`; the template's hole is `{words}`.
**Truth** the sorted words, a list. **Verifier** `sorted_list`: the answer must be exactly these
words in this order. **Difficulty** how many words, and how many syllables a word has.

The answer is what stands in the last `<answer>…</answer>` or else the whole completion; words are
separated by commas, white space or both. Nothing else may stand there: "Sure! …" is wrong.

Words are made of syllables (no word list to ship or to memorise), are different, and a prompt never
shows them sorted already.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...verifiers import TaskError, Verdict
from ...verifiers.extract import extract
from ..procedural import Problem, Procedural, Settings, check_range

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
MAX_ANSWER = 20_000
"""Characters of a completion at most; fifty words need a tenth of it."""


@dataclass(frozen=True, kw_only=True)
class SortWordsSettings(Settings):
    """Difficulty.

    Example:
        `SortWordsSettings(count=8, syllables=3)`
    """

    count: int = 4
    """How many words, from 2 to 50 (10 of one syllable)."""
    syllables: int = 2
    """Syllables of two letters in a word at most, from 1 to 6."""
    prompt: str = "Sort these words alphabetically: {words}"
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range; many different words need many syllables to choose from."""
        super().__post_init__()
        check_range("syllables", self.syllables, 1, 6)
        check_range("count", self.count, 2, 10 if self.syllables == 1 else 50)


class SortWords(Procedural[SortWordsSettings]):
    """Lists of made-up words."""

    name = "sort-words"
    Config = SortWordsSettings
    fields = ("words",)

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw the words; a repeated word or a sorted list is drawn again."""
        config = self.config
        spare = 2 * config.count
        lengths = rng.integers(1, config.syllables, size=spare, endpoint=True).tolist()
        drawn = rng.integers(len(SYLLABLES), size=(spare, config.syllables)).tolist()
        words = dict.fromkeys(
            "".join(SYLLABLES[pick] for pick in picks[:length])
            for picks, length in zip(drawn, lengths, strict=True)
        )
        shown = list(words)[: config.count]
        truth = sorted(shown)
        if shown == truth or len(truth) < config.count:
            return None
        return Problem(
            fields={"words": ", ".join(shown)},
            canonical=" ".join(truth),
            truth=truth,
            solution=", ".join(truth),
        )


class SortedList:
    """Judges a list of words: all of them, in the right order, nothing else."""

    def check_truth(self, truth: Any) -> None:
        """Refuse a truth that is no list of words.

        Raises:
            TaskError: It is not.
        """
        if not isinstance(truth, Sequence) or isinstance(truth, str) or not truth:
            raise TaskError(f"the truth is a list of words, got {truth!r:.100}")

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Compare the words one by one."""
        self.check_truth(truth)
        if len(completion) > MAX_ANSWER:
            return Verdict.limit(f"the completion has more than {MAX_ANSWER} characters")
        words = re.findall(r"[^\s,]+", extract(completion, ("tag", "whole")) or "")
        if not words:
            return Verdict.unparsed("no words")
        answer = ", ".join(words)[:200]
        return (
            Verdict.correct(answer=answer) if words == list(truth) else Verdict.wrong(answer=answer)
        )


sorted_list = SortedList()
