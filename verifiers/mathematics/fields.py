"""The ring in which identities are tested: the integers modulo the product of two secret primes.

One element holds a value in both prime fields. `Point` keeps the values that variables and atoms
have at one random point, and the exact or reduced exponents that powers need there.
"""

import functools
import math
from collections.abc import Set
from fractions import Fraction

from .draws import Draw
from .nodes import Node, Number, Power, Product, Sum, Symbol

MAX_EXPONENT_BITS = 4_096
"""Bits of an exponent that is computed exactly; towers above are reduced modulo the order."""
_SMALL = (2, 400)
_LARGE = (1 << 59, 1 << 60)
_INVERSE_STEPS = 10
"""What an inverse costs."""
_ZERO, _ONE = Fraction(0), Fraction(1)
_TABLE = 1_000
"""Factorials kept for each modulus."""
_ODD = frozenset(["sin", "sinh", "arcsin", "arctan", "arcsinh", "arctanh", "sgn"])
_EVEN = frozenset(["cos", "cosh", "abs", "norm"])


class NoValue(Exception):
    """A tree has no value at the point drawn."""


class OutOfSteps(Exception):
    """The comparison is over its budget."""


class Point:
    """One random point: values of the variables and atoms, and the arithmetic at it."""

    def __init__(self, draw: Draw, small: Set[str], trial: int, steps: int) -> None:
        """Draw nothing yet."""
        p, q = draw.primes
        self.modulus = p * q
        self.order = math.lcm(p - 1, q - 1)
        self.steps = steps
        self.atoms: dict[tuple[object, ...], int] = {}
        self._draw = draw
        self._small = small
        self._trial = trial
        self._names: dict[str, int] = {}
        self.depth = 0

    def spend(self, steps: int) -> None:
        """Take steps off the budget."""
        self.steps -= steps
        if self.steps < 0:
            raise OutOfSteps

    def atom(self, *key: object) -> int:
        """Return the random value that belongs to a name and the values of its arguments."""
        found = self.atoms.get(key)
        if found is None:
            label = f"atom {self._trial} {len(self.atoms)}"
            found = self.atoms[key] = self._draw.bits(label) | 1
        return found

    def variable(self, name: str) -> int:
        """Return the integer that a variable stands for."""
        found = self._names.get(name)
        if found is None:
            low, high = _SMALL if name in self._small else _LARGE
            found = self._draw.integer(f"variable {self._trial} {name}", low, high)
            self._names[name] = found
        return found

    def inverse(self, value: int) -> int:
        """Return 1/value."""
        self.spend(_INVERSE_STEPS)
        try:
            return pow(value, -1, self.modulus)
        except ValueError:
            raise NoValue from None

    def signed_atom(self, name: str, value: int) -> int:
        """Return the atom of an odd or even function: sin(−x) is −sin x."""
        mirrored = self.modulus - value
        if value <= mirrored or name not in _ODD | _EVEN:
            return self.atom(name, value)
        found = self.atom(name, mirrored)
        return found if name in _EVEN else self.modulus - found

    def exact(self, node: Node) -> Fraction | None:
        """Return the value of a tree at the point as a fraction, `None` if it has or needs more."""
        self.spend(1)
        match node:
            case Number(value):
                return value
            case Symbol(name):
                return Fraction(self.variable(name))
            case Sum(parts) | Product(parts):
                values = [self.exact(part) for part in parts]
                found = [value for value in values if value is not None]
                if len(found) < len(parts) or sum(map(_bits, found)) > MAX_EXPONENT_BITS:
                    return None
                return sum(found, _ZERO) if isinstance(node, Sum) else math.prod(found, start=_ONE)
            case Power(base, exponent):
                return _exact_power(self.exact(base), self.exact(exponent))
        return None

    def whole(self, node: Node) -> int | None:
        """Return the value at the point if it is a whole number that is small enough to write."""
        value = self.exact(node)
        return value.numerator if value is not None and value.denominator == 1 else None

    def exponent(self, node: Node) -> int | None:
        """Return an integer modulo the order of the ring: towers of powers end here."""
        self.spend(1)
        match node:
            case Number(value):
                return value.numerator % self.order if value.denominator == 1 else None
            case Symbol(name):
                return self.variable(name)
            case Sum(parts) | Product(parts):
                values = [self.exponent(part) for part in parts]
                found = [value for value in values if value is not None]
                if len(found) < len(parts):
                    return None
                whole = sum(found) if isinstance(node, Sum) else math.prod(found)
                return whole % self.order
            case Power(base, power):
                return self._power_of_exponent(base, power)
        return None

    def _power_of_exponent(self, base: Node, power: Node) -> int | None:
        below, above = self.exponent(base), self.whole(power)
        if below is None or above is None or above < 0:
            return None
        self.spend(above.bit_length() // 8)
        return pow(below, above, self.order)

    def factorial(self, whole: int) -> int:
        """Return whole!."""
        if whole < 0:
            raise NoValue
        table = _factorials(self.modulus)
        if whole < _TABLE:
            return table[whole]
        self.spend(whole)
        product = table[-1]
        for factor in range(_TABLE, whole + 1):
            product = product * factor % self.modulus
        return product

    def bind(self, name: str, value: int | None) -> int | None:
        """Give a variable a value, or none with `None`; return the one it had."""
        kept = self._names.pop(name, None)
        if value is not None:
            self._names[name] = value
        return kept

    def bound(self, depth: int) -> int:
        """Return the value of every variable that is bound at a depth."""
        return self._draw.integer(f"bound {self._trial} {depth}", *_LARGE)


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _exact_power(base: Fraction | None, exponent: Fraction | None) -> Fraction | None:
    if base is None or exponent is None or exponent.denominator != 1 or not base:
        return None
    if _bits(base) * abs(exponent.numerator) > MAX_EXPONENT_BITS:
        return None
    return base**exponent.numerator


@functools.lru_cache(maxsize=8)
def _factorials(modulus: int) -> list[int]:
    table = [1]
    for factor in range(1, _TABLE):
        table.append(table[-1] * factor % modulus)
    return table
