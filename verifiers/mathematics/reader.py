r"""Text to tree: the door of the reader.

    spelling → tokens → statements (→ expressions → brackets, calls, operands) → nodes

Reads LaTeX and plain text in the spellings that answers come in; what it does not understand, from
the first character to the last, is `Unreadable`, not guessed at. Never evaluates anything and never
hands text to another parser. Every cap is named, because the text is written by a policy that is
paid for breaking this; every pass is linear in the text.
"""

import re
from fractions import Fraction

from ..numerals import TooLarge, Unreadable
from . import prose
from .digits import in_base, number
from .moments import moment
from .nodes import Choice, Node, Number
from .spelling import plain
from .statements import Statements
from .tokens import tokens

MAX_CHARS = 4000
"""Characters of an answer: longer ones are essays, or attacks on the reader."""
_INTEGER = re.compile(r"-?[0-9]{1,300}")
_DECIMAL = re.compile(r"[0-9]{0,150}\.[0-9]{1,150}")


_BASED = re.compile(r"(?:\\(?:text|mathrm|mathtt)\s*\{)?([0-9A-F]{1,60})\}?_\{?\(?(1[1-6])\)?\}?")


def read(text: str) -> Node:
    r"""Read a mathematical text into a tree.

    Raises:
        TooLarge: It is over one of the caps.
        Unreadable: It is not understood, in full, from its first to its last character.

    Example:
        >>> read(r"\frac{1}{2}") == read("1/2")
        True
        >>> read("$x ≤ y$")
        Relation(sides=(Symbol(name='x'), Symbol(name='y')), operators=('<=',))
    """
    if _INTEGER.fullmatch(text):
        return Number(Fraction(int(text)), None, len(text.lstrip("-0")))
    if _DECIMAL.fullmatch(text):
        return number(text)
    if len(text) > MAX_CHARS:
        raise TooLarge(f"an answer of {len(text)} characters; at most {MAX_CHARS} are read")
    spelled = plain(text)
    if not spelled:
        raise Unreadable("an empty answer")
    try:
        return (
            moment(spelled)
            or prose.name(spelled)
            or _with_base(spelled)
            or _choice(spelled)
            or Statements(tokens(spelled)).statement()
        )
    except TooLarge:
        raise
    except RecursionError:
        raise TooLarge("nested too deeply") from None
    except Unreadable:
        words = prose.words(spelled)
        if words is None:
            raise
        return words


def _choice(text: str) -> Node | None:
    """Read a choice with its letter and its text: `(B) 12`."""
    found = prose.labelled(text)
    return Choice(found[0], read(found[1])) if found else None


def _with_base(text: str) -> Node | None:
    """Read a numeral with letters among its digits: `2B_{16}`."""
    if "_" not in text or len(text) > 100:
        return None
    match = _BASED.fullmatch(text)
    if match is None or match[1].isdecimal() or not any(map(str.isdecimal, match[1])):
        return None
    return in_base(match[1], match[2])
