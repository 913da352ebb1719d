"""Decimal numerals: text to an exact fraction.

Every digit counts: nothing passes through a binary float. Commas are read as thousands separators
only where they group by three, so that `1,23` is not silently 123.
"""

import math
import re
from fractions import Fraction

MAX_DIGITS = 400
"""Digits in a numeral: far more than an answer needs, far below where `int()` grows slow."""
MAX_EXPONENT = 1000
"""Absolute exponent in scientific notation: `1e1000000000` would fill the memory."""

_SEPARATORS = (",", r"\{,\}", r"\\,", "[\u2009\u202f\u00a0]")
_GROUPED = "|".join(f"[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+(?![0-9])" for mark in _SEPARATORS)
NUMERAL = rf"(?:(?:{_GROUPED}|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
"""Pattern of an unsigned numeral: `1,234.5`, `.5`, `84.`, `1.5e-3`."""

_SIGNED = re.compile(rf"(?P<sign>[+\-−]?)\s*(?P<currency>\\?\$|[€£¥])?\s*(?P<numeral>{NUMERAL})")
_NOT_DIGITS = re.compile(r"[^0-9.eE+-]")


class Unreadable(Exception):
    """The text is no number or expression that is understood."""


class TooLarge(Unreadable):
    """The text is over a named cap."""


def numeral(text: str) -> Fraction:
    """Return the exact value of a text that matches `NUMERAL`.

    Raises:
        TooLarge: More than `MAX_DIGITS` digits, or an exponent over `MAX_EXPONENT`.

    Example:
        >>> numeral("1,234.50")
        Fraction(2469, 2)
    """
    digits, _, exponent = _NOT_DIGITS.sub("", text).lower().partition("e")
    if len(digits) > MAX_DIGITS:
        raise TooLarge(f"a numeral of {len(digits)} characters; at most {MAX_DIGITS} are read")
    if len(exponent) > 6 or abs(int(exponent or 0)) > MAX_EXPONENT:
        raise TooLarge(f"an exponent beyond ±{MAX_EXPONENT}")
    integer, _, decimals = digits.partition(".")
    shift = int(exponent or 0) - len(decimals)
    value = int(integer + decimals)
    return Fraction(value * 10**shift) if shift >= 0 else Fraction(value, 10**-shift)


def signed_numeral(text: str) -> Fraction:
    """Return the exact value of a numeral with an optional sign and currency mark.

    Raises:
        Unreadable: The text is anything else.

    Example:
        >>> signed_numeral("-$5.50")
        Fraction(-11, 2)
    """
    match = _SIGNED.fullmatch(text.strip())
    if match is None:
        raise Unreadable("not a number")
    value = numeral(match["numeral"])
    return -value if match["sign"] in ("-", "−") else value


def value_text(value: int | float) -> str:
    """Return a number of a task row as the numeral that a reader would write.

    Raises:
        Unreadable: It is not finite, or longer than the cap.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unreadable(f"{value} is not a finite number")
        return repr(value)
    if value.bit_length() > 4 * MAX_DIGITS:
        raise TooLarge(f"an integer of {value.bit_length()} bits")
    return str(value)


def brief(value: object) -> str:
    """Return a value as an error message shows it, whatever its `repr` does."""
    try:
        return f"{value!r:.200}"
    except Exception:  # an integer of more digits than Python writes
        return f"<{type(value).__name__}>"


def show_fraction(value: Fraction) -> str:
    """Return the one text of a rational: equal numbers have equal texts.

    Example:
        >>> show_fraction(Fraction(-2, 4)), show_fraction(Fraction(5))
        ('-1/2', '5')
    """
    # hexadecimal for long ones: decimal conversion is quadratic, and Python refuses it past 4300
    form = "d" if max(value.numerator.bit_length(), value.denominator.bit_length()) < 2000 else "#x"
    text = format(value.numerator, form)
    return text if value.denominator == 1 else f"{text}/{format(value.denominator, form)}"
