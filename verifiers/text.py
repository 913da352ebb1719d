"""Verifiers of short answers: a text, a choice, a number.

Strict by default; each leniency is a named option. All find the answer with `extract=` (see
`rlvr.verifiers.extract`), and all have `check_truth`, so that a row whose truth cannot be read is
refused when an environment is made instead of scoring every answer 0.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from .errors import TaskError, UsageError
from .extract import check_how, clean
from .extract import extract as find_answer
from .numerals import (
    TooLarge,
    Unreadable,
    brief,
    show_fraction,
    signed_numeral,
    value_text,
)
from .verdict import Verdict

MAX_CHARS = 100_000
"""Characters of an answer: bounds the work of normalising it."""
SHOWN_CHARS = 200
"""Characters of an answer kept as evidence."""


class TextVerifier:
    """What the verifiers of this file share: find the answer, check its length, judge it.

    Subclasses give `read_truth` and `judge`.
    """

    def __init__(self, extract: str | Sequence[str]) -> None:
        """Check where the answer is to be looked for."""
        self.extract = check_how(extract)

    def check_truth(self, truth: Any) -> None:
        """Raise `TaskError` for a truth that cannot be read."""
        self.read_truth(truth)

    def read_truth(self, truth: Any) -> Any:
        """Return the truth in the form that `judge` compares with.

        Raises:
            TaskError: It cannot be read.
        """
        raise NotImplementedError

    def judge(self, answer: str, truth: Any) -> Verdict:
        """Judge the answer that was found against what `read_truth` returned."""
        raise NotImplementedError

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge a completion; a truth that cannot be read is unscored."""
        try:
            gold = self.read_truth(truth)
        except TaskError as error:
            return Verdict.bad_truth(str(error))
        answer = find_answer(completion, self.extract)
        if answer is None:
            return Verdict.unparsed("no answer was found")
        if len(answer) > MAX_CHARS:
            return Verdict.limit(f"an answer of {len(answer)} characters; at most {MAX_CHARS}")
        return self.judge(answer, gold)


