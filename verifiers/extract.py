"""Where in a completion the answer stands.

Each finder takes the *last* place of its kind, because a policy may correct itself and commits with
its last word, and is linear in the length of the text. A place that is there but broken (a box
that never closes) ends the search: falling back to an earlier answer would pay for one that was
given up. Nothing here looks for numbers in prose.
"""

import re
from collections.abc import Callable, Sequence

from .errors import UsageError, unknown

_ANSWER_IS = re.compile(r"\bthe\s+(?:final\s+|correct\s+)?answer\s+is\b(?:\s*:)?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")
_BOXES = ("\\boxed", "\\fbox")
_SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_LEADING = _SPACES + "$"
_TRAILING = _LEADING + ".,;:"
_MARKS = (("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))


def after_think(completion: str) -> str:
    """Return what follows the reasoning: the text after the last `</think>`.

    A `<think>` that is never closed takes the rest of the text with it: the reasoning was cut off,
    and what stands in it is not an answer.

    Example:
        >>> after_think("<think>4?</think> 5")
        ' 5'
    """
    _, found, rest = completion.rpartition("</think>")
    return (rest if found else completion).partition("<think>")[0]


def clean(text: str) -> str:
    """Strip white space, dollar signs, math and bold marks, and trailing punctuation.

    Example:
        >>> clean(" $42$. ")
        '42'
    """
    text = text.lstrip(_LEADING).rstrip(_TRAILING)
    for opening, closing in _MARKS:
        if len(text) >= 4 and text.startswith(opening) and text.endswith(closing):
            text = text[2:-2].lstrip(_LEADING).rstrip(_TRAILING)
    if (len(text) - len(text.rstrip("\\"))) % 2:
        # half of a trailing `\,` or `\$`: its other half was taken for punctuation
        text = text[:-1].rstrip(_TRAILING)
    return text


def boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{…}` or `\fbox{…}`.

    Returns:
        `None` if there is none, it is empty, or the last one's braces do not balance.

    Example:
        >>> boxed(r"first \boxed{4}, no: \boxed{\frac{1}{2}}")
        '\\frac{1}{2}'
    """
    start, box = max((text.rfind(box), box) for box in _BOXES)
    if start < 0:
        return None
    rest = text[start + len(box) :].lstrip()
    depth = 0
    for mark in re.finditer(r"\\.|[{}]", rest, re.DOTALL) if rest.startswith("{") else ():
        depth += {"{": 1, "}": -1}.get(mark.group(), 0)
        if depth == 0:
            return clean(rest[1 : mark.start()]) or None
    return None


def hash_line(text: str) -> str | None:
    """Return what follows the last `####` on its line.

    Example:
        >>> hash_line("6 * 7 = 42\\n#### 42")
        '42'
    """
    _, found, rest = text.rpartition("####")
    return (clean(rest.partition("\n")[0]) or None) if found else None


def answer_is(text: str) -> str | None:
    """Return what follows the last "the answer is", up to the end of its sentence or line.

    Example:
        >>> answer_is("So the answer is 3.5. I am sure.")
        '3.5'
    """
    last = None
    for match in _ANSWER_IS.finditer(text):
        last = match
    if last is None:
        return None
    rest = text[last.end() :].lstrip(" \t")
    end = _SENTENCE_END.search(rest)
    return clean(rest[: end.start()] if end else rest) or None


def tag(text: str, name: str = "answer") -> str | None:
    """Return the content of the last complete `<answer>…</answer>`.

    Example:
        >>> tag("<answer>4</answer> hm, <answer> 5 </answer>")
        '5'
    """
    before, closed, _ = text.rpartition(f"</{name}>")
    _, opened, content = before.rpartition(f"<{name}>")
    return (clean(content) or None) if closed and opened else None


def whole(text: str) -> str | None:
    """Return the whole text without the white space around it."""
    return text.strip() or None


Finder = Callable[[str], str | None]

MARKERS: dict[str, tuple[Finder, Callable[[str], bool]]] = {
    "boxed": (boxed, lambda text: any(box in text for box in _BOXES)),
    "hash": (hash_line, lambda text: "####" in text),
    "answer_is": (answer_is, lambda text: _ANSWER_IS.search(text) is not None),
    "tag": (tag, lambda text: "<answer>" in text),
    "whole": (whole, lambda text: True),
}
"""Marker names with their finder and the test whether the marker stands in a text."""


def check_how(how: str | Sequence[str]) -> tuple[str, ...]:
    """Return marker names as a tuple, checked.

    Raises:
        UsageError: There is none, or one is unknown.
    """
    names = (how,) if isinstance(how, str) else tuple(how)
    if not names:
        raise UsageError(f"extract= needs at least one of {', '.join(MARKERS)}, got none")
    for name in names:
        if name not in MARKERS:
            raise unknown("answer marker", str(name), MARKERS)
    return names


def extract(completion: str, how: Sequence[str]) -> str | None:
    r"""Return the answer of a completion: the first marker of `how` that is there decides.

    Args:
        completion: The policy's text; what stands before `</think>` is left out.
        how: Names from `MARKERS`, tried in order.

    Returns:
        The answer, or `None` when no marker is there or the one that is holds no answer.

    Example:
        >>> extract(r"the answer is 4, or rather \boxed{5}", ("boxed", "answer_is"))
        '5'
        >>> extract(r"the answer is 4, or rather \boxed{5", ("boxed", "answer_is"))
    """
    text = after_think(completion)
    for name in how:
        find, present = MARKERS[name]
        if present(text):
            return find(text)
    return None
