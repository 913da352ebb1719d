"""Times and dates: `8:34 pm`, `20:34:00`, `March 5, 2020`, `2020-03-05`."""

import re

from .nodes import Clock, Date, Node, Number, Ratio

_MONTHS = str.split(
    "january february march april may june july august september october november december"
)
_MONTH = "|".join(f"{month[:3]}(?:{month[3:]})?" for month in _MONTHS).replace("sep(", "sept?(")
_CLOCK = (
    r"(?i)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?"
    r"(?:\s*(?P<half>[ap])\.?\s?m\.?)?(?:\s*o'clock)?"
)
_HOUR = r"(?i)(?P<hour>[0-9]{1,2})\s*(?P<half>[ap])\.?\s?m\.?"
_DAY = r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,?\s*(?P<year>[0-9]{4}))?"
_DATES = (
    rf"(?i)(?P<name>{_MONTH})\.?\s+(?:the\s+)?{_DAY}{_YEAR}",
    rf"(?i)(?:the\s+)?{_DAY}\s+(?:of\s+)?(?P<name>{_MONTH})\.?{_YEAR}",
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})",
)
_WRAPPERS = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{|[{}]|\\[,;: ]|~"
MAX_MOMENT = 48
"""Characters of a time or date."""


def moment(text: str) -> Node | None:
    r"""Return the time or date that a text is; `None` for any other text.

    A bare `12:05` or `3:00` is a time: a ratio has no leading zero. `20:34` may be either and is
    left to the grammar, which reads a ratio; see `clock_of`.

    Example:
        >>> moment("8:34 pm"), moment("20:34"), moment("May 5, 2020")
        (Clock(seconds=74040), None, Date(year=2020, month=5, day=5))
    """
    if len(text) > MAX_MOMENT or not (text[0].isalnum() or text[0] == "\\"):
        return None
    bare = re.sub(_WRAPPERS, " ", text).strip() if "\\" in text else text
    if not _HINT.search(bare):
        return None
    match = re.fullmatch(_CLOCK, bare)
    if match:
        sure = match["half"] or match["second"] or match["minute"][0] == "0"
        return _clock(match) if sure or match["hour"][0] == "0" or ":" not in bare else None
    match = re.fullmatch(_HOUR, bare)
    if match:
        return Clock(_hour(int(match["hour"]), match["half"]) * 3600) if _is_hour(match) else None
    for pattern in _DATES:
        match = re.fullmatch(pattern, bare)
        if match:
            return _date(match.groupdict())
    return None


_HINT = re.compile(rf":[0-9]|[0-9]\W*[ap]\.?\s?m|-[0-9]{{2}}-|{_MONTH}", re.IGNORECASE)


def clock_of(ratio: Ratio) -> Clock | None:
    """Return the time that a ratio of two or three whole numbers may be.

    Example:
        >>> from fractions import Fraction
        >>> clock_of(Ratio((Number(Fraction(20)), Number(Fraction(34), None, 2))))
        Clock(seconds=74040)
    """
    seconds = 0
    for place, part in enumerate(ratio.parts):
        if not isinstance(part, Number) or part.value.denominator > 1 or not 0 <= part.value < 60:
            return None
        if place and part.digits < 2:
            return None
        seconds += int(part.value) * 60 ** (2 - place) if place < 3 else 0
    return Clock(seconds) if len(ratio.parts) in (2, 3) and seconds <= 86_400 else None


def _is_hour(match: re.Match[str]) -> bool:
    return 1 <= int(match["hour"]) <= 12


def _hour(hour: int, half: str | None) -> int:
    if half is None:
        return hour
    return hour % 12 + (12 if half.lower() == "p" else 0)


def _clock(match: re.Match[str]) -> Clock | None:
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    if minute > 59 or second > 59 or (match["half"] and not 1 <= hour <= 12):
        return None
    return Clock(_hour(hour, match["half"]) * 3600 + minute * 60 + second)


def _date(parts: dict[str, str | None]) -> Date | None:
    name = parts.get("name")
    if name:
        month = [each[:3] for each in _MONTHS].index(name[:3].lower()) + 1
    else:
        month = int(parts["month"] or 0)
    day = int(parts["day"] or 0)
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return Date(int(parts["year"] or 0), month, day)