class Exact(TextVerifier):
    """Judge whether the answer is the truth, character for character.

    Args:
        extract: Where the answer stands.
        case: Whether upper and lower case differ.
        strip: Whether white space around either is left out.
        normalise: Whether both are brought to the same Unicode form (NFC), so that an é of one
            character equals one of two.

    Example:
        >>> Exact(case=False)("PARIS", "Paris").reward
        1.0
    """

    def __init__(
        self,
        *,
        extract: str | Sequence[str] = ("whole",),
        case: bool = True,
        strip: bool = True,
        normalise: bool = True,
    ) -> None:
        """Keep the options."""
        super().__init__(extract)
        self.case = case
        self.strip = strip
        self.normalise = normalise

    def read_truth(self, truth: Any) -> str:
        """Return the truth normalised; a number stands for its usual text."""
        if isinstance(truth, int | float) and not isinstance(truth, bool):
            truth = str(truth)
        if not isinstance(truth, str):
            raise TaskError(f"an exact truth is a text or a number, got {brief(truth)}")
        if not truth.strip():
            raise TaskError("an exact truth is not empty: no answer could equal it")
        return truth

    def judge(self, answer: str, truth: str) -> Verdict:
        """Compare both in the same form."""
        # a marker's content comes without the punctuation around it, so does the truth then
        forms = {truth} if self.extract == ("whole",) else {truth, clean(truth)}
        equal = self._form(answer) in {self._form(form) for form in forms}
        shown = self._form(answer)[:SHOWN_CHARS]
        return Verdict.correct(answer=shown) if equal else Verdict.wrong(answer=shown)

    def _form(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text) if self.normalise else text
        text = text if self.case else text.casefold()
        return text.strip() if self.strip else text

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge a completion; without `strip`, the whole of it as it stands."""
        if self.strip or self.extract != ("whole",):
            return super().__call__(completion, truth, **context)
        try:
            return self.judge(completion, self.read_truth(truth))
        except TaskError as error:
            return Verdict.bad_truth(str(error))


_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathbf|mathrm|mathbb|bf|rm)\s*\{([^{}]*)\}")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:)]?")
_LABELLED = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[.:)])\s*(\S.*)", re.DOTALL)
_BETWEEN = re.compile(r"(?:\s|[,;/&|]|\band\b|\bor\b)+", re.IGNORECASE)


class Choice(TextVerifier):
    r"""Judge a multiple-choice answer: one letter.

    Reads `B`, `(B)`, `B.`, `B)`, `\text{B}`; where the truth lists the options, also `B) Paris` and
    `Paris`. Several different letters are wrong, whichever they are.

    Args:
        extract: Where the answer stands.
        case: Whether `b` is not `B`.

    Example:
        >>> Choice()("The answer is (B).", {"answer": "B", "options": {"A": "Rome", "B": "Paris"}})
        ... # doctest: +ELLIPSIS
        Verdict(reward=1.0, ...
    """

    def __init__(
        self,
        *,
        extract: str | Sequence[str] = ("boxed", "tag", "answer_is", "whole"),
        case: bool = True,
    ) -> None:
        """Keep the options."""
        super().__init__(extract)
        self.case = case

    def read_truth(self, truth: Any) -> tuple[str, dict[str, str]]:
        """Return the right letter and the options' texts."""
        options: Mapping[str, str] = {}
        if isinstance(truth, Mapping):
            options = truth.get("options", {})
            truth = truth.get("answer")
        if not (isinstance(truth, str) and _is_letter(truth)):
            raise TaskError(
                "a choice's truth is a letter 'B' or {'answer': 'B', 'options': {'A': …}}, "
                f"got {brief(truth)}"
            )
        if not isinstance(options, Mapping) or (options and truth not in options):
            raise TaskError(
                f"the right choice {brief(truth)} is not among the options {brief(options)}"
            )
        if not all(isinstance(t, str) and _is_letter(k) for k, t in options.items()):
            raise TaskError(f"options are texts by letter, got {brief(options)}")
        return truth, {letter: _plain(text) for letter, text in options.items()}

    def judge(self, answer: str, truth: tuple[str, dict[str, str]]) -> Verdict:
        """Compare the letter that is named with the right one."""
        right, options = truth
        letters = self._letters(answer, options)
        if not letters:
            return Verdict.unparsed("no single choice is named", answer=answer[:SHOWN_CHARS])
        if len(letters) > 1:
            return Verdict.wrong(
                answer="".join(sorted(letters)), reason="several choices are named"
            )
        (letter,) = letters
        return Verdict.correct(answer=letter) if letter == right else Verdict.wrong(answer=letter)

    def _letters(self, answer: str, options: dict[str, str]) -> set[str]:
        """Return the letters that an answer names and nothing but names."""
        text = clean(_WRAPPER.sub(r"\1", answer))
        pieces = [_LETTER.fullmatch(piece) for piece in _BETWEEN.split(text) if piece]
        if pieces and all(pieces):
            return {self._cased(piece[1]) for piece in pieces if piece}
        labelled = _LABELLED.fullmatch(text)
        if labelled:
            letter = self._cased(labelled[1] or labelled[2])
            return {letter} if options.get(letter) == _plain(labelled[3]) else set()
        return {letter for letter, option in options.items() if option == _plain(text)}

    def _cased(self, letter: str) -> str:
        return letter if self.case else letter.upper()


def _is_letter(text: object) -> bool:
    return isinstance(text, str) and len(text) == 1 and text.isascii() and text.isalpha()


def _plain(text: str) -> str:
    return " ".join(clean(text).casefold().split())


class Number(TextVerifier):
    """Judge a number: exactly, or within tolerances.

    Reads a sign, a currency mark, thousands separators, decimals and an exponent, all exactly: no
    binary float is involved. Fractions and expressions are for `math`.

    Args:
        extract: Where the answer stands.
        absolute: Greatest absolute difference that counts as equal, at least 0.
        relative: The same as a share of the truth.

    Example:
        >>> Number(absolute=0.01)("3.14", 3.14159).reward
        1.0
    """

    def __init__(
        self,
        *,
        extract: str | Sequence[str] = ("boxed", "tag", "hash", "answer_is", "whole"),
        absolute: float = 0.0,
        relative: float = 0.0,
    ) -> None:
        """Check the tolerances."""
        super().__init__(extract)
        for name, value in (("absolute", absolute), ("relative", relative)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{name}= is a tolerance of at least 0, got {value!r}")
        # through the text: a tolerance of 0.1 means a tenth, not the nearest binary fraction
        self.absolute = Fraction(str(absolute))
        self.relative = Fraction(str(relative))

    def read_truth(self, truth: Any) -> Fraction:
        """Return the truth as an exact fraction."""
        if isinstance(truth, bool) or not isinstance(truth, str | int | float):
            raise TaskError(f"a number's truth is a number or a numeral, got {brief(truth)}")
        try:
            return signed_numeral(clean(truth if isinstance(truth, str) else value_text(truth)))
        except Unreadable as error:
            raise TaskError(f"the truth {brief(truth)} is no number: {error}") from None

    def judge(self, answer: str, truth: Fraction) -> Verdict:
        """Compare the difference with the larger of the two bounds."""
        try:
            value = signed_numeral(clean(answer))
        except TooLarge as error:
            return Verdict.limit(str(error), answer=answer[:SHOWN_CHARS])
        except Unreadable as error:
            return Verdict.unparsed(str(error), answer=answer[:SHOWN_CHARS])
        close = abs(value - truth) <= max(self.absolute, self.relative * abs(truth))
        shown = show_fraction(value)
        return Verdict.correct(answer=shown) if close else Verdict.wrong(answer=shown)
