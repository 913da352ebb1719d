"""The functions of a scalar in double precision, each with a bound of its error."""

import cmath
import math
from collections.abc import Callable, Sequence

EPSILON = 2.3e-16
"""Relative rounding error of an operation."""
FUNCTION_ERROR = 8 * EPSILON
"""Relative error of a library function."""

Value = tuple[complex, float]
"""A value and the bound of its error."""


class NoPoint(Exception):
    """The tree has no value here, or none that doubles can give."""


def is_real(value: Value) -> bool:
    """Return whether a value may be real."""
    return abs(value[0].imag) <= value[1]


def off_cut(value: complex, error: float, on_cut: bool, part: float | None = None) -> complex:
    """Refuse a value that may lie on either side of a branch cut; one that lies on it stays."""
    distance = value.imag if part is None else part
    if on_cut and distance and abs(distance) <= error:
        raise NoPoint
    return value if value.imag else complex(value.real, 0.0)


def call(name: str, args: Sequence[Value]) -> Value:
    """Return the value of a function.

    Raises:
        NoPoint: It is unknown here, or has no value that doubles can give.
    """
    analytic = _ANALYTIC.get(name)
    if analytic is not None and len(args) == 1:
        return _apply(analytic, args[0])
    special = _SPECIAL.get(name)
    if special is None:
        raise NoPoint
    return special(args)


_Rule = tuple[
    Callable[[complex], complex],
    Callable[[complex], float],
    Callable[[complex], bool],
]


def _apply(rule: _Rule, argument: Value) -> Value:
    function, slope, on_cut = rule
    value, error = argument
    # only arctan and arcsinh are cut along the imaginary axis
    part = value.real if function in (cmath.atan, cmath.asinh) else None
    result = function(off_cut(value, error, on_cut(value), part))
    if not error:
        return result, FUNCTION_ERROR * abs(result)
    grown = slope(value)
    if not grown * error < 0.01 * (1 + abs(result)):
        raise NoPoint
    return result, 2 * grown * error + FUNCTION_ERROR * (abs(result) + grown * abs(value) * 0.1)


def _inverse_root(value: complex) -> float:
    return 1 / abs(cmath.sqrt(1 - value * value))


def _never(value: complex) -> bool:
    return False


def _beyond_one(value: complex) -> bool:
    return abs(value.real) > 1


def _above_i(value: complex) -> bool:
    return abs(value.imag) > 1


def _negative(value: complex) -> bool:
    return value.real < 0


def _below_one(value: complex) -> bool:
    return value.real < 1


def _flat(value: complex) -> complex:
    return value if value.imag else complex(value.real, 0.0)


def _reciprocal(function: Callable[[complex], complex]) -> Callable[[complex], complex]:
    return lambda value: 1 / function(value)


_ANALYTIC: dict[str, _Rule] = {
    "sin": (cmath.sin, lambda z: abs(cmath.cos(z)) + abs(cmath.sin(z)) * 1e-9, _never),
    "cos": (cmath.cos, lambda z: abs(cmath.sin(z)) + abs(cmath.cos(z)) * 1e-9, _never),
    "tan": (cmath.tan, lambda z: 1 + abs(cmath.tan(z)) ** 2, _never),
    "cot": (_reciprocal(cmath.tan), lambda z: 1 + 1 / abs(cmath.tan(z)) ** 2, _never),
    "sec": (_reciprocal(cmath.cos), lambda z: 1 / abs(cmath.cos(z)) ** 2, _never),
    "csc": (_reciprocal(cmath.sin), lambda z: 1 / abs(cmath.sin(z)) ** 2, _never),
    "sinh": (cmath.sinh, lambda z: abs(cmath.cosh(z)) + abs(cmath.sinh(z)), _never),
    "cosh": (cmath.cosh, lambda z: abs(cmath.cosh(z)) + abs(cmath.sinh(z)), _never),
    "tanh": (cmath.tanh, lambda z: 1 + abs(cmath.tanh(z)) ** 2, _never),
    "coth": (_reciprocal(cmath.tanh), lambda z: 1 + 1 / abs(cmath.tanh(z)) ** 2, _never),
    "sech": (_reciprocal(cmath.cosh), lambda z: 1 / abs(cmath.cosh(z)), _never),
    "csch": (_reciprocal(cmath.sinh), lambda z: 1 + 1 / abs(cmath.sinh(z)) ** 2, _never),
    "arcsin": (cmath.asin, _inverse_root, _beyond_one),
    "arccos": (cmath.acos, _inverse_root, _beyond_one),
    "arctan": (cmath.atan, lambda z: 1 / abs(1 + z * z), _above_i),
    "arccot": (lambda z: math.pi / 2 - cmath.atan(z), lambda z: 1 / abs(1 + z * z), _above_i),
    "arcsec": (
        lambda z: cmath.acos(_flat(1 / z)),
        lambda z: _inverse_root(1 / z) / abs(z) ** 2,
        _never,
    ),
    "arccsc": (
        lambda z: cmath.asin(_flat(1 / z)),
        lambda z: _inverse_root(1 / z) / abs(z) ** 2,
        _never,
    ),
    "arcsinh": (cmath.asinh, lambda z: 1 / abs(cmath.sqrt(1 + z * z)), _above_i),
    "arccosh": (cmath.acosh, _inverse_root, _below_one),
    "arctanh": (cmath.atanh, lambda z: 1 / abs(1 - z * z), _beyond_one),
    "ln": (cmath.log, lambda z: 1 / abs(z), _negative),
}
"""Function, size of its derivative, and where its argument must not stray across a cut."""


