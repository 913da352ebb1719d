"""Where in a completion the answer stands.

Each finder takes the *last* place of its kind, because a policy may correct itself and commits with
its last word, and is linear in the length of the text. A place that is there but broken (a box
that never closes) ends the search: falling back to an earlier answer would pay for one that was
given up. Nothing here looks for numbers in prose.
"""

import re
from collections.abc import Callable, Sequence

from .errors import UsageError, unknown

MAX_FORMULA_CHARS = 400
"""Characters of a text in which a lone formula is looked for."""
MAX_GAP_CHARS = 60
"""Characters between two boxes that may be one list."""
MAX_TEXT_CHARS = 200_000
"""Characters at the end of a completion in which the answer is looked for: a longer search would
hold up the other threads of a process for too long."""
MAX_BOXES = 1_000
"""Boxes that are read as one list: far more than a list may have."""
MAX_BOX_CHARS = 20_000
"""Characters of a box in which its end is looked for: far more than an answer may have."""

_ANSWER_IS = re.compile(
    r"""\bthe\s+(?:final\s+|correct\s+)?answer\s+is\b(?:[ \t*_]*:)?
    |(?:^|\n|[.!?][ ])[ \t*_\#>-]{0,6}(?:the\s+)?(?:final\s+|correct\s+)?
    answer[ \t*_]{0,4}:[*_]{0,2}
    |(?:^|\n)[ \t]{0,3}[\#*_]{1,6}[ \t*_]{0,4}(?:the\s+)?(?:final\s+)?answer[ \t*_]{0,4}(?=\n)""",
    re.IGNORECASE | re.VERBOSE,
)
_SENTENCE_END = re.compile(r"[.?](?:\s|$)|!(?:\s*$|\s+[A-Z])|\n")
_DISPLAY = {"$$": "$$", "\\[": "\\]"}
_BOX = re.compile(r"\\(?:begin)?boxed(?![A-Za-z])|\\fbox(?![A-Za-z])")
_BARE_BOX = re.compile(r"[-−+]?(?:[0-9][0-9.,/]*|[A-Za-z](?![A-Za-z]))")
_GAP = re.compile(
    r"""(?:[\s$,;.&]|\\[()\[\],;:!\ \\]|\\q?quad(?![A-Za-z])|\b(?:and|or)\b
    |\\(?:text|textbf|mathrm|mbox)\s*\{[\s,;]*(?:and|or)?[\s,;]*\})*""",
    re.VERBOSE,
)
_SEPARATOR = re.compile(r"[,;]|and|or|quad")
_STOP = re.compile(r"<\|(?:im_end|im_start|endoftext|end_of_text|eot_id|end)\|>|</s>")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_LEADS = re.compile(
    r"(?:\b(?:is|are|be|that|get|have|has|answer|therefore|thus|hence|so|solution|result|equals|to"
    r"|gives|obtain|find)|[:,])\s*$|^\s*$",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:not|never|no|nor|neither|cannot|wrong|incorrect|false|unlike|except|or|maybe|perhaps"
    r"|zero|one|two|three|four|five|six|seven|eight|nine|ten|half|either|both|plus|minus|times)\b"
    r"|n['’]t\b|[0-9]",
    re.IGNORECASE,
)
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_IS = re.compile(r"\b(?:is|are|equals)\b(?:\s*:)?", re.IGNORECASE)
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
    if "<" in text and (stop := _STOP.search(text)):
        text = text[: stop.start()]
    text = _bare(text)
    for opening, closing in _MARKS:
        if len(text) >= 4 and text.startswith(opening) and text.endswith(closing):
            text = _bare(text[2:-2])
    if (len(text) - len(text.rstrip("\\"))) % 2:
        # half of a trailing `\,` or `\$`: its other half was taken for punctuation
        text = text[:-1].rstrip(_TRAILING)
    return text


def _bare(text: str) -> str:
    """Strip white space, punctuation, and dollar signs unless that would part a pair of them."""
    dots = "..." if "..." in text and text.rstrip(_LEADING).endswith("...") else ""
    bare = text.lstrip(_LEADING).rstrip(_TRAILING) + dots
    if "$" in bare and _pairing(bare) != _pairing(text):
        return text.lstrip(_SPACES).rstrip(_TRAILING.replace("$", ""))
    return bare


def _pairing(text: str) -> tuple[int, int]:
    return text.count("$") % 2, text.count("$$") % 2


def boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{…}` or `\fbox{…}`.

    Boxes with nothing but "and", "or", commas and wide spaces between them are one list; any other
    word between two boxes gives up the first.

    Returns:
        `None` if there is none, it is empty, or the last one's braces do not balance.

    Example:
        >>> boxed(r"first \boxed{4}, no: \boxed{\frac{1}{2}}")
        '\\frac{1}{2}'
        >>> boxed(r"$\boxed{4}$ and $\boxed{5}$")
        '4, 5'
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    content, _ = _content(text, boxes[-1].end(), len(text))
    if not content:
        return None
    contents = [content]
    for box, after in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        content, end = _content(text, box.end(), after.start())
        gap = text[end : after.start()]
        if not content or len(gap) > MAX_GAP_CHARS or len(contents) > MAX_BOXES:
            break
        if not _GAP.fullmatch(gap) or not _SEPARATOR.search(gap):
            break
        contents.append(content)
    return ", ".join(reversed(contents))


def _content(text: str, start: int, stop: int) -> tuple[str | None, int]:
    """Return what a box holds whose name ends at `start`, and where it ends; `None` if broken."""
    start += len(text[start:stop]) - len(text[start:stop].lstrip())
    if not text.startswith("{", start):
        bare = _BARE_BOX.match(text, start, stop)
        return (clean(bare.group()), bare.end()) if bare else (None, stop)
    depth = 0
    for mark in _BRACES.finditer(text, start, min(stop, start + MAX_BOX_CHARS)):
        depth += {"{": 1, "}": -1}.get(mark.group(), 0)
        if depth == 0:
            return clean(text[start + 1 : mark.start()]), mark.end()
    if stop - start > MAX_BOX_CHARS:
        return text[start + 1 : start + MAX_BOX_CHARS], stop
    return _closed_late(text, start, stop), stop


def _closed_late(text: str, start: int, stop: int) -> str | None:
    r"""Return the content of `\boxed{185\}`, whose last brace was escaped by a stray backslash."""
    rest = text[start + 1 : stop].rstrip(_TRAILING)
    return clean(rest[:-2]) if rest.endswith("\\}") and "{" not in rest else None


def hash_line(text: str) -> str | None:
    """Return what follows the last `####` on its line.

    Example:
        >>> hash_line("6 * 7 = 42\\n#### 42")
        '42'
    """
    _, found, rest = text.rpartition("####")
    return (clean(rest.partition("\n")[0]) or None) if found else None


def answer_is(text: str) -> str | None:
    """Return what follows the last "the answer is" or "Answer:", up to the end of its sentence.

    A heading "Final Answer" on a line of its own counts too; a question gives no answer.

    Example:
        >>> answer_is("So the answer is 3.5. I am sure.")
        '3.5'
        >>> answer_is("Final answer: 42")
        '42'
    """
    last = None
    for match in _ANSWER_IS.finditer(text):
        last = match
    if last is None:
        return None
    rest = text[last.end() :].lstrip(_SPACES)
    start = 0
    for opening, closing in _DISPLAY.items():
        if rest.startswith(opening):
            start = max(0, rest.find(closing, len(opening)))
    end = _SENTENCE_END.search(rest, start)
    if end is None:
        return clean(rest) or None
    if end.group().startswith("?"):
        return None
    is_continued = rest.startswith("..", end.start() - 2)
    return clean(rest[: end.start() + is_continued]) or None


def _says_answer(text: str) -> bool:
    return "answer" in text.lower() and _ANSWER_IS.search(text) is not None


def formula(text: str) -> str | None:
    """Return the one formula of a short text that leads up to it: `The result is $3$`.

    Returns:
        `None` if there are more, or the words beside it count, doubt or deny.

    Example:
        >>> formula("Therefore $x > 5$ is the solution.")
        'x > 5'
        >>> formula("It is not $5$.")
    """
    if len(text) > MAX_FORMULA_CHARS or not ("$" in text or "\\(" in text or "\\[" in text):
        return None
    found = list(_FORMULA.finditer(text))
    if len(found) != 1:
        return None
    before, after = text[: found[0].start()], text[found[0].end() :]
    if not _LEADS.search(before) or _DENIED.search(before) or _DENIED.search(after):
        return None
    return clean(next(filter(None, found[0].groups()))) or None


def conclusion(sentence: str) -> str | None:
    """Return what a sentence says that something is: `The largest n is 34`.

    Example:
        >>> conclusion("The largest $n$ is 34")
        '34'
        >>> conclusion("It is not 34")
    """
    last = None
    for match in _IS.finditer(sentence[:MAX_FORMULA_CHARS]):
        last = match
    if last is None or _DENIED.search(sentence[: last.start()]):
        return None
    said = clean(sentence[last.end() :])
    return said if said and not said.startswith("not ") else None


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
    "boxed": (boxed, lambda text: "box" in text and _BOX.search(text) is not None),
    "hash": (hash_line, lambda text: "####" in text),
    "answer_is": (answer_is, lambda text: _says_answer(text)),
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
        completion: The policy's text; what stands before `</think>` or after an end-of-turn token
            is left out.
        how: Names from `MARKERS`, tried in order.

    Returns:
        The answer, or `None` when no marker is there or the one that is holds no answer.

    Example:
        >>> extract(r"the answer is 4, or rather \boxed{5}", ("boxed", "answer_is"))
        '5'
        >>> extract(r"the answer is 4, or rather \boxed{5", ("boxed", "answer_is"))
    """
    return locate(completion, how)[1]


def locate(completion: str, how: Sequence[str]) -> tuple[str, str | None]:
    """Return the marker that decides, empty if none is there, and the answer."""
    text = before_stop(after_think(completion))[-MAX_TEXT_CHARS:]
    for name in how:
        find, present = MARKERS[name]
        if present(text):
            return name, find(text)
    return "", None


def before_stop(text: str) -> str:
    r"""Return what stands before the first end-of-turn token, unless a box is open there.

    Example:
        >>> before_stop("42<|im_end|>\nuser: no, 43")
        '42'
    """
    # most texts have neither: a search for a word takes a hundredth of a pattern's time
    if "|>" not in text and "</s>" not in text:
        return text
    stop = _STOP.search(text)
    if stop is None:
        return text
    head = text[: stop.start()]
    last = None
    for box in _BOX.finditer(head, max(0, len(head) - MAX_TEXT_CHARS)):
        last = box
    is_open = last is not None and _content(head, last.end(), len(head))[0] is None
    return text if is_open else head
