r"""Answers in words: names, and sentences that hold a formula but are no formula."""

import re

from .digits import spelled
from .nodes import Node, Symbol, Text

_NAME = re.compile(r"[A-Z][a-z]{2,30}|[A-Z]{2,12}")
_CHOICE = re.compile(
    r"\(?([A-Z])[).:]{1,2}|\(?\\(?:text|mathrm|textbf)\s*\{\s*\(?([A-Z])\)?[.:]?\s*\}\)?"
    r"|(?:\\(?:text|mathrm|textbf)\s*\{\s*)?(?i:option|choice)[\s~]+\(?([A-Z])[).]{0,2}\s*\}?"
)
_LABELLED = re.compile(
    r"(?:\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{\s*)?(\(?)([A-J])(?:\)|(?<!\([A-J])\.)\s*(\}?)"
    r"(?:\s|\\[ ,;:]|\\quad|~)*(?<=[\s}~,;:d])(\S.*)",
    re.DOTALL,
)
"""`(B) 12`, `B. 12`, `\\textbf{(B)}\\ 12`, with one label and one text."""
_SECOND_THOUGHT = re.compile(
    r"(?<![A-Za-z\\])[A-J](?![A-Za-z])|\b(?i:is|are|was|wrong|incorrect|instead|rather)\b"
)
_CONTINUED = (
    r"(?:\\(?:text|textbf|textrm|mathrm|mbox)\s*\{|\\[ ,;:!]|[\s~])*"
    r"(?:[,;/&|]|\\(?:lor|land|vee|wedge|cup|quad|&)|(?:and|or|but)(?![A-Za-z]))"
)
"""What makes a label the first of several answers: `(B), 97` has no text."""
_NO_NAMES = frozenset(("Pi", "Infinity", "Re", "Im"))
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
    if not ("A" <= text[0] <= "Z" or text[0] in "(\\oc") or len(text) > 40:
        return None
    choice = _CHOICE.fullmatch(text)
    if choice:
        return Symbol(choice[1] or choice[2] or choice[3])
    if _NAME.fullmatch(text) and text not in _NO_NAMES and spelled(text.lower()) is None:
        return Text(text.lower())
    return None


def labelled(text: str) -> tuple[str, str] | None:
    r"""Return the letter and the text of a choice that has both; `None` for any other text.

    Example:
        >>> labelled("(B) 12"), labelled(r"\text{B. }12"), labelled("(B) 12 or (C)")
        (('B', '12'), ('B', '12'), None)
    """
    match = _LABELLED.fullmatch(text) if text[0] in "(\\ABCDEFGHIJ" else None
    if match is None or _SECOND_THOUGHT.search(match[4]) or re.match(_CONTINUED, match[4]):
        return None
    rest = match[4]
    if "{" in match[0][: match.start(2)] and not match[3]:
        if not rest.endswith("}"):
            return None
        rest = rest[:-1]
    return match[2], rest


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