def _log(args: Sequence[Value]) -> Value:
    if len(args) == 1:
        raise NoPoint
    (top, error), (bottom, bound) = (_apply(_ANALYTIC["ln"], each) for each in args)
    if abs(bottom) <= 2 * bound:
        raise NoPoint
    result = top / bottom
    return result, 2 * (error + abs(result) * bound) / abs(bottom) + 4 * EPSILON * abs(result)


def _real_only(args: Sequence[Value]) -> list[tuple[float, float]]:
    if not all(map(is_real, args)):
        raise NoPoint
    return [(value.real, error) for value, error in args]


def _floor(args: Sequence[Value]) -> Value:
    ((value, error),) = _real_only(args)
    below = math.floor(value - error)
    if below != math.floor(value + error) or abs(value) > 1e15:
        raise NoPoint
    return complex(below), 0.0


def _ceil(args: Sequence[Value]) -> Value:
    ((value, error),) = args
    floor, _ = _floor([(-value, error)])
    return -floor, 0.0


def _mod(args: Sequence[Value]) -> Value:
    (value, error), (modulus, bound) = _real_only(args)
    if abs(modulus) <= 2 * bound:
        raise NoPoint
    quotient, _ = _floor([(complex(value / modulus), 4 * (error + bound) / abs(modulus))])
    return complex(value - quotient.real * modulus), 2 * (
        error + abs(quotient) * bound + EPSILON * abs(value)
    )


def _extreme(choose: Callable[..., float]) -> Callable[[Sequence[Value]], Value]:
    def chosen(args: Sequence[Value]) -> Value:
        reals = _real_only(args)
        return complex(choose(value for value, _ in reals)), max(error for _, error in reals)

    return chosen


def _sign(args: Sequence[Value]) -> Value:
    ((value, error),) = _real_only(args)
    if abs(value) <= error and error:
        raise NoPoint
    return complex((value > 0) - (value < 0)), 0.0


def _arg(args: Sequence[Value]) -> Value:
    ((value, error),) = args
    if abs(value) <= 2 * error:
        raise NoPoint
    angle = cmath.phase(off_cut(value, error, value.real < 0))
    return complex(angle), 2 * error / abs(value) + FUNCTION_ERROR


def _gamma(value: float, error: float) -> Value:
    """Return Γ(value + 1)."""
    if not -0.9 < value < 165:
        raise NoPoint
    result = math.gamma(value + 1)
    return complex(result), result * (8 * error * math.log(value + 3) + 1e-14)


def _factorial(args: Sequence[Value]) -> Value:
    ((value, error),) = _real_only(args)
    return _gamma(value, error)


def _binomial(args: Sequence[Value]) -> Value:
    (top, error), (below, bound) = _real_only(args)
    over, under = _gamma(top, error), _gamma(below, bound)
    rest = _gamma(top - below, error + bound)
    product = under[0] * rest[0]
    spread = abs(under[0]) * rest[1] + (abs(rest[0]) + rest[1]) * under[1]
    return _quotient(over, (product, spread + 4 * EPSILON * abs(product)))


def _permutations(args: Sequence[Value]) -> Value:
    (top, error), (below, bound) = _real_only(args)
    return _quotient(_gamma(top, error), _gamma(top - below, error + bound))


def _quotient(top: Value, bottom: Value) -> Value:
    result = top[0] / bottom[0]
    return result, 2 * (top[1] + abs(result) * bottom[1]) / abs(bottom[0])


_SPECIAL: dict[str, Callable[[Sequence[Value]], Value]] = {
    "log": _log,
    "abs": lambda args: (complex(abs(args[0][0])), args[0][1]),
    "norm": lambda args: (complex(abs(args[0][0])), args[0][1]),
    "re": lambda args: (complex(args[0][0].real), args[0][1]),
    "im": lambda args: (complex(args[0][0].imag), args[0][1]),
    "conjugate": lambda args: (args[0][0].conjugate(), args[0][1]),
    "floor": _floor,
    "ceil": _ceil,
    "mod": _mod,
    "min": _extreme(min),
    "max": _extreme(max),
    "sgn": _sign,
    "arg": _arg,
    "factorial": _factorial,
    "binomial": _binomial,
    "permutations": _permutations,
}
