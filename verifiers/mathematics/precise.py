"""Values of trees in many digits, with an account of how small a difference could have been lost.

An answer like 5 + e^(−500) is 5 to any precision that is chosen beforehand. So each evaluation
keeps a tally: the bits by which terms of a sum, arguments of a function and exponents differ from
the size of one. A difference between two trees can hide below the rounding only at the price of
as many bits, and the comparison is made again with more digits, or left open.
"""

import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from .exact_functions import size
from .nodes import Call, Constant, Node, Number, Power, Product, Root, Sum, Symbol

MAX_MAGNITUDE = 1_000_000
"""Binary digits before or behind the point: a value beyond is not evaluated."""
MAX_ANGLE = 1 << 100
"""Largest argument of a periodic function: the reduction by π costs its bits."""
MAX_FACTORIAL = 2_000
"""Largest argument of a factorial that is not a whole number, or not folded."""
_PLAIN_BITS = 64
"""Bits of a numeral that are not held against it."""
_FUNCTION_UNITS = 6
"""Cost of a function in units of an arithmetic operation."""
_REFERENCE_BITS = 230

_LOCAL = threading.local()


class NoValue(Exception):
    """The tree has no value at the point, or none that can be told."""


class TooBig(Exception):
    """A value is out of the range that is evaluated."""


class OutOfUnits(Exception):
    """The evaluation is over its budget."""


def _context() -> Any:
    """Return this thread's mpmath context: the precision of a shared one would be a race."""
    context = getattr(_LOCAL, "context", None)
    if context is None:
        import mpmath

        context = _LOCAL.context = mpmath.MPContext()
    return context


