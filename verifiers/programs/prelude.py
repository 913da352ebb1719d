"""Imports that contest data sets take for granted.

The harnesses of APPS and LiveCodeBench run a program after dozens of imports, and its authors, and
policies that read their starter code (`def f(xs: List[int])`), leave them out. Importing all of
them would cost more than a run does: a program gets those whose names stand in it.
"""

import re

NAMES: dict[str, tuple[str, ...]] = {
    "typing": (
        "Any", "Callable", "DefaultDict", "Deque", "Dict", "FrozenSet", "Generator", "Iterable",
        "Iterator", "List", "Mapping", "NamedTuple", "Optional", "Sequence", "Set", "Tuple",
        "Type", "TypeVar", "Union",
    ),
    "collections": ("ChainMap", "Counter", "OrderedDict", "defaultdict", "deque", "namedtuple"),
    "functools": ("cache", "cached_property", "cmp_to_key", "lru_cache", "partial", "reduce"),
    "itertools": (
        "accumulate", "chain", "combinations", "combinations_with_replacement", "compress", "count",
        "cycle", "dropwhile", "groupby", "islice", "pairwise", "permutations", "product", "starmap",
        "takewhile", "zip_longest",
    ),
    "heapq": (
        "heapify", "heappop", "heappush", "heappushpop", "heapreplace", "nlargest", "nsmallest",
    ),
    "bisect": ("bisect", "bisect_left", "bisect_right", "insort", "insort_left", "insort_right"),
    "math": (
        "atan2", "ceil", "comb", "cos", "dist", "exp", "fabs", "factorial", "floor", "gcd", "hypot",
        "inf", "isqrt", "lcm", "log", "log10", "log2", "perm", "pi", "prod", "sin", "sqrt", "tan",
    ),
    "string": ("ascii_letters", "ascii_lowercase", "ascii_uppercase", "digits"),
    "operator": ("itemgetter", "attrgetter", "xor"),
    "copy": ("deepcopy",),
    "fractions": ("Fraction",),
    "decimal": ("Decimal",),
    "random": ("randint",),
    "datetime": ("timedelta",),
}  # fmt: skip
"""Module → what is taken out of it; nothing that has the name of a built-in."""
MODULES = frozenset(
    ["bisect", "collections", "copy", "datetime", "fractions", "functools", "heapq", "itertools",
     "json", "math", "operator", "random", "re", "string", "sys", "time"]
)  # fmt: skip
"""Modules that are there under their own name; `bisect` is one where it is followed by a dot."""
_FROM = {name: module for module, names in NAMES.items() for name in names}
_WORD = re.compile(r"[A-Za-z_]\w*+\.?")


def prelude(source: str) -> str:
    """Return the imports that a program may have left out, in one line.

    Those that it does have bind the same names again, and so does all that it defines.

    Example:
        >>> prelude("def f(xs: List[int]): return math.gcd(*xs)")
        'from math import gcd; from typing import List; import math'
    """
    words = set(_WORD.findall(source))
    lines = {f"import {word[:-1]}" for word in words if word[-1] == "." and word[:-1] in MODULES}
    names = {word.rstrip(".") for word in words}
    if "import bisect" in lines:
        names.discard("bisect")
    found: dict[str, list[str]] = {}
    for name in sorted(names & _FROM.keys()):
        found.setdefault(_FROM[name], []).append(name)
    lines |= {f"from {module} import {', '.join(taken)}" for module, taken in found.items()}
    return "; ".join(sorted(lines))
