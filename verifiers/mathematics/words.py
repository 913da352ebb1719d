"""Words: choices, names, and sentences, compared as text."""

import re

from .decisions import SAME, Decision, different
from .nodes import Constant, Items, Node, Product, SetOf, Symbol, Text
from .sets import region

NOTHING = frozenset(
    """no solution|no solutions|no real solution|no real solutions|no such number|empty set
    |the empty set|none|no answer|there are no solutions|there is no solution""".replace("\n", "")
    .replace("    ", "")
    .split("|")
)
_CHOICE = re.compile(r"[(\[]?([a-z])[)\].:]?")
_FILLERS = re.compile(r"\b(?:the|a|an|only)\b\s+|[.,;:!?()]")


def compare_words(one: Node, other: Node) -> Decision:
    """Compare two trees of which at least one is words."""
    if isinstance(one, Text) and isinstance(other, Text):
        same = one.words == other.words or _plain(one.words) == _plain(other.words) != ""
        same = same or NOTHING.issuperset((one.words, other.words))
        return SAME if same else different("different words")
    text, value = (one, other) if isinstance(one, Text) else (other, one)
    assert isinstance(text, Text)
    spelled = _spelled(value)
    if spelled is not None and spelled.casefold() in (text.words, _letter(text.words)):
        return SAME
    if isinstance(value, Items) and _chosen(value) == text.words:
        return SAME
    if value == SetOf(()) and text.words in NOTHING:
        return SAME
    reals = region(text)
    return SAME if reals is not None and region(value) == reals else different("different words")


def _plain(words: str) -> str:
    """Return words without marks and articles; a choice is its letter."""
    return _letter(words) or " ".join(_FILLERS.sub(" ", words).split())


def _letter(words: str) -> str:
    match = _CHOICE.fullmatch(words)
    return match[1] if match else ""


def _chosen(node: Items) -> str:
    """Return the letters of several choices, `A, B, D`, in one run."""
    letters = [each.name for each in node.items if isinstance(each, Symbol)]
    together = "".join(sorted(letters))
    return together.casefold() if len(letters) == len(node.items) and together.isupper() else ""


def _spelled(node: Node) -> str | None:
    """Return the letters of what was read as variables: `Even` without `\\text`."""
    if isinstance(node, Symbol | Constant):
        return node.name
    if isinstance(node, Product):
        letters = [_spelled(factor) for factor in node.factors]
        return None if None in letters else "".join(filter(None, letters))
    return None
