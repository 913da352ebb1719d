"""Control tokens in texts that are not the template's own.

A chat template marks who speaks by control tokens: `<|im_end|>`, `<|eot_id|>`, `[INST]`. A tool's
result or a task's text may contain these very spellings, and a tokenizer that reads the rendered
conversation would take them for the template's: whoever writes the text could end the message and
speak as somebody else. Here the template's stay control tokens, and those of a text become the
ordinary tokens of their letters.

A mark is put inside each spelling before the template sees the text, and the rendered conversation
is encoded in the pieces between the marks. Texts without such a spelling, all but a few, are
encoded as the tokenizer does it by itself.

Not covered: control tokens of a single character, which have no inside.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

MARKS = "\ue000\ue001\uf8fe\uf8ff\U000ffffd\U0010fffd"
"""Characters for private use; the first that no text of the conversation contains is the mark."""

_ANCHOR = "\n"
"""Put before a piece where the tokenizer begins every text with a space of its own."""


class ControlTokens:
    """Which tokens of a tokenizer are control tokens, and how to keep texts free of them."""

    def __init__(self, tokenizer: Any, also: Iterable[str] = ()) -> None:
        """Collect the tokens that the tokenizer declares as special, and others.

        Args:
            tokenizer: A transformers tokenizer.
            also: Spellings of further control tokens.
        """
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special = {token.content for token in added.values() if token.special}
        special |= set(tokenizer.all_special_tokens) | set(also)
        self.spellings = tuple(sorted((s for s in special if len(s) > 1), key=len, reverse=True))
        """What is kept out of texts, longest first."""
        words = "|".join(map(re.escape, self.spellings)) or r"(?!)"
        self._spelt, self._starts = re.compile(words), re.compile(f"(?={words})")
        self._beginnings = {s[:size] for s in self.spellings for size in range(1, len(s))}
        self._fold = _normaliser(tokenizer, special)
        self._bare = self._plain("x") == self._after_anchor("x")

    def mark(self, texts: Iterable[str]) -> str:
        """Return the mark for texts of which some must be guarded, else an empty text.

        Example:
            A conversation in which nobody spells a control token needs no mark.
        """
        given = list(texts)
        if not any(self._spelt.search(text) or self._unsettled(text) for text in given):
            return ""
        return next((mark for mark in MARKS if not any(mark in text for text in given)), MARKS[0])

    def guard(self, value: Any, mark: str) -> Any:
        """Return a message, or any part of one, with a mark inside each spelling.

        A spelling of which only the beginning stands at the end of a text is marked, too: the next
        text might go on with the rest.
        """
        if isinstance(value, str):
            return self._guarded(value, mark)
        if isinstance(value, Mapping):
            return {
                key: one if key == "role" else self.guard(one, mark) for key, one in value.items()
            }
        if isinstance(value, Sequence):
            return [self.guard(one, mark) for one in value]
        return value

    def encode(self, rendered: str, mark: str) -> list[int]:
        """Return the ids of a rendered conversation in which `mark` stands inside spellings."""
        first, *rest = rendered.split(mark) if mark else [rendered]
        ids = self._plain(first)
        for piece in rest:
            ids += self._plain(piece) if self._bare else self._after_anchor(piece)
        return ids

    def spelt_in(self, text: str) -> list[str]:
        """Return the control tokens that a text spells."""
        return self._spelt.findall(text)

    def _guarded(self, text: str, mark: str) -> str:
        text = text.replace(mark, "")  # only where every mark is in use: better lost than obeyed
        folded = self._fold(text) if self._fold else text
        if len(self._starts.findall(folded)) > len(self._starts.findall(text)):
            text = folded
        cuts = {found.start() + 1 for found in self._starts.finditer(text)}
        end = len(text.rstrip())
        if self._unsettled(text):
            cuts.add(end)
        pieces, last = [], 0
        for cut in sorted(cuts):
            pieces.append(text[last:cut])
            last = cut
        return mark.join([*pieces, text[last:]])

    def _unsettled(self, text: str) -> bool:
        """Whether a text ends within a spelling, or hides one from all but the normaliser."""
        tail = text.rstrip()
        longest = len(self.spellings[0]) if self.spellings else 0
        if any(tail[-size:] in self._beginnings for size in range(1, longest)):
            return True
        return bool(self._fold and self._spelt.search(self._fold(text)))

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def _after_anchor(self, text: str) -> list[int]:
        """Encode a text as it is within another one, without a space put before it."""
        return self._plain(_ANCHOR + text)[len(self._plain(_ANCHOR)) :]


def _normaliser(tokenizer: Any, spellings: set[str]) -> Any:
    """Return the tokenizer's normaliser if it looks for control tokens in normalised texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normaliser = getattr(backend, "normalizer", None)
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    if normaliser is None or not any(t.normalized and t.content in spellings for t in added):
        return None
    return normaliser.normalize_str


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text of a message, or of any part of one, but its role."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            if key != "role":
                yield from texts_of(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from texts_of(one)
