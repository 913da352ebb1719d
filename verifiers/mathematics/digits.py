"""The grammar of numerals, and what makes one number with them: periods, bases, fractions."""

import functools
import re
from fractions import Fraction

from ..numerals import Unreadable, numeral
from .cursor import Cursor
from .nodes import Based, Node, Number, Product

_PERIOD = re.compile(r"(?P<start>[0-9]*?)(?P<period>[0-9]+?)(?P=period)+\Z")


@functools.lru_cache(maxsize=4096)
def number(text: str) -> Number:
    """Return the number of a numeral token, with the digits it was written with.

    Example:
        >>> number("1.50").places, number("0.050").digits, number("12").places
        (2, 2, None)
    """
    value = numeral(text)
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, decimals = mantissa.partition(".")
    decimals = "".join(filter(str.isdecimal, decimals))
    digits = len(("".join(filter(str.isdecimal, whole)) + decimals).lstrip("0"))
    places = max(len(decimals) - int(exponent or 0), 0)
    return Number(value, places if decimals or places else None, digits)


def spelled(text: str) -> Number | None:
    """Return the number that words spell; `None` for other words.

    Example:
        >>> value = spelled("two thousand twenty-five")
        >>> value and value.value, spelled("one two"), spelled("a few")
        (Fraction(2025, 1), None, None)
    """
    total, group, above = 0, 0, 10**12
    words = text.replace("-", " ").split()
    for word in words:
        value = _WORDS.get(word)
        if value is None:
            return None
        if value < 100:
            room = 100 if group % 100 == 0 else 10 if group % 100 >= 20 and group % 10 == 0 else 0
            if value >= room or (value == 0 and len(words) > 1):
                return None
            group += value
        elif value == 100 and 0 < group < 100:
            group *= 100
        elif 100 < value < above and group:
            total, group, above = total + group * value, 0, value
        else:
            return None
    return number(str(total + group)) if words else None


_WORDS = {
    word: value
    for value, word in enumerate(
        str.split("""zero one two three four five six seven eight nine ten eleven twelve thirteen
        fourteen fifteen sixteen seventeen eighteen nineteen""")
    )
} | {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9,
}  # fmt: skip


def is_numeral(token: str) -> bool:
    """Return whether a token is a numeral."""
    return token[:1].isdecimal() or (token[:1] == "." and token[1:2].isdecimal())


def is_whole(token: str) -> bool:
    """Return whether a token is a numeral of plain digits."""
    return token.isdecimal() and token.isascii()


