"""Runs of letters: which are functions, words or units, and which are products of variables."""

import functools

FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc",
    "tg": "tan", "ctg": "cot", "cosec": "csc", "cotg": "cot",
    "arcsin": "arcsin", "arccos": "arccos", "arctan": "arctan", "arccot": "arccot",
    "arcsec": "arcsec", "arccsc": "arccsc", "arctg": "arctan", "asin": "arcsin", "acos": "arccos",
    "atan": "arctan", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "coth": "coth",
    "sech": "sech", "csch": "csch", "arcsinh": "arcsinh", "arccosh": "arccosh",
    "arctanh": "arctanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh", "sh": "sinh", "ch": "cosh",
    "exp": "exp", "ln": "ln", "log": "log", "lg": "lg", "abs": "abs", "floor": "floor",
    "ceil": "ceil", "gcd": "gcd", "lcm": "lcm", "max": "max", "min": "min", "mod": "mod",
    "Re": "re", "Im": "im", "arg": "arg", "Arg": "arg", "sgn": "sgn", "sign": "sgn",
    "det": "det", "norm": "norm", "binom": "binom", "sqrt": "sqrt", "cbrt": "cbrt",
    "cis": "cis", "conj": "conjugate",
}  # fmt: skip
"""Names of functions, as texts write them, and ours; `lg`, `sqrt`, `cbrt` and `binom` are read
into other nodes."""

_SIGNS = {
    "and": "and", "or": "or", "pi": "\\pi", "Pi": "\\pi", "infinity": "\\infty",
    "infty": "\\infty", "inf": "\\infty", "Infinity": "\\infty", "oo": "\\infty",
    "percent": "%", "pct": "%", "degrees": "\\degree", "degree": "\\degree", "union": "\\cup",
    "deg": "\\degree", "mod": "\\bmod",
}  # fmt: skip
SHORT_UNITS = frozenset(
    str.split("""cm mm km kg hrs sec secs min mins yd lb lbs oz mph kph rpm Hz kHz kW kWh MB GB kJ
    kPa pts USD EUR GBP RMB cent feet inch day days year yrs hour""")
)
"""Runs that are a unit when they follow a value."""
SPACED_UNITS = frozenset(str.split("mg ml dm nm hr ft cc rad mol Pa yr sq cu in mi"))
"""Runs that are a unit when they follow a value and a space; `2mg` is a product."""
ORDINALS = frozenset({"st", "nd", "rd", "th"})
_WORDS = frozenset(
    str.split("""is are was the of not no nor yes odd even all any for if only let get has have set
    then thus than that with when where which while some each every both none one
    two three four five six ten nine red true false base sum per day dog cat who why
    how its our you they them she but can mon tue wed thu fri sat sun men boy man
    box way win tie lot few big top new old low due now else square units unit usd eur gbp
    rmb jpy""")
)
"""Runs that are words though they are short enough to be products of variables."""
_WORDS_AMONG_WORDS = frozenset(str.split("by at it in to an as be so my me we us on he up do go"))
"""Pairs of letters that are words only next to another word: `ax + by` is a product."""
MAX_PRODUCT = 3
"""Letters in a row that are read as a product of variables; longer runs are words."""
_VOWELS = frozenset("aeiouyAEIOUY")


@functools.lru_cache(maxsize=4096)
def split(run: str, after_value: bool, after_space: bool, after_word: bool) -> tuple[str, ...]:
    r"""Return the tokens of a run of letters; words carry a quotation mark.

    Args:
        run: Letters without anything between them.
        after_value: Whether it follows something that a unit may follow.
        after_space: Whether there is a space before it.
        after_word: Whether the token before is a word.

    Example:
        >>> split("xy", False, False, False), split("cm", True, False, False)
        (('x', 'y'), ('"cm',))
    """
    if len(run) == 1:
        return (run,)
    if after_value:
        if run in ORDINALS:
            return ()
        if run in SHORT_UNITS or (after_space and run in SPACED_UNITS):
            return ('"' + run,)
    sign = _SIGNS.get(run) or _SIGNS.get(run.lower() if len(run) > 2 else run)
    if sign is not None:
        return (sign,)
    if run in FUNCTIONS:
        return ("\\" + run,)
    if run.lower() in _WORDS or (
        run.lower() in _WORDS_AMONG_WORDS and (after_word or run.istitle())
    ):
        return ('"' + run,)
    return _glued(run) or (('"' + run,) if _is_word(run) else tuple(run))


def _is_word(run: str) -> bool:
    if len(run) <= MAX_PRODUCT:
        return False
    letters = "".join(sorted(set(run)))
    return not (len(run) <= 6 and (letters == run or run.isupper()))


def _glued(run: str) -> tuple[str, ...]:
    """Return the tokens of `sinx`, `xlnx` or `kpi`; empty if there is no function in the run."""
    if len(run) > 8:
        return ()
    for size in (6, 4, 3, 2):
        for start in (0, 1):
            name, rest = run[start : start + size], run[start + size :]
            known = name in ("sin", "cos", "tan", "cot", "sec", "csc", "ln", "log", "sqrt", "pi")
            if known and len(name) == size and len(rest) <= 1 and (rest or start):
                return (*run[:start], "\\" + name, *rest)
    return ()
