"""Functions whose value at rational arguments is rational, computed exactly and under a budget.

Each returns `None` where the value is irrational or over the budget, and raises `Unreadable` where
there is none.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from ..numerals import Unreadable
from .nodes import Call, Matrix, Node, Number, Power, Product, Root, Sum, Tuple

MAX_BITS = 16_384
"""Bits of one exact value (about 4,900 digits): one operation stays under a millisecond."""
MAX_TOTAL_BITS = 8 * MAX_BITS
"""Bits of all exact values of one tree: the whole stays under about 10 ms."""
MAX_STEPS = 3_000
"""Nodes that the written-out sums and products of one tree may have together."""
MAX_LOG_BITS = 1_024
"""Bits of a number whose exact logarithm is looked for."""
MAX_ORDER = 4
"""Order of the determinants that are written out as a sum of products."""


class Budget:
    """What the folding of one tree may still produce."""

    def __init__(self) -> None:
        """Start with everything left."""
        self.bits = MAX_TOTAL_BITS
        self.steps = MAX_STEPS

    def allows(self, bits: int) -> bool:
        """Return whether a value of so many bits may be computed, and take them off."""
        if bits > MAX_BITS or bits > self.bits:
            return False
        self.bits -= bits
        return True


def size(value: Fraction) -> int:
    """Return the bits of a fraction."""
    return value.numerator.bit_length() + value.denominator.bit_length()


_AT_ZERO = {
    **dict.fromkeys(["sin", "tan", "arcsin", "arctan", "sinh", "tanh", "arcsinh", "arctanh"], 0),
    **dict.fromkeys(["cos", "sec", "cosh", "sech", "exp"], 1),
    **dict.fromkeys(["cot", "csc", "coth", "csch", "ln", "arcsec", "arccsc"]),
}
"""Values at 0; `None` for a pole."""


def exact_call(name: str, args: Sequence[Fraction], budget: Budget) -> Fraction | None:
    """Return the rational value of a function.

    Raises:
        Unreadable: It has no value there.

    Example:
        >>> exact_call("binomial", [Fraction(5), Fraction(2)], Budget())
        Fraction(10, 1)
    """
    first = args[0]
    if not first and len(args) == 1 and name in _AT_ZERO:
        value = _AT_ZERO[name]
        if value is None:
            raise Unreadable(f"the {name} of 0")
        return Fraction(value)
    if first == 1 and len(args) == 1 and name in ("ln", "arccos", "arcsec", "arccosh"):
        return Fraction(0)
    function = _EXACT.get(name)
    return function(args, budget) if function else None


def _factorial(args: Sequence[Fraction], budget: Budget) -> Fraction | None:
    whole = _natural(args[0], "factorial")
    fits = budget.allows(whole * whole.bit_length())
    return Fraction(math.factorial(whole)) if fits else None


def _double_factorial(args: Sequence[Fraction], budget: Budget) -> Fraction | None:
    if args[0] == -1:  # (2n − 1)!! at n = 0
        return Fraction(1)
    whole = _natural(args[0], "double factorial")
    fits = budget.allows(whole * whole.bit_length())
    return Fraction(math.prod(range(whole, 0, -2))) if fits else None


def _natural(value: Fraction, name: str) -> int:
    if value.denominator != 1 or value < 0:
        raise Unreadable(f"the {name} of a number that is not whole")
    return value.numerator


def _falling(args: Sequence[Fraction], budget: Budget) -> tuple[Fraction, int] | None:
    """Return n (n − 1) … (n − k + 1) and k; 1 factor for each step, whatever n is."""
    top, below = args
    if below.denominator != 1:
        return None
    steps = below.numerator
    if steps < 0:
        return Fraction(0), 0
    if top.denominator == 1 and top >= 0 and steps > top:
        return Fraction(0), 0
    if not budget.allows(steps * (size(top) + steps.bit_length())):
        return None
    product = Fraction(math.prod(top.numerator - j * top.denominator for j in range(steps)))
    return product / top.denominator**steps, steps


def _binomial(args: Sequence[Fraction], budget: Budget) -> Fraction | None:
    top, below = args
    if top.denominator == below.denominator == 1 and 0 <= below <= top:
        n, k = top.numerator, min(below.numerator, top.numerator - below.numerator)
        bits = min(n, k * n.bit_length())  # C(n, k) is below 2^n and below n^k
        return Fraction(math.comb(n, k)) if budget.allows(bits) else None
    falling = _falling(args, budget)
    return falling and falling[0] / math.factorial(falling[1])


def _permutations(args: Sequence[Fraction], budget: Budget) -> Fraction | None:
    falling = _falling(args, budget)
    return falling and falling[0]


def _mod(args: Sequence[Fraction], budget: Budget) -> Fraction | None:
    if not args[1]:
        raise Unreadable("a remainder by zero")
    return args[0] % args[1]


def _gcd(args: Sequence[Fraction], budget: Budget) -> Fraction | None:
    if any(value.denominator != 1 for value in args):
        return None
    return Fraction(math.gcd(*(value.numerator for value in args)))


def _lcm(args: Sequence[Fraction], budget: Budget) -> Fraction | None:
    if any(value.denominator != 1 for value in args) or not budget.allows(sum(map(size, args))):
        return None
    return Fraction(math.lcm(*(value.numerator for value in args)))


def _log(args: Sequence[Fraction], budget: Budget) -> Fraction | None:
    """Return log_b(x) where x and b are powers of one number: log_8 4 = 2/3."""
    value = args[0]
    if not value:
        raise Unreadable("the logarithm of 0")
    if value == 1:
        return Fraction(0)
    if len(args) == 1:
        return None
    base = args[1]
    if base in (0, 1):
        raise Unreadable(f"a logarithm to the base {base}")
    bits = max(size(value), size(base))
    if value < 0 or base < 0 or bits > MAX_LOG_BITS or not budget.allows(16 * bits):
        return None
    # Euclid's algorithm on the exponents: one number is divided by the other until they agree
    sign = 1
    if value < 1:
        value, sign = 1 / value, -sign
    if base < 1:
        base, sign = 1 / base, -sign
    exponents = _exponents(value, base)
    return exponents and sign * Fraction(*exponents)


def _exponents(one: Fraction, other: Fraction) -> tuple[int, int] | None:
    """Return (a, b) with one = r^a and other = r^b for some r, both above 1."""
    a, b, c, d = 1, 0, 0, 1  # what is left of each side is one^a other^b and one^c other^d
    left, right, bits = one, other, max(size(one), size(other))
    # powers of one number only shrink; anything that grows is none
    while max(size(left), size(right)) <= bits:
        if left == right:
            return d - b, a - c  # one^(a − c) = other^(d − b)
        if left < right:
            left, right, a, b, c, d = right, left, c, d, a, b
        left, a, b = left / right, a - c, b - d
    return None


def _sign(args: Sequence[Fraction], budget: Budget) -> Fraction:
    return Fraction((args[0] > 0) - (args[0] < 0))


_EXACT: dict[str, Callable[[Sequence[Fraction], Budget], Fraction | None]] = {
    "factorial": _factorial,
    "double_factorial": _double_factorial,
    "binomial": _binomial,
    "permutations": _permutations,
    "mod": _mod,
    "gcd": _gcd,
    "lcm": _lcm,
    "log": _log,
    "sgn": _sign,
    "floor": lambda args, budget: Fraction(math.floor(args[0])),
    "ceil": lambda args, budget: Fraction(math.ceil(args[0])),
    "abs": lambda args, budget: abs(args[0]),
    "norm": lambda args, budget: abs(args[0]),
    "det": lambda args, budget: args[0],
    "min": lambda args, budget: min(args),
    "max": lambda args, budget: max(args),
    "re": lambda args, budget: args[0],
    "im": lambda args, budget: Fraction(0),
    "conjugate": lambda args, budget: args[0],
}

_SINES = {
    Fraction(0): 0, Fraction(1): 0, Fraction(1, 2): 1, Fraction(3, 2): -1,
    Fraction(1, 6): Fraction(1, 2), Fraction(5, 6): Fraction(1, 2),
    Fraction(7, 6): Fraction(-1, 2), Fraction(11, 6): Fraction(-1, 2),
}  # fmt: skip
"""The rational values of sin(qπ), by Niven's theorem all of them."""