class Evaluator:
    """Evaluates trees at one precision; keeps the tally and the budget."""

    def __init__(self, bits: int, units: float) -> None:
        """Set the precision of this thread's context.

        Args:
            bits: Binary digits.
            units: Operations at 230 bits that may still be spent.
        """
        self.context = _context()
        self.context.prec = self.bits = bits
        self.tally = 0.0
        self.units = units

    def evaluate(self, node: Node, at: Mapping[str, float]) -> Any:
        """Return the value of a folded tree, an `mpf` or `mpc`.

        Raises:
            NoValue: It has none.
            TooBig: A part is out of range.
            OutOfUnits: The budget is spent.
        """
        try:
            value = self._value(node, at)
        except (ArithmeticError, ValueError, NotImplementedError):
            raise NoValue from None
        if not self.context.isfinite(value):
            raise NoValue
        return value

    def exact(self, value: Any) -> Fraction:
        """Return a real value as the binary fraction it is."""
        sign, mantissa, exponent, _ = value._mpf_
        whole = -int(mantissa) if sign else int(mantissa)
        return Fraction(whole) * Fraction(2) ** int(exponent)

    def _value(self, node: Node, at: Mapping[str, float]) -> Any:
        self._spend(1)
        handler = _VALUES.get(type(node))
        if handler is None:
            raise NoValue
        return handler(self, node, at)

    def _spend(self, units: float) -> None:
        self.units -= units * self.bits / _REFERENCE_BITS
        if self.units < 0:
            raise OutOfUnits

    def magnitude(self, value: Any) -> int:
        """Return about log₂|value|; refuse what is out of range."""
        if not value:
            raise NoValue
        found = int(self.context.mag(value))
        if abs(found) > MAX_MAGNITUDE:
            raise TooBig
        return found

    def number(self, node: Number, at: Mapping[str, float]) -> Any:
        """Return a rational."""
        value = node.value
        # a long numeral can hold a small difference by itself: √(1 + 10^-300) was folded
        self.tally += max(0, size(value) - _PLAIN_BITS)
        number = self.context.mpf(value.numerator)
        return number if value.denominator == 1 else number / value.denominator

    def constant(self, node: Constant, at: Mapping[str, float]) -> Any:
        """Return π, e or i."""
        if node.name == "pi":
            return +self.context.pi
        if node.name == "e":
            return +self.context.e
        if node.name == "i":
            return self.context.mpc(0, 1)
        raise NoValue

    def sum(self, node: Sum, at: Mapping[str, float]) -> Any:
        """Add; the tally grows by the distance of the largest from the smallest term."""
        terms = [self._value(term, at) for term in node.terms]
        sizes = [self.magnitude(term) for term in terms if term]
        if sizes:
            self.tally += max(sizes) - min(sizes)
        return _flat(sum(terms[1:], terms[0]))

    def product(self, node: Product, at: Mapping[str, float]) -> Any:
        """Multiply."""
        result = self.context.mpf(1)
        for factor in node.factors:
            result *= self._value(factor, at)
        if result:
            self.magnitude(result)
        return _flat(result)

    def power(self, node: Power, at: Mapping[str, float]) -> Any:
        """Raise to a power."""
        base = self._value(node.base, at)
        if isinstance(node.exponent, Number):
            return self._fraction_power(base, node.exponent.value)
        return self._general_power(base, self._value(node.exponent, at))

    def root(self, node: Root, at: Mapping[str, float]) -> Any:
        """Take a root."""
        base = self._value(node.operand, at)
        if isinstance(node.degree, Number):
            return self._fraction_power(base, 1 / node.degree.value)
        return self._general_power(base, 1 / self._value(node.degree, at))

    def _fraction_power(self, base: Any, exponent: Fraction) -> Any:
        if not base:
            if exponent > 0:
                return base
            raise NoValue
        if exponent.denominator == 1 and abs(exponent) < 1 << 32:
            whole = exponent.numerator
            if abs(whole * self.magnitude(base)) > MAX_MAGNITUDE:
                raise TooBig
            self.tally += abs(whole).bit_length()
            return _flat(base**whole)
        real = not hasattr(base, "imag") or not base.imag
        power = self.context.mpf(exponent.numerator) / exponent.denominator
        if real and base.real < 0 and exponent.denominator % 2:
            flipped = self._general_power(-base, power)
            return -flipped if exponent.numerator % 2 else flipped
        return self._general_power(base, power)

    def _general_power(self, base: Any, exponent: Any) -> Any:
        if not base:
            if exponent.real > 0:
                return base
            raise NoValue
        if not exponent:
            return self.context.mpf(1)
        self._spend(2 * _FUNCTION_UNITS)
        self.tally += abs(self.magnitude(exponent))
        grown = _flat(exponent * self.context.ln(self.off_cut(base)))
        return self.exponential(grown)

    def exponential(self, exponent: Any) -> Any:
        """Return e^exponent."""
        if not exponent:
            return self.context.mpf(1)
        if abs(exponent.real) > MAX_MAGNITUDE or abs(exponent.imag) > MAX_ANGLE:
            raise TooBig
        self.tally += abs(self.magnitude(exponent))
        return _flat(self.context.exp(exponent))

    def off_cut(self, value: Any) -> Any:
        """Refuse a value that rounding may have put on the wrong side of a branch cut."""
        value = _flat(value)
        if not value.imag or not value.real:
            return value
        distance = self.context.mag(value.imag) - self.context.mag(value.real)
        if abs(int(distance)) > self.bits // 2:
            raise NoValue
        return value

    def call(self, node: Call, at: Mapping[str, float]) -> Any:
        """Return the value of a function."""
        args = [self._value(each, at) for each in node.args]
        self._spend(_FUNCTION_UNITS)
        name = node.name
        if name in _PERIODIC | _HYPERBOLIC:
            return self._swinging(name, args[0])
        if name in _INVERSES:
            return self._inverse(name, args[0])
        special = _SPECIAL.get(name)
        if special is None:
            raise NoValue
        return special(self, *args)

    def _swinging(self, name: str, argument: Any) -> Any:
        along, across = argument.real, argument.imag
        if name in _HYPERBOLIC:
            along, across = across, along
        if abs(along) > MAX_ANGLE or abs(across) > MAX_MAGNITUDE // 4:
            raise TooBig
        if not argument:
            return _flat(getattr(self.context, name)(argument))
        # cosh 500 and sinh 500 differ by e^(−1000) of themselves; cos δ is 1 − δ²/2
        self.tally += 3 * float(abs(across)) + 2 * abs(self.magnitude(argument))
        result = _flat(getattr(self.context, name)(argument))
        if name in ("sin", "cos", "sec", "csc"):
            self._count_flatness(result)
        return result

    def _count_flatness(self, value: Any) -> None:
        """Count how near ±1 a sine is: there a small change of its argument hardly shows."""
        gap = 1 - value * value
        lost = -int(self.context.mag(gap)) if gap else self.bits
        self.tally += max(0, min(lost, self.bits))

    def _inverse(self, name: str, argument: Any) -> Any:
        self.tally += 2 * abs(self.magnitude(argument)) if argument else 0
        context = self.context
        if name == "arccot":
            return _flat(context.pi / 2 - context.atan(self.off_cut(argument)))
        if name in ("arcsec", "arccsc"):
            argument, name = 1 / argument, {"arcsec": "arccos", "arccsc": "arcsin"}[name]
        return _flat(getattr(context, name.replace("arc", "a"))(self.off_cut(argument)))

    def whole_below(self, value: Any) -> Any:
        """Return ⌊value⌋ where rounding cannot have changed it."""
        value = self.real(value)
        if value and self.magnitude(value) > self.bits // 2:
            raise NoValue
        nearest = self.context.nint(value)
        gap = abs(value - nearest)
        if gap and self.context.mag(gap) < -self.bits // 3:
            raise NoValue
        return self.context.floor(value)

    def real(self, value: Any) -> Any:
        """Return a real value; refuse another one."""
        value = _flat(value)
        if value.imag:
            raise NoValue
        return value.real

    def gamma(self, value: Any) -> Any:
        """Return the factorial of a real number."""
        value = self.real(value)
        if not -0.9 < value < MAX_FACTORIAL:
            raise TooBig
        self._spend(20 * _FUNCTION_UNITS)
        return self.context.gamma(value + 1)