class Numbers(Cursor):
    """Reads one numeral with what belongs to it."""

    def numeral(self) -> Node:
        """Read a numeral and what makes one of it: a period, a base, a fraction beside it."""
        tokens, token = self.tokens, self.tokens[self.at]
        self.at += 1
        following = tokens[self.at]
        if following == "_":
            return self.based(token)
        if following in ("\\overline", "\\bar", "\\dot") and "." in token:
            return self._repeating(token)
        if following == "(" and token[-1] == "." and tokens[self.at + 2] == ")":
            if is_whole(tokens[self.at + 1]):
                self.at += 3
                return _with_period(token, tokens[self.at - 2])
        elif following == "\\ldots" and "." in token:
            self.at += 1
            return _continued(token)
        elif is_whole(token):
            if following == "\\frac" and tokens[self.at + 1] != '"':
                return self._mixed(token)
            if is_whole(following):
                return self._plainly_mixed(token)
        return number(token)

    def _mixed(self, token: str) -> Node:
        r"""Read `1\frac{1}{2}`: a whole number and a proper fraction; else it is a product."""
        place = self.at + 1
        if tokens_start_with_word(self.tokens, place):
            return number(token)
        self.at += 1
        fraction = self.fraction()
        whole = number(token)
        match fraction:
            case Product((Number(top), factor)):
                bottom = getattr(factor, "base", None)
                if isinstance(bottom, Number):
                    self._check_no_power()
                    return _mixed_number(whole.value, top, bottom.value)
        return Product((whole, fraction))

    def _plainly_mixed(self, token: str) -> Node:
        top, bar, bottom = self.tokens[self.at : self.at + 3]
        if bar != "/" or not is_whole(bottom):
            raise Unreadable("two numbers side by side")
        self.at += 3
        self._check_no_power()
        return _mixed_number(number(token).value, number(top).value, number(bottom).value)

    def _check_no_power(self) -> None:
        if self.tokens[self.at] in ("^", "!", "!!"):
            raise Unreadable("a power or factorial of a mixed number")

    def _repeating(self, token: str) -> Node:
        """Read the digits under a bar, or between dots."""
        digits = ""
        dots = 0
        start = None
        while self.tokens[self.at] in ("\\overline", "\\bar", "\\dot"):
            dots += self.tokens[self.at] == "\\dot"
            self.at += 1
            braced = self.skip("{")
            block = self.tokens[self.at]
            if not is_whole(block):
                raise self.refuse()
            if not braced and len(block) > 1:
                block, self.tokens[self.at] = block[0], block[1:]
            else:
                self.at += 1
            if braced:
                self.take("}")
            digits += block
            start = len(digits)
            if dots == 1 and is_whole(self.tokens[self.at]):
                digits += self.tokens[self.at]
                self.at += 1
                if self.tokens[self.at] != "\\dot":
                    raise self.refuse()
        if start != len(digits) or is_numeral(self.tokens[self.at]):
            raise self.refuse()
        return _with_period(token, digits)

    def based(self, token: str) -> Node:
        """Read the base of a whole number: `204_5`."""
        self.at += 1
        braced = self.skip("{")
        bracketed = self.skip("(")
        if self.tokens[self.at] == '"base':
            self.at += 1
        base = _BASES.get(self.tokens[self.at].lstrip('"').lower()) or self.tokens[self.at]
        self.at += 1
        if bracketed:
            self.take(")")
        if braced:
            self.take("}")
        return in_base(token, base)


_BASES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip


def tokens_start_with_word(tokens: list[str], place: int) -> bool:
    r"""Return whether a group that starts at a place holds words: `\frac{\text{km}}{\text{h}}`."""
    return tokens[place] == "{" and tokens[place + 1][:1] == '"'


def in_base(digits: str, base: str) -> Based:
    """Return a whole number written in a base.

    Example:
        >>> in_base("204", "5")
        Based(value=54, base=5)
    """
    if not (is_whole(base) and len(base) <= 2 and 2 <= int(base) <= 36):
        raise Unreadable(f"the base {base[:20]!r}; 2 to 36 are read")
    if not (digits.isalnum() and digits.isascii() and len(digits) <= 200):
        raise Unreadable("a numeral with a base that is no whole number")
    try:
        return Based(int(digits, int(base)), int(base))
    except ValueError:
        raise Unreadable(f"a digit too large for base {base}") from None


def _mixed_number(whole: Fraction, top: Fraction, bottom: Fraction) -> Number:
    if not (top.denominator == bottom.denominator == 1 and 0 < top < bottom):
        raise Unreadable("a number beside a fraction that is not proper")
    return Number(whole + top / bottom)


def _with_period(start: str, period: str) -> Number:
    """Return 0.1666… for the start `0.1` and the period `6`."""
    value = numeral(start + "0" if start[-1] == "." else start)
    places = len(start.partition(".")[2])
    numeral(period)  # under the cap
    return Number(value + Fraction(int(period), (10 ** len(period) - 1) * 10**places))


def _continued(token: str) -> Number:
    """Read `0.333…`: with a period that shows, the rational number; else the digits written."""
    whole, _, decimals = token.partition(".")
    match = _PERIOD.match(decimals) if 2 < len(decimals) <= 30 else None
    if match is None:
        return number(token)
    size = len(match["period"])
    # 2.718281828… is e: a block of four or five has to stand three times
    if len(decimals) - len(match["start"]) < size * (3 if size in (1, 4, 5) else 2):
        return number(token)
    return _with_period(f"{whole}.{match['start']}", match["period"])