def exact_angle(name: str, turns: Fraction) -> Fraction | None:
    """Return sin(qπ) and its relatives where they are rational.

    Args:
        name: The function.
        turns: The q.

    Raises:
        Unreadable: The function has a pole there.

    Example:
        >>> exact_angle("cos", Fraction(1, 3)), exact_angle("tan", Fraction(5, 4))
        (Fraction(1, 2), Fraction(1, 1))
    """
    if name not in ("sin", "cos", "tan", "cot", "sec", "csc"):
        return None
    sine, cosine = _SINES.get(turns % 2), _SINES.get((turns + Fraction(1, 2)) % 2)
    divisor = {"tan": cosine, "sec": cosine, "cot": sine, "csc": sine}.get(name)
    if divisor is not None and not divisor:
        raise Unreadable(f"the {name} of an angle where it has no value")
    if name in ("tan", "cot") and turns % Fraction(1, 2) == Fraction(1, 4):
        return Fraction(1 if turns % 1 == Fraction(1, 4) else -1)
    if name in ("tan", "cot"):
        return Fraction(0) if turns % Fraction(1, 2) == 0 else None
    if name in ("sec", "csc"):
        return None if divisor is None else 1 / Fraction(divisor)
    value = sine if name == "sin" else cosine
    return None if value is None else Fraction(value)


def written_out(call: Call) -> Node | None:
    """Return a determinant or norm as sums and products of its entries; `None` if too large."""
    (operand,) = call.args
    if call.name == "norm":
        return _norm(operand)
    if not isinstance(operand, Matrix) or len(operand.rows) > MAX_ORDER:
        return None
    if any(len(row) != len(operand.rows) for row in operand.rows):
        raise Unreadable("the determinant of a matrix that is not square")
    return _determinant(operand.rows)


def _norm(operand: Node) -> Node | None:
    entries: Sequence[Node] = ()
    if isinstance(operand, Tuple):
        entries = operand.items
    elif isinstance(operand, Matrix) and 1 in (len(operand.rows), len(operand.rows[0])):
        entries = tuple(itertools.chain.from_iterable(operand.rows))
    if not entries:
        return None
    two = Number(Fraction(2))
    return Root(Sum(tuple(Power(Call("abs", (entry,)), two) for entry in entries)), two)


def _determinant(rows: Sequence[Sequence[Node]]) -> Node:
    terms: list[Node] = []
    for order in itertools.permutations(range(len(rows))):
        swaps = sum(a > b for a, b in itertools.combinations(order, 2))
        sign = Number(Fraction((-1) ** swaps))
        terms.append(Product((sign, *(rows[i][j] for i, j in enumerate(order)))))
    return Sum(tuple(terms))
