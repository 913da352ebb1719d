"""Text to tokens: numerals, letter runs, commands, single characters; and what surrounds them.

Different ways to write one sign become one token here, so that the parser knows each once.
"""

import re

from ..numerals import NUMERAL, TooLarge, Unreadable

MAX_CHARS = 4000
"""Characters of an answer: longer ones are essays, or attacks on the tokenizer."""
MAX_TOKENS = 1500
"""Tokens of an answer: bounds the size of the tree."""
MAX_RUN = 3
"""Letters in a row that are read as a product of variables; longer runs are words."""

WORDS = frozenset({"or", "and", "not", "no", "to", "is", "the", "yes", "nan", "inf", "if", "in"})
"""Short runs of letters that are words all the same."""
_GREEK = r"""alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu
nu xi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi
Omega"""
GREEK = frozenset(_GREEK.split())
"""Commands that are variables."""
_SPACES = r"""\, \; \: \! ~ \quad \qquad \left \right \displaystyle \textstyle \limits \big \Big
\bigl \bigr \Bigl \Bigr"""
_SPACING = frozenset(_SPACES.split()) | {"\\ "}
_ALIASES = {
    "**": "^",
    "−": "-",
    "–": "-",
    "×": "*",
    "·": "*",
    "⋅": "*",
    "÷": "/",
    "π": r"\pi",
    r"\cdot": "*",
    r"\times": "*",
    r"\ast": "*",
    r"\div": "/",
    r"\%": "%",
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\cfrac": r"\frac",
    r"\lparen": "(",
    r"\rparen": ")",
}
_COMMA = re.compile(r"(?<![{\\]),")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_TOKEN = re.compile(
    rf"(?P<space>\s+)|(?P<number>{NUMERAL})|(?P<name>[A-Za-z]+)|(?P<command>\\(?:[A-Za-z]+|.))"
    rf"|(?P<super>[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)|(?P<op>\*\*|.)",
    re.DOTALL,
)
CURRENCY = re.compile(r"(?P<sign>[+\-−]?)\s*(?:\\?\$|[€£¥])\s*(?=[0-9.])")
_UNIT = re.compile(
    r"(?<=[0-9}).])(?:\s*\\(?:text|mathrm|textrm|mbox)\s*\{(?P<in_braces>[^{}\\]*)\}"
    r"|\s+(?P<words>[A-Za-z][A-Za-z .]*))\Z"
)


def without_unit(text: str) -> str:
    r"""Drop a unit at the end: words after a space, or a `\text{…}`.

    Example:
        >>> without_unit("5 apples"), without_unit(r"12\text{ cm}"), without_unit("5 or 6 km")
        ('5', '12', '5 or 6')
    """
    match = _UNIT.search(text) if len(text) <= MAX_CHARS else None
    if match is None or WORDS & set((match["in_braces"] or match["words"] or "").lower().split()):
        return text
    return text[: match.start()]


def tokens(text: str) -> list[str]:
    r"""Split a text into numerals, letter runs, commands and single characters.

    Raises:
        TooLarge: There are more than `MAX_TOKENS`.
        Unreadable: A comma stands inside brackets: (1,234) may be a point or a number.

    Example:
        >>> tokens(r"2\dfrac{1}{2} × 1,000")
        ['2', '\\frac', '{', '1', '}', '{', '2', '}', '*', '1,000']
    """
    out: list[str] = []
    brackets = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match.lastgroup == "space" or token in _SPACING:
            continue
        if match.lastgroup == "super":
            out.extend(_exponent(token))
            continue
        token = _ALIASES.get(token, token)
        brackets += (token in "([") - (token in ")]")
        if brackets > 0 and match.lastgroup == "number" and _COMMA.search(token):
            raise Unreadable("a comma inside brackets")
        out.append(token)
        if len(out) > MAX_TOKENS:
            raise TooLarge(f"more than {MAX_TOKENS} symbols")
    return out


def _exponent(superscripts: str) -> list[str]:
    plain = superscripts.translate(_SUPERSCRIPTS)
    digits = plain.lstrip("-")
    if not digits.isdecimal():
        raise Unreadable(f"the exponent {plain[:20]!r}")
    return ["^", "{", *plain[: len(plain) - len(digits)], digits, "}"]
