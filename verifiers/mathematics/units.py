"""Units of measure: from a name to its dimension and size.

Money of each currency, the scales of temperature and "units" are dimensions of their own: nothing
converts between them. Words that are no unit (`apples`) are left to be compared as words.
"""

import functools
import re
from fractions import Fraction

_Dimension = dict[str, int]


def _table(text: str, dimension: _Dimension) -> dict[str, tuple[_Dimension, Fraction]]:
    """Return names with their factor; a line holds the factor and then every name for it."""
    out = {}
    for line in text.strip().splitlines():
        factor, *names = line.split()
        out |= {name: (dimension, Fraction(factor)) for name in names}
    return out


_UNITS = (
    _table(
        """
        1 m meter metre
        1000 km kilometer kilometre kms
        1/10 dm decimeter decimetre
        1/100 cm centimeter centimetre cms
        1/1000 mm millimeter millimetre
        1/1000000 um micrometer micrometre micron
        1/1000000000 nm nanometer nanometre
        254/10000 in inch inches
        3048/10000 ft foot feet
        9144/10000 yd yard
        1609344/1000 mi mile
        """,
        {"m": 1},
    )
    | _table(
        """
        1/1000 g gram gramme gm
        1 kg kilogram kilogramme kilo kgs
        1/1000000 mg milligram
        1000 t ton tonne
        45359237/100000000 lb lbs pound
        45359237/1600000000 oz ounce
        """,
        {"kg": 1},
    )
    | _table(
        """
        1 s sec second secs
        1/1000 ms millisecond
        60 min minute mins
        3600 h hr hour hrs
        86400 d day
        604800 week wk
        """,
        {"s": 1},
    )
    | _table("1 month", {"month": 1})
    | _table("1 year yr yrs", {"year": 1})
    | _table("1/1000 l L liter litre\n1/1000000 ml mL milliliter millilitre cc", {"m": 3})
    | _table("10000 hectare ha\n40468564224/10000000 acre", {"m": 2})
    | _table("1 mps\n5/18 kph kmh kmph\n44704/100000 mph", {"m": 1, "s": -1})
    | _table("1 N newton\n1000 kN", {"kg": 1, "m": 1, "s": -2})
    | _table("1 J joule\n1000 kJ\n3600000 kWh", {"kg": 1, "m": 2, "s": -2})
    | _table("1 W watt\n1000 kW kilowatt", {"kg": 1, "m": 2, "s": -3})
    | _table("1 Hz hertz\n1000 kHz\n1000000 MHz", {"s": -1})
    | _table("1 Pa pascal\n1000 kPa", {"kg": 1, "m": -1, "s": -2})
    | _table("1 $ dollar USD usd\n1/100 cent ¢", {"$": 1})
    | _table("1 € euro EUR eur", {"€": 1})
    | _table("1 £ GBP gbp", {"£": 1})
    | _table("1 ¥ yen JPY", {"¥": 1})
    | _table("1 yuan RMB CNY rmb", {"yuan": 1})
    | _table("1 ₹ rupee Rs INR", {"₹": 1})
    | _table("1 °C celsius", {"°C": 1})
    | _table("1 °F fahrenheit", {"°F": 1})
    | _table("1 K kelvin", {"K": 1})
    | _table("1 unit", {"unit": 1})
    | _table("1 mol mole", {"mol": 1})
    | _table("1 rad radian", {"rad": 1})
)
CURRENCIES = frozenset(str.split("usd eur gbp jpy rmb cny inr"))
"""Codes that may stand before an amount."""
_PIECE = re.compile(r"([/*]?)\s*([^\s/*^0-9]+)(?:\^\{?(-?[0-9]{1,2})\}?)?\s*")
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
MAX_UNIT = 60
"""Characters of a unit; longer ones are remarks."""


@functools.lru_cache(maxsize=4096)
def canonical(unit: str) -> tuple[str, Fraction] | None:
    """Return a unit's dimension and its size in that dimension's base; `None` for other words.

    Example:
        >>> canonical("cm"), canonical("square centimeters"), canonical("apples")
        (('m', Fraction(1, 100)), ('m^2', Fraction(1, 10000)), None)
        >>> canonical("km/h") == canonical("kilometers per hour")
        True
    """
    text = unit.strip().replace(" per ", "/").replace("degrees ", "").replace(".", "")
    text = text.replace(" squared", "^2").replace(" cubed", "^3")
    if not text or len(text) > MAX_UNIT:
        return None
    dimension: dict[str, int] = {}
    factor = Fraction(1)
    waiting = 0
    for sign, name, exponent in _pieces(text):
        power = _POWERS.get(name.lower())
        if power:
            waiting = power
            continue
        found = _known(name)
        if found is None:
            return None
        times = (-1 if sign == "/" else 1) * int(exponent or 1) * (waiting or 1)
        waiting = 0
        factor *= found[1] ** times
        for base, degree in found[0].items():
            dimension[base] = dimension.get(base, 0) + degree * times
    kept = sorted((base, degree) for base, degree in dimension.items() if degree)
    if waiting or not kept:
        return None
    return " ".join(b if d == 1 else f"{b}^{d}" for b, d in kept), factor


def _pieces(text: str) -> list[tuple[str, str, str]]:
    """Return the parts of a unit with sign, name and exponent; empty if there is anything else."""
    place, pieces = 0, []
    while place < len(text):
        match = _PIECE.match(text, place)
        if match is None:
            return [("", "?", "")]
        pieces.append((match[1], match[2], match[3] or ""))
        place = match.end()
    return pieces


def _known(name: str) -> tuple[dict[str, int], Fraction] | None:
    for form in (name, name.lower(), name.lower().removesuffix("s")):
        if form in _UNITS and (form == name or len(form) > 2):
            return _UNITS[form]
    return None