def _flat(value: Any) -> Any:
    """Return a complex value with no imaginary part as a real one."""
    return value.real if not value.imag else value


def _ln(evaluator: Evaluator, value: Any, base: Any = None) -> Any:
    if not value or (base is not None and (not base or base == 1)):
        raise NoValue
    result = evaluator.context.ln(evaluator.off_cut(value))
    if base is None:
        return result
    return _flat(result / evaluator.context.ln(evaluator.off_cut(base)))


def _log(evaluator: Evaluator, value: Any, base: Any = None) -> Any:
    if base is None:
        raise NoValue
    return _ln(evaluator, value, base)


def _size(evaluator: Evaluator, value: Any) -> Any:
    if value.imag and value.real:
        magnitude = evaluator.magnitude
        evaluator.tally += 2 * abs(magnitude(value.imag) - magnitude(value.real))
    return abs(value)


def _sign(evaluator: Evaluator, value: Any) -> Any:
    value = evaluator.real(value)
    if value and evaluator.magnitude(value) < -evaluator.bits // 3:
        raise NoValue
    return evaluator.context.sign(value)


def _arg(evaluator: Evaluator, value: Any) -> Any:
    if not value:
        raise NoValue
    return evaluator.context.arg(evaluator.off_cut(value))


def _mod(evaluator: Evaluator, value: Any, modulus: Any) -> Any:
    value, modulus = evaluator.real(value), evaluator.real(modulus)
    return value - modulus * evaluator.whole_below(value / modulus)


def _binomial(evaluator: Evaluator, top: Any, below: Any) -> Any:
    bottom = evaluator.gamma(below) * evaluator.gamma(top - below)
    return evaluator.gamma(top) / bottom


_PERIODIC = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])
_HYPERBOLIC = frozenset(["sinh", "cosh", "tanh", "coth", "sech", "csch"])
_INVERSES = frozenset(
    ["arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc", "arcsinh", "arccosh", "arctanh"]
)
_SPECIAL: dict[str, Callable[..., Any]] = {
    "ln": _ln,
    "log": _log,
    "abs": _size,
    "norm": _size,
    "re": lambda evaluator, value: value.real,
    "im": lambda evaluator, value: value.imag,
    "conjugate": lambda evaluator, value: value.conjugate(),
    "floor": lambda evaluator, value: evaluator.whole_below(value),
    "ceil": lambda evaluator, value: -evaluator.whole_below(-value),
    "mod": _mod,
    "min": lambda evaluator, *args: min(map(evaluator.real, args)),
    "max": lambda evaluator, *args: max(map(evaluator.real, args)),
    "sgn": _sign,
    "arg": _arg,
    "factorial": lambda evaluator, value: evaluator.gamma(value),
    "binomial": _binomial,
    "permutations": lambda evaluator, top, below: (
        evaluator.gamma(top) / evaluator.gamma(top - below)
    ),
}
_VALUES: dict[type, Callable[..., Any]] = {
    Number: Evaluator.number,
    Constant: Evaluator.constant,
    Symbol: lambda evaluator, node, at: evaluator.context.mpf(at[node.name]),
    Sum: Evaluator.sum,
    Product: Evaluator.product,
    Power: Evaluator.power,
    Root: Evaluator.root,
    Call: Evaluator.call,
}
