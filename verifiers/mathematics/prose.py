r"""Answers in words: names, and sentences that hold a formula but are no formula."""

import re

from .nodes import Node, Symbol, Text

_NAME = re.compile(r"[A-Z][a-z]{2,30}|[A-Z]{2,12}")
_CHOICE = re.compile(
    r"\(?([A-Z])[).:]{1,2}|\(?\\(?:text|mathrm|textbf)\s*\{\s*\(?([A-Z])\)?[.:]?\s*\}\)?"
)
_WRAPPERS = (
    r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|operatorname)\*?\s*(?=\{)"
)
_SPACING = r"\\[,;:! ]|\\(?:left|right|quad|qquad)(?![A-Za-z])|[{}~]"
_WORD = r"(?<![A-Za-z\\])[A-Za-z][A-Za-z'’\-]*[A-Za-z](?![A-Za-z])"
_SQUEEZED = r"\s+"
_NO_PROSE = r"\\boxed|\\begin|\\end|<\|"
_GROUPS = r"[{}\[\]()]"
_FUNCTION_WORDS = frozenset(str.split("sin cos tan cot sec csc log sqrt lim max min gcd lcm exp"))
_MIN_SHARE = 0.5
"""Share of the characters that have to be in words for a text that is no formula."""


def name(text: str) -> Node | None:
    """Read a name or a choice that stands alone: `Tom`, `CAB`, `A.`, `(B)`.

    Its letters would be a product otherwise, in which their order does not count.

    Example:
        >>> name("CAB"), name("(B)"), name("x")
        (Text(words='cab'), Symbol(name='B'), None)
    """
    if not ("A" <= text[0] <= "Z" or text[0] in "(\\") or len(text) > 40:
        return None
    choice = _CHOICE.fullmatch(text)
    if choice:
        return Symbol(choice[1] or choice[2])
    if _NAME.fullmatch(text) and text not in ("Pi", "Infinity", "Re", "Im"):
        return Text(text.lower())
    return None


def words(text: str) -> Text | None:
    """Return a text that is mostly words, normalised as a whole; `None` for any other.

    Example:
        >>> words(r"odd n is \\text{best}"), words("3 + + 4")
        (Text(words='odd n is best'), None)
    """
    if not _balanced(text) or re.search(_NO_PROSE, text):
        return None
    bare = re.sub(_SPACING, " ", re.sub(_WRAPPERS, "", text))
    bare = re.sub(_SQUEEZED, " ", bare).strip(" .,;:!?")
    found = [word for word in re.findall(_WORD, bare) if len(word) > 2]
    letters = sum(len(word) for word in found if word not in _FUNCTION_WORDS)
    signs = len(bare) - bare.count(" ")
    if not letters or letters < _MIN_SHARE * signs:
        return None
    return Text(bare.casefold())


def _balanced(text: str) -> bool:
    depth = 0
    for mark in re.findall(_GROUPS, text):
        depth += 1 if mark in "{[(" else -1
        if depth < 0:
            return False
    return depth == 0
