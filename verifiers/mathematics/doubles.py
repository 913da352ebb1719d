"""Values of trees in double precision, each with a bound of its rounding error.

Cheap enough to try on every answer, and only ever used to tell two values apart: they differ if
they are farther from each other than both bounds. The bounds follow the error through each
operation (to first order, doubled), so cancellation widens them instead of faking a difference.

Conventions, here and in `precise`: principal values, but a root of odd degree, and a power with an
odd denominator in lowest terms, of a negative real number is real: (−8)^(1/3) = −2. arccot lies
between 0 and π; arcsec x is arccos(1/x).
"""

import cmath
import math
from collections.abc import Callable, Mapping

from .double_functions import EPSILON, FUNCTION_ERROR, NoPoint, Value, call, is_real, off_cut
from .nodes import Call, Constant, Node, Number, Power, Product, Root, Sum, Symbol

Values = Mapping[str, float]


def approximate(node: Node, at: Values) -> Value:
    """Return about the value of a folded tree and the bound of its error.

    Args:
        node: The tree.
        at: Values of its variables.

    Raises:
        NoPoint: There is no finite value, or its error has no bound.

    Example:
        >>> value, error = approximate(Sum((Symbol("x"), Symbol("x"))), {"x": 1.5})
        >>> value.real, error < 1e-14
        (3.0, True)
    """
    try:
        value, error = _value(node, at)
    except (ArithmeticError, ValueError):
        raise NoPoint from None
    if not (cmath.isfinite(value) and math.isfinite(error)):
        raise NoPoint
    return value, error


def _value(node: Node, at: Values) -> Value:
    handler = _VALUES.get(type(node))
    if handler is None:
        raise NoPoint
    return handler(node, at)


def _number(node: Number, at: Values) -> Value:
    value = float(node.value)
    if not value and node.value:
        raise NoPoint
    return complex(value), EPSILON * abs(value)


_CONSTANTS = {"pi": math.pi, "e": math.e, "i": 1j}


def _constant(node: Constant, at: Values) -> Value:
    if node.name not in _CONSTANTS:
        raise NoPoint
    value = _CONSTANTS[node.name]
    return complex(value), EPSILON * abs(value)


def _symbol(node: Symbol, at: Values) -> Value:
    return complex(at[node.name]), 0.0


def _sum(node: Sum, at: Values) -> Value:
    total, error, size = 0j, 0.0, 0.0
    for term in node.terms:
        value, bound = _value(term, at)
        total += value
        size += abs(value)
        error += bound
    return total, error + 2 * EPSILON * len(node.terms) * size


def _product(node: Product, at: Values) -> Value:
    result, error = 1 + 0j, 0.0
    for factor in node.factors:
        value, bound = _value(factor, at)
        error = abs(result) * bound + (abs(value) + bound) * error
        result *= value
        error += 4 * EPSILON * abs(result)
        if result and not abs(result) > 1e-290:
            raise NoPoint
    return result, error


def _power(node: Power, at: Values) -> Value:
    base = _value(node.base, at)
    if isinstance(node.exponent, Number):
        exponent = node.exponent.value
        if exponent.denominator == 1 and abs(exponent) < 1_000_000:
            return _whole_power(base, exponent.numerator)
        return _real_power(base, float(exponent), exponent.denominator, exponent.numerator)
    return _general_power(base, _value(node.exponent, at))


def _whole_power(base: Value, exponent: int) -> Value:
    value, error = base
    size = abs(value)
    if exponent <= 0 and size <= 2 * error:
        raise NoPoint
    result = complex(value.real**exponent) if not value.imag else value**exponent
    if not result and value:
        raise NoPoint
    if exponent < 0:
        slope = -exponent * abs(result) / (size - error)
    else:
        slope = exponent * (size + error) ** max(exponent - 1, 0)
    return result, 2 * slope * error + (abs(exponent) + 4) * FUNCTION_ERROR * abs(result)


def _real_power(base: Value, exponent: float, denominator: int, numerator: int) -> Value:
    value, error = base
    if value.real < 0 and denominator % 2 and not value.imag:
        # the real root, by the convention above
        flipped, bound = _general_power((-value, error), (complex(exponent), 0.0))
        return (-flipped if numerator % 2 else flipped), bound
    if value.real < 0 and denominator % 2 and is_real(base):
        raise NoPoint
    if abs(value) <= 2 * error:
        if exponent <= 0:
            raise NoPoint
        return 0j, (3 * error) ** exponent
    return _general_power(base, (complex(exponent), EPSILON * abs(exponent)))


def _general_power(base: Value, exponent: Value) -> Value:
    value, error = base
    power, bound = exponent
    if abs(value) <= 2 * error:
        raise NoPoint
    logarithm = cmath.log(off_cut(value, error, value.real < 0))
    grown = power * logarithm
    if not value.imag and value.real > 0 and not power.imag:
        result = complex(value.real**power.real)
    else:
        result = cmath.exp(grown)
    if not result:
        raise NoPoint
    spread = abs(power) * error / (abs(value) - error) + abs(logarithm) * bound
    if spread > 0.1:
        raise NoPoint
    return result, 2 * abs(result) * (spread + EPSILON * (4 + 4 * abs(grown)))


def _root(node: Root, at: Values) -> Value:
    base = _value(node.operand, at)
    if isinstance(node.degree, Number):
        degree = node.degree.value
        return _real_power(base, float(1 / degree), degree.numerator, degree.denominator)
    degree, error = _value(node.degree, at)
    if abs(degree) <= 2 * error:
        raise NoPoint
    return _general_power(base, (1 / degree, 2 * error / abs(degree) ** 2 + EPSILON))


def _call(node: Call, at: Values) -> Value:
    return call(node.name, [_value(each, at) for each in node.args])


_VALUES: dict[type, Callable[..., Value]] = {
    Number: _number,
    Constant: _constant,
    Symbol: _symbol,
    Sum: _sum,
    Product: _product,
    Power: _power,
    Root: _root,
    Call: _call,
}
