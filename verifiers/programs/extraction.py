"""Where in a completion the program stands.

The last fenced block decides, as the last word of a policy that may correct itself; a block of
another language (`text`, `json`, an output) is none. A fence that is never closed is the program
cut off, and takes the rest of the text. Without any fence the whole text is the program, if the
caller takes that: a policy that continues a prompt writes no fences.
"""

import re

from ..extract import after_think, before_stop

MAX_SOURCE = 200_000
"""Characters of a program."""
_FENCE = re.compile(r"^[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([^\n`]*+)$", re.MULTILINE)
"""Possessive throughout: a line that is no fence is looked at once."""
_FUTURE = re.compile(r"^from __future__ import .*+\n?", re.MULTILINE)
LANGUAGES = frozenset(["", "python", "python3", "py", "py3", "python 3"])
"""What may stand after the fence."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Return language and content of every fenced block; the last may be open.

    Example:
        >>> blocks("So:\\n```python\\nprint(1)\\n```\\nprints\\n```text\\n1\\n```")
        [('python', 'print(1)\\n'), ('text', '1\\n')]
    """
    found: list[tuple[str, str]] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif _closes(opening, fence):
            found.append((opening[2].strip().lower(), text[opening.end() + 1 : fence.start()]))
            opening = None
    if opening is not None:
        found.append((opening[2].strip().lower(), text[opening.end() + 1 :]))
    return found


def _closes(opening: re.Match[str], fence: re.Match[str]) -> bool:
    """Return whether a fence ends a block: of the same mark, as long at least, nothing after it."""
    return fence[1].startswith(opening[1]) and not fence[2].strip()


def find_program(completion: str, whole: bool = True) -> str | None:
    """Return the program of a completion.

    Args:
        completion: The policy's text; what stands before `</think>` or after an end-of-turn token
            is left out.
        whole: Whether a text without any fence is taken as it is.

    Example:
        >>> find_program("First:\\n```py\\nx = 1\\n```\\nBetter:\\n```\\nx = 2\\n```")
        'x = 2\\n'
        >>> find_program("I cannot.", whole=False)
    """
    text = before_stop(after_think(completion))
    found = blocks(text)
    programs = [content for language, content in found if language.split("{")[0] in LANGUAGES]
    if programs:
        return _dedented(programs[-1]) if programs[-1].strip() else None
    if found or not whole:
        return None
    return text if text.strip() else None


def _dedented(program: str) -> str:
    """Take off the indentation that a whole block has, as in a list; a lone body keeps it."""
    lines = [line for line in program.split("\n") if line.strip()]
    first = len(lines[0]) - len(lines[0].lstrip())
    margin = lines[0][:first]
    begins = re.match(r"(?:def|class|import|from|async|@)", lines[0][first:])
    if first and begins and all(line.startswith(margin) for line in lines):
        return "\n".join(line.removeprefix(margin) for line in program.split("\n"))
    return program


def defines(source: str, name: str) -> bool:
    """Return whether a program defines a name at its top level, by a look at its lines.

    Example:
        >>> defines("def f(x):\\n    return x", "f")
        True
    """
    pattern = (
        rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{re.escape(name)}\b|^{re.escape(name)}[ \t]*[:=]"
    )
    return re.search(pattern, source, re.MULTILINE) is not None


def completed(prompt: str, source: str, name: str) -> str:
    """Join a prompt that begins a function and what a policy made of it.

    A program that defines the function stands on its own, after the prompt's imports and helpers;
    anything else goes on where the prompt ends.
    """
    if defines(source, name):
        first = "".join(_FUTURE.findall(source))  # nothing may come before these
        return f"{first}{prompt}\n    pass\n\n{_FUTURE.sub('', source)}"
    return f"{prompt.rstrip(chr(10))}\n{source.lstrip(chr(10))}"
