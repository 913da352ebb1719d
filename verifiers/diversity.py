"""Being different from the rest of the group, as a reward.

Nothing is easier than to be different: noise is. Give it a small weight and put it behind a gate,
so that only correct completions are paid for being unlike the other correct ones.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from .errors import UsageError, unknown
from .extract import check_how, extract
from .task import Task
from .text import SHOWN_CHARS
from .verdict import Verdict

KINDS = ("ngrams", "answers")
"""What is compared."""

_WORD = re.compile(r"\w+|[^\w\s]")


class Diversity:
    """Reward what a completion has that the others of its group do not.

        G_i = (1/T_i) Σ_{t ≤ T_i} 1/c(g_t),   in (0, 1]

    g_1 … g_T are the n-grams of words of completion i, those that come twice twice, and c(g) is how
    often g stands in the whole group: each n-gram is worth 1 in all, shared by its occurrences. So
    the mean of G_i weighted by length, Σ T_i G_i / Σ T_i, is the group's number of different
    n-grams over that of all, which is *distinct-n*. G_i = 1 says that nothing in completion i
    comes twice in the group; G identical completions without repetition have 1/G each.

    With `of="answers"` the extracted answer is the only gram: G_i = 1/c(a_i), and Σ G_i is the
    number of different answers. No answer is `unparsed` and a completion without words `wrong`:
    0 both.

    Args:
        of: `ngrams` or `answers`.
        n: Words of an n-gram; a completion of fewer words is one gram.
        extract: Where the answer stands, with `of="answers"`.

    Example:
        >>> kind = Diversity(n=1)
        >>> found = kind.judge_group(["a b", "a c"], None)
        >>> [verdict.reward for verdict in found]  # (1/2)(1/2 + 1/1), twice
        [0.75, 0.75]

    Reference:
        Li et al., 2016, arXiv 1510.03055 (distinct-1 and distinct-2).
    """

    name = "diversity"

    def __init__(
        self,
        *,
        of: str = "ngrams",
        n: int = 2,
        extract: str | Sequence[str] = ("boxed", "tag", "hash", "answer_is", "whole"),
    ) -> None:
        """Check the options."""
        if of not in KINDS:
            raise unknown("kind of diversity", str(of), KINDS)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UsageError(f"n= is a number of words from 1 up, got {n!r}")
        self.of = of
        self.n = n
        self.extract = check_how(extract)

    def judge_group(
        self, completions: Sequence[str], truth: Any, *, task: Task | None = None
    ) -> list[Verdict]:
        """Judge each completion by what it shares with the group."""
        grams = [self._grams(completion) for completion in completions]
        counts = Counter(gram for own in grams for gram in own)
        total = counts.total()
        share = len(counts) / total if total else 0.0
        return [self._verdict(own, counts, share) for own in grams]

    def _verdict(self, own: Sequence[Hashable], counts: Counter[Hashable], share: float) -> Verdict:
        if not own and self.of == "answers":
            return Verdict.unparsed("no answer was found")
        if not own:
            return Verdict.wrong(reason="no words")
        reward = sum(1 / counts[gram] for gram in own) / len(own)
        evidence: dict[str, Any] = {"distinct": round(share, 6)}
        if self.of == "answers":
            evidence |= {"answer": str(own[0])[:SHOWN_CHARS], "alike": counts[own[0]]}
        return Verdict.score(reward, **evidence)

    def _grams(self, completion: str) -> list[Hashable]:
        """Return what is compared, in order, as often as it comes."""
        if self.of == "answers":
            answer = extract(completion, self.extract)
            return [] if answer is None else [" ".join(answer.casefold().split())]
        words = _WORD.findall(completion.casefold())
        if len(words) <= self.n:
            return [tuple(words)] if words else []
        return [tuple(words[at : at + self.n]) for at in range(len(words) - self.n + 1)]

    def __repr__(self) -> str:
        """Show what is compared."""
        return f"diversity({self.of if self.of == 'answers' else f'{self.n}-grams'})"
